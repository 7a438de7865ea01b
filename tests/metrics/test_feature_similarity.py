"""FSIM against plain loops, another implementation's numbers and by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal

from t2i_kd.metrics import feature_similarity
from t2i_kd.metrics.feature_similarity import fsim, phase_congruency


def pictures(height, width):
    """Two deterministic pictures with edges, ramps and textures."""
    y, x = np.mgrid[:height, :width]
    disc = (x - width / 2) ** 2 + (y - height / 2) ** 2 < 90
    moved = (x - width / 3) ** 2 + (y - height / 2) ** 2 < 60
    one = np.stack([(7 * x + 3 * y) % 256, (x * y) % 256, 255 * disc], -1)
    other = np.stack([(5 * x + 11 * y) % 256, (x * x + y) % 256, 255 * moved], -1)
    return one.astype(np.uint8), other.astype(np.uint8)


def grey(luminance):
    return np.repeat(np.asarray(luminance, float)[None, :, :, None], 3, 3)


def similarity(one, other, constant):
    return (2 * one * other + constant) / (one**2 + other**2 + constant)


def authors_range(side):
    """The frequencies of one axis, zero in the middle."""
    half = np.arange(-(side - 1) // 2, (side - 1) // 2 + 1) if side % 2 else np.arange(-side // 2, side // 2)
    return half / (side - side % 2)


def authors_filter(height, width, scale, orientation):
    """A log-Gabor transfer function, frequency by frequency."""
    found = np.zeros((height, width))
    for i, y in enumerate(authors_range(height)):
        for j, x in enumerate(authors_range(width)):
            radius = math.hypot(x, y)
            if radius:
                turned = abs(math.atan2(-y, x) - orientation * math.pi / 4)
                turned = min(turned, 2 * math.pi - turned)
                radial = math.exp(-(math.log(radius * 6 * 2**scale) ** 2) / (2 * math.log(0.55) ** 2))
                low_pass = 1 / (1 + (radius / 0.45) ** 30)
                found[i, j] = radial * low_pass * math.exp(-(turned**2) / (2 * (math.pi / 4 / 1.2) ** 2))
    return np.fft.ifftshift(found)


def plain_congruency(luminance):
    """Phase congruency by loops over orientations and scales and by circular convolution in space."""
    height, width = luminance.shape
    energy_sum, amplitude_sum = np.zeros(luminance.shape), np.zeros(luminance.shape)
    for orientation in range(4):
        even, odd, impulses, squares = [], [], [], []
        for scale in range(4):
            transfer = authors_filter(height, width, scale, orientation)
            kernel = np.fft.fftshift(np.fft.ifft2(transfer))
            even.append(scipy.ndimage.convolve(luminance, kernel.real, mode="wrap"))
            odd.append(scipy.ndimage.convolve(luminance, kernel.imag, mode="wrap"))
            impulses.append(kernel.real * math.sqrt(height * width))
            squares.append((transfer**2).sum())
            amplitude_sum += np.sqrt(even[-1] ** 2 + odd[-1] ** 2)
        total_even, total_odd = sum(even), sum(odd)
        length = np.sqrt(total_even**2 + total_odd**2) + 1e-4
        mean_even, mean_odd = total_even / length, total_odd / length
        energy = np.zeros(luminance.shape)
        for e, o in zip(even, odd, strict=True):
            energy += e * mean_even + o * mean_odd - np.abs(e * mean_odd - o * mean_even)
        noise_power = -np.median(even[0] ** 2 + odd[0] ** 2) / math.log(0.5) / squares[0]
        own = sum((impulse**2).sum() for impulse in impulses)
        shared = sum((impulses[i] * impulses[j]).sum() for i in range(4) for j in range(i + 1, 4))
        tau = math.sqrt((2 * noise_power * own + 4 * noise_power * shared) / 2)
        threshold = tau * math.sqrt(math.pi / 2) + 2 * math.sqrt((2 - math.pi / 2) * tau**2)
        energy_sum += np.maximum(energy - threshold / 1.7, 0)
    return energy_sum / amplitude_sum


def plain_fsim(one, other):
    found = []
    for picture in (one, other):
        luminance = 0.299 * picture[..., 0] + 0.587 * picture[..., 1] + 0.114 * picture[..., 2]
        padded = np.pad(luminance, 1)
        across, down = np.zeros(luminance.shape), np.zeros(luminance.shape)
        for i in range(luminance.shape[0]):
            for j in range(luminance.shape[1]):
                for step, weight in ((0, 3), (1, 10), (2, 3)):
                    across[i, j] += weight * (padded[i + step, j + 2] - padded[i + step, j]) / 16
                    down[i, j] += weight * (padded[i + 2, j + step] - padded[i, j + step]) / 16
        found.append((plain_congruency(luminance), np.sqrt(across**2 + down**2)))
    (congruency, gradient), (other_congruency, other_gradient) = found
    local = similarity(congruency, other_congruency, 0.85) * similarity(gradient, other_gradient, 160)
    weights = np.maximum(congruency, other_congruency)
    return (local * weights).sum() / weights.sum()


@pytest.mark.parametrize("shape", [(32, 32), (24, 31)])
def test_fsim_is_the_loops(shape):
    one, other = pictures(*shape)
    blurred = scipy.ndimage.uniform_filter(one.astype(float), (3, 3, 1))
    found = fsim(np.stack([one, one]), np.stack([other, blurred]))
    assert found.dtype == np.float64
    expected = [plain_fsim(one, other), plain_fsim(one, blurred)]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert expected[0] < 0.8 < expected[1]


def test_phase_congruency_is_the_loops():
    luminance = np.stack(pictures(32, 32))[..., 0].astype(float)
    found = phase_congruency(luminance)
    np.testing.assert_allclose(found, [plain_congruency(each) for each in luminance], rtol=0, atol=1e-9)
    assert 0 <= found.min() < 0.1 < 0.5 < found.max() < 1


# Made with piq 0.8.0 (PyPI), torch 2.13.0+cpu, float64: piq.fsim(x, y, reduction="none", data_range=255,
# chromatic=False). Sides are odd because piq takes the lower of two medians; its epsilon is 2e-16, not 1e-4, which
# these numbers show in the seventh digit.
@pytest.mark.parametrize(
    ("shape", "published"), [((33, 41), 0.7712111093235832), ((65, 65), 0.7313735638869396)], ids=["33x41", "65x65"]
)
def test_fsim_is_piqs(shape, published, monkeypatch):
    one, other = (picture[None] for picture in pictures(*shape))
    assert fsim(one, other) == pytest.approx([published], abs=1e-6)
    monkeypatch.setattr(feature_similarity, "EPSILON", np.finfo(float).eps)
    assert fsim(one, other) == pytest.approx([published], abs=1e-12)


# Half a step rounds up: 384 / 256 to 2, 640 / 256 to 3.
@pytest.mark.parametrize(("height", "width", "factor"), [(384, 391, 2), (650, 640, 3)])
def test_large_pictures_are_averaged_first(height, width, factor):
    large = [each @ np.array([0.299, 0.587, 0.114]) for each in pictures(height, width)]
    small = []
    for each in large:
        # MATLAB's "same": its part of the full convolution begins at floor(factor / 2).
        full = scipy.signal.convolve2d(each, np.full((factor, factor), 1 / factor**2))
        begin = factor // 2
        small.append(full[begin : begin + height : factor, begin : begin + width : factor])
    expected = fsim(grey(small[0]), grey(small[1]))
    assert fsim(grey(large[0]), grey(large[1])) == pytest.approx(expected, abs=1e-9)


def test_below_384_pixels_nothing_is_averaged(monkeypatch):
    one, other = (picture[None] for picture in pictures(383, 60))
    as_it_is = fsim(one, other)
    monkeypatch.setattr(feature_similarity, "_downsampled", lambda luminance: luminance)
    assert fsim(one, other) == as_it_is


def test_fsim_is_symmetric_above_0_and_1_for_equal_pictures():
    rng = np.random.default_rng(0)
    one = np.stack([*pictures(32, 32), rng.integers(0, 256, (32, 32, 3), np.uint8), np.zeros((32, 32, 3), np.uint8)])
    other = one[[1, 2, 3, 0]]
    found = fsim(one, other)
    np.testing.assert_array_equal(found, fsim(other, one))
    assert ((found > 0) & (found < 0.95)).all()
    np.testing.assert_allclose(fsim(one, one), 1, rtol=0, atol=1e-12)


def test_only_luminance_counts():
    one, other = np.full((1, 32, 32, 3), 0.0), np.full((1, 32, 32, 3), 0.0)
    one[:, 8:20, 8:20] = (0.587 * 200, 0, 0)
    other[:, 8:20, 8:20] = (0, 0.299 * 200, 0)
    assert fsim(one, other) == pytest.approx([1.0], abs=1e-9)


@pytest.mark.parametrize("side", [32, 33])
def test_pictures_without_structure_by_hand(side):
    # The gradient of a constant picture is 0 inside; outside are zeros: 16 / 16 of the level at the border, and
    # (10 + 3) / 16 of it along both axes at the corners.
    for one, other in ((40, 200), (0, 255), (77, 77)):
        constant = [np.full((1, side, side, 3), level, np.uint8) for level in (one, other)]
        corner = 13 * math.sqrt(2) / 16
        border = 4 * (side - 2) * similarity(one, other, 160) + 4 * similarity(corner * one, corner * other, 160)
        assert fsim(*constant) == pytest.approx([((side - 2) ** 2 + border) / side**2], abs=1e-9)


def test_the_level_is_not_structure():
    for shape in ((1, 32, 32), (2, 33, 47)):
        assert not phase_congruency(np.full(shape, 76.7)).any()
    luminance = pictures(24, 31)[0][None, :, :, 0].astype(float)
    np.testing.assert_allclose(phase_congruency(luminance + 2.0**40), phase_congruency(luminance), rtol=0, atol=1e-12)


def test_a_constant_picture_is_unlike_one_with_structure():
    one = pictures(32, 32)[0][None]
    found = fsim(one, np.full_like(one, 128))
    assert 0 < found[0] < 0.6


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        (np.zeros((2, 16, 16, 3)), np.zeros((2, 16, 17, 3)), "shapes"),
        (np.zeros((1, 5, 16, 3)), np.zeros((1, 5, 16, 3)), "5 x 16 pixels: sides of 6"),
        (np.full((1, 16, 16, 3), np.nan), np.zeros((1, 16, 16, 3)), "NaN"),
        (np.zeros((1, 16, 16, 3)), np.full((1, 16, 16, 3), 256.0), "outside 0-255"),
    ],
)
def test_wrong_pictures_are_named(one, other, named):
    with pytest.raises(ValueError, match=named):
        fsim(one, other)


def test_generated_pictures_are_compared_with_reference_ones():
    one, other = pictures(32, 32)
    context = SimpleNamespace(
        student=SimpleNamespace(resolution=32),
        split={"test": SimpleNamespace(images=[one, other])}.__getitem__,
        pairs=[(1, "other"), (0, "one")],
        generated=np.stack([other, 255 - one]),
        protocol=lambda: {"resolution": 32, "split": "drawn/test", "seed": 0},
    )
    measured = feature_similarity.measure(context)
    expected = [1, plain_fsim(one, 255.0 - one)]
    assert measured.samples["fsim_32_n2"] == pytest.approx(expected, abs=1e-9)
    assert measured.statistic(np.ones((1, 2)), np.ones((1, 0)))["fsim_32_n2"] == pytest.approx(np.mean(expected))
    stranger = measured.baselines["another real picture"]["fsim_32_n2"]
    assert stranger == pytest.approx(plain_fsim(one, other), abs=1e-9)
    assert (measured.protocol["split"], measured.protocol["T1"], measured.protocol["T2"]) == ("drawn/test", 0.85, 160)
