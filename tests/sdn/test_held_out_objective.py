"""What a stage minimises and what `tap_distance` measures of the same pictures are one number."""

import keras
import numpy as np
import pytest

from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.metrics import context as context_module
from t2i_kd.metrics import resampling, tap_distance
from t2i_kd.metrics.context import EvaluationContext
from t2i_kd.metrics.tap_errors import TapObjective, tap_scales
from t2i_kd.recipe_flags import parse_stage
from t2i_kd.sdn import SDNStage
from t2i_kd.sdn.trainer import SDNTrainer
from t2i_kd.teachers.tap_weights import resolve_tap_weights
from t2i_kd.teachers.vgg19 import build_vgg19

COUNT = 20


@pytest.fixture
def teacher(monkeypatch):
    keras.utils.set_random_seed(0)
    network = build_vgg19(32, width=1 / 32)
    monkeypatch.setattr(context_module, "load_teacher", lambda recipe, resolution: network)
    return network


def pictures(split, seed):
    images = np.random.default_rng(seed).integers(0, 256, (COUNT, 32, 32, 3), np.uint8)
    captions = tuple((f"picture {i}",) for i in range(COUNT))
    return CaptionedImages(f"noise/{split}", images, captions, np.zeros(COUNT, int), ("noise",))


class Negatives:
    resolution = 32

    def __init__(self, images):
        self.images = images

    def generate(self, captions, seeds):
        return np.stack([255 - self.images[int(caption.split()[1])] for caption in captions])


@pytest.mark.parametrize(
    "fields",
    [
        "error=squared scaling=normalised",
        "error=charbonnier scaling=normalised tap_weights=image:0.5,conv3_*:2",
        "error=annealed scaling=raw",
        "error=l1 scaling=raw tap_weights=pool5:1",
    ],
)
def test_the_objective_on_the_test_split_is_the_stages_own(teacher, fields):
    stage = parse_stage(f"two: objective=perceptual steps=1 {fields}", SDNStage)
    train, test = pictures("train", 1), pictures("test", 0)
    cache = {("split", name, 32, 32): data for name, data in (("train", train), ("test", test))}
    evaluated = EvaluationContext(
        Negatives(test.images),
        "noise",
        num_captions=COUNT,
        tap_objective=TapObjective(stage.error, stage.scaling, stage.tap_weights),
        cache=cache,
    )
    measured = tap_distance.measure(evaluated)
    line = f"tap_objective_{stage.error}_{stage.scaling}_vgg19_average_32_n{COUNT}"

    weights = resolve_tap_weights(stage.tap_weights, teacher.output)
    measured_scales = tap_scales(teacher, train.images)
    scales = {tap: measured_scales[tap] if stage.scaling == "normalised" else 1.0 for tap in weights}
    drawn = keras.Input((32, 32, 3), name="drawn")
    trainer = SDNTrainer(keras.Model({"drawn": drawn}, {"image": drawn}), teacher, stage, scales, steps=1)
    if trainer.step is not None:
        trainer.step.assign(1)  # annealed errors are measured as they are at a stage's end
    loss, _ = trainer.loss_terms({"image": test.images, "drawn": 255 - test.images.astype("float32")})
    assert resampling.resampled(measured, 0, 0)[line][0] == pytest.approx(float(loss), rel=1e-5)
    assert measured.protocol["objective_error"] == stage.error
    assert measured.protocol["objective_scaling"] == stage.scaling


def test_scales_are_what_training_measured_to_the_bit(teacher):
    """Plain forward passes, batch by batch, give what Keras's `predict` gives."""
    images = pictures("train", 1).images
    taps = teacher.predict(images.astype("float32"), batch_size=16, verbose=0)
    expected = {
        name: max(float(np.sqrt(np.mean(np.square(v - v.mean((0, 1, 2), dtype="float64"))))), 1e-6)
        for name, v in taps.items()
    }
    assert tap_scales(teacher, images) == expected
