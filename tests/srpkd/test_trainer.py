"""SRPKD's steps: the image pool, what is minimised, what is kept, and what is refused."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

import t2i_kd
from t2i_kd import systems
from t2i_kd.data import from_arrays, from_image_pairs
from t2i_kd.errors import UserError
from t2i_kd.options import DataOptions, TrainingOptions
from t2i_kd.recipe import Stage
from t2i_kd.srpkd import (
    DistillationOptions,
    GeneratorOptions,
    GeneratorTeacherOptions,
    HostOptions,
    SrpkdRecipe,
    TranslationOptions,
)
from t2i_kd.srpkd.generators import Teacher
from t2i_kd.srpkd.networks import build_generator
from t2i_kd.srpkd.objective import gram_matrix, relation_matrix
from t2i_kd.srpkd.trainer import SRPKD, ImagePool
from t2i_kd.student import save_network
from tests.commands import arrays
from tests.exporting.tiny_student import make_photos
from tests.published_generators import resnet_arrays

SIDE = 16


def photos(count, seed):
    return make_photos(count, SIDE, SIDE, seed)


PAIRS = from_image_pairs(photos(4, 0), photos(4, 1), photos(2, 2), photos(2, 3))
SIDES = from_image_pairs(photos(4, 0), photos(3, 1), photos(2, 2), photos(2, 3), paired=False)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teacher") / "teacher.npz"
    np.savez(path, **resnet_arrays(6, 1))
    return str(path)


def recipe(objective, teacher="none", steps=2, load_size=0, **options):
    """A tiny recipe; options are those of any group."""
    host = {"discriminator_channels": 4, "discriminator_layers": 2} if objective != "distil" else {}
    host |= {"pool_size": 3} if objective == "cycle_gan" else {}
    groups = {
        "translation": (TranslationOptions, {"load_size": load_size}),
        "teacher": (GeneratorTeacherOptions, {"teacher": teacher}),
        "generator": (GeneratorOptions, {"generator_channels": 4, "generator_depth": 1}),
        "distillation": (DistillationOptions, {}),
        "host": (HostOptions, host),
        "training": (TrainingOptions, {"batch_size": 2, "checkpoint_every": 1, "sample_every": 9, "log_every": 1}),
    }
    made = {}
    for name, (kind, values) in groups.items():
        own = {key: value for key, value in options.items() if key in kind.__dataclass_fields__}
        made[name] = kind(**values | own)
    data = DataOptions(dataset="arrays", resolution=SIDE, flip=True)
    return SrpkdRecipe(data=data, stages=(Stage("one", objective, steps=steps, learning_rate=1e-3),), **made)


def prepared(made, dataset):
    """(system, trainer, a batch as tensors) of a recipe's stage, before its first step."""
    system = systems.build(made, dataset=dataset)
    (plan,) = system.plans
    trainer = system.own_trainer(plan)
    batch = {name: ops.convert_to_tensor(value) for name, value in system.batches(plan, 0, 1)[0].items()}
    return system, trainer, batch


def numpy_pool(size, images, uniforms):
    """CycleGAN's `ImagePool.query`, image after image."""
    kept, returned = [], []
    for image, (chance, place) in zip(images, uniforms, strict=True):
        if len(kept) < size:
            kept.append(image)
            returned.append(image)
        elif chance < 0.5:
            slot = int(place * size)
            returned.append(kept[slot])
            kept[slot] = image
        else:
            returned.append(image)
    return np.stack(returned), np.stack(kept)


