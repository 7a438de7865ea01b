"""`captioned_shapes`: coloured shapes in places, sizes and on backgrounds, drawn from nothing but a seed.

A picture is one combination of five attributes, drawn with anti-aliased edges, a place that wobbles by a few
percent of the picture, a size by a few percent, and colours by a few levels. Combinations are split, not pictures:
a sixth of the 768 is never seen in training and makes the test split, chosen so that every pair of attribute values
still occurs in training. Each picture has three captions of different phrasing. Source: ours.
"""

import itertools

import numpy as np
from PIL import Image, ImageDraw

from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.errors import UserError

COLOURS = {
    "red": (215, 40, 40),
    "green": (35, 160, 65),
    "blue": (45, 80, 220),
    "yellow": (240, 205, 40),
    "purple": (135, 45, 175),
    "cyan": (60, 205, 215),
}
SHAPES = ("circle", "square", "triangle", "cross")
# Centre of the shape, as fractions of the picture's width and height.
PLACES = {
    "top left": (0.3, 0.3),
    "top right": (0.7, 0.3),
    "bottom left": (0.3, 0.7),
    "bottom right": (0.7, 0.7),
}
# Half the side of the shape's square, as a fraction of the picture's side. Smaller than this, a circle and a square are
# hard to tell apart at 32 px; larger, a shape leaves the picture.
SIZES = {"small": 0.17, "large": 0.26}
BACKGROUNDS = {"white": (245, 245, 245), "grey": (130, 130, 135), "black": (15, 15, 20), "brown": (115, 75, 40)}
ATTRIBUTES = {
    "colour": tuple(COLOURS),
    "shape": SHAPES,
    "place": tuple(PLACES),
    "size": tuple(SIZES),
    "background": tuple(BACKGROUNDS),
}
PHRASINGS = (
    "a {size} {colour} {shape} in the {place} on a {background} background",
    "a {colour} {size} {shape} at the {place} of a {background} picture",
    "on a {background} background, there is a {size} {colour} {shape} at the {place}",
    "{background} background with a {size} {shape} in {colour}, {place}",
    "in the {place} corner: one {size} {colour} {shape}, {background} behind it",
    "the {shape} in the {place} is {colour} and {size}, the background is {background}",
)
CAPTIONS_PER_IMAGE = 3
IMAGES_PER_COMBINATION = {"train": 16, "test": 8}
_OVERSAMPLING = 8


def combinations(split):
    """The attribute combinations of a split, as dicts; no combination is in both.

    A combination is held out when a weighted sum of its attributes' indices modulo 6 is 0: a Latin-square-like
    choice that takes a sixth, evenly over the values of every attribute, and at most one shape of those that differ
    in nothing else.
    """
    if split not in IMAGES_PER_COMBINATION:
        raise UserError(f"--dataset captioned_shapes: no split {split!r}; it has train and test")
    found = []
    for indices in itertools.product(*(range(len(values)) for values in ATTRIBUTES.values())):
        colour, shape, place, size, background = indices
        held_out = (colour + shape + 3 * place + size + 2 * background) % 6 == 0
        if held_out == (split == "test"):
            found.append({name: ATTRIBUTES[name][i] for name, i in zip(ATTRIBUTES, indices, strict=True)})
    return found


def draw(attributes, resolution, rng):
    """One picture.

    Args:
        attributes: a value for each of `ATTRIBUTES`.
        resolution: side in pixels.
        rng: `numpy.random.Generator` of the wobble of place (up to 3 % of the side), size (5 %) and colour (8 levels).

    Returns:
        uint8 RGB [resolution, resolution, 3].
    """
    side = resolution * _OVERSAMPLING
    wobble = rng.uniform(-1, 1, 9)
    x, y = (np.array(PLACES[attributes["place"]]) + 0.03 * wobble[:2]) * side
    half = SIZES[attributes["size"]] * (1 + 0.05 * wobble[2]) * side
    ink, paper = (
        tuple(int(v) for v in np.clip(np.array(base) + 8 * shift, 0, 255).round())
        for base, shift in (
            (COLOURS[attributes["colour"]], wobble[3:6]),
            (BACKGROUNDS[attributes["background"]], wobble[6:9]),
        )
    )
    picture = Image.new("RGB", (side, side), paper)
    pen = ImageDraw.Draw(picture)
    if attributes["shape"] == "circle":
        pen.ellipse((x - half, y - half, x + half, y + half), fill=ink)
    elif attributes["shape"] == "square":
        pen.rectangle((x - half, y - half, x + half, y + half), fill=ink)
    elif attributes["shape"] == "triangle":
        pen.polygon(((x, y - half), (x + half, y + half), (x - half, y + half)), fill=ink)
    else:
        arm = half / 3
        pen.rectangle((x - half, y - arm, x + half, y + arm), fill=ink)
        pen.rectangle((x - arm, y - half, x + arm, y + half), fill=ink)
    return np.asarray(picture.resize((resolution, resolution), Image.Resampling.BOX))


def load(split, resolution):
    """The data set's `train` or `test` split at a resolution; the same on every machine and call.

    Returns:
        `CaptionedImages` with `attributes`; a label is the index of the combination in its split.
    """
    images, captions, labels, attributes = [], [], [], []
    found = combinations(split)
    for label, combination in enumerate(found):
        for copy in range(IMAGES_PER_COMBINATION[split]):
            rng = np.random.default_rng([len(split), label, copy])
            images.append(draw(combination, resolution, rng))
            chosen = rng.choice(len(PHRASINGS), CAPTIONS_PER_IMAGE, replace=False)
            captions.append(tuple(PHRASINGS[i].format(**combination) for i in chosen))
            labels.append(label)
            attributes.append(combination)
    return CaptionedImages(
        name=f"captioned_shapes/{split}",
        images=np.stack(images),
        captions=tuple(captions),
        labels=np.array(labels, np.int32),
        label_names=tuple(" ".join(combination.values()) for combination in found),
        attributes=tuple(attributes),
    )
