"""The step of ICSD-GAN: which loss moves which variables, golden values, and what counts as a wrong caption."""

import dataclasses
import re

import keras
import numpy as np
import pytest

from t2i_kd.data import from_arrays
from t2i_kd.errors import UserError
from t2i_kd.icsd_gan import IcsdOptions, IcsdRecipe
from t2i_kd.icsd_gan.trainer import ICSDGAN, ICSDTrainer
from t2i_kd.options import DataOptions, GanOptions, StudentOptions, TeacherOptions, TextOptions, TrainingOptions
from t2i_kd.recipe import ContrastiveStage
from t2i_kd.training.batch_captions import BatchCaptions

RECIPE = IcsdRecipe(
    data=DataOptions(resolution=32),
    text=TextOptions(text_dim=6, word_dim=4, text_length=8),
    teacher=TeacherOptions(teacher="none"),
    student=StudentOptions(noise_dim=3),
    training=TrainingOptions(batch_size=4),
    gan=GanOptions(discriminator_channels=4, gradient_penalty="r1"),
    icsd=IcsdOptions(image_stages=3, generator_channels=8, condition_dim=4),
    stages=(ContrastiveStage("gan", "icsd", steps=4, learning_rate=2e-4, frozen=("text_*",)),),
)
# Parts of the generator by the beginning of their layers' names; an image's own convolution is a part of its own.
PARTS = ("text_encoder", "condition", "stage_8", "stage_16", "stage_32", "rgb_8", "rgb_16", "rgb_32")


def changed(**groups):
    return dataclasses.replace(
        RECIPE, **{name: dataclasses.replace(getattr(RECIPE, name), **values) for name, values in groups.items()}
    )


@pytest.fixture(scope="module")
def system():
    system = ICSDGAN(RECIPE)
    system.prepare()
    return system


def trainer_of(system, recipe=RECIPE):
    """A trainer whose weights a NumPy generator drew, the same on every machine and backend."""
    trainer = ICSDTrainer(system.network, "tokens", recipe, 4)
    rng = np.random.default_rng(0)
    for variable in [*trainer.generator.variables, *(v for each in trainer.discriminators for v in each.variables)]:
        shape = tuple(variable.shape)
        if variable.path.endswith(("moving_variance", "gamma")):
            variable.assign(np.ones(shape))
        elif len(shape) < 2:
            variable.assign(np.zeros(shape))
        else:
            variable.assign(rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1])))
    trainer.compile(optimizer=trainer.make_optimizer(recipe.stages[0], 4, recipe.training))
    trainer.optimizer.build(trainer.trainable_variables)
    return trainer


def batch_of(system, recipe=RECIPE):
    rng = np.random.default_rng(1)
    captions = ["a small red circle", "a large blue square", "a green cross", "a large blue square"]
    batch = {
        "image": rng.integers(0, 256, (4, 32, 32, 3)).astype("uint8"),
        **system.condition.arrays(captions),
        "caption_number": np.array([0, 1, 2, 1]),
        "own_captions": np.array([[0], [1], [2], [1]]),
        "noise": rng.standard_normal((4, 7)).astype("float32"),
    }
    if recipe.gan.augmentation:
        batch["uniforms"] = rng.random((4, 14)).astype("float32")
    return {name: keras.ops.convert_to_tensor(values) for name, values in batch.items()}


def part(path):
    discriminator = re.match(r"discriminator_\d+", path)
    if discriminator:
        return discriminator[0]
    drawn = re.search(r"stage_(\d+)_rgb", path)
    return f"rgb_{drawn[1]}" if drawn else next(name for name in PARTS if name in path)


def reached(trainer, batch, which):
    """{term: the parts whose variables its gradient is not 0 for}."""
    import tensorflow as tf

    variables = trainer.generator.trainable_variables + trainer.discriminator_variables
    with tf.GradientTape(persistent=True) as tape:
        generated = trainer.generate(batch)
        if which == "discriminator":
            generated = {name: tf.stop_gradient(values) for name, values in generated.items()}
        loss, terms = getattr(trainer, f"{which}_terms")(batch, generated)
    found = {}
    for name, term in {"loss": loss, **terms}.items():
        gradients = tape.gradient(term, [variable.value for variable in variables])
        moved = [v for v, g in zip(variables, gradients, strict=True) if g is not None and np.any(g)]
        found[name] = {part(variable.path) for variable in moved}
    return found