def test_the_pool_is_that_of_cyclegans_code():
    rng = np.random.default_rng(0)
    images, uniforms = rng.uniform(0, 255, (24, 4, 4, 3)).astype("float32"), rng.random((24, 2)).astype("float32")
    pool, found = ImagePool(5, 4, "pool"), []
    for start in range(0, 24, 3):
        found.append(pool.exchange(ops.convert_to_tensor(images[start : start + 3]), uniforms[start : start + 3], 3))
    returned, kept = numpy_pool(5, images, uniforms)
    np.testing.assert_array_equal(np.concatenate([np.asarray(each) for each in found]), returned)
    np.testing.assert_array_equal(pool.images, kept)
    assert float(pool.count) == 5 and not np.array_equal(returned, images)
    np.testing.assert_array_equal(ImagePool(0, 4, "none").exchange(images, uniforms, 24), images)


def scaled(one, other):
    return np.abs(np.asarray(one, "float64") - np.asarray(other, "float64")).mean() / 127.5


@pytest.mark.parametrize(("identity_weight", "norm"), [(0.25, "instance"), (0.0, "batch")])
def test_cyclegans_losses_are_those_of_the_definition(identity_weight, norm):
    made = recipe(
        "cycle_gan", identity_weight=identity_weight, discriminator_norm=norm, cycle_weight=7.0, gan_weight=2.0
    )
    system, trainer, batch = prepared(made, SIDES)
    generated = trainer.generate(batch)
    x, y = (np.asarray(batch[name], "float32") for name in ("source", "image"))
    g, f = (
        lambda images, n=network: np.asarray(n({"source": images}, training=True)["image"])
        for network in (system.network, system.inverse)
    )
    d_y, d_x = (
        lambda images, n=network: np.asarray(n(images, training=True), "float64") for network in trainer.discriminators
    )
    loss, terms = trainer.generator_terms(batch, generated)
    gan = np.square(1 - d_y(g(x))).mean() + np.square(1 - d_x(f(y))).mean()
    cycle = scaled(f(g(x)), x) + scaled(g(f(y)), y)
    identity = scaled(g(y), y) + scaled(f(x), x)
    assert float(loss) == pytest.approx(2 * gan + 7 * cycle + identity_weight * 7 * identity, rel=1e-4)
    found, expected = {name: float(value) for name, value in terms.items()}, {"gan": gan, "cycle": cycle}
    assert found == pytest.approx(expected | ({"identity": identity} if identity_weight else {}), rel=1e-4)
    loss, _ = trainer.discriminator_terms(batch, generated)
    expected = sum(
        (np.square(1 - d(real)).mean() + np.square(d(fake)).mean()) / 2
        for d, real, fake in ((d_y, y, g(x)), (d_x, x, f(y)))
    )
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert float(trainer.pools["forward"].count) == 2
    np.testing.assert_allclose(trainer.pools["backward"].images[:2], f(y), rtol=1e-5)


def test_pix2pixs_losses_are_those_of_the_definition():
    made = recipe("pix2pix", gan_loss="bce", l1_weight=30.0)
    system, trainer, batch = prepared(made, PAIRS)
    generated = trainer.generate(batch)
    x, y = (np.asarray(batch[name], "float32") for name in ("source", "image"))
    image = np.asarray(system.network({"source": x}, training=True)["image"])
    scores = [np.asarray(trainer.discriminators[0](np.concatenate([x, each], -1)), "float64") for each in (y, image)]
    loss, terms = trainer.generator_terms(batch, generated)
    gan, error = np.log1p(np.exp(-scores[1])).mean(), scaled(image, y)
    assert float(loss) == pytest.approx(gan + 30 * error, rel=1e-4) and set(terms) == {"gan", "l1"}
    loss, _ = trainer.discriminator_terms(batch, generated)
    expected = (np.log1p(np.exp(-scores[0])).mean() + np.log1p(np.exp(scores[1])).mean()) / 2
    assert float(loss) == pytest.approx(expected, rel=1e-4)


