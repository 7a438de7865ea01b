"""The step of KD-DLGAN: which loss moves which variables, the sum of the terms, averages, prompts, and bad recipes."""

import dataclasses

import keras
import numpy as np
import pytest

from t2i_kd.data.arrays import from_arrays
from t2i_kd.errors import UserError
from t2i_kd.kd_dlgan import KDDLGANOptions, KDDLGANRecipe
from t2i_kd.kd_dlgan.objective import aggregated_loss, correlated_loss
from t2i_kd.kd_dlgan.trainer import KDDLGAN, prompt_texts
from t2i_kd.options import (
    DataOptions,
    DualEncoderOptions,
    GanOptions,
    MirroredOptions,
    ProjectionOptions,
    StudentOptions,
    TeacherOptions,
    TextOptions,
    TrainingOptions,
)
from t2i_kd.recipe import SeedDiversityStage
from t2i_kd.training.joint_embedding import JointEmbeddingTrainer

tf = pytest.importorskip("tensorflow")
SIDE, BATCH = 32, 4
RECIPE = KDDLGANRecipe(
    data=DataOptions(resolution=SIDE),
    text=TextOptions(text_dim=6, word_dim=4, text_length=8),
    teacher=TeacherOptions(teacher="tests.dual_encoder"),
    student=StudentOptions(noise_dim=3),
    training=TrainingOptions(batch_size=BATCH, ema=0.9),
    gan=GanOptions(discriminator_channels=2, augmentation="color,translation,cutout"),
    kd=KDDLGANOptions(
        generator_channels=2,
        head_units=5,
        crossed_probability=0.5,
        agkd_length=3.0,
        diversity_weight=0.3,
        lecam_weight=0.3,
        lecam_start=0,
    ),
    stages=(SeedDiversityStage("gan", "kd_dlgan", steps=4, learning_rate=2e-3, frozen=("text_*",)),),
)
NO_LECAM = {"lecam_weight": 0.0, "lecam_start": 1000}
THROUGH_A_TEACHER = {"discriminator": "teacher", "generator": "mirrored", "generator_channels": 64, **NO_LECAM}
# Nothing that reads a teacher's vectors, nor what these terms alone read.
UNTAUGHT = dict.fromkeys(("agkd_weight", "cgkd_weight", "diversity_weight"), 0.0) | {
    "crossed_probability": 1.0,
    "agkd_length": 1.0,
    "head_units": 1024,
}


def changed(recipe=RECIPE, **groups):
    return dataclasses.replace(
        recipe, **{name: dataclasses.replace(getattr(recipe, name), **values) for name, values in groups.items()}
    )


PROJECTED = changed(
    kd=THROUGH_A_TEACHER,
    mirrored={"width": 1 / 32, "initializer": "he"},
    projection={"discriminator_taps": "half"},
)


def data():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, SIDE, SIDE, 3), np.uint8)
    labels = [0, 1] * 4
    captions = [("a cat", "a dog")[label] for label in labels]
    return from_arrays(images, captions, images[:2], captions[:2], labels, labels[:2], ("cat", "dog"))


def trainer_of(recipe):
    """A system that was prepared, and its stage's trainer, ready for a step."""
    keras.utils.set_random_seed(0)
    system = KDDLGAN(recipe, dataset=data())
    system.prepare()
    trainer = system.own_trainer(system.plans[0])
    trainer.compile(optimizer=trainer.make_optimizer(recipe.stages[0], 4, recipe.training))
    trainer.optimizer.build(trainer.trainable_variables)
    return system, trainer


def tensors(batch):
    return keras.tree.map_structure(keras.ops.convert_to_tensor, batch)


@pytest.fixture(scope="module")
def plain():
    system, trainer = trainer_of(RECIPE)
    return trainer, tensors(system.batches(system.plans[0], 0, 1)[0])


@pytest.fixture(scope="module")
def projected():
    system, trainer = trainer_of(PROJECTED)
    return trainer, tensors(system.batches(system.plans[0], 0, 1)[0])


@pytest.mark.parametrize("host", ["plain", "projected"])
def test_the_step_draws_what_the_student_draws(host, request):
    trainer, batch = request.getfixturevalue(host)
    student = trainer.generator
    drawn = student({name: batch[name] for name in student.input}, training=True)["image"]
    np.testing.assert_allclose(trainer.generate(batch)["image"], drawn, rtol=1e-4, atol=1e-2)


