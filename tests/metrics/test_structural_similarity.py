"""SSIM against scikit-image and by hand, and what every comparison with real pictures shares."""

from types import SimpleNamespace

import numpy as np
import pytest
from skimage.metrics import structural_similarity as skimage_ssim

from t2i_kd.metrics import structural_similarity
from t2i_kd.metrics.structural_similarity import measure_similarity, ssim

C1, C2 = 2.55**2, 7.65**2


def pictures(count=3, height=32, width=32, seed=0):
    """Smooth pictures with noise: windows of every contrast."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width][..., None] / 8
    waves = [128 + 90 * np.sin(x * rng.uniform(0, 2, 3) + y * rng.uniform(0, 2, 3) + i) for i in range(count)]
    return np.clip(np.stack(waves) + rng.normal(0, 20, (count, height, width, 3)), 0, 255).astype(np.uint8)


def luminance(one, other):
    return (2 * one * other + C1) / (one**2 + other**2 + C1)


@pytest.mark.parametrize("shape", [(32, 32), (64, 64), (11, 11), (12, 37)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_ssim_is_scikit_images(shape, dtype):
    one = pictures(4, *shape).astype(dtype)
    # A stranger, an unrelated picture, a dimmer copy, the negative.
    other = np.stack([pictures(1, *shape, seed=1)[0], one[0], one[2] // 2, 255 - one[3]]).astype(dtype)
    expected = [
        skimage_ssim(
            x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1
        )
        for x, y in zip(one.astype(float), other.astype(float), strict=True)
    ]
    found = ssim(one, other)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert found.min() < -0.1 < 0.5 < found.max()


def test_constant_pictures_differ_in_luminance_alone():
    one, other = np.full((1, 16, 20, 3), (0, 100, 255), np.uint8), np.full((1, 16, 20, 3), (255, 50, 255), np.uint8)
    # 1e-4 is 2.55^2 / (255^2 + 2.55^2), to eight digits.
    by_hand = (luminance(0, 255) + luminance(100, 50) + 1) / 3
    assert luminance(0, 255) == pytest.approx(1e-4, rel=2e-4)
    assert ssim(one, other) == pytest.approx([by_hand], abs=1e-9)
    assert ssim(one, one) == pytest.approx([1.0], abs=1e-12)


def test_a_chessboard_and_its_negative_by_hand():
    board = 255.0 * (np.indices((13, 13)).sum(0) % 2)[None, :, :, None].repeat(3, 3)
    taps = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    # What a window of alternating signs leaves over, along both sides.
    rest = (np.sum(taps * (-1.0) ** np.arange(11)) / taps.sum()) ** 2
    variance = 127.5**2 * (1 - rest**2)
    structure = (-2 * variance + C2) / (2 * variance + C2)
    by_hand = luminance(127.5 * (1 + rest), 127.5 * (1 - rest)) * structure
    assert by_hand < -0.99
    assert ssim(board, 255 - board) == pytest.approx([by_hand], abs=1e-9)


def test_ssim_is_symmetric_and_1_for_equal_pictures():
    one, other = pictures(), pictures(seed=1)
    np.testing.assert_allclose(ssim(one, other), ssim(other, one), rtol=0, atol=1e-12)
    np.testing.assert_allclose(ssim(one, one), 1, rtol=0, atol=1e-12)
    assert (ssim(one, other) < 0.9).all()


@pytest.mark.parametrize(
    ("one", "other", "named"),
    [
        (np.zeros((2, 16, 16, 3)), np.zeros((1, 16, 16, 3)), "shapes"),
        (np.zeros((16, 16, 3)), np.zeros((16, 16, 3)), "shapes"),
        (np.zeros((2, 16, 16, 1)), np.zeros((2, 16, 16, 1)), "shapes"),
        (np.zeros((1, 16, 10, 3)), np.zeros((1, 16, 10, 3)), "16 x 10 pixels: sides of 11"),
        (np.zeros((1, 16, 16, 3)), np.full((1, 16, 16, 3), np.nan), "NaN"),
        (np.full((1, 16, 16, 3), np.inf), np.zeros((1, 16, 16, 3)), "outside 0-255"),
        (np.zeros((1, 16, 16, 3)), np.full((1, 16, 16, 3), -1.0), "outside 0-255"),
        (np.zeros((1, 16, 16, 3)), np.full((1, 16, 16, 3), 255.1), "from 255.1 to 255.1, outside 0-255"),
    ],
)
def test_wrong_pictures_are_named(one, other, named):
    with pytest.raises(ValueError, match=named):
        ssim(one, other)


def context_of(images, chosen, generated):
    return SimpleNamespace(
        student=SimpleNamespace(resolution=generated.shape[1]),
        split={"test": SimpleNamespace(images=list(images))}.__getitem__,
        pairs=[(picture, f"caption {i}") for i, picture in enumerate(chosen)],
        generated=generated,
        protocol=lambda: {"resolution": generated.shape[1], "split": "noise/test", "seed": 3},
    )


def test_every_generated_picture_is_compared_with_the_reference_picture_of_its_caption():
    # More than two batches, the last one smaller.
    images, generated = pictures(70, 16, 16), pictures(70, 16, 16, seed=1)
    chosen = np.random.default_rng(0).permutation(70).tolist()
    context = context_of(images, chosen, generated)
    measured = structural_similarity.measure(context)
    expected = np.concatenate([ssim(generated[i : i + 1], images[chosen[i]][None]) for i in range(70)])
    assert list(measured.samples) == ["ssim_16_n70"]
    np.testing.assert_allclose(measured.samples["ssim_16_n70"], expected, rtol=0, atol=1e-12)
    weights = np.stack([np.ones(70), np.arange(70.0)])
    found = measured.statistic(weights, np.ones((2, 0)))["ssim_16_n70"]
    np.testing.assert_allclose(found, [expected.mean(), np.average(expected, weights=weights[1])], rtol=0, atol=1e-12)
    unrelated = [ssim(images[chosen[i]][None], images[chosen[(i + 35) % 70]][None])[0] for i in range(70)]
    assert measured.baselines == {"another real picture": {"ssim_16_n70": pytest.approx(np.mean(unrelated), abs=1e-12)}}
    assert (measured.generated, measured.reference, measured.lower_is_better) == (70, 0, False)
    assert measured.pairs == context.pairs
    assert measured.pictures is generated
    assert measured.protocol["split"] == "noise/test"
    assert measured.protocol["pictures"] == 70
    assert (measured.protocol["K1"], measured.protocol["K2"], measured.protocol["L"]) == (0.01, 0.03, 255)


@pytest.mark.parametrize("chosen", [[0, 1, 0, 1], [1, 0, 1], [0, 0, 1, 1, 0, 0]])
def test_a_picture_that_is_asked_for_twice_is_not_its_own_stranger(chosen):
    images = np.stack([np.full((16, 16, 3), level, np.uint8) for level in (0, 255)])
    measured = structural_similarity.measure(context_of(images, chosen, images[chosen]))
    line = f"ssim_16_n{len(chosen)}"
    assert measured.samples[line] == pytest.approx(np.ones(len(chosen)), abs=1e-12)
    assert measured.baselines["another real picture"][line] == pytest.approx(luminance(0, 255), abs=1e-9)
    assert measured.protocol["pictures"] == 2


def test_a_single_picture_has_no_stranger():
    images = pictures(1)
    assert measure_similarity(context_of(images, [0, 0], images[[0, 0]]), "ssim", ssim, {}).baselines == {}
