"""The step of SDN against a hand calculation: both networks, losses, gradients and Adam in NumPy, in float64."""

import importlib.util
import os
import subprocess
import sys
import types
from pathlib import Path

import keras
import numpy as np
import pytest

from t2i_kd.sdn.trainer import SDNTrainer, tap_scales
from t2i_kd.teachers.vgg19 import BLOCKS, TAPS, build_vgg19
from t2i_kd.training.feature_cache import CachedFeatures
from t2i_kd.training.mirrored_generator import build_generator
from t2i_kd.training.optimizer import adam

SIDE, WIDTH, TEXT_DIM, BATCH, RATE = 32, 1 / 16, 6, 3, 1e-3
# Two stages whose errors are smooth enough for finite differences; every kind of tap, some twice as heavy.
STAGES = {
    "mirrored": types.SimpleNamespace(
        name="I",
        objective="mirrored",
        error="squared",
        scaling="normalised",
        tap_weights=(("image", 0.5), ("conv1_2", 2.0), ("pool1", 1.0), ("conv3_4", 1.0), ("pool5", 0.05)),
    ),
    "perceptual": types.SimpleNamespace(
        name="II",
        objective="perceptual",
        error="charbonnier",
        scaling="normalised",
        tap_weights=(("image", 1.0), ("conv1_1", 2.0), ("pool2", 1.0), ("conv4_1", 0.5)),
    ),
}
# Layers from the text to the image; of each some weights are moved.
MOVED = ("fc7", "pool5_flat", "conv4_2", "pool2", "image_linear")


def relu(x):
    return np.maximum(x, 0)


def convolution(x, kernel, bias):
    height, width = x.shape[1:3]
    x = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])
    return sum(x[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)) + bias


def teacher_by_hand(weights, image):
    """{tap: map} of VGG19 with average pooling."""
    taps, x = {"image": image}, image[..., ::-1] - np.array([103.939, 116.779, 123.68])
    for block, (count, _) in enumerate(BLOCKS, 1):
        for index in range(1, count + 1):
            name = f"conv{block}_{index}"
            x = taps[name] = relu(convolution(x, *weights[name]))
        x = (x[:, ::2, ::2] + x[:, 1::2, ::2] + x[:, ::2, 1::2] + x[:, 1::2, 1::2]) / 4
        taps[f"pool{block}"] = x
    return taps


def student_by_hand(weights, text):
    """{tap: map} of SDN's generator, its image centred."""
    x, taps = text, {}
    for name in ("fc7", "fc6", "pool5_flat"):
        kernel, bias = weights[name]
        x = relu(x @ kernel + bias)
    x = taps["pool5"] = x.reshape(len(text), SIDE // 32, SIDE // 32, -1)
    for block in range(5, 0, -1):
        count = BLOCKS[block - 1][0]
        x = taps[f"conv{block}_{count}"] = x.repeat(2, 1).repeat(2, 2)
        for name in [f"conv{block}_{index}" for index in range(count - 1, 0, -1)] + [f"pool{block - 1}"]:
            if name != "pool0":
                x = taps[name] = relu(convolution(x, *weights[name]))
    return {**taps, "image": 127.5 * (1 + convolution(x, *weights["image_linear"]))}


def weights_of(network):
    """{layer: [kernel, bias]} in float64."""
    return {
        layer.name: [np.asarray(w, "float64") for w in layer.get_weights()] for layer in network.layers if layer.weights
    }


def loss_by_hand(stage, student, teacher, scales, batch):
    """(L, {tap: d_l}) of weights as `weights_of` gives them."""
    reference = teacher_by_hand(teacher, batch["image"].astype("float64"))
    generated = student_by_hand(student, batch["text"].astype("float64"))
    if stage.objective == "perceptual":
        generated = teacher_by_hand(teacher, generated["image"])
    terms = {}
    for tap, _ in stage.tap_weights:
        own = 1.0 if stage.objective == "mirrored" and tap != "image" else scales[tap]
        u = reference[tap] / scales[tap] - generated[tap] / own
        terms[tap] = np.mean(u**2 if stage.error == "squared" else np.sqrt(u**2 + 1e-6) - 1e-3)
    return sum(weight * terms[tap] for tap, weight in stage.tap_weights), terms


@pytest.fixture(scope="module")
def teacher():
    """A small VGG19 whose maps neither vanish nor explode."""
    network, rng = build_vgg19(SIDE, WIDTH), np.random.default_rng(0)
    for layer in network.layers:
        if layer.weights:
            kernel, bias = (rng.standard_normal(tuple(w.shape)) for w in layer.weights)
            layer.set_weights([kernel * (2 / np.prod(kernel.shape[:3])) ** 0.5, 0.1 * bias])
    network.trainable = False
    return network


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).integers(0, 256, (7, SIDE, SIDE, 3), np.uint8)