def test_every_loss_reaches_its_own_variables(system):
    trainer, batch = trainer_of(system), batch_of(system)
    discriminators = {f"discriminator_{side}" for side in (8, 16, 32)}
    found = reached(trainer, batch, "discriminator")
    assert found.pop("loss") == discriminators
    assert found == {
        f"{kind}_{side}": {f"discriminator_{side}"} for kind in ("discriminator", "penalty") for side in (8, 16, 32)
    }
    found = reached(trainer, batch, "generator")
    first = {"condition", "stage_8"}
    both = {*first, "stage_16"}
    assert {name: parts - discriminators for name, parts in found.items()} == {
        "generator_8": {*first, "rgb_8"},
        "generator_16": {*both, "rgb_16"},
        "generator_32": {*both, "stage_32", "rgb_32"},
        "kl": {"condition"},
        # The refined stage teaches and is not taught.
        "icsd": both,
        "loss": {*both, "stage_32", "rgb_8", "rgb_16", "rgb_32"},
    }


def test_distillation_through_the_discriminators_reaches_the_coarse_images(system):
    recipe = changed(icsd={"icsd_features": "discriminator"})
    found = reached(trainer_of(system, recipe), batch_of(system), "generator")["icsd"]
    assert {name for name in found if not name.startswith("discriminator")} == {
        "condition",
        "stage_8",
        "stage_16",
        "rgb_8",
        "rgb_16",
    }


def test_a_step_moves_everything_but_the_frozen_text_encoder(system):
    trainer, batch = trainer_of(system), batch_of(system)
    before = {variable.path: np.array(variable) for variable in trainer.kept_variables}
    trainer.train_step(batch)
    still = {v.path for v in trainer.kept_variables if np.array_equal(before[v.path], v)}
    assert still == {variable.path for variable in trainer.generator.get_layer("text_encoder").variables}


# Of the step below, computed by this code on 2026-11-24; any change of the mathematics shows here.
GOLDEN = {
    "loss": -0.100022,
    "generator_8": -0.243682,
    "generator_16": 0.087727,
    "generator_32": -0.242537,
    "kl": 0.003268,
    "icsd": 0.291934,
    "discriminator_loss": 6.185575,
    "discriminator_8": 2.078727,
    "penalty_8": 0.180526,
    "discriminator_16": 1.984082,
    "penalty_16": 0.10233,
    "discriminator_32": 1.800346,
    "penalty_32": 0.039564,
}


def test_one_step_has_the_golden_losses(system):
    recipe = changed(gan={"augmentation": "color,translation,cutout"})
    trainer, batch = trainer_of(system, recipe), batch_of(system, recipe)
    logs = {name: float(value) for name, value in trainer.train_step(batch).items()}
    assert logs.keys() - GOLDEN.keys() == {"gradient_norm", "discriminator_gradient_norm"}
    assert {name: logs[name] for name in GOLDEN} == pytest.approx(GOLDEN, rel=2e-4, abs=2e-6)


def test_the_losses_by_hand(system):
    """The weighted sum of the logged terms is what is minimised."""
    recipe = changed(icsd={"icsd_weight": 3.0, "kl_weight": 5.0})
    trainer, batch = trainer_of(system, recipe), batch_of(system)
    logs = {name: float(value) for name, value in trainer.train_step(batch).items()}
    expected = sum(logs[f"generator_{side}"] for side in (8, 16, 32)) + 5 * logs["kl"] + 3 * logs["icsd"]
    assert logs["loss"] == pytest.approx(expected, rel=1e-5)
    discriminator_loss = sum(logs[f"{kind}_{side}"] for kind in ("discriminator", "penalty") for side in (8, 16, 32))
    assert logs["discriminator_loss"] == pytest.approx(discriminator_loss, rel=1e-5)


