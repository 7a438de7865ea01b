"""TensorFlow's side of `benchmarks.train_step --objectives=kd_dlgan`: KD-DLGAN's step in the real stage loop.

Options as in `benchmarks/tensorflow_steps.py`. BigGAN's generator and discriminator of `64 width` channels; the teacher
is the last map of a VGG19 with random weights, averaged over its places, of length 1, and sees real and generated
images at each step; hinge, AGKD, CGKD with ten random prompts, no augmentation, the moving average of the weights.
"""

import json
import sys

import keras
import numpy as np

from benchmarks.steps import (
    BETA_2,
    EMA,
    HEAD_UNITS,
    KD_WEIGHTS,
    LEARNING_RATE,
    NOISE_DIM,
    PROMPTS,
    WIDEST,
)
from benchmarks.tensorflow_gan_steps import captioned_student, train
from benchmarks.tensorflow_steps import (
    IMAGES,
    begin,
    layer_values,
    operations,
    random_images,
    random_teacher,
)
from t2i_kd.data.batches import Batches
from t2i_kd.kd_dlgan import KDDLGANOptions, KDDLGANRecipe
from t2i_kd.kd_dlgan.networks import Discriminator, FeatureHead, build_generator
from t2i_kd.kd_dlgan.objective import unit_rows
from t2i_kd.kd_dlgan.trainer import OBJECTIVE, KDDLGANTrainer, Teaching
from t2i_kd.options import GanOptions, TrainingOptions
from t2i_kd.recipe import SeedDiversityStage


def random_tower(resolution, width):
    """A teacher's image tower with random weights: images to vectors of length 1."""
    teacher = random_teacher(resolution, width)
    last = list(teacher.output.values())[-1]
    mean = keras.layers.GlobalAveragePooling2D(dtype="float32")(last)
    tower = keras.Model(teacher.input, keras.layers.UnitNormalization(dtype="float32")(mean))
    tower.trainable = False
    return tower


def step_operations(generator, tower, discriminator, batch_size):
    """Operations of a step, see `tensorflow_steps.operations`.

    The generator is passed once, with a gradient; the tower sees real and generated images; the discriminator sees both
    with a gradient to its weights, and the generated ones once more with one to the images.
    """
    own, seen, judged = (operations(each, batch_size) for each in (generator, tower, discriminator.trunk))
    return 3 * own + 2 * seen + 8 * judged


def main(options):
    """Trains as long as it is told to."""
    begin(options)
    resolution, batch_size, text_dim = options["resolution"], options["batch_size"], options["text_dim"]
    channels, rng = round(WIDEST * options["width"]), np.random.default_rng(1)
    generator = build_generator(resolution, text_dim, NOISE_DIM, channels)
    discriminator, tower = Discriminator(resolution, text_dim, channels), random_tower(resolution, options["width"])
    dim = tower.output.shape[-1]
    head = FeatureHead(discriminator.width, HEAD_UNITS, dim)
    prompts = keras.ops.convert_to_numpy(unit_rows(rng.standard_normal((PROMPTS, dim), np.float32)))
    dataset = random_images(IMAGES, resolution)
    vectors = rng.standard_normal((IMAGES, text_dim), np.float32)

    def batches(first, last):
        return Batches(dataset, {"text": vectors}, batch_size, 0, first, last, noise_dim=NOISE_DIM, flip=True)

    network, encoder = captioned_student(generator, text_dim)
    stage = SeedDiversityStage("stage", OBJECTIVE, 10**6, learning_rate=LEARNING_RATE)
    recipe = KDDLGANRecipe(
        gan=GanOptions(beta_2=BETA_2), training=TrainingOptions(ema=EMA), kd=KDDLGANOptions(**KD_WEIGHTS)
    )
    trainer = KDDLGANTrainer(network, encoder, discriminator, Teaching(tower, prompts, head), recipe)
    values = {"prompts": prompts}
    values |= layer_values("generator", generator.layers) | layer_values("tower", tower.layers)
    for each in (discriminator, head):
        values |= layer_values(each.name, each.normalised, each.vectors, f"{each.name}_")
    train(trainer, stage, batches, options, values, step_operations(generator, tower, discriminator, batch_size))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