def part(path):
    """To which part of the networks a variable belongs."""
    if "feature_head" in path:
        return "head"
    if path.startswith("discriminator") and ("score" in path or "text" in path):
        return "score"
    return "trunk" if path.startswith("discriminator") else "generator"


def reached(trainer, batch, which):
    """{term: the parts whose trainable variables its gradient is not 0 for}."""
    variables = trainer.generator.trainable_variables + trainer.discriminator_variables
    trainer.prepare_discriminators()
    with tf.GradientTape(persistent=True) as tape:
        generated = trainer.generate(batch)
        if which == "discriminator":
            generated = {name: tf.stop_gradient(values) for name, values in generated.items()}
        loss, terms = getattr(trainer, f"{which}_terms")(batch, generated)
    found = {}
    for name, term in {"loss": loss, **terms}.items():
        if name.startswith(("real_for_real", "generated_for_real")):
            continue
        gradients = tape.gradient(term, [variable.value for variable in variables])
        moved = [v for v, g in zip(variables, gradients, strict=True) if g is not None and np.any(g)]
        found[name] = {part(variable.path) for variable in moved}
    return found


def test_every_loss_reaches_its_own_variables(plain):
    assert reached(*plain, "discriminator") == {
        "loss": {"trunk", "score", "head"},
        "discriminator": {"trunk", "score"},
        "lecam": {"trunk", "score"},
        "agkd": {"trunk", "head"},
        "cgkd": {"trunk", "head"},
    }
    assert reached(*plain, "generator") == {
        "loss": {"generator", "trunk", "score"},
        "generator_score": {"generator", "trunk", "score"},
        "diversity": {"generator"},
    }


def test_the_generators_loss_reaches_every_variable_of_a_text_encoder_that_is_not_frozen():
    stage = dataclasses.replace(RECIPE.stages[0], frozen=())
    system, trainer = trainer_of(dataclasses.replace(RECIPE, stages=(stage,)))
    batch = tensors(system.batches(system.plans[0], 0, 1)[0])
    with tf.GradientTape() as tape:
        loss, _ = trainer.generator_terms(batch, trainer.generate(batch))
    variables = trainer.generator_variables
    gradients = tape.gradient(loss, [variable.value for variable in variables])
    still = [v.path for v, g in zip(variables, gradients, strict=True) if g is None or not np.any(g)]
    encoder = system.network.get_layer("text_encoder").trainable_variables
    assert encoder and {each.path for each in encoder} <= {each.path for each in variables} and not still


def test_the_same_through_a_teachers_taps(projected):
    assert reached(*projected, "discriminator") == {
        "loss": {"trunk", "score", "head"},
        "discriminator_half": {"trunk", "score"},
        "agkd": {"trunk", "head"},
        "cgkd": {"trunk", "head"},
    }
    assert reached(*projected, "generator") == {
        "loss": {"generator", "trunk", "score"},
        "generator_half": {"generator", "trunk", "score"},
        "diversity": {"generator"},
    }


@pytest.mark.parametrize("host", ["plain", "projected"])
def test_a_step_moves_each_networks_own_variables(host, request):
    """The generator's optimizer never moves the discriminator, and the other way round; the teacher stays."""
    trainer, batch = request.getfixturevalue(host)
    before = {id(variable): np.array(variable) for variable in trainer.variables}
    logs = {name: float(value) for name, value in trainer.train_step(batch).items()}
    moved = {id(variable) for variable in trainer.variables if not np.array_equal(before[id(variable)], variable)}
    assert not moved & {id(variable) for variable in trainer.teacher.variables}
    assert not moved & {id(variable) for variable in trainer.generator.get_layer("text_encoder").variables}
    for each in trainer.discriminator_variables:
        assert id(each) in moved or not np.any(before[id(each)]), each.path
    assert np.isfinite(list(logs.values())).all()
    names = ("agkd", "cgkd", "lecam") if host == "plain" else ("agkd", "cgkd")
    weights = {"agkd": 10, "cgkd": 10, "lecam": 0.3}
    sums = ("discriminator_loss", "discriminator_gradient_norm")
    own = sum(value for name, value in logs.items() if name.startswith("discriminator") and name not in sums)
    expected = own + sum(weights[name] * logs[name] for name in names)
    assert logs["discriminator_loss"] == pytest.approx(expected, rel=1e-5)
    own = sum(value for name, value in logs.items() if name.startswith("generator_"))
    assert logs["loss"] == pytest.approx(own + 0.3 * logs["diversity"], rel=1e-5)


