"""A student with noise on a small board: pipelines/on_device/raspberry_pi.py draws the seed's picture."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from t2i_kd.loading import load_artifact

SCRIPT = Path(__file__).resolve().parents[2] / "pipelines" / "on_device" / "raspberry_pi.py"


def test_the_boards_script_draws_the_seeds_picture(version, tmp_path):
    model, caption, out = (
        version / "assets.extra" / "student.tflite",
        "a small red circle at the top",
        tmp_path / "a.png",
    )
    command = [sys.executable, SCRIPT, f"--model={model}", f"--caption={caption}", "--seed=-7", f"--out={out}"]
    subprocess.run(command, check=True)
    expected = load_artifact(model).generate([caption] * 2, [-7, 0])
    np.testing.assert_array_equal(np.asarray(Image.open(out)), expected[0])
    assert (expected[0] != expected[1]).any()


def test_threads_change_no_picture(version):
    for name in ("student.tflite", "student.onnx"):
        path = version / "assets.extra" / name
        one, two = (load_artifact(path, threads).generate(["a red circle"], [1]) for threads in (1, 2))
        assert np.abs(one.astype(int) - two.astype(int)).max() <= 1
