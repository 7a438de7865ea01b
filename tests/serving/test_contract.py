"""Which signatures a version must have, by its manifest and its condition."""

import io
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.conditions.catalogue import load_condition
from t2i_kd.conditions.image import ImageCondition
from t2i_kd.errors import UserError
from t2i_kd.serving.contract import Contract
from t2i_kd.serving.model import Model
from tests.serving.endpoint import SHAPES

STRINGS, SEEDS = tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.int64)
CAPTIONS = load_condition(SHAPES / "assets.extra")


def pixels(side, dtype=tf.uint8):
    return tf.TensorSpec([None, side, side, 3], dtype)


def signatures(**changed):
    """Those of a caption's student of 32 pixels; a changed one that is None is left out."""
    png = {"image_bytes": STRINGS}
    whole = {
        "serving_default": ({"text": STRINGS}, png),
        "seeded": ({"text": STRINGS, "seed": SEEDS}, png),
        "pixels": ({"text": STRINGS, "seed": SEEDS}, {"image": pixels(32)}),
    }
    return {name: each for name, each in (whole | changed).items() if each is not None}


def contract(condition=CAPTIONS, noise_dim=0, **described):
    manifest = {"resolution": 32, "noise_dim": noise_dim, "condition": condition.describe() | described}
    return Contract("5", json.loads(json.dumps(manifest)), condition)


def test_what_the_exporter_writes_is_taken():
    coarse = ({"text": STRINGS, "seed": SEEDS}, {"image": pixels(16)})
    mine = ({"text": STRINGS}, {"vectors": tf.TensorSpec([None, 3], tf.float32)})
    contract().check_signatures(signatures(pixels_16=coarse, mine=mine))
    # TensorFlow does not know all that it computes.
    contract().check_signatures(
        signatures(serving_default=({"text": STRINGS}, {"image_bytes": tf.TensorSpec(None, tf.string)}))
    )


@pytest.mark.parametrize(("noise_dim", "missing"), [(0, None), (8, "seeded")])
def test_images_need_a_seed_where_there_is_noise(noise_dim, missing):
    png = {"image_bytes": STRINGS}
    seed = {"seed": SEEDS} if noise_dim else {}
    found = {"serving_default": (png, png), "pixels": ({"image": pixels(40), **seed}, {"image": pixels(32)})}
    checked = contract(ImageCondition(40), noise_dim)
    if missing:
        with pytest.raises(UserError, match="has no signature seeded; it has pixels, serving_default"):
            checked.check_signatures(found)
        found["seeded"] = (png | seed, png)
    checked.check_signatures(found)


ASKED = {"text": STRINGS, "seed": SEEDS}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"serving_default": None}, "has no signature serving_default; it has pixels, seeded"),
        ({"seeded": None}, "has no signature seeded; it has pixels, serving_default"),
        (
            {"serving_default": (ASKED, {"image_bytes": STRINGS})},
            r"signature serving_default takes seed as int64 \(None,\), by its manifest no seed",
        ),
        (
            {"seeded": ({"text": STRINGS}, {"image_bytes": STRINGS})},
            r"signature seeded takes no seed, by its manifest seed as int64 \(None,\)",
        ),
        (
            {"seeded": (ASKED | {"seed": tf.TensorSpec([None], tf.int32)}, {"image_bytes": STRINGS})},
            r"signature seeded takes seed as int32 \(None,\), by its manifest seed as int64",
        ),
        (
            {"serving_default": ({"text": STRINGS}, {"image_bytes": pixels(32)})},
            r"signature serving_default gives image_bytes as uint8 .*, by its manifest image_bytes as string \(None,\)",
        ),
        (
            {"pixels": (ASKED, {"image": pixels(64)})},
            r"pixels gives image as uint8 \(None, 64, 64, 3\), by its manifest",
        ),
        (
            {"pixels": (ASKED, {"image": pixels(32, tf.float32)})},
            "pixels gives image as float32 .*manifest image as uint8",
        ),
        (
            {"pixels": (ASKED, {"picture": pixels(32)})},
            "signature pixels gives no image, by its manifest image as uint8",
        ),
        (
            {"pixels_16": (ASKED, {"image": pixels(32)})},
            r"pixels_16 gives image as uint8 \(None, 32, .*\(None, 16, 16, 3\)",
        ),
    ],
)
def test_other_signatures_are_refused(changed, message):
    with pytest.raises(UserError, match=f"^5: {message}" if message.startswith(("has", "sig")) else message):
        contract().check_signatures(signatures(**changed))


def test_a_manifest_of_another_condition_is_refused():
    with pytest.raises(UserError, match=r"^5: its manifest describes another condition than its condition\.json$"):
        contract(length=21)


def encoded(side, kind="PNG", mode="RGB"):
    file = io.BytesIO()
    Image.new(mode, (side, side)).save(file, kind)
    return file.getvalue()


def strings(*values):
    found = np.empty(len(values), object)
    found[:] = values
    return found


@pytest.mark.parametrize(
    ("name", "outputs", "message"),
    [
        (
            "seeded",
            {"image_bytes": strings(encoded(32), encoded(16))},
            r"PNG RGB \[16, 16\], by its manifest PNG RGB \[32",
        ),
        ("seeded", {"image_bytes": strings(encoded(32, mode="L"))}, r"PNG L \[32, 32\]"),
        ("seeded", {"image_bytes": strings(encoded(32, "JPEG"))}, r"JPEG RGB \[32, 32\]"),
        ("serving_default", {"image_bytes": strings(b"\x89PNG\r\n\x1a\n")}, "image_bytes is no image"),
        (
            "pixels",
            {"image": np.zeros((2, 16, 16, 3), np.uint8)},
            r"uint8 \[16, 16, 3\], by its manifest uint8 \[32, 32, 3\]",
        ),
        ("pixels", {"image": np.zeros((2, 32, 32, 3), np.float32)}, r"float32 \[32, 32, 3\]"),
    ],
)
def test_answers_that_are_no_image_of_the_side_are_refused(name, outputs, message):
    with pytest.raises(UserError, match=f"^5: signature {name}: .*{message}"):
        contract().check_outputs(name, outputs)


def test_answers_of_the_side_are_taken():
    contract().check_outputs("seeded", {"image_bytes": strings(encoded(32), encoded(32))})
    contract().check_outputs("pixels", {"image": np.zeros((2, 32, 32, 3), np.uint8)})
    contract().check_outputs("mine", {"vectors": np.zeros((2, 5))})


def test_a_version_whose_manifest_says_another_side_is_refused(tmp_path):
    shutil.copytree(SHAPES, tmp_path / "1")
    path = tmp_path / "1" / "assets.extra" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"resolution": 64}))
    with pytest.raises(UserError, match=r"signature pixels gives image as uint8 \(None, 32, 32, 3\), by its manifest"):
        Model(tmp_path / "1", CaptionCondition)