def test_the_distillation_is_of_what_teacher_and_head_see(plain):
    """Crossed terms are kept where the step's own random numbers are at most p."""
    trainer, batch = plain
    generated = trainer.generate(batch)
    _, terms = trainer.discriminator_terms(batch, generated)
    real = trainer.augmented(keras.ops.cast(batch["image"], "float32"), batch, real=True)
    fake = trainer.augmented(generated["image"], batch, real=False)
    r, f = (trainer.teacher(each) for each in (real, fake))
    d_r, d_f = (trainer.head(trainer.discriminator.trunk(each)) for each in (real, fake))
    kept = (np.asarray(batch["uniforms"])[:, -2:] <= 0.5).astype("float32")
    assert 0 < kept.mean() < 1
    assert float(terms["agkd"]) == pytest.approx(float(aggregated_loss(r, f, d_r, d_f, kept, 3.0)), rel=1e-4)
    assert float(terms["cgkd"]) == pytest.approx(float(correlated_loss(r, f, d_r, d_f, trainer.prompts)), rel=1e-4)


@pytest.mark.parametrize("side", [1, 2])
def test_one_captions_images_are_kept_apart_through_a_teachers_taps(side):
    """L_G has w_s max(0, target - rho), rho the share that two images of a caption differ by, by hand."""
    stage = dataclasses.replace(
        PROJECTED.stages[0], seed_diversity_weight=2.0, seed_diversity_target=0.9, seed_diversity_side=side
    )
    system, trainer = trainer_of(dataclasses.replace(PROJECTED, stages=(stage,)))
    batch = tensors(system.batches(system.plans[0], 0, 1)[0])
    generated = trainer.generate(batch)
    assert generated["second"].shape[0] == BATCH // 4
    # A network that has learned nothing draws nearly the same for every seed.
    generated["second"] = generated["second"] + tensors(np.linspace(0, 3, SIDE, dtype="float32")[:, None])
    loss, terms = trainer.generator_terms(batch, generated)

    def pooled(images):
        features = np.asarray(trainer.discriminator.features(images)["half"], "float64")
        parts = [half for rows in np.split(features, side, 1) for half in np.split(rows, side, 2)]
        return np.concatenate([part.mean((1, 2)) for part in parts], -1)

    first, second = (pooled(each)[0] for each in (generated["image"][:1], generated["second"]))
    real = pooled(np.stack(system.dataset.images).astype("float32"))
    spread = np.mean([np.linalg.norm(a - b) for i, a in enumerate(real) for b in real[i + 1 :]])
    share = np.linalg.norm(first - second) / spread
    assert float(terms["seed_diversity"]) == pytest.approx(share, rel=1e-3)
    assert float(terms["same_seeds"]) == pytest.approx(0.9 - share, rel=1e-3)
    own = float(terms["generator_half"]) + 0.3 * float(terms["diversity"])
    assert float(loss) == pytest.approx(own + 2 * (0.9 - share), rel=1e-4)
    moved = reached(trainer, batch, "generator")
    assert "generator" in moved["same_seeds"] and not moved["same_seeds"] & {"head", "score", "trunk"}


@pytest.mark.parametrize(
    ("stage", "kd", "named"),
    [
        ({"seed_diversity_weight": -1.0}, {}, "--stage gan: seed_diversity_weight is -1.0"),
        ({"seed_diversity_weight": 1.0, "seed_diversity_target": 0.0}, {}, "--stage gan: seed_diversity_target is 0.0"),
        ({"seed_diversity_weight": 1.0, "seed_diversity_side": 3}, {}, "--stage gan: seed_diversity_side is 3, not 1,"),
        ({"seed_diversity_side": 4}, {}, "--stage gan: seed_diversity_side is read only with a seed_diversity_weight"),
        ({"seed_diversity_weight": 1.0}, {"discriminator": "plain"}, "--stage gan: .* needs --discriminator=teacher"),
        (
            {"seed_diversity_weight": 1.0, "objective": "ds_sje", "tap_weights": (("half", 1.0),)},
            {},
            "--stage gan: seed_diversity_weight is only for objective=kd_dlgan",
        ),
    ],
)
def test_a_stage_that_cannot_keep_images_apart_is_named(stage, kd, named):
    recipe = changed(kd={**THROUGH_A_TEACHER, **kd, "generator": "biggan"})
    recipe = dataclasses.replace(recipe, stages=(dataclasses.replace(recipe.stages[0], **stage),))
    with pytest.raises(UserError, match=named):
        KDDLGAN(recipe, dataset=data())


