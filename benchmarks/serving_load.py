"""A running endpoint under load, beside the same model in a bare loop.

    python -m t2i_kd.serve --model_name=shapes32 --model_base_path=saved_models/shapes32 &
    python -m benchmarks.serving_load --model=saved_models/shapes32/1 --model_name=shapes32

Every answer is compared with what the model gives of that caption alone: a value may differ by 1/255, see
docs/serving.md.
"""

import base64
import http.client
import io
import json
import sys
import threading
import time
from urllib.parse import urlsplit

import numpy as np
from absl import flags
from PIL import Image

from benchmarks import command
from t2i_kd.errors import UserError

SIZES = ("small", "large")
COLOURS = ("red", "blue", "green", "yellow")
SHAPES = ("circle", "square", "triangle")
PLACES = ("top left", "center", "bottom right")
CAPTIONS = [
    f"a {size} {colour} {shape} in the {place} on a white background"
    for size in SIZES
    for colour in COLOURS
    for shape in SHAPES
    for place in PLACES
]


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_string("model", "", "the version folder that the endpoint serves")
    flags.DEFINE_string("model_name", "", "the endpoint's --model_name")
    flags.DEFINE_string("rest", "http://127.0.0.1:8501", "the endpoint's REST address")
    flags.DEFINE_integer("clients", 64, "that ask at once, one caption a request", 1)
    flags.DEFINE_float("seconds", 60, "of load", 1)
    flags.DEFINE_integer("batch_size", 32, "of the bare loop; the endpoint's --max_batch_size", 2)


def bare_loop(folder, batch_size, seconds):
    """Pictures a second of the SavedModel's default signature, called in a loop with full batches."""
    import tensorflow as tf

    loaded = tf.saved_model.load(folder)
    text = tf.constant((CAPTIONS * batch_size)[:batch_size])
    draw = loaded.signatures["serving_default"]
    draw(text=text)
    began, count = time.perf_counter(), 0
    while time.perf_counter() < began + seconds:
        draw(text=text)["image_bytes"].numpy()
        count += batch_size
    return count / (time.perf_counter() - began)


def nearly_equal(answer, expected):
    """Whether two answers hold images of which no value differs by more than 1."""
    try:
        found, wanted = (np.asarray(_image(each), int) for each in (answer, expected))
    except (ValueError, KeyError, OSError):
        return False
    return found.shape == wanted.shape and np.abs(found - wanted).max() <= 1


def _image(answer):
    (coded,) = json.loads(answer)["predictions"]
    return Image.open(io.BytesIO(base64.b64decode(coded["b64"])))


def load(address, model_name, expected, clients, seconds):
    """Keeps an endpoint busy.

    Args:
        address: of its REST.
        model_name: its model.
        expected: {caption: the whole answer's bytes}.
        clients: connections, each with one request at a time.
        seconds: how long.

    Returns:
        (seconds of every answer, number of answers that were no or another picture).
    """
    times, wrong = [], []
    until = time.perf_counter() + seconds

    def ask(number):
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=60)
        asked = number
        while time.perf_counter() < until:
            caption = CAPTIONS[asked % len(CAPTIONS)]
            asked += 7
            began = time.perf_counter()
            connection.request("POST", f"/v1/models/{model_name}:predict", json.dumps({"instances": [caption]}))
            answer = connection.getresponse().read()
            if answer != expected[caption] and not nearly_equal(answer, expected[caption]):
                wrong.append(caption)
            times.append(time.perf_counter() - began)
        connection.close()

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, len(wrong)


def main():
    """Runs the command and prints a table."""
    from t2i_kd.loading import load_artifact

    values = flags.FLAGS
    if not values.model or not values.model_name:
        raise UserError("--model and --model_name are needed")
    runner = load_artifact(values.model)
    expected = {}
    for caption in CAPTIONS:
        coded = base64.b64encode(runner.generate_png(caption, 0)).decode()
        expected[caption] = json.dumps({"predictions": [{"b64": coded}]}, separators=(",", ":")).encode()
    began = time.process_time()
    bare = bare_loop(values.model, values.batch_size, min(10, values.seconds))
    bare_cores = (time.process_time() - began) / min(10, values.seconds)
    began = time.process_time()
    times, wrong = load(values.rest, values.model_name, expected, values.clients, values.seconds)
    clients_cores = (time.process_time() - began) / values.seconds
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    rate = len(times) / values.seconds
    print(f"bare loop, batches of {values.batch_size}: {bare:.0f} pictures/s, with {bare_cores:.2f} cores")
    print(f"endpoint, {values.clients} clients, {values.seconds:g} s: {rate:.0f} pictures/s ({rate / bare:.0%})")
    print(f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, {len(times)} answers, {wrong} wrong")
    print(f"the clients themselves took {clients_cores:.2f} cores")
    sys.exit(wrong > 0)


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
