"""TensorFlow's side of `benchmarks.train_step`: the real stage loop, halted between turns.

Options, one JSON object: `objective`, `resolution`, `batch_size`, `width`, `text_dim`, `dtype_policy`, `steps` of a
turn, `turns`, `folder`, where it writes `start.npz` (weights, scales and the first batch) for the other side. Also
`cached`: the teacher's features are cached; `keras_adam`: update as Keras does; `training`: further fields of
`TrainingOptions`.
"""

import contextlib
import json
import sys
import types
from pathlib import Path

import keras
import numpy as np

from benchmarks.steps import CLIPNORM, LEARNING_RATE, PEAK_SHAPE, Turn, answer, peak
from t2i_kd.data.batches import Batches
from t2i_kd.metrics.tap_errors import tap_scales
from t2i_kd.options import TrainingOptions
from t2i_kd.sdn import SDNStage
from t2i_kd.sdn.trainer import SDNTrainer
from t2i_kd.srpkd.networks import multiply_adds
from t2i_kd.teachers.vgg19 import CONVOLUTIONS, build_vgg19
from t2i_kd.training import optimizer
from t2i_kd.training.determinism import make_deterministic
from t2i_kd.training.feature_cache import CachedFeatures
from t2i_kd.training.loop import StagePlan, train_stage
from t2i_kd.training.memory import keep_freed_memory
from t2i_kd.training.mirrored_generator import build_generator

IMAGES = 64


def begin(options):
    """Makes a worker compute as training does, in its options' precision and from one seed."""
    make_deterministic()
    keras.config.set_dtype_policy(options["dtype_policy"])
    keras.utils.set_random_seed(0)


def random_teacher(resolution, width):
    """VGG19 with weights that keep the size of its maps; speed does not depend on which."""
    teacher = build_vgg19(resolution, width)
    rng = np.random.default_rng(0)
    for name in CONVOLUTIONS:
        kernel = teacher.get_layer(name).kernel
        kernel.assign(rng.standard_normal(kernel.shape, np.float32) * (2 / np.prod(kernel.shape[:3])) ** 0.5)
    teacher.trainable = False
    return teacher


def random_images(count, resolution):
    """A data set of smooth random pictures, one caption each."""
    coarse = np.random.default_rng(2).integers(0, 256, (count, 8, 8, 3), np.uint8)
    factor = resolution // 8
    images = coarse.repeat(factor, axis=1).repeat(factor, axis=2)
    captions = tuple((str(index),) for index in range(count))
    all_captions = [caption for (caption,) in captions]
    return types.SimpleNamespace(images=list(images), captions=captions, all_captions=all_captions)


def operations(network, batch_size):
    """Floating point operations of a network's forward pass as it is written: 2 a multiplication."""
    return 2 * batch_size * multiply_adds(network)


def step_operations(objective, network, teacher, batch_size):
    """Operations of a step: a trained network's gradient costs two passes more, a frozen one's one."""
    student, forward = (operations(each, batch_size) for each in (network, teacher))
    return 3 * student + (forward if objective == "mirrored" else 3 * forward)


def large_convolution():
    """A function that convolves once; see `benchmarks.steps.peak`."""
    import tensorflow as tf

    shapes = PEAK_SHAPE, (3, 3, PEAK_SHAPE[-1], PEAK_SHAPE[-1])
    image, kernel = (tf.cast(tf.random.normal(shape), keras.config.dtype_policy().compute_dtype) for shape in shapes)
    return tf.function(lambda: tf.nn.conv2d(image, kernel, 1, "SAME"))


def layer_values(kind, layers, vectors=(), prefix=""):
    """{"KIND/LAYER/WEIGHT": array} of layers for the other side.

    Args:
        kind: what the names begin with.
        layers: list of layers; those without weights are left out.
        vectors: the power iteration's vector of each layer, named `vector`, where they are normalised.
        prefix: what is left out of a layer's name, which begins with it.
    """
    values = {}
    for layer in layers:
        name = layer.name.removeprefix(prefix)
        values |= {f"{kind}/{name}/{weight.name}": np.asarray(weight) for weight in layer.weights}
    for layer, vector in zip(layers if vectors else (), vectors, strict=True):
        values[f"{kind}/{layer.name.removeprefix(prefix)}/vector"] = np.asarray(vector)
    return values


def write_start(folder, batch, values):
    """Writes what the other side starts from: the batch and {name: array}."""
    values |= {f"batch/{name}": value for name, value in batch.items() if name != "features"}
    np.savez(Path(folder) / "start.npz", **values)


class Turns:
    """Halts the stage loop between turns: answers what the last one took and waits for the next `go`.

    Args:
        first: what is answered after the first step.
        steps: of a turn.
    """

    def __init__(self, first, steps):
        self.first, self.steps, self.turn = first, steps, None

    def __call__(self, stage, step, events):
        if self.turn:
            self.turn.over()
        elif step == 1:
            answer(**self.first)
            return
        self.turn = Turn(self.steps)


def train_halted(plan, trainer, batches, training, folder, called):
    """`train_stage` in a process that treats memory as `python -m t2i_kd.train` does.

    `called` is called every `sample_every` steps and draws nothing, so that no averages are put in the weights' place.
    """
    keep_freed_memory()
    trainer.averaged = contextlib.nullcontext
    train_stage(plan, trainer, batches, training, folder, called)


def main(options):
    """Trains as long as it is told to."""
    if options.get("keras_adam"):
        optimizer.TensorFlowAdam = keras.optimizers.Adam
    begin(options)
    resolution, batch_size, width = options["resolution"], options["batch_size"], options["width"]
    teacher = random_teacher(resolution, width)
    network = build_generator(
        resolution, options["text_dim"], width, initializer="looks_linear", image_output="centred"
    )
    dataset = random_images(IMAGES, resolution)
    scales = tap_scales(teacher, np.stack(dataset.images))
    stage = SDNStage(
        "stage", options["objective"], 10**6, learning_rate=LEARNING_RATE, error="squared", scaling="normalised"
    )

    features = CachedFeatures(teacher, scales, dataset.images, True, batch_size) if options.get("cached") else None
    vectors = np.random.default_rng(1).standard_normal((IMAGES, options["text_dim"]), np.float32)

    def batches(first, last):
        return Batches(dataset, {"text": vectors}, batch_size, 0, first, last, flip=True, features=features)

    folder, batch = options["folder"], batches(0, 1)[0]
    values = {f"scale/{name}": value for name, value in scales.items()}
    values |= layer_values("student", network.layers) | layer_values("teacher", teacher.layers)
    write_start(folder, batch, values)
    first = {
        "operations": step_operations(options["objective"], network, teacher, batch_size),
        "peak": peak(large_convolution(), options["clock"]),
    }
    training = TrainingOptions(
        batch_size=batch_size,
        clipnorm=CLIPNORM,
        checkpoint_every=10**9,
        log_every=10,
        sample_every=options["steps"],
        **options.get("training", {}),
    )
    plan = StagePlan(stage, 0, stage.steps)
    trainer = SDNTrainer(network, teacher, stage, scales, plan.steps)
    first["loss"] = float(trainer.loss_terms(batch)[0])
    train_halted(plan, trainer, batches, training, folder, Turns(first, options["steps"]))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