def test_lambda_grows_over_the_warm_up(system):
    trainer = trainer_of(system, changed(icsd={"icsd_weight": 2.0, "icsd_warmup": 1.0}))
    weights = []
    for step in range(6):
        trainer.optimizer.generator.iterations.assign(step)
        weights.append(float(trainer._weight()))
    assert weights == [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]


def test_real_pictures_of_coarse_stages_are_averages_of_squares(system):
    batch = batch_of(system)
    pixels = np.asarray(batch["image"]).astype("float64")
    expected = pixels.reshape(4, 8, 4, 8, 4, 3).mean((2, 4))
    np.testing.assert_allclose(trainer_of(system)._real(batch, 8), expected, atol=1e-3)
    np.testing.assert_array_equal(trainer_of(system)._real(batch, 32), pixels)


def test_heads_on_the_teacher_take_real_images_for_real():
    """The loss by hand from the heads' scores of real, generated and wrongly captioned images."""
    images = np.random.default_rng(2).integers(0, 256, (8, 32, 32, 3), np.uint8)
    captions = [f"picture {index} of eight" for index in range(8)]
    recipe = changed(
        data={"dataset": "arrays"},
        teacher={"teacher": "vgg19_slim"},
        icsd={"discriminator": "teacher", "image_stages": 2},
        gan={"gradient_penalty": "none"},
    )
    system = ICSDGAN(recipe, dataset=from_arrays(images, captions, images, captions))
    (plan,) = system.plans
    trainer = system.own_trainer(plan)
    batch = {name: keras.ops.convert_to_tensor(each) for name, each in system.batches(plan, 0, 1)[0].items()}
    generated = trainer.generate(batch)
    real, fake = trainer.scores(batch)
    _, terms = trainer.discriminator_terms(batch, generated)
    checked = 0
    for stage, side in zip(trainer.stages, (16, 32), strict=True):
        seen = stage.view(stage.features(trainer._real(batch, side)))
        wrong = stage.scores(seen, keras.ops.roll(generated["text"], -1, axis=0))
        for name, scores in wrong.items():
            against = (np.maximum(0, 1 + fake[name]).mean(1) + np.maximum(0, 1 + np.asarray(scores)).mean(1)) / 2
            expected = np.maximum(0, 1 - real[name]).mean() + against.mean()
            (term,) = [each for each in terms if each.startswith("discriminator") and each.endswith(f"_{name}")]
            assert float(terms[term]) == pytest.approx(expected, rel=1e-3)
            checked += 1
    assert checked > 2


def test_plain_scores_are_of_real_images_first(system):
    trainer, batch = trainer_of(system), batch_of(system)
    text = trainer.generate(batch)["text"]
    real = trainer.scores(batch)[0]
    side = max(trainer.sides)
    expected, _ = trainer.discriminators[-1](trainer._real(batch, side), text)
    np.testing.assert_allclose(real[f"{side}"], expected, rtol=1e-4, atol=1e-5)


def test_a_batch_of_one_text_is_trained_on(system):
    trainer, batch = trainer_of(system), batch_of(system)
    alike = {**batch, "tokens": keras.ops.convert_to_tensor(np.asarray(batch["tokens"])[[0, 0, 0, 0]])}
    np.testing.assert_array_equal(BatchCaptions.of(batch, "tokens").next_differs(), [1, 1, 1, 1])
    np.testing.assert_array_equal(BatchCaptions.of(alike, "tokens").next_differs(), [0, 0, 0, 0])
    assert np.isfinite(float(trainer.discriminator_terms(alike, trainer.generate(alike))[0]))


