"""SDN's third stage: what is minimised, what is moved and kept, and which recipes are refused."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
from scipy.spatial.distance import pdist

from t2i_kd.data import from_arrays
from t2i_kd.errors import UserError
from t2i_kd.options import (
    DataOptions,
    GanOptions,
    StudentOptions,
    TeacherOptions,
    TextOptions,
    TrainingOptions,
)
from t2i_kd.recipe_flags import parse_stage
from t2i_kd.sdn import SDNOptions, SDNRecipe, SDNStage
from t2i_kd.sdn.trainer import SDN
from t2i_kd.training.batch_captions import BatchCaptions
from t2i_kd.training.text_to_image import text_network

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (8, 32, 32, 3), np.uint8)
CAPTIONS = [f"picture {index} of four" for index in range(8)]
DATASET = from_arrays(IMAGES, CAPTIONS, IMAGES[:4], CAPTIONS[:4])
STAGE = "gan: objective=adversarial steps=4 learning_rate=1e-3 frozen=text_*"
RECIPE = SDNRecipe(
    data=DataOptions(dataset="arrays", resolution=32),
    text=TextOptions(text_encoder="gru", text_dim=8, word_dim=4, text_length=6),
    teacher=TeacherOptions(teacher="vgg19_slim"),
    student=StudentOptions(noise_dim=3),
    sdn=SDNOptions(width=1 / 32, initializer="he", image_output="centred"),
    gan=GanOptions(discriminator_channels=4),
    training=TrainingOptions(batch_size=4),
    stages=(parse_stage(STAGE, SDNStage),),
)


def changed(stage="", **groups):
    recipe = dataclasses.replace(
        RECIPE, **{name: dataclasses.replace(getattr(RECIPE, name), **values) for name, values in groups.items()}
    )
    return dataclasses.replace(recipe, stages=(parse_stage(f"{STAGE} {stage}", SDNStage),))


@functools.cache
def trainer_of(recipe):
    system = SDN(recipe, dataset=DATASET)
    (plan,) = system.plans
    trainer = system.own_trainer(plan)
    trainer.compile(optimizer=trainer.make_optimizer(plan.stage, plan.steps, recipe.training))
    trainer.optimizer.build(trainer.trainable_variables)
    batch = system.batches(plan, 0, 1)[0]
    return system, trainer, {name: keras.ops.convert_to_tensor(values) for name, values in batch.items()}


def test_the_heads_take_real_images_for_real_and_their_gradients_reach_the_generator():
    """The loss by hand from the heads' scores; what of L_G reaches the generator, term by term."""
    _, trainer, batch = trainer_of(changed("caption_weight=0.5 seed_diversity_weight=2 seed_diversity_target=0.9"))
    generated = trainer.generate(batch)
    real, fake = trainer.scores(batch)
    text, projected = generated["text"], trainer.projected
    view = projected.view(projected.features(np.asarray(batch["image"], "float32")))
    wrong = {name: np.asarray(each) for name, each in projected.scores(view, np.roll(text, -1, axis=0)).items()}
    _, terms = trainer.discriminator_terms(batch, generated)
    for name in real:
        faked = (np.maximum(0, 1 + fake[name]).mean(1) + np.maximum(0, 1 + wrong[name]).mean(1)) / 2
        expected = np.maximum(0, 1 - real[name]).mean() + faked.mean()
        assert float(terms[f"discriminator_{name}"]) == pytest.approx(expected, rel=1e-3)
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        return
    with tf.GradientTape(persistent=True) as tape:
        _, terms = trainer.generator_terms(batch, trainer.generate(batch))
    kernel = trainer.generator_variables[0].value
    for name in ("caption_of_generated", "same_seeds", *(f"generator_{name}" for name in real)):
        gradient = tape.gradient(terms[name], kernel)
        assert gradient is not None and np.any(gradient), name


def test_a_step_encodes_its_captions_once_and_draws_what_the_student_draws(monkeypatch):
    stage = "seed_diversity_weight=2 seed_diversity_target=0.9"
    system, trainer, batch = trainer_of(changed(stage, student={"whiten_text": True}))
    (gru,) = [layer for layer in system.network.get_layer("text_encoder").layers if layer.name.startswith("gru")]
    encoded, call = [], gru.call
    monkeypatch.setattr(gru, "call", lambda *given, **named: encoded.append(given) or call(*given, **named))
    generated = trainer.generate(batch)
    assert len(encoded) == 1 and generated["second"].shape[0] == 1
    drawn = system.network({name: batch[name] for name in system.network.input}, training=True)["image"]
    np.testing.assert_allclose(generated["image"], drawn, rtol=1e-4, atol=1e-2)


