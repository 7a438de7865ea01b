"""Pictures in tiles: equal to the whole picture's image where a network looks only around, smooth where not."""

import numpy as np
import pytest

from t2i_kd.conditions.image import SOURCE, ImageCondition
from t2i_kd.imaging import to_uint8
from t2i_kd.runners import IdentityRunner, Runner
from t2i_kd.tiling import generate_tiled
from tests.exporting.tiny_student import make_photos


@pytest.mark.parametrize("size", [(1, 1), (5, 40), (32, 32), (33, 31), (97, 130)])
@pytest.mark.parametrize("overlap", [0, 0.03, 0.1, 0.25, 0.5, 0.75])
@pytest.mark.parametrize("side", [12, 32])
def test_every_pixel_is_blended_with_weights_of_sum_1(size, overlap, side):
    expect_the_picture(size, overlap, side)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_the_smallest_tiles_go_on(side):
    expect_the_picture((9, 5), 0.75, side)


def expect_the_picture(size, overlap, side):
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    found = generate_tiled(IdentityRunner(ImageCondition(side), side), picture, overlap=overlap)
    np.testing.assert_array_equal(found, picture)


@pytest.mark.parametrize(("size", "overlap"), [((104, 80), 0.25), ((101, 75), 0.25), ((80, 150), 0.5)])
def test_tiles_of_convolutions_are_the_whole_picture(size, overlap):
    """Two convolutions of 3 x 3 look two pixels far, and a quarter of an overlap of 8 pixels is 2."""
    pytest.importorskip("tensorflow")
    from t2i_kd.runners import KerasRunner
    from tests.exporting.tiny_student import make_image_student

    student = make_image_student(32)
    (picture,) = make_photos(1, *size)
    whole = student.network.get_layer("conv1")(picture[None].astype(np.float32) / 127.5 - 1)
    expected = to_uint8(student.network.get_layer("conv2")(np.maximum(whole, 0))[0])
    found = generate_tiled(KerasRunner(student), picture, overlap=overlap)
    # Where a side is no multiple of 8, the picture's edge is continued by its mirror image and not by zeros.
    inside = tuple(slice(0, length - (2 if length % 8 else 0)) for length in size)
    difference = np.abs(found.astype(int) - expected)[inside]
    # Convolutions of other sizes are summed in another order: a value between two numbers rounds to either.
    assert difference.max() <= 1 and (difference > 0).mean() < 1e-3
    # With the borders of tiles in it, the same picture is far off.
    assert np.abs(generate_tiled(KerasRunner(student), picture, overlap=0).astype(int) - expected).max() > 10


class Statistics(Runner):
    """A network that looks at all of its input: each tile's image is its mean."""

    def _generate(self, items, seeds):
        means = self.condition.arrays(items)[SOURCE].mean((1, 2), keepdims=True)
        return to_uint8(np.broadcast_to(means, (len(items), self.resolution, self.resolution, 3)))


def test_what_changes_from_tile_to_tile_changes_smoothly():
    picture = np.zeros((32, 128, 3), np.uint8)
    picture[:, 60:] = 240
    row = generate_tiled(Statistics(ImageCondition(32), 32), picture, overlap=0.5)[16, :, 0].astype(int)
    assert (row[0], row[-1]) == (0, 240)
    # Half of the 16 pixels in common lie between one tile's mean and the next one's.
    assert np.diff(row).min() >= 0
    assert np.diff(row).max() <= 240 / 8
