"""What a start costs that has many small pictures to check, first and again, and what memory its batches then take.

    python -m benchmarks.start_cost --pictures=10000

Pictures of noise, 48 to 79 px, with two captions each, are written as a folder (`--layout=zip`: a .zip) that is removed
at the end. Each start is a process of its own: it loads both splits as a training does, names its examples, and makes
batches.
"""

import io
import json
import resource
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from benchmarks import command
from t2i_kd.data import examples
from t2i_kd.data.batches import Batches, caption_pairs
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.training.inputs import captions_digest, example_digests

WORDS = 2000
# So many pictures differ in their pixels; the others are these with bytes of their own behind their end.
DIFFERENT = 500


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_integer("pictures", 10_000, "in the set", 10)
    flags.DEFINE_enum("layout", "folder", ("folder", "zip"), "in which they lie")
    flags.DEFINE_integer("resolution", 64, "of the batches", 1)
    flags.DEFINE_integer("steps", 200, "of 64 pictures that are made after the start", 0)
    flags.DEFINE_integer("held_mb", 1024, "of decoded pictures that stay in memory", 0)
    flags.DEFINE_list("start", [], "DATA_DIR,CACHE_DIR of the one start that is measured: what this command runs")


def write_pictures(count, path):
    """Writes the set, a folder or, where the path ends in .zip, an archive."""
    rng, encoded, lines = np.random.default_rng(0), [], []
    for index in range(min(DIFFERENT, count)):
        stream = io.BytesIO()
        noise = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        noise.resize((48 + index % 32,) * 2).save(stream, "JPEG", quality=85)
        encoded.append(stream.getvalue())
    archive = zipfile.ZipFile(path, "w") if path.suffix == ".zip" else None

    def write(name, content):
        if archive:
            archive.writestr(name, content)
        else:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(content)

    for index in range(count):
        name = f"{index // 1000:04d}/{index:07d}.jpg"
        # After the picture's own end its decoder reads no further.
        write(name, encoded[index % len(encoded)] + index.to_bytes(4, "big"))
        captions = [" ".join(f"word{word}" for word in rng.integers(0, WORDS, 10)) for _ in range(2)]
        lines.append(json.dumps({"file_name": name, "captions": captions}))
    write("metadata.jsonl", "\n".join(lines).encode())
    if archive:
        archive.close()


def start(data_dir, cache_dir, resolution, steps):
    """A line of one start in this process: its seconds, and MiB before it, after it and after its batches."""
    load_dataset("captioned_shapes", "test", 8)  # What is imported and what a first array costs.
    before = _mebibytes()
    wall, processor = time.perf_counter(), time.process_time()
    train = load_dataset("image_folder", "train", resolution, data_dir, cache_dir=cache_dir)
    test = load_dataset("image_folder", "test", resolution, data_dir, decode=False, cache_dir=cache_dir)
    example_digests([train]), captions_digest([test])
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    started = _mebibytes()
    batches = Batches(train, {"pair": caption_pairs(train)}, 64, 0, 0, steps)
    began = time.perf_counter()
    for step in range(steps):
        batches[step]
    rate = 64 * steps / (time.perf_counter() - began) if steps else 0
    memory = f"{before} MiB before, {started} after it, {_mebibytes()} after {steps} batches"
    return f"{wall:.1f} s, {processor:.1f} s of processor; {memory}; {rate:,.0f} pictures/s"


def _mebibytes():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def main():
    """Runs the command and prints what it measured."""
    values = flags.FLAGS
    examples.CACHE_BYTES = values.held_mb * 2**20
    if values.start:
        print(start(*values.start, values.resolution, values.steps))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ("set.zip" if values.layout == "zip" else "set")
        write_pictures(values.pictures, path)
        time.sleep(3)  # What has just been written is not kept.
        for which in ("first", "second"):
            options = [f"--{name}={values[name].value}" for name in ("resolution", "steps", "held_mb")]
            child = [sys.executable, "-m", "benchmarks.start_cost", f"--start={path},{folder}/cache", *options]
            done = subprocess.run(child, check=True, capture_output=True, text=True)
            print(f"{values.pictures:,} pictures, {values.layout}, {which} start: {done.stdout.strip()}", flush=True)


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
