"""The loss of held-out images, by which a stage without discriminators says whether it still gains."""

import keras
import numpy as np
import pytest

from t2i_kd.data import from_arrays
from t2i_kd.options import DataOptions, StudentOptions, TeacherOptions, TextOptions, TrainingOptions
from t2i_kd.recipe_flags import parse_stage
from t2i_kd.sdn import SDNOptions, SDNRecipe, SDNStage
from t2i_kd.sdn.trainer import SDN

RNG = np.random.default_rng(0)
TRAINING, HELD_OUT = RNG.integers(0, 256, (8, 32, 32, 3), np.uint8), RNG.integers(0, 256, (6, 32, 32, 3), np.uint8)
CAPTIONS = ["a red picture", "a blue picture"]
DATASET = from_arrays(TRAINING, 4 * CAPTIONS, HELD_OUT, 3 * CAPTIONS)


def measured(stage):
    """The values of a stage's first weights, and the loss that NumPy makes of its images and the held-out ones."""
    keras.utils.set_random_seed(0)
    recipe = SDNRecipe(
        data=DataOptions(dataset="arrays", resolution=32),
        text=TextOptions(text_encoder="gru", text_dim=8, word_dim=4, text_length=6),
        teacher=TeacherOptions(teacher="none"),
        student=StudentOptions(noise_dim=0),
        sdn=SDNOptions(width=1 / 32, initializer="he", image_output="centred"),
        training=TrainingOptions(batch_size=2, measure_every=1),
        stages=(parse_stage(f"one: objective=mirrored steps=1 tap_weights=image:1 {stage}", SDNStage),),
    )
    system = SDN(recipe, dataset=DATASET)
    trainer = system.own_trainer(system.plans[0])
    before = [np.array(variable) for variable in trainer.variables]
    images = system.generate(3 * CAPTIONS)["image"]
    values = system.measure(trainer, 1)
    for variable, value in zip(trainer.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)
    return values, np.mean((images.astype(float) - HELD_OUT) ** 2)


def test_it_is_the_stages_loss_of_every_held_out_image():
    values, expected = measured("error=squared")
    assert values["held_out_loss"] == pytest.approx(expected, rel=1e-4)


def test_a_loss_that_changes_with_the_steps_is_not_compared():
    values, _ = measured("error=annealed")
    assert "held_out_loss" not in values and "kernel_distance_efficientnet_lite0_block5" in values