def test_pix2pixs_loss_has_the_teachers_terms_and_its_weights(teacher):
    made = recipe("pix2pix", teacher, output_weight=3.0, relation_weight=2.0, l1_weight=30.0, gan_weight=5.0)
    _, trainer, batch = prepared(made, PAIRS)
    loss, terms = trainer.generator_terms(batch, trainer.generate(batch))
    found = {name: float(value) for name, value in terms.items()}
    assert set(found) == {"gan", "l1", "output", "relation"} and min(found.values()) > 1e-3
    expected = 5 * found["gan"] + 30 * found["l1"] + 3 * found["output"] + 2 * found["relation"]
    assert float(loss) == pytest.approx(expected, rel=1e-5)


def test_both_generators_of_a_cyclegan_are_taught(monkeypatch):
    made = recipe(
        "cycle_gan", "run:both", output_weight=3.0, distil_generators="both", cycle_weight=7.0, gan_weight=5.0
    )
    taught = Teacher(*(build_generator("resnet", SIDE, 2, 1) for _ in range(2)))
    monkeypatch.setattr(SRPKD, "teacher", taught)
    monkeypatch.setattr(SRPKD, "pinned_teacher", staticmethod(lambda options: options))
    _, trainer, batch = prepared(made, SIDES)
    loss, terms = trainer.generator_terms(batch, trainer.generate(batch))
    found = {name: float(value) for name, value in terms.items()}
    assert set(found) == {"gan", "cycle", "identity", "output", "output_backward"}
    for name, network, side in (("output", taught.network, "source"), ("output_backward", taught.inverse, "image")):
        seen = np.asarray(batch[side], "float32")
        student = trainer.generator.forward if name == "output" else trainer.generator.backward
        theirs = np.clip(np.asarray(network({"source": seen})["image"]), 0, 255)
        assert found[name] == pytest.approx(scaled(student(seen), theirs), rel=1e-4)
    expected = 5 * found["gan"] + 7 * (found["cycle"] + 0.5 * found["identity"])
    assert float(loss) == pytest.approx(expected + 3 * (found["output"] + found["output_backward"]), rel=1e-5)


@pytest.mark.parametrize(("norm", "rows"), [("l2", 0), ("l1", 5)])
def test_relations_are_compared_in_the_norm_and_the_rows_of_the_recipe(teacher, norm, rows):
    made = recipe("distil", teacher, output_weight=1.0, relation_weight=1.0, relation_norm=norm, relation_rows=rows)
    system, trainer, batch = prepared(made, SIDES)
    found = float(trainer.loss_terms(batch)[1]["relation"])
    x = {"source": np.asarray(batch["source"], "float32")}
    ours, theirs = (
        np.asarray(relation_matrix(keras.Model(each.input, each.get_layer("encoder").output)(x)))
        for each in (system.network, system.teacher.network)
    )
    places = ours.shape[1]
    shift = float(batch["uniforms"][0, -1])
    chosen = [int((row + shift) * places / rows) for row in range(rows)] or list(range(places))
    error = ours[:, chosen] - theirs[:, chosen]
    assert found == pytest.approx(np.square(error).mean() if norm == "l2" else np.abs(error).mean(), rel=1e-3)


def test_training_pictures_are_loaded_at_their_own_side():
    system, _, batch = prepared(recipe("pix2pix", load_size=20), PAIRS)
    assert system.dataset.first[0].shape == (20, 20, 3) and batch["source"].shape == (2, SIDE, SIDE, 3)
    assert system.held_out.first[0].shape == (SIDE, SIDE, 3)


def test_a_teacher_of_the_other_direction_is_turned_or_refused(teacher, tmp_path):
    """A run from A to B teaches one from B to A by its other generator, if it has one."""
    networks = [build_generator("resnet", SIDE, width, 1) for width in (4, 2)]
    system, _, _ = prepared(recipe("cycle_gan"), SIDES)
    save_network(networks[0], tmp_path / "run" / "student.keras")
    system.condition.save(tmp_path / "run")
    (tmp_path / "run" / "recipe.json").write_text(recipe("cycle_gan").to_json())
    name = f"run:{tmp_path / 'run'}"
    assert systems.build(recipe("distil", name, output_weight=1.0), dataset=SIDES).teacher.inverse is None
    turned = systems.build(recipe("distil", name, output_weight=1.0, direction="BtoA"), dataset=SIDES)
    with pytest.raises(UserError, match=r"^--teacher: run:.* was trained with --direction=AtoB, here it is BtoA$"):
        _ = turned.teacher
    save_network(networks[1], tmp_path / "run" / "inverse.keras")
    widths = [each.get_layer("stem").filters for each in (turned.teacher.network, turned.teacher.inverse)]
    assert widths == [2, 4]


