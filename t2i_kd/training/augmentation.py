"""Differentiable augmentation: a discriminator gets real and generated images augmented alike.

Source: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training" (NeurIPS 2020), and its code. Ours:
the random numbers come from outside, so that a step follows from (seed, step), and shifts are matrix products, which
have a deterministic gradient. Ours too is `reflect_translation`: where a shift brings in grey, a discriminator cannot
tell a generated image's own grey edge from it, and every image gets one.
"""

import functools

from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.imaging import HALF_RANGE

# Uniform numbers that one picture's augmentation takes, by kind.
NUMBERS = {"color": 3, "translation": 2, "reflect_translation": 2, "cutout": 2}
LARGEST_SHIFT = 1 / 8
CUT = 1 / 2


def parse_policy(text):
    """The kinds of `--augmentation=color,translation,cutout`, in the order in which they are applied.

    Raises:
        UserError: naming an unknown kind or one that is given twice.
    """
    kinds = tuple(kind.strip() for kind in text.split(",") if kind.strip())
    for kind in kinds:
        if kind not in NUMBERS:
            raise UserError(f"--augmentation: {kind!r} is none of {', '.join(NUMBERS)}")
        if kinds.count(kind) > 1:
            raise UserError(f"--augmentation: {kind} is given twice")
    return kinds


def numbers_of(kinds):
    """How many uniform numbers a picture's augmentation takes."""
    return sum(NUMBERS[kind] for kind in kinds)


def augment(images, kinds, uniforms):
    """Augments pictures, each in its own way; differentiable in the pictures.

    In centred values c = x / 127.5 - 1, with u uniform in [0, 1):
        color: c + u_1 - 1/2; then the distance to the pixel's mean times 2 u_2; then that to the picture's mean times
            u_3 + 1/2.
        translation: by up to 1/8 of the side each way, whole pixels, what comes in is mid-grey.
        reflect_translation: the same, but what comes in is the picture reflected at its outermost pixels.
        cutout: a square of half the side, anywhere, becomes mid-grey.

    Args:
        images: float [batch, side, side, 3] in 0-255.
        kinds: of `NUMBERS`, in order.
        uniforms: float [batch, numbers_of(kinds)] in [0, 1).

    Returns:
        Float [batch, side, side, 3], in 0-255 but for what `color` pushes beyond.
    """
    if not kinds:
        return images
    centred, at = images / HALF_RANGE - 1, 0
    for kind in kinds:
        count = NUMBERS[kind]
        own = [ops.reshape(uniforms[:, at + index], (-1, 1, 1, 1)) for index in range(count)]
        centred = _KINDS[kind](centred, *own)
        at += count
    return (centred + 1) * HALF_RANGE


def _color(images, brightness, saturation, contrast):
    images = images + brightness - 0.5
    grey = ops.mean(images, axis=3, keepdims=True)
    images = (images - grey) * (2 * saturation) + grey
    mean = ops.mean(images, axis=(1, 2, 3), keepdims=True)
    return (images - mean) * (contrast + 0.5) + mean


def _whole(uniform, first, last):
    """Uniform numbers as whole numbers from `first` to `last`, [batch]."""
    return ops.reshape(ops.floor(uniform * (last - first + 1)) + first, (-1, 1))


def _translation(images, down, right, reflect=False):
    side = images.shape[1]
    most = int(side * LARGEST_SHIFT + 0.5)
    places = ops.arange(side, dtype="float32")

    def shift(uniform):
        # Row i of the product is row i - s of the picture; rows that do not exist are 0.
        wanted = places[None] - _whole(uniform, -most, most)
        if reflect:
            wanted = side - 1 - ops.abs(side - 1 - ops.abs(wanted))
        return ops.cast(ops.equal(wanted[:, :, None], places[None, None]), images.dtype)

    images = ops.einsum("bij,bjwc->biwc", shift(down), images)
    return ops.einsum("bij,bhjc->bhic", shift(right), images)


def _cutout(images, down, right):
    side = images.shape[1]
    cut = int(side * CUT + 0.5)
    places = ops.arange(side, dtype="float32")[None]

    def inside(uniform):
        # The square's middle may lie anywhere, so that it may reach over the edge.
        first = _whole(uniform, 0, side - cut % 2) - cut // 2
        return ops.logical_and(places >= first, places < first + cut)

    hole = ops.logical_and(inside(down)[:, :, None], inside(right)[:, None, :])
    return images * ops.cast(ops.logical_not(hole), images.dtype)[..., None]


_KINDS = {
    "color": _color,
    "translation": _translation,
    "reflect_translation": functools.partial(_translation, reflect=True),
    "cutout": _cutout,
}
