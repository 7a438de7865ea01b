"""A picture of any size through a network of one size: tiles that overlap, generated one by one and blended.

Of the strip that two neighbours have in common, a tile's last quarter towards its own edge counts nothing, and the half
in the middle is blended in a line. So what a network makes of pixels no farther away than that quarter is what it makes
of the whole picture. A network that looks at all of its input, as one with instance norms does, sees each tile as a
picture of its own: light and colours may change from tile to tile, though without a seam.
"""

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.imaging import to_uint8

OVERLAP = 0.25
# Above it the tiles are many and gain nothing.
LARGEST_OVERLAP = 0.75
# Tiles start at multiples of it, where a network that halves its maps three times has its grid.
GRID = 8


def generate_tiled(runner, picture, seed=0, overlap=OVERLAP):
    """The image of a picture at the picture's own size.

    A picture that is smaller than a tile, or ends off the grid, is continued by its mirror image, which is cut off
    again.

    Args:
        runner: `t2i_kd.runners.Runner` of images; a tile has the side that it reads.
        picture: uint8 RGB [height, width, 3].
        seed: of every tile's noise.
        overlap: the share of a tile's side that it has in common with its neighbour, 0 to 0.75.

    Returns:
        uint8 RGB [height, width, 3].

    Raises:
        UserError: as `check_tiles`.
    """
    check_tiles(runner, overlap)
    side = runner.condition.side
    height, width = picture.shape[:2]
    padding = [(0, max(side, -(-length // GRID) * GRID) - length) for length in (height, width)]
    whole = np.pad(picture, (*padding, (0, 0)), "symmetric")
    common = min(round(overlap * side), side - 1)
    (tops, row_weights), (lefts, column_weights) = (_tiles(length, side, common) for length in whole.shape[:2])
    image = np.empty_like(whole)
    # The rows that later tiles add to.
    band = np.zeros((side, whole.shape[1], 3), np.float32)
    for top, following, row_weight in zip(tops, [*tops[1:], whole.shape[0]], row_weights, strict=True):
        row = [whole[top : top + side, left : left + side] for left in lefts]
        for tile, left, weight in zip(runner.generate(row, [seed] * len(row)), lefts, column_weights, strict=True):
            band[:, left : left + side] += tile * (row_weight[:, None, None] * weight[:, None])
        image[top:following] = to_uint8(band[: following - top])
        band = np.concatenate([band[following - top :], np.zeros_like(band[: following - top])])
    return image[:height, :width]


def check_tiles(runner, overlap):
    """Raises `UserError` for an overlap out of range, or a model whose images have another side than what it reads."""
    if not 0 <= overlap <= LARGEST_OVERLAP:
        raise UserError(f"--tile_overlap: {overlap} is not in 0 to {LARGEST_OVERLAP}")
    if runner.resolution != runner.condition.side:
        raise UserError(
            f"--large_images: tiles need a model that answers at the side that it reads, not at {runner.resolution} "
            f"pixels of {runner.condition.side}"
        )


def _tiles(length, side, common):
    """Where tiles begin along an axis, and each one's weights, float32 [side]; over all tiles a pixel's sum to 1."""
    step = side - common
    if step > GRID:
        step -= step % GRID
    starts = [*range(0, length - side, step), length - side]
    places, common = np.arange(side) + 0.5, max(1, common)
    ramp = np.clip((places - common / 4) / (common / 2), 0, 1)
    weights, total = [], np.zeros(length)
    for start in starts:
        # At the picture's own edge there is no neighbour.
        rising = ramp if start > 0 else 1.0
        falling = ramp[::-1] if start + side < length else 1.0
        weights.append(np.ones(side) * np.minimum(rising, falling))
        total[start : start + side] += weights[-1]
    return starts, [
        (weight / total[start : start + side]).astype(np.float32) for start, weight in zip(starts, weights, strict=True)
    ]