def test_distillation_is_the_weighted_sum_of_its_terms(teacher):
    weights = {
        "output_weight": 3.0,
        "relation_weight": 50.0,
        "tap_mse_weight": 0.5,
        "ssim_weight": 2.0,
        "tv_weight": 0.1,
    }
    made = recipe("distil", teacher, teacher_taps="encoder,block1", **weights)
    system, trainer, batch = prepared(made, SIDES)
    loss, terms = trainer.loss_terms(batch)
    assert set(terms) == {name.removesuffix("_weight") for name in weights}
    assert float(loss) == pytest.approx(
        sum(value * float(terms[name.removesuffix("_weight")]) for name, value in weights.items())
    )
    x = {"source": np.asarray(batch["source"], "float32")}
    names = ("encoder", "block1")
    maps = [
        keras.Model(network.input, [network.output["image"], *(network.get_layer(name).output for name in names)])(x)
        for network in (system.network, system.teacher.network)
    ]
    assert float(terms["output"]) == pytest.approx(scaled(maps[0][0], np.clip(maps[1][0], 0, 255)), rel=1e-4)
    relations = [
        np.abs(np.asarray(relation_matrix(ours)) - np.asarray(relation_matrix(theirs))).mean()
        for ours, theirs in zip(maps[0][1:], maps[1][1:], strict=True)
    ]
    assert float(terms["relation"]) == pytest.approx(np.mean(relations), rel=1e-3)
    kernels = [np.asarray(layer.kernel)[0, 0] for layer in trainer.generator.adaptors]
    squares = [
        np.square(np.asarray(ours) @ kernel - np.asarray(theirs)).mean()
        for ours, theirs, kernel in zip(maps[0][1:], maps[1][1:], kernels, strict=True)
    ]
    assert float(terms["tap_mse"]) == pytest.approx(np.mean(squares), rel=1e-3)


@pytest.mark.slow
def test_feature_terms_read_both_images(teacher):
    made = recipe("distil", teacher, gram_weight=1.0, feature_weight=1.0, feature_taps="pool1,pool2")
    made = dataclasses.replace(made, data=dataclasses.replace(made.data, resolution=32))
    system, trainer, batch = prepared(made, SIDES)
    _, terms = trainer.loss_terms(batch)
    x = {"source": np.asarray(batch["source"], "float32")}
    ours, theirs = (
        system.features(np.clip(np.asarray(each(x)["image"]), *limits))
        for each, limits in ((system.network, (-np.inf, np.inf)), (system.teacher.network, (0, 255)))
    )
    pairs = [[np.asarray(each[tap], "float64") for each in (ours, theirs)] for tap in ("pool1", "pool2")]
    assert float(terms["feature"]) == pytest.approx(sum(np.abs(one - other).mean() for one, other in pairs), rel=1e-3)
    matrices = [[np.asarray(gram_matrix(each.astype("float32"))) for each in pair] for pair in pairs]
    assert float(terms["gram"]) == pytest.approx(
        sum(np.square(one - other).mean() for one, other in matrices), rel=1e-3
    )
    assert made.teachers == [teacher, "vgg19_slim"]
    assert not any(each.path.startswith("vgg19") for each in trainer.kept_variables)


