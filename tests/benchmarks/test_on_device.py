"""The on-device table says what was measured, of processes that each hold one artifact."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import on_device, picture_worker, reports, workers
from t2i_kd.errors import UserError
from t2i_kd.imaging import encode_png
from t2i_kd.loading import load_artifact
from tests.data_files import write

ROOT = Path(__file__).resolve().parents[2]
VERSION = ROOT / "saved_models" / "shapes32" / "1"
CAPTIONS = ["a small red circle in the top left on a white background", "ein Fünfeck"]


def test_a_worker_draws_and_times_its_artifact_alone(tmp_path):
    paths, manifest = on_device.artifacts_of(VERSION)
    assert list(paths) == ["saved_model", "litert_int8", "onnx_int8"]
    path = paths["litert_int8"]
    worker = workers.Worker(path, CAPTIONS, tmp_path, "int8", threads=2)
    np.testing.assert_array_equal(worker.pictures, load_artifact(path).generate(CAPTIONS, [0, 0]))
    times = worker.seconds(7)
    assert len(times) == 7 and min(times) > 0
    # More than the file, and far from what a process with TensorFlow in it needs.
    assert manifest["artifacts"]["litert_int8"]["size"] / 1e6 < worker.growth < worker.peak < 300
    worker.close()
    assert worker.process.returncode == 0


def test_a_worker_that_cannot_open_its_model_is_named(tmp_path):
    (tmp_path / "student.tflite").touch()
    with pytest.raises(UserError, match=r"broken: error: .*manifest\.json: missing"):
        workers.Worker(tmp_path / "student.tflite", CAPTIONS, tmp_path, "broken")


def test_a_students_images_are_of_side_a_at_the_side_that_it_reads(tmp_path):
    for number in range(3):
        picture = np.full((12, 16, 3), 50 * number, np.uint8)
        write(tmp_path, {f"testA/{number}.png": encode_png(picture), f"testB/{number}.png": encode_png(255 - picture)})
    manifest = {"resolution": 4, "condition": {"kind": "image", "inputs": {"source": {"shape": [8, 8, 3]}}}}
    items = on_device.held_out_items("unpaired_folder", str(tmp_path), manifest, 2)
    np.testing.assert_array_equal(items, np.broadcast_to(np.uint8([0, 100])[:, None, None, None], (2, 8, 8, 3)))
    np.save(tmp_path / "items.npy", items)
    np.testing.assert_array_equal(picture_worker.read_items(str(tmp_path / "items.npy")), items)


def test_medians_are_taken_by_turns():
    asked = []

    def worker(name, times):
        return SimpleNamespace(seconds=lambda count: asked.append((name, count)) or times)

    both = {"slow": worker("slow", [9.0, 0.002, 0.002, 0.003, 0.001]), "fast": worker("fast", [0.001] * 5)}
    assert workers.by_turns(both, 8) == {"slow": 2.0, "fast": 1.0}
    assert asked == [("slow", 5), ("fast", 5)] * 2


def test_the_table_compares_with_the_saved_model():
    black = np.zeros((2, 4, 4, 3), np.uint8)
    other = black.copy()
    other[0, 0, 0, 0] = 96
    both = {"milliseconds": {1: 4.5, 2: 3.0}, "peak": 90.4, "growth": 12.0}
    found = {"saved_model": both | {"pictures": black}, "onnx": both | {"pictures": other}}
    manifest = {"artifacts": {"saved_model": {"size": 2_000_000}, "onnx": {"size": 1_500_000}}}
    text = reports.markdown(on_device.rows(found, manifest, "accuracy", {"saved_model": "1", "onnx": "0.5"}))
    assert text.splitlines() == [
        "| artifact | MB | ms, 1 thread | ms, 2 threads | MB for the model | MB at most "
        "| mean difference /255 | largest | accuracy |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| SavedModel | 2.00 | 4.50 | 3.00 | 12 | 90 | 0.000 | 0 | 1 |",
        "| ONNX | 1.50 | 4.50 | 3.00 | 12 | 90 | 1.000 | 96 | 0.5 |",
    ]


def test_the_command_refuses_bad_input():
    for options, message in (([], "--model: missing"), ([f"--model={VERSION}", "--threads=0"], "--threads: '0' is no")):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.on_device", *options], cwd=ROOT, capture_output=True, text=True
        )
        assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
