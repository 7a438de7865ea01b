import base64
import contextlib
import io
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import numpy as np
import pytest
from PIL import Image
from tensorflow_serving.apis import get_model_metadata_pb2, predict_pb2
from tensorflow_serving.apis.prediction_service_pb2_grpc import (
    PredictionServiceServicer,
    add_PredictionServiceServicer_to_server,
)

from t2i_kd.serving.client import Client, ServingError
from tests.commands import environment
from tests.serving.endpoint import free_ports


class Answers(BaseHTTPRequestHandler):
    """Answers every request in turn with what the test prepared: (status, body), or None to hang up."""

    def do_POST(self):
        self.server.asked.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
        prepared = self.server.prepared.pop(0)
        if prepared is None:
            self.close_connection = True
            return
        if prepared == "wait":
            self.server.wait.wait(10)
            return
        if prepared == "dribble":
            self.send_response(200)
            with contextlib.suppress(OSError):
                while not self.server.wait.wait(0.05):
                    self.wfile.write(b"x-more: y\r\n")
                    self.wfile.flush()
            return
        status, body = prepared
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.rfile = io.BytesIO(b"{}")
        self.headers["content-length"] = "2"
        self.do_POST()

    def log_message(self, *words):
        pass


@pytest.fixture
def server():
    with HTTPServer(("127.0.0.1", 0), Answers) as made:
        made.asked, made.prepared, made.wait = [], [], threading.Event()
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.wait.set()
        made.shutdown()
        thread.join()


@pytest.fixture
def client(server):
    with Client(f"http://127.0.0.1:{server.server_port}", "m", version=3, timeout=0.5) as made:
        yield made


ANSWER = (200, b'{"outputs": [{"b64": "AAEC"}]}')


def test_what_is_asked(server, client):
    server.prepared += [ANSWER, ANSWER]
    assert client.generate_png(["ä"]) == client.generate_png(["ä"], [7]) == [b"\x00\x01\x02"]
    path = "/v1/models/m/versions/3:predict"
    assert server.asked == [
        (path, {"signature_name": "serving_default", "inputs": {"text": ["ä"]}}),
        (path, {"signature_name": "seeded", "inputs": {"text": ["ä"], "seed": [7]}}),
    ]


def test_images_are_asked_with_as_files(server, client):
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    translucent = Image.fromarray(np.dstack([pixels, np.full((2, 4), 9, np.uint8)]))
    server.prepared += [ANSWER, (200, b'{"outputs": [{"b64": "AAEC"}, {"b64": "AA=="}]}')]
    assert client.generate_png([b"any file"], [7]) == [b"\x00\x01\x02"]
    assert client.generate_png([pixels, translucent]) == [b"\x00\x01\x02", b"\x00"]
    assert server.asked[0][1] == {
        "signature_name": "seeded",
        "inputs": {"image_bytes": [{"b64": "YW55IGZpbGU="}], "seed": [7]},
    }
    assert server.asked[1][1]["signature_name"] == "serving_default"
    on_white = 255 + (pixels.astype("float64") - 255) * 9 / 255
    asked = server.asked[1][1]["inputs"]["image_bytes"]
    for value, expected, within in zip(asked, (pixels, on_white), (0, 1), strict=True):
        with Image.open(io.BytesIO(base64.b64decode(value["b64"]))) as sent:
            assert (sent.format, sent.mode) == ("PNG", "RGB")
            np.testing.assert_allclose(np.asarray(sent), expected, atol=within)


@pytest.mark.parametrize(
    ("prepared", "code", "message"),
    [
        ((400, b'{"error": "wrong"}'), "INVALID_ARGUMENT", "wrong"),
        ((404, b'{"error": "who?"}'), "NOT_FOUND", "who"),
        ((413, b"{}"), "INVALID_ARGUMENT", "413"),
        ((503, b"Service Unavailable"), "UNAVAILABLE", "503"),
        ((504, b'{"error": "late"}'), "DEADLINE_EXCEEDED", "late"),
        ((418, b"[]"), "INTERNAL", "418"),
        ((415, b'{"error": "packed"}'), "INVALID_ARGUMENT", "packed"),
        ((200, b"<html>"), "INTERNAL", "not JSON"),
        ((200, b"[]"), "INTERNAL", "not TF Serving's form"),
        ((200, b"{}"), "INTERNAL", "not TF Serving's form: KeyError: 'outputs'"),
        ((200, b'{"outputs": 7}'), "INTERNAL", "not TF Serving's form"),
        ((200, b'{"outputs": ["x"]}'), "INTERNAL", "not TF Serving's form"),
        ((200, b'{"outputs": [{"b64": "?"}]}'), "INTERNAL", "not TF Serving's form"),
        ((200, b'{"outputs": []}'), "INTERNAL", "0 images for 1 items"),
        ((200, b'{"outputs": [{"b64": "AAEC"}, {"b64": "AAEC"}]}'), "INTERNAL", "2 images for 1 items"),
        ((200, b'{"outputs": [{"b64": "AAEC"}]}'), "INTERNAL", "image 0 of the answer cannot be read"),
        (None, "UNAVAILABLE", "disconnected"),
        ("wait", "DEADLINE_EXCEEDED", "no answer in time"),
        ("dribble", "DEADLINE_EXCEEDED", "no answer in time, 0.5 seconds"),
    ],
)
def test_a_request_that_was_sent_is_not_sent_again(server, client, prepared, code, message):
    server.prepared += [prepared, ANSWER]
    with pytest.raises(ServingError, match=message) as caught:
        client.generate(["a"])
    assert caught.value.code == code
    assert len(server.asked) == 1


