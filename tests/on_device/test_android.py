"""Student.kt, compiled with stubs for Android and LiteRT, feeds the model with what the Python package would."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.noise import noise_from_seeds
from t2i_kd.text.front_end import TokenFrontEnd
from t2i_kd.text.tokenizer import REED_ALPHABET, Tokenizer

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "pipelines" / "on_device" / "android" / "Student.kt"
CAPTIONS = [
    "A small RED circle, isn't it?",
    "größe Größe GRÖSSE \u30c6\u30b9\u30c8 \U0001f680 e\u0301 \u212a\u0130",
    "",
    " \t\n\x00a\x7fred-red_red",
    "red " * 50,
    "[PAD] [UNK] -",
]
SEEDS = [0, -1, 2**63 - 1, -(2**63), 2**32, 12345]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    compiler, java = os.environ.get("KOTLINC") or shutil.which("kotlinc"), shutil.which("java")
    if not compiler or not java:
        pytest.skip(
            "no Kotlin compiler: npm install kotlin-compiler, then KOTLINC=node_modules/kotlin-compiler/bin/kotlinc"
        )
    jar = tmp_path_factory.mktemp("kotlin") / "student.jar"
    sources = [SOURCE, *sorted(HERE.glob("*.kt"))]
    command = [compiler, "-Werror", "-include-runtime", "-d", str(jar), *map(str, sources)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return lambda folder, text: subprocess.run(
        [java, "-cp", jar, "Draw_allKt", folder], input=text, capture_output=True, text=True, check=True
    ).stdout.splitlines()


@pytest.mark.parametrize("noise_dim", [0, 5])
@pytest.mark.parametrize("kind", ["words", "characters"])
def test_tokens_noise_and_pixels_are_ours(kind, noise_dim, compiled, tmp_path):
    words = ("a", "red", "isn't", "größe", "\u30c6\u30b9\u30c8")
    tokenizer = Tokenizer(kind, words if kind == "words" else tuple(REED_ALPHABET), 12)
    tokenizer.save(tmp_path / "vocabulary.txt")
    front_end = TokenFrontEnd("gru" if kind == "words" else "char_cnn_rnn", tokenizer)
    document = {"resolution": 32, "noise_dim": noise_dim, "condition": CaptionCondition(front_end).describe()}
    (tmp_path / "manifest.json").write_text(json.dumps(document, indent=2))
    lines = compiled(tmp_path, "\x1e".join(f"{seed} {text}" for seed, text in zip(SEEDS, CAPTIONS, strict=True)))
    tokens, noise = ([line.split() for line in lines[first:-1:2]] for first in (0, 1))
    np.testing.assert_array_equal(np.array(tokens, int), tokenizer(CAPTIONS))
    if noise_dim:
        # The last bit of a logarithm or a sine may differ.
        np.testing.assert_allclose(
            np.array(noise, np.float32), noise_from_seeds(SEEDS, noise_dim), rtol=1e-6, atol=1e-7
        )
    y, x = np.mgrid[:32, :32]
    red, green, blue = np.rint(y + 0.5), np.rint(x + 0.25), np.minimum(np.rint(254.5 + x), 255)
    expected = (255 << 24) + (red * 65536 + green * 256 + blue).astype(int)
    np.testing.assert_array_equal(np.array(lines[-1].split(), np.int32).astype(np.uint32), expected.ravel())
