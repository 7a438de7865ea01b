"""What classifiers of pictures are trained with."""

import keras
import numpy as np

from t2i_kd.metrics.classifier_training import BATCH, TrainingBatches, soften, train_classifier


def batches_of(count, steps, seed=0):
    """Pictures whose every pixel is their number; they come unchanged, with what the generator draws first."""
    images = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 2, 2, 3))
    return TrainingBatches(
        images, {"number": np.arange(count)}, lambda x, rng: (x[:, 0, 0, 0], rng.random()), seed, steps
    )


def test_every_picture_comes_once_before_any_comes_again():
    batches = batches_of(100, 5)
    numbers = np.concatenate([batches[step][0][0] for step in range(len(batches))])
    assert len(numbers) == 5 * BATCH
    for start in range(0, 300, 100):
        assert sorted(numbers[start : start + 100]) == list(range(100))
    np.testing.assert_array_equal(numbers, np.concatenate([batches[step][1]["number"] for step in range(5)]))


def test_a_batch_is_a_function_of_seed_and_step():
    first, again, other = batches_of(100, 3), batches_of(100, 3), batches_of(100, 3, seed=1)
    again[0]
    for (one, drawn), (two, drawn_again) in ((first[2][0], again[2][0]),):
        np.testing.assert_array_equal(one, two)
        assert drawn == drawn_again != first[1][0][1]
    assert not np.array_equal(first[2][0][0], other[2][0][0])


def test_outputs_without_targets_are_not_trained():
    image = keras.Input((2, 2, 3))
    flat = keras.layers.Flatten()(image)
    outputs = {name: keras.layers.Dense(2, name=name)(flat) for name in ("number", "other")}
    network = keras.Model(image, outputs)
    before = {name: network.get_layer(name).get_weights()[0] for name in outputs}
    images, targets = np.random.default_rng(0).random((BATCH, 2, 2, 3)), {"number": np.arange(BATCH) % 2}
    batches = TrainingBatches(images, targets, lambda x, rng: x, 0, 2)
    train_classifier(network, ["number"], lambda: batches, 1e-2, None, ("test", "key"))
    changed = {name: not np.array_equal(network.get_layer(name).get_weights()[0], before[name]) for name in outputs}
    assert changed == {"number": True, "other": False}


def test_soften_is_a_function_of_the_generator_and_stays_in_range():
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)).astype("float32")
    first, second = (soften(images, np.random.default_rng(1)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert first.min() >= 0 and first.max() <= 255
    assert np.abs(first - images).max() > 1