def test_connecting_is_tried_again():
    (port,) = free_ports(1)

    def come_late():
        with HTTPServer(("127.0.0.1", port), Answers) as late:
            late.asked, late.prepared = [], [ANSWER]
            late.handle_request()

    thread = threading.Timer(0.3, come_late)
    thread.start()
    with Client(f"http://127.0.0.1:{port}", "m", connect_retries=3) as client:
        assert client.generate_png(["a"]) == [b"\x00\x01\x02"]
    thread.join()


@pytest.mark.parametrize("prepared", [b"[]", b"{}", b'{"model_version_status": [7]}', b'{"metadata": []}'])
@pytest.mark.parametrize("ask", [Client.statuses, Client.signatures])
def test_other_answers_are_looked_at_too(server, client, ask, prepared):
    server.prepared.append((200, prepared))
    with pytest.raises(ServingError, match="not TF Serving's form") as caught:
        ask(client)
    assert caught.value.code == "INTERNAL"


class EmptyAnswers(PredictionServiceServicer):
    def Predict(self, request, context):
        answer = predict_pb2.PredictResponse()
        if request.model_spec.signature_name == "seeded":
            answer.outputs["image_bytes"].string_val.append(b"no picture")
        return answer

    def GetModelMetadata(self, request, context):
        return get_model_metadata_pb2.GetModelMetadataResponse()


def test_answers_by_grpc_are_looked_at_too():
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        add_PredictionServiceServicer_to_server(EmptyAnswers(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with Client(f"grpc://127.0.0.1:{port}", "m", timeout=5) as client:
            for ask, message in (
                (lambda: client.generate(["a"]), "not TF Serving's form: KeyError: 'image_bytes'"),
                (lambda: client.generate(["a"], [1]), "image 0 of the answer cannot be read"),
                (lambda: client.generate(["a", "b"], [1, 2]), "1 images for 2 items"),
                (client.signatures, "the answer holds no signatures"),
            ):
                with pytest.raises(ServingError, match=message) as caught:
                    ask()
                assert caught.value.code == "INTERNAL"
        server.stop(None).wait()


@pytest.mark.parametrize("scheme", ["http", "grpc"])
@pytest.mark.parametrize("retries", [0, 2])
def test_nobody_there(scheme, retries):
    began = time.monotonic()
    with Client(f"{scheme}://127.0.0.1:{free_ports(1)[0]}", "m", timeout=15, connect_retries=retries) as client:
        for _ in range(2):
            with pytest.raises(ServingError) as caught:
                client.generate(["a"])
            assert caught.value.code == "UNAVAILABLE"
    assert time.monotonic() - began < 10


def test_connecting_by_grpc_is_tried_again():
    (port,) = free_ports(1)
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        add_PredictionServiceServicer_to_server(EmptyAnswers(), server)

        def come_late():
            server.add_insecure_port(f"127.0.0.1:{port}")
            server.start()

        thread = threading.Timer(0.5, come_late)
        thread.start()
        with Client(f"grpc://127.0.0.1:{port}", "m", connect_retries=3) as client:
            assert client.generate_png(["a"], [1]) == [b"no picture"]
        thread.join()
        server.stop(None).wait()


@pytest.mark.parametrize(
    "arguments", [{"address": "localhost:8501"}, {"address": "http://h/v1"}, {"version": 1, "label": "a"}]
)
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError):
        Client(**{"address": "http://localhost:8501", "model_name": "m"} | arguments)


@pytest.mark.parametrize(
    ("items", "seeds"),
    [
        ([], None),
        ("a circle", None),
        (b"a", None),
        ("", None),
        (7, None),
        ([b"a", "a"], None),
        ([np.zeros((4, 4, 3))], None),
        ([np.zeros((4, 4), np.uint8)], None),
        ([None], None),
        (["a"], [1, 2]),
        (["a"], [2**63]),
        (["a"], [-(2**63) - 1]),
        (["a"], [1.5]),
        (["a"], ["1"]),
        (["a"], [True]),
    ],
)
@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_wrong_questions_are_refused_before_anyone_is_asked(scheme, items, seeds):
    with Client(f"{scheme}://127.0.0.1:1", "m") as client, pytest.raises(ValueError, match=r"items|seeds"):
        client.generate(items, seeds)


# A client that is made before a fork, as servers of web pages and loaders of data do, and used in the child.
FORKED = """
import multiprocessing, sys
from t2i_kd.serving.client import Client, ServingError
address, used = sys.argv[1:]
client = Client(address, "m", timeout=3)
if used == "used":
    client.generate_png(["a"], [1])
def work():
    print(client.generate_png(["a"], [1]), flush=True)
    client.close()
child = multiprocessing.get_context("fork").Process(target=work)
child.start()
child.join(60)
alive = child.is_alive()
child.kill()
print("waits for ever" if alive else "done", client.generate_png(["a"], [1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("used", ["used", "unused"])
@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_a_client_works_on_both_sides_of_a_fork(server, scheme, used):
    server.prepared += [ANSWER] * 3
    with ThreadPoolExecutor(1) as pool:
        other = grpc.server(pool)
        add_PredictionServiceServicer_to_server(EmptyAnswers(), other)
        port = other.add_insecure_port("127.0.0.1:0") if scheme == "grpc" else server.server_port
        other.start()
        command = [sys.executable, "-c", FORKED, f"{scheme}://127.0.0.1:{port}", used]
        done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=150, check=False)
        other.stop(None).wait()
    picture = [b"\x00\x01\x02"] if scheme == "http" else [b"no picture"]
    assert done.stdout.splitlines() == [str(picture), f"done {picture}"], done.stderr
