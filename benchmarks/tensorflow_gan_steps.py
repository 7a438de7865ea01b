"""TensorFlow's side of `benchmarks.train_step --objectives=adversarial`: SDN's third stage in the real stage loop.

Options as in `benchmarks/tensorflow_steps.py`. The generator has noise and modulation; heads at the default taps of a
VGG19 with random weights, mixed across channels and scales; hinge, the text by projection, no augmentation, no further
terms; the moving average of the weights.
"""

import json
import sys
import types
from pathlib import Path

import keras
import numpy as np

from benchmarks.steps import BETA_2, CHANNELS, EMA, LEARNING_RATE, NOISE_DIM, peak
from benchmarks.tensorflow_steps import (
    IMAGES,
    Turns,
    begin,
    large_convolution,
    layer_values,
    operations,
    random_images,
    random_teacher,
    train_halted,
    write_start,
)
from t2i_kd.conditions.base import Input
from t2i_kd.data.batches import Batches, caption_numbers
from t2i_kd.metrics.tap_errors import tap_scales
from t2i_kd.options import GanOptions, TrainingOptions
from t2i_kd.sdn import SDNStage
from t2i_kd.sdn.adversarial import ADVERSARIAL, SDNAdversarialTrainer
from t2i_kd.training.loop import StagePlan
from t2i_kd.training.mirrored_generator import build_generator
from t2i_kd.training.projected import ProjectedDiscriminators, build_projection, default_taps
from t2i_kd.training.text_to_image import build_student
from t2i_kd.training.trainer import restored


def random_projection(resolution, width, images):
    """The frozen network in front of the heads, its taps from the finest to the coarsest."""
    teacher = random_teacher(resolution, width)
    shapes = {tap: tuple(output.shape[1:]) for tap, output in teacher.output.items()}
    taps = default_taps(shapes)
    seen = keras.Model(teacher.input, {tap: teacher.output[tap] for tap in taps})
    scales = tap_scales(seen, images)
    return build_projection(seen, {tap: scales[tap] for tap in taps}, "scales", 0), scales


def step_operations(generator, discriminators, batch_size):
    """Operations of a step, see `tensorflow_steps.operations`.

    A trained network's gradient costs two passes more, a frozen one's one. The generator is passed once; projection and
    heads see the generated and the real images, and the generator's gradient goes through both once more.
    """
    own, seen = (operations(each, batch_size) for each in (generator, discriminators.projection))
    heads = sum(operations(each.trunk, batch_size) for each in discriminators.heads)
    return 3 * own + 3 * seen + 8 * heads


def start_values(generator, discriminators, scales):
    """{name: array} that the other side starts from, beside the batch."""
    values = {f"scale/{tap}": scales[tap] for tap in discriminators.projection.output}
    values |= layer_values("student", generator.layers)
    values |= layer_values("teacher", discriminators.projection.layers)
    for tap, head in zip(discriminators.projection.output, discriminators.heads, strict=True):
        values |= layer_values(f"head/{tap}", head.normalised, head.vectors, f"{head.name}_")
    return values


def captioned_student(generator, text_dim):
    """(a student of text vectors, its encoder, which leaves them as they are)."""
    text = keras.Input((text_dim,), name="text")
    encoder = keras.Model({"text": text}, keras.layers.Identity()(text))
    condition = types.SimpleNamespace(inputs={"text": Input((text_dim,), "float32")})
    return build_student(condition, encoder, generator), encoder


def first_loss(trainer, batch):
    """Both losses at the weights that both sides start from, after what precedes a step of the discriminators."""
    with restored(trainer.variables):
        trainer.prepare_discriminators()
        generated = trainer.generate(batch)
        return sum(float(each(batch, generated)[0]) for each in (trainer.discriminator_terms, trainer.generator_terms))


def train(trainer, stage, batches, options, values, step_operations):
    """Writes what the other side starts from, and trains a stage in the real loop, halted between turns.

    Args:
        trainer: `AdversarialTrainer`.
        stage: its stage.
        batches: function of (first step, last step) that gives the batches.
        options: of the worker.
        values: {name: array} of the networks, for the other side.
        step_operations: of a step, which is answered with the first loss.
    """
    batch = batches(0, 1)[0]
    write_start(options["folder"], batch, values)
    first = {
        "operations": step_operations,
        "peak": peak(large_convolution(), options["clock"]),
        "loss": first_loss(trainer, batch),
    }
    training = TrainingOptions(
        batch_size=options["batch_size"],
        checkpoint_every=10**9,
        log_every=10,
        sample_every=options["steps"],
        ema=trainer.ema,
        **options.get("training", {}),
    )
    plan, folder = StagePlan(stage, 0, stage.steps), Path(options["folder"])
    train_halted(plan, trainer, batches, training, folder, Turns(first, options["steps"]))


def main(options):
    """Trains as long as it is told to."""
    begin(options)
    resolution, batch_size, text_dim = options["resolution"], options["batch_size"], options["text_dim"]
    generator = build_generator(
        resolution, text_dim, options["width"], NOISE_DIM, "looks_linear", "centred", modulation=True
    )
    dataset = random_images(IMAGES, resolution)
    projection, scales = random_projection(resolution, options["width"], np.stack(dataset.images))
    discriminators = ProjectedDiscriminators(projection, text_dim, CHANNELS)
    vectors = np.random.default_rng(1).standard_normal((IMAGES, text_dim), np.float32)

    inputs = {"text": vectors} | caption_numbers(dataset)

    def batches(first, last):
        return Batches(dataset, inputs, batch_size, 0, first, last, noise_dim=NOISE_DIM, flip=True)

    network, encoder = captioned_student(generator, text_dim)
    stage = SDNStage("stage", ADVERSARIAL, 10**6, learning_rate=LEARNING_RATE)
    trainer = SDNAdversarialTrainer(
        network,
        encoder,
        discriminators,
        None,
        stage,
        {},
        {},
        GanOptions(beta_2=BETA_2),
        EMA,
    )
    values = start_values(generator, discriminators, scales)
    train(trainer, stage, batches, options, values, step_operations(generator, discriminators, batch_size))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