def test_the_contrastive_loss_is_added_at_its_weight_to_both_losses():
    """That of every stage: to the heads' losses with real images, to the generator's with generated ones."""
    images = np.random.default_rng(2).integers(0, 256, (8, 32, 32, 3), np.uint8)
    captions = [f"picture {index} of eight" for index in range(8)]
    dataset = from_arrays(images, captions, images, captions)
    recipe = changed(
        data={"dataset": "arrays"},
        teacher={"teacher": "vgg19_slim"},
        icsd={"discriminator": "teacher", "image_stages": 2},
        gan={"gradient_penalty": "none"},
    )
    recipe = dataclasses.replace(recipe, stages=(dataclasses.replace(RECIPE.stages[0], caption_weight=0.5),))
    system = ICSDGAN(recipe, dataset=dataset)
    (plan,) = system.plans
    trainer = system.own_trainer(plan)
    trainer.compile(optimizer=trainer.make_optimizer(plan.stage, 4, recipe.training))
    batch = {name: keras.ops.convert_to_tensor(each) for name, each in system.batches(plan, 0, 1)[0].items()}
    generated = trainer.generate(batch)
    text, captions = generated["text"], BatchCaptions.of(batch, "tokens")
    expected = {"discriminator_terms": {}, "generator_terms": {}}
    for stage, name, side in zip(trainer.stages, ("image_16", "image"), (16, 32), strict=True):
        real = stage.features(trainer._real(batch, side))
        for which, kind, features in (
            ("discriminator_terms", "real", real),
            ("generator_terms", "generated", stage.features(generated[name])),
        ):
            value = stage.caption_loss(stage.view(features), text, captions)
            expected[which][f"caption_of_{kind}_{side}"] = float(value)
    for which, contrastive in expected.items():
        trainer.caption_weight = 0.5
        loss, terms = getattr(trainer, which)(batch, generated)
        assert {name: float(terms[name]) for name in contrastive} == pytest.approx(contrastive, rel=1e-4)
        trainer.caption_weight = 0.0
        plain, others = getattr(trainer, which)(batch, generated)
        assert terms.keys() - others.keys() == contrastive.keys()
        assert float(loss) == pytest.approx(float(plain) + 0.5 * sum(contrastive.values()), rel=1e-4)


@pytest.mark.parametrize(
    ("stage", "named"),
    [
        ({"caption_weight": -1.0}, "--stage gan: caption_weight is -1.0"),
        ({"caption_weight": 1.0}, "--stage gan: caption_weight needs --discriminator=teacher"),
        (
            {"caption_weight": 1.0, "objective": "ds_sje", "tap_weights": (("pool3", 1.0),)},
            "--stage gan: caption_weight is only for objective=icsd",
        ),
    ],
)
def test_a_contrastive_loss_that_no_head_has_is_named(stage, named):
    recipe = dataclasses.replace(
        changed(teacher={"teacher": "vgg19_slim"}), stages=(dataclasses.replace(RECIPE.stages[0], **stage),)
    )
    with pytest.raises(UserError, match=named):
        ICSDGAN(recipe)


@pytest.mark.parametrize(
    ("groups", "named"),
    [
        ({"training": {"batch_size": 1}}, "--batch_size"),
        ({"gan": {"discriminator_steps": 4}}, "--batch_size"),
        ({"gan": {"discriminator_steps": 3}}, "--discriminator_steps"),
        ({"gan": {"augmentation": "blur"}}, "--augmentation"),
        ({"icsd": {"image_stages": 4}}, "--image_stages"),
        ({"icsd": {"generator_channels": 6}}, "--generator_channels"),
        ({"icsd": {"icsd_weight": -1.0}}, "--icsd_weight"),
        ({"icsd": {"kl_weight": float("inf")}}, "--kl_weight"),
        ({"icsd": {"icsd_warmup": 1.5}}, "--icsd_warmup"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_named(groups, named):
    with pytest.raises(UserError, match=named):
        ICSDGAN(changed(**groups)).prepare()


def test_an_objective_of_another_system_is_named():
    stages = (ContrastiveStage("gan", "mirrored", steps=4),)
    with pytest.raises(UserError, match="objective is 'mirrored', none of icsd, ds_sje"):
        ICSDGAN(dataclasses.replace(RECIPE, stages=stages))