def moved(trainer, made, batch):
    """The names of the variables that one step moves, and of those that it leaves."""
    trainer.compile(optimizer=trainer.make_optimizer(made.stages[0], 2, made.training), run_eagerly=True)
    trainer.optimizer.build(trainer.trainable_variables)
    before = [np.array(each) for each in trainer.variables]
    trainer.train_step(batch)
    changed = [not np.array_equal(old, each) for old, each in zip(before, trainer.variables, strict=True)]
    return {id(each) for each, was in zip(trainer.variables, changed, strict=True) if was}


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the step of TensorFlow")
def test_a_step_moves_what_it_should_and_no_teacher(teacher):
    made = recipe("cycle_gan", teacher, relation_weight=1.0, tap_mse_weight=1.0, generator_norm="instance_affine")
    system, trainer, batch = prepared(made, SIDES)
    ids = moved(trainer, made, batch)
    kept = {id(each): each.path for each in trainer.kept_variables}
    assert ids <= set(kept)
    still = {path for key, path in kept.items() if key not in ids}
    # An instance norm takes the bias before it away.
    assert all(path.endswith("bias") for path in still), still
    assert not ids & {id(each) for each in system.teacher.network.variables}


@pytest.mark.slow
def test_checkpoints_hold_the_pool_and_no_teacher(teacher, tmp_path):
    made = recipe("cycle_gan", teacher, output_weight=1.0, pool_size=3)
    t2i_kd.train(made, tmp_path / "run", dataset=SIDES)
    kept = arrays(tmp_path / "run" / "checkpoints" / "one" / "final.npz")
    pools = {name: values for name, values in kept.items() if "pool" in name}
    assert sorted(values.shape for values in pools.values()) == [(), (), (3, SIDE, SIDE, 3), (3, SIDE, SIDE, 3)]
    assert all(values == 3 for values in pools.values() if not values.shape)
    # Weights of the teacher's width, 4 x 6 channels, are nowhere.
    assert not any(24 in values.shape for values in kept.values())
    assert (tmp_path / "run" / "inverse.keras").exists() and (
        tmp_path / "run" / "samples" / "one-00000002.png"
    ).exists()
    # It teaches in its turn, with both of its generators.
    options = {"relation_weight": 1.0, "distil_generators": "both", "generator_channels": 2}
    both = recipe("cycle_gan", f"run:{tmp_path / 'run'}", steps=1, **options)
    _, trainer, batch = prepared(both, SIDES)
    terms = trainer.generator_terms(batch, trainer.generate(batch))[1]
    assert {"relation", "relation_backward"} < set(terms)


@pytest.mark.slow
def test_a_student_may_start_from_the_teacher(tmp_path):
    network = build_generator("resnet", SIDE, 6, 1)
    save_network(network, tmp_path / "run" / "student.keras")
    system, _, _ = prepared(recipe("cycle_gan"), SIDES)
    system.condition.save(tmp_path / "run")
    made = recipe("distil", f"run:{tmp_path / 'run'}", output_weight=1.0, student_init="teacher", generator_channels=6)
    student = systems.build(made, dataset=SIDES).network
    assert all(np.array_equal(*pair) for pair in zip(student.get_weights(), network.get_weights(), strict=True))


CAPTIONED = from_arrays(photos(3, 0), ["a photo"] * 3, photos(2, 1), ["a photo"] * 2)
ONE_SIDE = from_image_pairs(photos(3, 0), [], photos(2, 1), [], paired=False)


@pytest.mark.slow
def test_captioned_images_and_one_side_are_sources(teacher):
    for dataset in (CAPTIONED, ONE_SIDE):
        _, trainer, batch = prepared(recipe("distil", teacher, output_weight=1.0), dataset)
        assert set(batch) == {"source", "uniforms"}
        assert np.isfinite(float(trainer.loss_terms(batch)[0]))