@pytest.fixture(scope="module")
def scales(teacher, images):
    return tap_scales(teacher, images)


def new_student():
    """A small generator, the same on every backend; also its biases are not 0."""
    network, rng = build_generator(SIDE, TEXT_DIM, WIDTH, image_output="centred"), np.random.default_rng(2)
    for layer in network.layers:
        if layer.weights:
            kernel, bias = (rng.standard_normal(tuple(w.shape)) for w in layer.weights)
            layer.set_weights([kernel * (1.5 / np.prod(kernel.shape[:-1])) ** 0.5, 0.1 * bias])
    return network


def new_batch(images, step=0):
    rng = np.random.default_rng([3, step])
    text = rng.standard_normal((BATCH, TEXT_DIM)).astype("float32")
    return {"image": images[rng.integers(0, len(images), BATCH)], "text": text}


def trainer_of(network, teacher, stage, scales):
    return SDNTrainer(network, teacher, stage, {tap: scales[tap] for tap, _ in stage.tap_weights}, 10)


class Steps(keras.utils.PyDataset):
    """Batches in a list."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def fit(trainer, batches):
    """The logs of each step."""
    found = []
    keep = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: found.append(logs))
    trainer.fit(Steps(batches), shuffle=False, verbose=0, callbacks=[keep])
    return [{name: float(value) for name, value in step.items()} for step in found]


class Gradients:
    """A loss's gradients on any backend: what a step of gradient descent takes away; the weights are put back."""

    RATE = 1e3

    def __init__(self, network, teacher, stage, scales):
        self.trainer = trainer_of(network, teacher, stage, scales)
        self.trainer.compile(optimizer=keras.optimizers.SGD(self.RATE))

    def of(self, batch):
        """{layer: [of its kernel, of its bias]}."""
        network = self.trainer.network
        before, kept = weights_of(network), network.get_weights()
        fit(self.trainer, [batch])
        after = weights_of(network)
        network.set_weights(kept)
        return {
            name: [(old - new) / self.RATE for old, new in zip(parts, after[name], strict=True)]
            for name, parts in before.items()
        }


@pytest.mark.parametrize("name", STAGES)
def test_loss_and_gradients_are_those_of_the_hand_calculation(name, teacher, images, scales, uncompiled):
    stage, network, batch = STAGES[name], new_student(), new_batch(images)
    trainer = trainer_of(network, teacher, stage, scales)
    student, frozen = weights_of(network), weights_of(teacher)
    expected, terms = loss_by_hand(stage, student, frozen, scales, batch)
    loss, found = trainer.loss_terms({key: keras.ops.convert_to_tensor(value) for key, value in batch.items()})
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert {tap: float(term) for tap, term in found.items()} == pytest.approx(terms, rel=1e-4)

    slopes = Gradients(network, teacher, stage, scales).of(batch)
    rng, h = np.random.default_rng(4), 1e-6
    for layer in MOVED:
        for part, slope in zip(student[layer], slopes[layer], strict=True):
            largest = np.abs(slope).max()
            assert largest > 0, layer
            for place in rng.choice(part.size, 3, replace=False):
                at = np.unravel_index(place, part.shape)
                kept, losses = part[at], []
                for moved in (kept + h, kept - h):
                    part[at] = moved
                    losses.append(loss_by_hand(stage, student, frozen, scales, batch)[0])
                part[at] = kept
                assert slope[at] == pytest.approx((losses[0] - losses[1]) / (2 * h), rel=5e-3, abs=1e-3 * largest)


