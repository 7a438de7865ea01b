"""The board's script draws what `generate` draws, and loads nothing but NumPy, Pillow and LiteRT."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_kd.loading import load_artifact
from t2i_kd.noise import noise_from_seeds
from t2i_kd.text.tokenizer import REED_ALPHABET, Tokenizer

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "pipelines" / "on_device" / "raspberry_pi.py"
MODEL = ROOT / "saved_models" / "shapes32" / "1" / "assets.extra" / "student_int8.tflite"
CAPTION = "On a WHITE background, there is a large blue cross at the bottom right"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("raspberry_pi", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_picture_is_that_of_generate(tmp_path):
    out = tmp_path / "cross.png"
    program = (
        "import runpy, sys\n"
        f"sys.argv = {['script', f'--model={MODEL}', f'--caption={CAPTION}', f'--out={out}']!r}\n"
        f"runpy.run_path({str(SCRIPT)!r}, run_name='__main__')\n"
        "assert not {'t2i_kd', 'tensorflow', 'keras'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    drawn = np.asarray(Image.open(out))
    np.testing.assert_array_equal(drawn, load_artifact(MODEL).generate([CAPTION], [0])[0])
    assert drawn.std() > 20


@pytest.mark.parametrize("kind", ["words", "characters"])
def test_tokens_are_ours(kind, script, tmp_path):
    vocabulary = ("a", "red", "isn't", "größe") if kind == "words" else tuple(REED_ALPHABET)
    tokenizer = Tokenizer(kind, vocabulary, 12)
    tokenizer.save(tmp_path / "vocabulary.txt")
    lines = (tmp_path / "vocabulary.txt").read_bytes().decode().split("\n")[:-1]
    for caption in ("A red, isn't größe GRÖSSE", "", "\n-\u30c6 a\x00red", "red " * 50, "[PAD] [UNK]"):
        np.testing.assert_array_equal(script.tokens_of(caption, lines, kind, 12), tokenizer([caption]))


@pytest.mark.parametrize("seed", [0, -1, 2**63 - 1, -(2**63), 12345])
def test_noise_is_ours(seed, script):
    # The last bit of a logarithm or a sine may differ.
    np.testing.assert_allclose(script.noise_of(seed, 5), noise_from_seeds([seed], 5), rtol=1e-6, atol=1e-7)


def test_the_smallest_artifact_of_the_quickstarts_student_is_under_4_megabytes():
    extra = MODEL.parent
    assert min(path.stat().st_size for path in extra.glob("*.tflite")) < 4e6


def test_the_examples_are_short():
    for path in (SCRIPT, SCRIPT.parent / "android" / "Student.kt"):
        assert len(path.read_text().splitlines()) < 80
