"""Text-to-image students in small: runs of SDN and ICSD-GAN that teach narrower students, by the real commands."""

import keras
import numpy as np
import pytest
from keras import ops

import t2i_kd
from t2i_kd import systems
from t2i_kd.api import describe
from t2i_kd.errors import UserError
from t2i_kd.srpkd.objective import relation_matrix
from t2i_kd.student import load_student, save_network
from tests.commands import Fork, arrays, finish, metrics, refused
from tests.exporting.tiny_student import make_image_student
from tests.systems import CAPTIONS, recipe_of, write_images

SMALL = ("--dataset=image_folder", "--resolution=32", "--batch_size=4", "--log_every=1", "--sample_every=9")
TEXT = ("--text_dim=16", "--word_dim=8", "--text_length=4", "--noise_dim=3", "--whiten_text", "--teacher=none")
SDN = (
    *("--width=0.03125", "--initializer=he", "--image_output=centred", "--modulation"),
    "--stage=one: objective=perceptual steps=2 learning_rate=1e-3 tap_weights=image:1",
)
ICSD = (
    *("--system=icsd_gan", "--image_stages=2", "--generator_channels=8", "--condition_dim=4"),
    *("--discriminator_channels=4", "--stage=gan: objective=icsd steps=1 learning_rate=1e-3"),
)
WEIGHTS = ("--output_weight=10", "--relation_weight=3")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    write_images(folder)
    return folder


def trained(folder, data_dir, *arguments):
    t2i_kd.train(recipe_of(*SMALL, f"--data_dir={data_dir}", *arguments), folder)
    return folder


@pytest.fixture(scope="module")
def teacher(data_dir, tmp_path_factory):
    """A run of SDN, as far as it teaches, with random weights."""
    folder = tmp_path_factory.mktemp("teacher") / "sdn"
    system = systems.build(recipe_of(*SMALL, f"--data_dir={data_dir}", *TEXT, *SDN))
    rng = np.random.default_rng(0)
    for weight in system.network.trainable_variables:
        weight.assign(np.asarray(weight) + rng.normal(0, 0.05, weight.shape))
    save_network(system.network, folder / "student.keras")
    system.save_condition(folder)
    return folder


def command(data_dir, teacher, *more, steps=4, objective="compress"):
    stage = f"--stage=small: objective={objective} steps={steps} learning_rate=1e-3"
    return (
        *("--system=srpkd", *SMALL, f"--data_dir={data_dir}", f"--teacher=run:{teacher}", "--student_init=teacher"),
        *(*WEIGHTS, "--checkpoint_every=2", *more, stage),
    )


def prepared(recipe):
    """(system, trainer, a batch as tensors) of a recipe's stage, before its first step."""
    system = systems.build(recipe)
    (plan,) = system.plans
    trainer = system.own_trainer(plan)
    return system, trainer, {name: ops.convert_to_tensor(each) for name, each in system.batches(plan, 0, 1)[0].items()}


@pytest.mark.slow
def test_a_run_becomes_a_smaller_one_that_reads_the_same(teacher, data_dir, tmp_path):
    recipe = recipe_of(*command(data_dir, teacher, "--channel_share=0.25", "--ema=0.9", "--measure_every=4"))
    assert t2i_kd.train(recipe, tmp_path / "small").finished
    small, big = load_student(tmp_path / "small"), load_student(teacher)
    sizes = [each.network.get_layer("generator").count_params() for each in (small, big)]
    assert sizes[0] < sizes[1] / 6
    assert small.condition.describe() == big.condition.describe() and small.noise_dim == 3
    for name in ("text_encoder", "text_whitening"):
        for one, other in zip(*(each.network.get_layer(name).get_weights() for each in (small, big)), strict=True):
            np.testing.assert_array_equal(one, other)
    lines = metrics(tmp_path / "small")
    assert {"loss", "output", "relation", "distance_to_teacher"} <= set(lines[-1])
    # The teacher is frozen, the student made of it learns, from its first layer to its last.
    assert all(line["gradient_norm"] > 0 for line in lines if "gradient_norm" in line)
    start = systems.build(recipe).network
    for name in ("fc7", "pool4", "image_linear"):
        before, after = (each.get_layer("generator").get_layer(name).kernel for each in (start, small.network))
        assert not np.array_equal(before, after)
    assert lines[-1]["loss"] == pytest.approx(10 * lines[-1]["output"] + 3 * lines[-1]["relation"], rel=1e-5)
    images = t2i_kd.load(tmp_path / "small").generate(CAPTIONS, [0, 1, 2])
    assert images.shape == (3, 32, 32, 3)
    expected = systems.build(recipe)
    expected.network.set_weights(small.network.get_weights())
    np.testing.assert_array_equal(images, np.clip(np.rint(expected.generate(CAPTIONS)["image"]), 0, 255))
    assert (tmp_path / "small" / "samples" / "small-00000004.png").stat().st_size > 0
    kept = (tmp_path / "small" / "captions.txt").read_text()
    assert (
        "a red picture" in kept
        and (tmp_path / "small" / "vocabulary.txt").read_bytes() == (teacher / "vocabulary.txt").read_bytes()
    )


