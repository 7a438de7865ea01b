"""TensorFlow's side of `benchmarks.train_step --objectives=cycle_gan`: SRPKD's step of a CycleGAN in the real loop.

Options as in `benchmarks/tensorflow_steps.py`. Two ResNet-6 of `32 width` channels, each taught by one of `64 width`
with random weights (outputs and relations at the end of the encoder), PatchGANs of `64 width` channels, LSGAN, cycles,
identity, the pool.
"""

import json
import sys

import numpy as np

from benchmarks.steps import (
    BETA_1,
    DISTILLATION_WEIGHTS,
    HOST,
    HOST_BETA_2,
    LEARNING_RATE,
    NAMES,
    RESIDUAL_BLOCKS,
    WIDEST,
)
from benchmarks.tensorflow_gan_steps import train
from benchmarks.tensorflow_steps import IMAGES, begin, layer_values, operations, random_images
from t2i_kd.data.translation_batches import TranslationBatches
from t2i_kd.options import DataOptions, TrainingOptions
from t2i_kd.recipe import Stage
from t2i_kd.srpkd import DistillationOptions, HostOptions, SrpkdRecipe
from t2i_kd.srpkd.networks import build_discriminator, build_generator, default_tap
from t2i_kd.srpkd.trainer import CYCLE_GAN, UNIFORMS, CycleGANTrainer, Generators, ImagePool, TaughtGenerator


def step_operations(generator, teacher, discriminator, batch_size):
    """Operations of a step, see `tensorflow_steps.operations`.

    Each generator makes an image of its source, of the other's image and of its own target, all with a gradient; each
    teacher makes one. A discriminator sees a real and a generated image with a gradient to its weights, and the
    generated one once more with one to the image.
    """
    own, seen, judged = (operations(each, batch_size) for each in (generator, teacher, discriminator))
    return 2 * (3 * 3 * own + seen + 8 * judged)


def main(options):
    """Trains as long as it is told to."""
    begin(options)
    side, batch_size, channels = options["resolution"], options["batch_size"], round(WIDEST * options["width"])
    recipe = SrpkdRecipe(
        data=DataOptions(resolution=side),
        distillation=DistillationOptions(distil_generators="both", **DISTILLATION_WEIGHTS),
        host=HostOptions(beta_1=BETA_1, beta_2=HOST_BETA_2, **HOST),
        training=TrainingOptions(batch_size=batch_size),
    )
    tap, values, taught, teachers = default_tap("resnet", side), {}, [], []
    for name in NAMES:
        network, teacher = (
            build_generator("resnet", side, width, RESIDUAL_BLOCKS) for width in (channels // 2, channels)
        )
        teacher.trainable = False
        taught.append(TaughtGenerator(network, teacher, recipe, ((tap, tap),), None, name))
        teachers.append(teacher)
        values |= layer_values(f"student_{name}", network.layers) | layer_values(f"teacher_{name}", teacher.layers)
    discriminators = [
        build_discriminator(side, channels, 3, "instance", False, f"discriminator_{name}") for name in NAMES
    ]
    for each in discriminators:
        values |= layer_values(each.name, each.layers, prefix=f"{each.name}_")
    pools = {name: ImagePool(HOST["pool_size"], side, f"pool_{name}") for name in NAMES}
    trainer = CycleGANTrainer(
        Generators(*taught), teachers, discriminators, recipe, False, name="srpkd_cycle_gan", pools=pools
    )
    sides = np.array_split(np.stack(random_images(2 * IMAGES, side).images), 2)

    def batches(first, last):
        return TranslationBatches(*sides, False, side, batch_size, 0, first, last, True, UNIFORMS)

    stage = Stage("stage", CYCLE_GAN, 10**6, learning_rate=LEARNING_RATE)
    cost = step_operations(taught[0].network, teachers[0], discriminators[0], batch_size)
    train(trainer, stage, batches, options, values, cost)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