def test_kernels_have_spectral_norm_1(plain):
    trainer, _ = plain
    normalise = tf.function(trainer.prepare_discriminators)
    for _ in range(30):
        normalise()
    kernels = [layer.kernel for each in trainer.discriminators for layer in each.normalised]
    assert len(kernels) == len([v for v in trainer.discriminator_variables if v.path.endswith("kernel")])
    for kernel in kernels:
        matrix = np.asarray(kernel).reshape(-1, kernel.shape[-1])
        assert np.linalg.norm(matrix, 2) == pytest.approx(1, abs=0.05)


def test_lecams_averages_begin_as_the_last_scores_and_are_kept(plain, monkeypatch):
    trainer, _ = plain
    monkeypatch.setattr(trainer, "kd", dataclasses.replace(trainer.kd, lecam_start=2))
    right, fake = np.array([1.0, 3.0], "float32"), np.array([-1.0], "float32")
    for step, averages, penalty in ((0, [2, -1], 0), (1, [2, -1], 0)):
        trainer.optimizer.generator.iterations.assign(step)
        assert float(trainer.lecam(right, fake)) == penalty
        np.testing.assert_allclose(trainer.score_averages, averages)
    trainer.optimizer.generator.iterations.assign(2)
    found = float(trainer.lecam(right + 1, fake))
    np.testing.assert_allclose(trainer.score_averages, [0.99 * 2 + 0.01 * 3, -1], rtol=1e-6)
    assert found == pytest.approx(((2 + 1) ** 2 + (4 + 1) ** 2) / 2 + (2.01 + 1) ** 2, rel=1e-5)
    assert any(each is trainer.score_averages for each in trainer.kept_variables)


def test_averages_are_the_weights_until_they_begin(plain, monkeypatch):
    trainer, _ = plain
    monkeypatch.setattr(trainer, "kd", dataclasses.replace(trainer.kd, ema_start=2))
    variable, average = trainer.averaged_variables[0], trainer.averages[0]
    for step, value, expected in ((0, 1.0, 1.0), (1, 3.0, 3.0), (2, 4.0, 3.1)):
        variable.assign(np.full(variable.shape, value))
        trainer.update_averages(keras.ops.convert_to_tensor(step))
        np.testing.assert_allclose(average, np.full(variable.shape, expected), rtol=1e-6)


def test_without_weights_there_is_no_teacher():
    system, trainer = trainer_of(changed(kd=UNTAUGHT, teacher={"teacher": "none"}))
    batch = tensors(system.batches(system.plans[0], 0, 1)[0])
    generated = trainer.generate(batch)
    terms = trainer.discriminator_terms(batch, generated)[1] | trainer.generator_terms(batch, generated)[1]
    assert trainer.teacher is None and not {"agkd", "cgkd", "diversity"} & set(terms)
    assert len(trainer.discriminators) == 1


def test_plain_views_of_real_images_are_kept():
    """Several discriminator steps cut a batch with kept vectors, too; the loss is that of vectors computed anew."""
    recipe = changed(
        kd={"teacher_sees": "plain"}, data={"flip": True}, gan={"discriminator_steps": 2}, training={"batch_size": 8}
    )
    stage = dataclasses.replace(recipe.stages[0], steps=50)
    system, trainer = trainer_of(dataclasses.replace(recipe, stages=(stage,)))
    batch = tensors(system.batches(system.plans[0], 0, 1)[0])
    expected = np.asarray(trainer.teacher(keras.ops.cast(batch["image"], "float32")))
    np.testing.assert_allclose(batch["features"]["vector"], expected, atol=1e-5)
    parts = trainer._parts(batch)
    assert [tuple(part["features"]["vector"].shape) for part in parts] == [(4, 6)] * 2
    np.testing.assert_array_equal(parts[1]["features"]["vector"], batch["features"]["vector"][4:])
    np.testing.assert_array_equal(parts[1]["image"], batch["image"][4:])
    loss, _ = trainer.discriminator_terms(parts[1], trainer.generate(parts[1]))
    assert np.isfinite(float(loss))