def test_a_layer_that_a_stage_would_leave_out_is_refused():
    network = trainer_of(changed())[0].network
    text = keras.layers.UnitNormalization(name="adapter")(network.get_layer("text_encoder")(network.input["tokens"]))
    outputs = network.get_layer("generator")({"text": text, "noise": network.input["noise"]})
    with pytest.raises(UserError, match="a stage would leave out its layers adapter"):
        text_network(keras.Model(network.input, outputs))


def test_none_of_an_images_own_captions_is_a_wrong_one():
    """Of four images with the same three captions none is; one with another caption is, and what follows it."""
    shared = [("a photo of a cat", "a cat", "a picture of a cat")] * 3
    for last, expected in (("a cat", 0), ("a dog", 1)):
        dataset = from_arrays(IMAGES[:4], [*shared, [last]], IMAGES[:4], CAPTIONS[:4])
        system = SDN(changed(training={"batch_size": 10}), dataset=dataset)
        found = BatchCaptions.of(system.batches(system.plans[0], 0, 1)[0], "tokens")
        # All ten pairs; that of the last image is followed by one with another caption than its own at times alone.
        (dog,) = [row for row in range(10) if np.sum(np.asarray(found.own)[row] >= 0) == 1]
        differs = np.asarray(found.next_differs())
        assert differs[dog - 1] == expected
        assert not np.delete(differs, [dog, dog - 1]).any()


def test_every_image_that_is_measured_has_noise_of_its_own(monkeypatch):
    """The images of a run's own measurement are made in several calls."""
    images = RNG.integers(0, 256, (70, 32, 32, 3), np.uint8)
    system = SDN(RECIPE, dataset=from_arrays(IMAGES, ["a cat"] * 8, images, ["a cat"] * 70))
    seen = []
    monkeypatch.setattr(system.measurements, "of", lambda images, over_seeds: seen.append(images) or {})
    (plan,) = system.plans
    system.measure(system.own_trainer(plan), 1)
    (generated,) = seen
    assert generated.shape[0] == 70 and len(np.unique(generated.reshape(70, -1), axis=0)) == 70


def test_the_distance_is_stage_twos_at_its_weight():
    weighted = "error=squared scaling=normalised tap_weights=image:2,conv2_2:1 distance_weight=0.3"
    system, trainer, batch = trainer_of(changed(weighted))
    generated = trainer.generate(batch)
    loss, terms = trainer.generator_terms(batch, generated)
    expected, scales = 0.0, system.measured_scales
    taps = [
        {k: np.asarray(v, float) for k, v in system.teacher(each).items()}
        for each in (np.asarray(batch["image"], "float32"), generated["image"])
    ]
    for tap, weight in {"image": 2, "conv2_2": 1}.items():
        expected += weight * np.square((taps[0][tap] - taps[1][tap]) / scales[tap]).mean()
    assert float(terms["distance"]) == pytest.approx(expected, rel=1e-4)
    heads = sum(float(value) for name, value in terms.items() if name.startswith("generator_"))
    assert float(loss) == pytest.approx(heads + 0.3 * expected, rel=1e-4)


def test_without_a_weight_there_is_no_distance():
    _, trainer, batch = trainer_of(RECIPE)
    loss, terms = trainer.generator_terms(batch, trainer.generate(batch))
    assert "distance" not in terms and float(loss) == pytest.approx(sum(map(float, terms.values())), rel=1e-5)


def test_a_step_moves_generator_and_heads_alone_and_keeps_no_teacher(uncompiled):
    system, trainer, _ = trainer_of(changed(student={"whiten_text": True}))
    frozen = [*trainer.projected.projection.variables, *system.network.get_layer("text_encoder").variables]
    before = [np.array(variable) for variable in frozen]
    moving = [*system.network.get_layer("generator").trainable_variables, *trainer.discriminator_variables]
    first = [np.array(variable) for variable in moving]
    trainer.fit(system.batches(system.plans[0], 0, 1), shuffle=False, verbose=0)
    for variable, values in zip(frozen, before, strict=True):
        np.testing.assert_array_equal(variable, values)
    moved = [not np.array_equal(variable, values) for variable, values in zip(moving, first, strict=True)]
    # A rectifier may leave a bias of so small a network without a gradient.
    assert np.mean(moved) > 0.8 and any(moved[-4:])
    kept = {id(variable) for variable in trainer.kept_variables}
    assert not kept & {id(variable) for variable in trainer.projected.projection.variables}
    assert {id(variable) for variable in moving} <= kept


