"""Differentiable augmentation against plain NumPy shifts, cuts and colours."""

import numpy as np
import pytest
from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.training.augmentation import augment, numbers_of, parse_policy

SIDE = 16
IMAGES = np.random.default_rng(0).uniform(0, 255, (3, SIDE, SIDE, 3)).astype("float32")
GREY = 127.5


def apply(kind, uniforms):
    return np.asarray(augment(ops.convert_to_tensor(IMAGES), (kind,), np.asarray(uniforms, "float32")))


def shifted(image, down, right):
    out = np.full_like(image, GREY)
    for row in range(SIDE):
        for column in range(SIDE):
            if 0 <= row - down < SIDE and 0 <= column - right < SIDE:
                out[row, column] = image[row - down, column - right]
    return out


def test_translation_moves_whole_pixels():
    # 5 shifts, -2 to 2: u = 0, 0.5 and just below 1 are -2, 0 and 2.
    found = apply("translation", [[0, 0.999], [0.5, 0.5], [0.7, 0.3]])
    expected = [shifted(IMAGES[0], -2, 2), IMAGES[1], shifted(IMAGES[2], 1, -1)]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_a_reflected_shift_fills_its_edge_with_the_picture():
    found = apply("reflect_translation", [[0, 0.999], [0.5, 0.5], [0.7, 0.3]])
    padded = np.pad(IMAGES, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    shifts = [(-2, 2), (0, 0), (1, -1)]
    expected = [each[2 - down :, 2 - right :][:SIDE, :SIDE] for each, (down, right) in zip(padded, shifts, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_cutout_leaves_a_grey_square():
    # Half of 16 is 8; 17 places for its middle, 0 to 16.
    found = apply("cutout", [[0, 0], [0.5, 0.5], [0.999, 0.25]])
    expected = IMAGES.copy()
    expected[0, 0:4, 0:4] = GREY
    expected[1, 4:12, 4:12] = GREY
    expected[2, 12:16, 0:8] = GREY
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_color_in_numpy():
    u = np.random.default_rng(1).random((3, 3))
    found = apply("color", u)
    for image, (brightness, saturation, contrast), seen in zip(IMAGES.astype("float64"), u, found, strict=True):
        c = image / GREY - 1 + brightness - 0.5
        grey = c.mean(axis=2, keepdims=True)
        c = (c - grey) * 2 * saturation + grey
        c = (c - c.mean()) * (contrast + 0.5) + c.mean()
        np.testing.assert_allclose(seen, (c + 1) * GREY, atol=1e-2)


def test_kinds_come_one_after_the_other_with_numbers_of_their_own():
    kinds = parse_policy("color, translation,cutout")
    assert kinds == ("color", "translation", "cutout") and numbers_of(kinds) == 7
    uniforms = np.random.default_rng(2).random((3, 7)).astype("float32")
    images, at = ops.convert_to_tensor(IMAGES), 0
    for kind, count in zip(kinds, (3, 2, 2), strict=True):
        images = augment(images, (kind,), uniforms[:, at : at + count])
        at += count
    np.testing.assert_allclose(augment(ops.convert_to_tensor(IMAGES), kinds, uniforms), images, atol=1e-3)


def test_no_kind_leaves_the_pictures_alone():
    assert augment(IMAGES, parse_policy(""), None) is IMAGES


def test_a_shift_passes_each_pixels_gradient_back():
    import tensorflow as tf

    images, weights = tf.constant(IMAGES), np.random.default_rng(3).random(IMAGES.shape).astype("float32")
    with tf.GradientTape() as tape:
        tape.watch(images)
        loss = ops.sum(augment(images, ("translation",), np.array([[0.7, 0.3]] * 3, "float32")) * weights)
    expected = [np.pad(each, ((0, 1), (1, 0), (0, 0)))[1:, :-1] for each in weights]
    np.testing.assert_allclose(tape.gradient(loss, images), expected, atol=1e-5)


@pytest.mark.parametrize(("text", "named"), [("colour", "colour"), ("cutout,cutout", "twice")])
def test_an_unknown_policy_is_named(text, named):
    with pytest.raises(UserError, match=f"--augmentation.*{named}"):
        parse_policy(text)