def test_a_set_of_one_caption_trains():
    """A hundred cats: then the noise is all, and prompts of one's own say what is told apart."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, SIDE, SIDE, 3), np.uint8)
    dataset = from_arrays(images, ["a cat"] * 6, images[:2], ["a cat"] * 2)
    system = KDDLGAN(changed(kd={"prompts": "a white cat; a black cat;a kitten"}), dataset=dataset)
    system.prepare()
    assert system.prompts.shape == (3, 6)
    trainer = system.own_trainer(system.plans[0])
    trainer.compile(optimizer=trainer.make_optimizer(RECIPE.stages[0], 4, RECIPE.training))
    trainer.optimizer.build(trainer.trainable_variables)
    batch = tensors(system.batches(system.plans[0], 0, 1)[0])
    assert np.isfinite(float(trainer.discriminator_terms(batch, trainer.generate(batch))[0]))
    different = system.generate(["a cat"] * 2)["image"]
    assert np.abs(different[0] - different[1]).max() > 0


def test_prompts():
    train = data().load("train", SIDE)
    assert prompt_texts(KDDLGANOptions(), train) == ["a cat", "a dog"]
    assert prompt_texts(KDDLGANOptions(prompt_template="a photo of a {}."), train)[1] == "a photo of a dog."
    assert prompt_texts(KDDLGANOptions(prompts="captions"), train) == ["a cat", "a dog"]
    with pytest.raises(UserError, match="--prompts: arrays/train has no names of its classes, such as '0'"):
        prompt_texts(KDDLGANOptions(), dataclasses.replace(train, label_names=("0", "1")))
    one = dataclasses.replace(train, labels=np.zeros(len(train), "int32"))
    with pytest.raises(UserError, match="--prompts: 1 prompt cannot be compared"):
        prompt_texts(KDDLGANOptions(), one)


@pytest.mark.parametrize(
    ("groups", "named"),
    [
        ({"teacher": {"teacher": "vgg19_slim"}}, "--teacher: vgg19_slim has no text tower"),
        ({"kd": {"agkd_weight": -1.0}}, "--agkd_weight"),
        ({"kd": {"cgkd_weight": float("inf")}}, "--cgkd_weight"),
        ({"kd": {"crossed_probability": 1.5}}, "--crossed_probability"),
        ({"kd": {"agkd_length": 0.0}}, "--agkd_length: 0.0 is not above 0"),
        ({"kd": {"prompt_template": "a cat"}}, "--prompt_template"),
        ({"kd": {"lecam_start": -1}}, "--lecam_start"),
        ({"kd": {"head_units": 0}}, "--head_units"),
        ({"kd": {"generator_channels": 0}}, "--generator_channels"),
        ({"data": {"resolution": 48}}, "--resolution: 48 is no power of two"),
        ({"student": {"noise_dim": 0}}, "--noise_dim"),
        ({"gan": {"gradient_penalty": "r1"}}, "--gradient_penalty"),
        ({"gan": {"discriminator_steps": 3}}, "--discriminator_steps"),
        ({"mirrored": {"width": 0.5}}, "--width: only --generator=mirrored reads it"),
        ({"projection": {"discriminator_taps": "half"}}, "--discriminator_taps: only --discriminator=teacher"),
        ({"kd": {"discriminator": "teacher"}}, "--lecam_weight"),
        ({"kd": {"prompts": "a" * 50 + ";b"}}, "--prompts: .* has 50 letters, the encoder takes 40"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_named(groups, named):
    with pytest.raises(UserError, match=named) as error:
        system = KDDLGAN(changed(**groups), dataset=data())
        system.prepare()
        system.own_trainer(system.plans[0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kd", "groups", "named"),
    [
        ({}, {}, "--teacher: only a term"),
        ({"teacher_sees": "plain"}, {}, "--teacher_sees: only a term"),
        (
            {"prompts": "x;y", "prompt_template": "the {}"},
            {"teacher": {"teacher": "none"}},
            "--prompts, --prompt_template",
        ),
        ({"head_units": 5}, {"teacher": {"teacher": "none"}}, "--head_units: only AGKD or CGKD"),
        ({"crossed_probability": 0.5}, {"teacher": {"teacher": "none"}}, "--crossed_probability: only AGKD"),
        ({"agkd_length": 10.0}, {"teacher": {"teacher": "none"}}, "--agkd_length: only AGKD"),
        ({"cgkd_variant": "paper"}, {"teacher": {"teacher": "none"}}, "--cgkd_variant: only CGKD"),
        ({"agkd_weight": 1.0, "cgkd_variant": "paper"}, {}, "--cgkd_variant: only CGKD"),
        ({"agkd_weight": 1.0, "prompts": "captions"}, {}, "--prompts: only CGKD or the diversity term"),
        ({"cgkd_weight": 1.0, "crossed_probability": 0.5}, {}, "--crossed_probability: only AGKD"),
        ({"diversity_weight": 1.0, "head_units": 5}, {}, "--head_units: only AGKD or CGKD"),
        ({"lecam_weight": 0.0, "lecam_start": 5, "agkd_weight": 1.0}, {}, "--lecam_start: only --lecam_weight"),
        ({"ema_start": 2, "agkd_weight": 1.0}, {"training": {"ema": 0.0}}, "--ema_start: only --ema"),
        ({"generator": "mirrored", "agkd_weight": 1.0}, {}, "--generator_channels: only --generator=biggan"),
        ({"agkd_weight": 1.0}, {"gan": {"penalty_every": 2}}, "--penalty_every: only --gradient_penalty"),
        ({"agkd_weight": 1.0}, {"gan": {"penalty_weight": 2.0}}, "--penalty_weight: only --gradient_penalty"),
    ],
)
def test_options_that_nothing_reads_are_named(kd, groups, named):
    with pytest.raises(UserError, match=named):
        KDDLGAN(changed(kd=UNTAUGHT | kd, **groups), dataset=data())


def test_a_text_stage_reads_the_teacher_of_a_gan_without_terms():
    text = SeedDiversityStage("text", "ds_sje", steps=2, tap_weights=(("pool4", 1.0),))
    recipe = changed(kd=UNTAUGHT, teacher={"teacher": "vgg19_slim"}, training={"batch_size": 2})
    recipe = dataclasses.replace(recipe, stages=(text, *recipe.stages))
    system = KDDLGAN(recipe, dataset=data())
    system.prepare()
    embedding, adversarial = map(system.own_trainer, system.plans)
    assert isinstance(embedding, JointEmbeddingTrainer) and adversarial.teacher is None


def test_seeds_kept_apart_need_a_generator_of_one_image_a_noise():
    """Batch normalisation makes two images of one noise, so that rho would be above 0 without any noise."""
    stage = dataclasses.replace(PROJECTED.stages[0], seed_diversity_weight=2.0)
    recipe = dataclasses.replace(changed(PROJECTED, kd={"generator": "biggan"}), mirrored=MirroredOptions())
    with pytest.raises(UserError, match="--stage gan: seed_diversity_weight needs --generator=mirrored"):
        KDDLGAN(dataclasses.replace(recipe, stages=(stage,)), dataset=data())


def test_vectors_that_keep_a_plain_discriminator_silent_are_told():
    (told,) = KDDLGAN(changed(kd={"agkd_length": 1.0} | NO_LECAM), dataset=data()).warnings()
    assert told.startswith("--agkd_length=1.0: AGKD draws a plain discriminator's features to vectors so short that")
    through_a_teacher = changed(PROJECTED, kd={"agkd_length": 1.0})
    assert not [line for line in KDDLGAN(through_a_teacher, dataset=data()).warnings() if "agkd_length" in line]


def test_averages_and_penalties_that_never_begin_are_told():
    recipe = changed(kd={"ema_start": 4, "lecam_start": 9})
    assert KDDLGAN(recipe, dataset=data()).warnings() == [
        "--ema_start=4: stage gan has 4 steps, so that nothing is averaged in it",
        "--lecam_start=9: stage gan has 4 steps, so that LeCam penalises nothing in it",
    ]
    assert not KDDLGAN(changed(kd={"ema_start": 3}), dataset=data()).warnings()
    assert not KDDLGAN(changed(kd=NO_LECAM), dataset=data()).warnings()


def test_towers_that_nothing_reads_are_named():
    found = []
    for given in ({"teacher_side": 64}, {"teacher_side": 64, "sentence_vocabulary": "vocab.txt"}):
        with pytest.raises(UserError) as error:
            KDDLGAN(dataclasses.replace(changed(kd=UNTAUGHT), towers=DualEncoderOptions(**given)), dataset=data())
        found.append(str(error.value))
    reader = "only a term with a weight above 0 (AGKD, CGKD or diversity) reads"
    assert found[0] == f"--teacher_side: {reader} it"
    assert found[1] in (f"--{one}, --{two}: {reader} them" for one, two in (sorted(given), sorted(given)[::-1]))


def test_the_classifier_inside_conse_does_not_measure():
    assert changed(teacher={"teacher": "conse"}).teachers == ["conse", "efficientnet_lite0"]
    assert RECIPE.mirrored == MirroredOptions() and RECIPE.projection == ProjectionOptions()