@pytest.mark.parametrize("recipe", [RECIPE, changed("seed_diversity_weight=1")])
def test_health_scores_are_the_steps(recipe):
    """Of the weights as they are: the heads' shares that a step logs are those of its scores."""
    _, trainer, batch = trainer_of(recipe)
    batch = {name: np.asarray(values) for name, values in batch.items()}
    real, generated = trainer.scores(batch)
    assert list(real) == list(generated) == ["conv1_2", "conv2_2", "conv3_4", "conv4_4"]
    assert real["conv1_2"].shape == (4, 16)
    seen = trainer.projected.features(np.asarray(batch["image"], "float32"))
    texts = trainer.generate(batch)["text"]
    head = trainer.projected.heads[0]
    expected = head.scores(head.trunk(seen["conv1_2"]), head.text(texts))
    np.testing.assert_allclose(real["conv1_2"], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        (changed("error=annealed"), "--stage gan: error=annealed"),
        (changed("distance_weight=-1"), "--stage gan: distance_weight is -1.0"),
        (changed("tap_weights=image:2"), "--stage gan: tap_weights is read only with a distance_weight above 0"),
        (changed("error=squared"), "--stage gan: error is read only with a distance_weight above 0"),
        (changed("scaling=normalised"), "--stage gan: scaling is read only with a distance_weight above 0"),
        (changed("caption_weight=-1"), "--stage gan: caption_weight is -1.0"),
        (changed("seed_diversity_weight=-1"), "--stage gan: seed_diversity_weight is -1.0"),
        (changed("seed_diversity_weight=1 seed_diversity_target=0"), "--stage gan: seed_diversity_target is 0.0"),
        (
            changed("seed_diversity_target=0.9"),
            "--stage gan: seed_diversity_target is read only with a seed_diversity_w",
        ),
        (
            changed("seed_diversity_weight=1", student={"noise_dim": 0}),
            "--stage gan: seed_diversity_weight needs --noise_dim",
        ),
        (changed(gan={"gradient_penalty": "r1"}), "--gradient_penalty: heads on the teacher's taps"),
        (changed(gan={"discriminator_channels": 0}), "--discriminator_channels: 0"),
        (changed(gan={"augmentation": "blur"}), "--augmentation: 'blur'"),
        (changed(projection={"discriminator_taps": "conv9_9"}), "--discriminator_taps: 'conv9_9' is none of"),
        (changed(projection={"discriminator_taps": "pool4"}), "--discriminator_taps: pool4 has 2 x 2 places"),
        (changed(projection={"discriminator_teacher": "none"}), "--teacher: discriminators"),
        (changed(projection={"discriminator_teacher": "alexnet"}), "--teacher: 'alexnet' is none of"),
        (changed(training={"batch_size": 1}), "--batch_size: 1 leaves fewer than 2"),
    ],
)
def test_what_cannot_be_trained_is_named(recipe, named):
    with pytest.raises(UserError) as error:
        SDN(recipe, dataset=DATASET)
    assert str(error.value).startswith(named)


@pytest.mark.parametrize(
    ("recipe", "named"),
    [
        (
            changed(gan={"augmentation": "color", "discriminator_channels": 32}),
            "--augmentation: only a stage with objective=adversarial reads it",
        ),
        (
            changed(gan={"discriminator_channels": 32}, projection={"discriminator_mixing": "none"}),
            "--discriminator_mixing: only a stage with objective=",
        ),
    ],
)
def test_options_that_no_stage_reads_are_refused(recipe, named):
    one = parse_stage("one: objective=mirrored steps=1 tap_weights=image:1", SDNStage)
    with pytest.raises(UserError) as error:
        SDN(dataclasses.replace(recipe, stages=(one,)), dataset=DATASET)
    assert str(error.value).startswith(named)