def test_the_terms_are_numpys_of_the_named_taps(teacher, data_dir):
    taps = "pool4,conv3_2"
    recipe = recipe_of(*command(data_dir, teacher, f"--teacher_taps={taps}", "--tap_mse_weight=1"))
    system, trainer, batch = prepared(recipe)
    _, terms = trainer.loss_terms(batch)
    images, maps = [], []
    for network in (system.network, load_student(teacher).network):
        vector = network.get_layer("text_whitening")(network.get_layer("text_encoder")({"tokens": batch["tokens"]}))
        generator = network.get_layer("generator")
        found = keras.Model(
            generator.input, [generator.output["image"], *(generator.get_layer(tap).output for tap in taps.split(","))]
        )({"text": vector, "noise": batch["noise"]})
        images.append(np.asarray(found[0]))
        maps.append([np.asarray(each) for each in found[1:]])
    assert [each.shape[-1] * 2 for each in maps[0]] == [each.shape[-1] for each in maps[1]]
    expected = np.abs(images[0] - np.clip(images[1], 0, 255)).mean() / 127.5
    assert float(terms["output"]) == pytest.approx(expected, rel=1e-4)
    relations = []
    for ours, theirs in zip(*maps, strict=True):
        rows = []
        for each in (ours, theirs):
            places = each.reshape(len(each), -1, each.shape[-1]).astype("float64")
            products = places @ places.transpose(0, 2, 1)
            rows.append(products / np.maximum(np.linalg.norm(products, axis=2, keepdims=True), 1e-12))
        np.testing.assert_allclose(relation_matrix(theirs), rows[1], atol=1e-4)
        relations.append(np.abs(rows[0] - rows[1]).mean())
    assert float(terms["relation"]) == pytest.approx(np.mean(relations), rel=1e-3)
    assert float(terms["tap_mse"]) > 0


def test_a_step_moves_the_generator_alone(teacher, data_dir):
    recipe = recipe_of(*command(data_dir, teacher))
    system, trainer, _ = prepared(recipe)
    moving = {id(each) for each in trainer.trainable_variables}
    assert moving == {id(each) for each in system.network.get_layer("generator").weights}
    assert len(moving) > 10
    # Of a relation the end of a quarter of the side is compared: at 32 px the last map of 8 x 8.
    assert system.taps == (("pool2", "pool2"),)
    lines = "\n".join(describe(recipe))
    assert "student with its text encoder: " in lines and "stage small: compress, 4 steps" in lines


@pytest.mark.slow
def test_a_run_that_goes_on_is_one_that_nothing_interrupted(teacher, data_dir, tmp_path):
    for folder, lengths in (("whole", (4,)), ("twice", (2, 4))):
        for steps in lengths:
            t2i_kd.train(recipe_of(*command(data_dir, teacher, "--ema=0.9", steps=steps)), tmp_path / folder)
    found, expected = (arrays(tmp_path / each / "checkpoints/small/final.npz") for each in ("twice", "whole"))
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)
    networks = [load_student(tmp_path / each).network.get_weights() for each in ("twice", "whole")]
    assert all(np.array_equal(*pair) for pair in zip(*networks, strict=True))
    # A teacher that was trained on is another one.
    save_network(load_student(tmp_path / "whole").network, tmp_path / "other" / "student.keras")
    for name in ("condition.json", "vocabulary.txt"):
        (tmp_path / "other" / name).write_bytes((teacher / name).read_bytes())
    other = recipe_of(*command(data_dir, tmp_path / "other", "--channel_share=0.5", "--ema=0.9"))
    with pytest.raises(UserError, match="--teacher"):
        t2i_kd.train(other, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["compress", "compress_gan"])
def test_icsd_gans_generator_of_several_stages_becomes_smaller(objective, data_dir, tmp_path, uncompiled):
    teacher = trained(tmp_path / "icsd", data_dir, *TEXT, *ICSD)
    discriminator = ["--discriminator_channels=4", "--discriminator_layers=2"] if objective == "compress_gan" else []
    recipe = recipe_of(*command(data_dir, teacher, *discriminator, objective=objective))
    t2i_kd.train(recipe, tmp_path / "small")
    small, big = load_student(tmp_path / "small"), load_student(teacher)
    assert small.network.get_layer("generator").count_params() < 0.5 * big.network.get_layer("generator").count_params()
    # Nothing would teach the images of earlier stages.
    assert sorted(big.coarse_images) == [16] and not small.coarse_images
    terms = set(metrics(tmp_path / "small")[-1])
    assert ("gan" in terms) == (objective == "compress_gan") and "relation" in terms