@pytest.mark.parametrize("name", STAGES)
def test_the_weights_move_by_adam_as_the_hand_calculation_says(name, teacher, images, scales, uncompiled):
    """Kingma & Ba with moments m and v: the step is rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)."""
    stage, network = STAGES[name], new_student()
    trainer, probe = trainer_of(network, teacher, stage, scales), Gradients(network, teacher, stage, scales)
    trainer.compile(optimizer=adam(RATE))
    frozen, moments = teacher.get_weights(), {}
    for step in range(1, 4):
        batch = new_batch(images, step)
        slopes, before = probe.of(batch), weights_of(network)
        (logs,) = fit(trainer, [batch])
        assert logs["loss"] == pytest.approx(
            loss_by_hand(stage, before, weights_of(teacher), scales, batch)[0], rel=1e-4
        )
        for layer, parts in weights_of(network).items():
            for index, part in enumerate(parts):
                slope = slopes[layer][index]
                m, v = moments.get((layer, index), (0.0, 0.0))
                m, v = moments[layer, index] = 0.9 * m + 0.1 * slope, 0.999 * v + 0.001 * slope**2
                moved = RATE * np.sqrt(1 - 0.999**step) / (1 - 0.9**step) * m / (np.sqrt(v) + 1e-7)
                # Where a slope is next to nothing, Adam makes a whole step of its rounding.
                clear = np.sqrt(v) > 1e-3 * np.sqrt(v).max()
                np.testing.assert_allclose(
                    part[clear], (before[layer][index] - moved)[clear], rtol=0, atol=1e-2 * RATE, err_msg=layer
                )
    assert all(np.array_equal(a, b) for a, b in zip(frozen, teacher.get_weights(), strict=True))


def test_layers_that_no_tap_reaches_stay_without_a_word(teacher, images, scales, uncompiled, recwarn):
    stage = types.SimpleNamespace(**{**vars(STAGES["mirrored"]), "tap_weights": (("conv3_4", 1.0),)})
    network = new_student()
    trainer, before = trainer_of(network, teacher, stage, scales), weights_of(network)
    trainer.compile(optimizer=adam(RATE))
    fit(trainer, [new_batch(images)])
    moved = {name for name, parts in weights_of(network).items() if not np.array_equal(parts[0], before[name][0])}
    assert "fc7" in moved and "pool4" in moved and not moved & {"conv3_3", "pool2", "conv1_1", "image_linear"}
    assert not [str(told.message) for told in recwarn if "Gradients" in str(told.message)]


def test_scales_are_the_deviations_from_each_channels_mean(teacher, images, scales):
    by_hand = teacher_by_hand(weights_of(teacher), images.astype("float64"))
    assert set(scales) == set(TAPS)
    for tap, values in by_hand.items():
        channels = values.reshape(-1, values.shape[-1])
        assert scales[tap] == pytest.approx(np.sqrt(channels.var(axis=0).mean()), rel=1e-4)
    constant = np.full((2, SIDE, SIDE, 3), 7, np.uint8)
    assert tap_scales(teacher, constant)["image"] == 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", STAGES)
def test_cached_features_change_nothing(name, teacher, images, scales, uncompiled):
    stage, found = STAGES[name], []
    for cached in (False, True):
        network, rng = new_student(), np.random.default_rng(5)
        trainer, batches = trainer_of(network, teacher, stage, scales), []
        trainer.compile(optimizer=adam(RATE))
        features = CachedFeatures(trainer.teacher, [tap for tap, _ in stage.tap_weights], images, True, BATCH)
        for _ in range(4):
            chosen, mirrored = rng.integers(0, len(images), BATCH), rng.random(BATCH) < 0.5
            image = np.where(mirrored[:, None, None, None], images[chosen][:, :, ::-1], images[chosen])
            batch = {"image": image, "text": rng.standard_normal((BATCH, TEXT_DIM)).astype("float32")}
            batches.append(batch | ({"features": features.of(chosen, mirrored)} if cached else {}))
        found.append((fit(trainer, batches), network.get_weights()))
    (losses, weights), (cached_losses, cached_weights) = found
    for step, other in zip(losses, cached_losses, strict=True):
        assert other == pytest.approx(step, rel=1e-6)
    # To the bit where this was written.
    for ours, theirs in zip(weights, cached_weights, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-3 * RATE)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="JAX runs these tests itself")
def test_jax_takes_the_same_steps():
    """The same tests in a process of JAX."""
    environment = os.environ | {"KERAS_BACKEND": "jax", "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    # Most of the time goes into XLA.
    environment["XLA_FLAGS"] = "--xla_backend_optimization_level=0"
    chosen = ("-k", "hand_calculation or scales")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__, *chosen]
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
    assert "5 passed" in found.stdout