@pytest.mark.parametrize("field", ["distance_weight", "caption_weight", "seed_diversity_weight", "discriminator_side"])
def test_a_weight_of_another_stage_is_refused(field):
    one = parse_stage(f"one: objective=mirrored steps=1 tap_weights=image:1 {field}=1", SDNStage)
    with pytest.raises(UserError, match=f"--stage one: {field} is only for objective=adversarial"):
        SDN(dataclasses.replace(RECIPE, stages=(one, *RECIPE.stages)), dataset=DATASET)


def test_the_seeds_term_is_of_second_images_without_augmentation():
    """Its value is worked out from its formula; the noise of a second image is the next sample's."""
    system, trainer, batch = trainer_of(
        changed("seed_diversity_weight=2 seed_diversity_target=0.9", gan={"augmentation": "color"})
    )
    generated = trainer.generate(batch)
    loss, terms = trainer.generator_terms(batch, generated)
    inputs = {name: batch[name][:1] for name in system.network.input}
    again = system.network(inputs | {"noise": batch["noise"][1:2]})["image"]
    np.testing.assert_allclose(generated["second"], again, rtol=1e-4, atol=1e-3)
    images, shares = np.concatenate([IMAGES.astype("float32"), generated["image"][:1], again]), []
    for values in trainer.projected.projection(images).values():
        vectors = np.asarray(values, float).mean((1, 2))
        shares.append(np.linalg.norm(vectors[8] - vectors[9]) / pdist(vectors[:8]).mean())
    assert float(terms["seed_diversity"]) == pytest.approx(np.mean(shares), rel=1e-3)
    assert float(terms["same_seeds"]) == pytest.approx(0.9 - np.mean(shares), rel=1e-3)
    heads = sum(float(value) for name, value in terms.items() if name.startswith("generator_"))
    assert float(loss) == pytest.approx(heads + 2 * (0.9 - np.mean(shares)), rel=1e-3)


def test_the_contrastive_loss_is_added_at_its_weight_to_both_losses():
    """To the heads' with real images, to the generator's with generated ones."""
    _, trainer, batch = trainer_of(changed("caption_weight=0.5"))
    _, without, _ = trainer_of(RECIPE)
    without.set_weights(trainer.get_weights())
    generated = trainer.generate(batch)
    captions, text, found = BatchCaptions.of(batch, "tokens"), generated["text"], []
    real = trainer.projected.features(np.asarray(batch["image"], "float32"))
    for name, features in (("discriminator_terms", real), ("generator_terms", trainer._features(generated))):
        expected = float(trainer.projected.caption_loss(trainer.projected.view(features), text, captions))
        loss, terms = getattr(trainer, name)(batch, generated)
        found.append(set(terms) - set(getattr(without, name)(batch, generated)[1]))
        (term,) = found[-1]
        assert expected > 0.1 and float(terms[term]) == pytest.approx(expected, rel=1e-4)
        plain = float(getattr(without, name)(batch, generated)[0])
        assert float(loss) == pytest.approx(plain + 0.5 * expected, rel=1e-4)
    assert found == [{"caption_of_real"}, {"caption_of_generated"}]


def test_another_network_than_the_teacher_may_be_seen_through():
    system, trainer, batch = trainer_of(changed(projection={"discriminator_teacher": "efficientnet_lite0"}))
    assert list(trainer.projected.projection.output) == ["block1", "block2", "block3"]
    assert system.recipe.teachers == ["vgg19_slim", "efficientnet_lite0"]
    assert np.isfinite(float(trainer.generator_terms(batch, trainer.generate(batch))[0]))


def test_a_stage_has_a_side_of_its_own_for_its_discriminators():
    wide, narrow = "discriminator_side=64", {"discriminator_side": 32}
    _, trainer, batch = trainer_of(changed(wide, projection=narrow))
    _, other, _ = trainer_of(changed(projection=narrow))
    sides = [[each.shape[1] for each in one.projected.projection.output.values()] for one in (trainer, other)]
    assert sides == [[64, 32, 16, 8, 4], [32, 16, 8, 4]]
    assert np.isfinite(float(trainer.generator_terms(batch, trainer.generate(batch))[0]))
    with pytest.raises(UserError, match="--stage gan: discriminator_side: 48 is no multiple of the images' 32"):
        trainer_of(changed("discriminator_side=48"))