@pytest.mark.parametrize(
    ("made", "dataset", "words"),
    [
        (recipe("distil"), SIDES, "--stage one: objective=distil needs a --teacher"),
        (recipe("cycle_gan", output_weight=1.0), SIDES, "--output_weight: there is no --teacher to learn from"),
        (recipe("cycle_gan", "T"), SIDES, "--teacher: nothing is learned from it"),
        (recipe("cycle_gan", student_init="teacher"), SIDES, "--student_init=teacher: there is no --teacher"),
        (recipe("cycle_gan", load_size=8), SIDES, "--load_size: 8 is smaller than --resolution=16"),
        (
            recipe("cycle_gan", discriminator_layers=3),
            SIDES,
            "--discriminator_layers: 3 leave no map of --resolution=16",
        ),
        (recipe("pix2pix"), SIDES, "--stage one: objective=pix2pix needs pairs, and arrays/train has none"),
        (recipe("cycle_gan"), ONE_SIDE, "--stage one: objective=cycle_gan needs pictures of both sides, and arrays/tr"),
        (recipe("pix2pix"), CAPTIONED, "--stage one: objective=pix2pix needs pictures of both sides"),
        (recipe("cycle_gan", direction="BtoA"), ONE_SIDE, "--direction=BtoA: arrays/train has no source picture"),
        (recipe("pix2pix", "T", output_weight=1.0, distil_generators="both"), PAIRS, "--distil_generators=both: stage"),
        (
            recipe("cycle_gan", "T", output_weight=1.0, distil_generators="both"),
            SIDES,
            "both: the teacher has no gener",
        ),
        (
            recipe("distil", "T", output_weight=1.0, relation_weight=1.0, teacher_taps="no"),
            SIDES,
            "--teacher_taps: there is no layer 'no'",
        ),
        (
            recipe("distil", "T", output_weight=1.0, relation_weight=1.0, teacher_taps="encoder", student_taps="stem"),
            SIDES,
            "--student_taps: stem has 16 x 16 places, the teacher's encoder has 4 x 4",
        ),
        (
            recipe("distil", "T", output_weight=1.0, relation_weight=1.0, teacher_taps="stem,up1", student_taps="stem"),
            SIDES,
            "1 layers for 2",
        ),
        (recipe("distil", "T", gram_weight=1.0, feature_taps="pool9"), SIDES, "--resolution"),
        (recipe("distil", "T", relation_weight=1.0), SIDES, "--output_weight: objective=distil compares no image"),
        (recipe("cycle_gan", generator_norm="batch"), SIDES, "--generator_norm=batch: a generator of objective=cycle"),
        (recipe("cycle_gan", l1_weight=1.0), SIDES, "--l1_weight: only a stage with objective=pix2pix reads it"),
        (recipe("pix2pix", pool_size=1, identity_weight=0.0), PAIRS, "--identity_weight, --pool_size: only a stage"),
        (recipe("distil", "T", output_weight=1.0, gan_weight=2.0), SIDES, "--gan_weight: only a stage with objective"),
        (
            recipe("pix2pix", generator="unet", generator_depth=4, generator_dropout=0.5),
            PAIRS,
            "--generator_dropout: a U-Net of 4 halvings drops nothing",
        ),
    ],
)
def test_what_cannot_be_trained_is_named(made, dataset, words, teacher):
    if made.teacher.teacher == "T":
        made = dataclasses.replace(made, teacher=GeneratorTeacherOptions(teacher=teacher))
    with pytest.raises(UserError) as caught:
        systems.build(made, dataset=dataset).prepare()
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"output_weight": -1.0}, "--output_weight: -1.0 is negative"),
        ({"relation_rows": -1}, "--relation_rows: -1"),
        ({"generator_dropout": 1.0}, "--generator_dropout: 1.0"),
        ({"beta_1": 1.0}, "--beta_1: 1.0"),
        ({"pool_size": -1}, "--pool_size: -1"),
        ({"discriminator_channels": 0}, "--discriminator_channels: 0"),
    ],
)
def test_options_out_of_range_are_named(options, words):
    with pytest.raises(UserError, match=words):
        recipe("cycle_gan", **options)