@pytest.mark.slow
def test_the_command_makes_an_exported_student_of_a_run(data_dir, tmp_path, uncompiled):
    teacher = trained(tmp_path / "sdn", data_dir, *TEXT, *SDN)
    arguments = command(data_dir, teacher, "--channel_share=0.5", steps=2)
    where = f"--run_dir={tmp_path / 'small'}"
    assert f"{tmp_path / 'small'}: trained" in finish(Fork(*arguments, where))
    version = t2i_kd.export(tmp_path / "small", tmp_path / "model", artifacts=["litert", "onnx"])
    expected = t2i_kd.load(tmp_path / "small").generate(CAPTIONS, [5, 6, 7]).astype(int)
    for file in ("", "assets.extra/student.tflite", "assets.extra/student.onnx"):
        found = t2i_kd.load(version / file).generate(CAPTIONS, [5, 6, 7]).astype(int)
        assert np.abs(found - expected).max() <= 1, file
    report = t2i_kd.evaluate(str(tmp_path / "small"), "", "teacher_distance,tap_distance", num_captions=4, bootstrap=0)
    values = report["metrics"]["teacher_distance"]["final student"]["values"]
    assert {"mae_32_n4", "ssim_32_n4", "lpips_like_efficientnet_lite0_32_n4"} == set(values)
    assert all("efficientnet_lite0" in line for line in report["metrics"]["tap_distance"]["final student"]["values"])
    line = refused(*arguments, where, "--channel_share=1", start=Fork)
    assert line.startswith("error: --channel_share: 1.0 is not above 0 and below 1")


@pytest.fixture(scope="module")
def image_run(tmp_path_factory):
    """A finished run whose student reads images."""
    folder, student = tmp_path_factory.mktemp("image"), make_image_student()
    save_network(student.network, folder / "student.keras")
    student.condition.save(folder)
    return folder


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--teacher=none",), "--teacher: objective=compress needs run:DIR"),
        (("--teacher=vgg19",), "--teacher: vgg19 is none of none, run:DIR"),
        (("--teacher=run:{image_run}",), "student.keras reads images; objective=compress is for captions"),
        (("--resolution=64",), "gives images of 32 px, not of --resolution=64"),
        (("--channel_share=0.999",), "--channel_share: 0.999 leaves the teacher's generator as it is"),
        (("--teacher_taps=no",), "--teacher_taps: there is no layer 'no' that gives a map"),
        (
            ("--teacher_taps=pool4", "--student_taps=pool3"),
            "--student_taps: pool3 has 4 x 4 places, the teacher's pool4 has 2 x 2",
        ),
        (("--teacher_taps=pool4,pool3", "--student_taps=pool3"), "--student_taps: 1 layers for 2 of the teacher"),
        (("--output_weight=0", "--relation_weight=0"), "--teacher: nothing is learned from it"),
        (("--flip",), "--flip: objective=compress learns from the teacher's images"),
        (("--generator_channels=16",), "--generator_channels: only a student that reads images reads it"),
        (("--direction=BtoA",), "--direction: only a student that reads images reads it"),
        (("--gan_weight=2",), "--gan_weight: only a stage with objective=compress_gan reads it"),
        (("--dtype_policy=mixed_bfloat16",), "--dtype_policy: objective=compress trains in float32"),
        (("--distil_generators=both",), "--distil_generators=both: a student that reads captions has one generator"),
        (("--stage=more: objective=distil steps=2",), "--stage more: objective=distil is for students that read imag"),
    ],
)
def test_what_cannot_be_compressed_is_named(more, words, teacher, image_run, data_dir):
    more = [each.format(image_run=image_run) for each in more]
    with pytest.raises(UserError) as caught:
        systems.build(recipe_of(*command(data_dir, teacher), *more)).prepare()
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_an_image_student_has_no_channel_share_and_no_teacher_that_reads_captions(teacher, data_dir):
    arguments = ("--system=srpkd", *SMALL, f"--data_dir={data_dir}", "--output_weight=1")
    stage = "--stage=one: objective=distil steps=2"
    made = recipe_of(*arguments, f"--teacher=run:{teacher}", stage)
    with pytest.raises(UserError, match="is not of a run whose student reads images; objective=compress is for one"):
        systems.build(made).prepare()
    made = recipe_of(*arguments, f"--teacher=run:{teacher}", "--channel_share=0.25", stage)
    with pytest.raises(UserError, match="--channel_share: only objective=compress reads it"):
        systems.build(made)
    with pytest.raises(UserError, match=r"--channel_share: 1.0 is not above 0 and below 1"):
        recipe_of(*command(data_dir, teacher, "--channel_share=1"))
