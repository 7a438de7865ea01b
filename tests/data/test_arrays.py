"""Data sets from arrays: what is loaded, what is refused, and what a run can be pinned to."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import t2i_kd.data
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.data.decoding import decode_square
from t2i_kd.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (3, 12, 20, 3), np.uint8)


def insects(**changes):
    arguments = {
        "images": IMAGES,
        "captions": ["a bee", ["an ant", "an insect"], "ein Käfer"],
        "test_images": [IMAGES[0, :8, :8], IMAGES[1]],
        "test_captions": [("a fly",), "a wasp"],
        "labels": [2, 0, 2],
        "test_labels": np.array([1, 0]),
    }
    return t2i_kd.data.from_arrays(**arguments | changes)


def png(pixels):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_pictures_are_resized_as_those_from_files_are():
    train, test = (load_dataset(insects(), split, 8) for split in ("train", "test"))
    for image, pixels in zip(train.images, IMAGES, strict=True):
        np.testing.assert_array_equal(image, decode_square(png(pixels), 8))
    np.testing.assert_array_equal(test.images[0], IMAGES[0, :8, :8])
    np.testing.assert_array_equal(test.images[1], decode_square(png(IMAGES[1]), 8))
    with pytest.raises(ValueError, match="read-only"):
        train.images[0][0] = 1


def test_captions_and_labels():
    train, test = (load_dataset(insects(name="insects"), split, 8) for split in ("train", "test"))
    assert (train.name, test.name) == ("insects/train", "insects/test")
    assert train.captions == (("a bee",), ("an ant", "an insect"), ("ein Käfer",))
    assert test.captions == (("a fly",), ("a wasp",))
    assert (train.labels.tolist(), test.labels.tolist(), train.labels.dtype) == ([2, 0, 2], [1, 0], np.int32)
    assert train.label_names == test.label_names == ("0", "1", "2")
    assert insects(label_names=["ant", "fly", "bee"]).load("test", 8).label_names == ("ant", "fly", "bee")
    plain = insects(labels=None, test_labels=None).load("train", 8)
    assert (plain.labels.tolist(), plain.label_names) == ([0, 0, 0], ("picture",))


def test_floats_are_rounded():
    floats = insects(images=IMAGES.astype("float32") + 0.4)
    np.testing.assert_array_equal(floats.load("train", 12).images, insects().load("train", 12).images)
    assert floats.digest == insects().digest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": IMAGES[0]}, r"images\[0\]: an array of shape \(20, 3\)"),
        ({"images": IMAGES[..., :1]}, r"images\[0\]: an array of shape \(12, 20, 1\)"),
        ({"images": IMAGES.astype(int)}, r"images\[0\]: int64, neither uint8 nor float"),
        ({"test_images": []}, "test_images: empty"),
        ({"captions": ["a bee"]}, "captions: 1 for 3 pictures"),
        ({"captions": ["a bee", [], "x"]}, r"captions\[1\]: empty"),
        ({"test_captions": ["a fly", " "]}, r"test_captions\[1\]: caption: empty"),
        ({"test_captions": ["a fly", [3]]}, r"test_captions\[1\]: 3 is not text"),
        ({"labels": [0, 1]}, r"labels: shape \(2,\) for 3 pictures"),
        ({"labels": [0, 1, -1]}, "labels: not whole numbers"),
        ({"test_labels": [0.5, 1]}, "test_labels: not whole numbers"),
        ({"labels": None}, "test_labels: .* have none"),
        ({"label_names": ["ant", "bee"]}, "label_names: 2 names, and there is a label 2"),
        ({"labels": None, "test_labels": None, "label_names": ["x"]}, "label_names: there are no labels"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises(UserError, match=f"^{message}"):
        insects(**changes)


def test_no_validation():
    with pytest.raises(UserError, match="--dataset: arrays has no validation split, only train and test"):
        load_dataset(insects(), "validation", 8)


def test_the_digest_is_that_of_the_content():
    other = IMAGES.copy()
    other[2, 11, 19, 2] ^= 1
    changes = (
        {},
        {"images": other},
        {"images": IMAGES[:, ::-1]},
        {"images": IMAGES.reshape(3, 20, 12, 3)},
        {"captions": ["a bee", ["an ant", "an insect"], "a beetle"]},
        {"captions": ["a bee", "an ant", "an insect"]},
        {"labels": [2, 0, 1]},
        {"label_names": ["a", "b", "c"]},
    )
    assert len({insects(**change).digest for change in changes}) == len(changes)
    assert insects(name="other", images=list(IMAGES)).digest == insects().digest


def test_the_import_is_cheap():
    code = (
        "import sys, t2i_kd.data; assert not {'keras', 'tensorflow', 'jax', 'tensorflow_datasets'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
