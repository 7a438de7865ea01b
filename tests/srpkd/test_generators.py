"""SRPKD's teachers: published files against PyTorch, runs, exports, and students that start from their channels."""

import dataclasses

import keras
import numpy as np
import pytest

from t2i_kd.errors import UserError
from t2i_kd.exporting.exporter import export_student
from t2i_kd.srpkd import GeneratorTeacherOptions
from t2i_kd.srpkd.generators import load_generator, load_published, pinned, start_from_teacher
from t2i_kd.srpkd.networks import build_generator
from t2i_kd.student import save_network
from tests.exporting.tiny_student import make_image_student, make_photos, save_run
from tests.published_generators import ml5_arrays, resnet_arrays


def randomised(network, seed=0, scale=0.3):
    """The network with other weights than its initial ones."""
    rng = np.random.default_rng(seed)
    network.set_weights([rng.normal(0, scale, weights.shape).astype("float32") for weights in network.get_weights()])
    return network


def torch_resnet(values, image):
    """The family's network in PyTorch's own operations: [1, height, width, 3] in 0-255 to the same."""
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    arrays = {name: torch.tensor(np.asarray(value, "float32")) for name, value in values.items()}

    def norm(x, name):
        return functional.instance_norm(x, weight=arrays[f"model.{name}.weight"], bias=arrays[f"model.{name}.bias"])

    def convolved(x, name, **options):
        return functional.conv2d(x, arrays[f"model.{name}.weight"], arrays[f"model.{name}.bias"], **options)

    def transposed(x, name):
        weights = arrays[f"model.{name}.weight"], arrays[f"model.{name}.bias"]
        return functional.conv_transpose2d(x, *weights, stride=2, padding=1, output_padding=1)

    def reflected(x, margin):
        return functional.pad(x, [margin] * 4, mode="reflect")

    blocks = sorted({int(name.split(".")[1]) for name in values if "block" in name})
    x = torch.tensor(image.transpose(0, 3, 1, 2) / 127.5 - 1)
    x = torch.relu(norm(convolved(reflected(x, 3), "1"), "2"))
    x = torch.relu(norm(convolved(x, "4", stride=2, padding=1), "5"))
    x = torch.relu(norm(convolved(x, "7", stride=2, padding=1), "8"))
    for block in blocks:
        y = torch.relu(norm(convolved(reflected(x, 1), f"{block}.block.1"), f"{block}.block.2"))
        x = x + norm(convolved(reflected(y, 1), f"{block}.block.5"), f"{block}.block.6")
    after = blocks[-1] + 1
    x = torch.relu(norm(transposed(x, f"{after}"), f"{after + 1}"))
    x = torch.relu(norm(transposed(x, f"{after + 3}"), f"{after + 4}"))
    x = torch.tanh(convolved(reflected(x, 3), f"{after + 7}"))
    return (x.detach().numpy().transpose(0, 2, 3, 1) + 1) * 127.5


@pytest.mark.slow
def test_the_resnet_family_gives_pytorchs_image(tmp_path):
    np.savez(tmp_path / "g.npz", **resnet_arrays(4, 2))
    network = load_published(tmp_path / "g.npz", 24)
    image = make_photos(1, 24, 24)[0][None].astype("float32")
    expected = torch_resnet(resnet_arrays(4, 2), image)
    found = np.asarray(network({"source": image})["image"])
    assert expected.std() > 20
    np.testing.assert_allclose(found, expected, atol=0.05)


def numpy_same(x, kernel, stride):
    """TensorFlow's SAME convolution, worked out place by place."""
    size, side = kernel.shape[0], x.shape[0]
    out = -(-side // stride)
    before = max((out - 1) * stride + size - side, 0) // 2
    padded = np.pad(x, ((before, size), (before, size), (0, 0)))
    rows = [
        [
            np.tensordot(padded[stride * i : stride * i + size, stride * j : stride * j + size], kernel, 3)
            for j in range(out)
        ]
        for i in range(out)
    ]
    return np.array(rows)


def numpy_transposed(x, kernel):
    """The SAME transposed convolution by a stride of 2: each place adds its kernel, and what is over is cut."""
    side, size = x.shape[0], kernel.shape[0]
    y = np.zeros((2 * side + size, 2 * side + size, kernel.shape[2]))
    for i in range(side):
        for j in range(side):
            y[2 * i : 2 * i + size, 2 * j : 2 * j + size] += kernel @ x[i, j]
    return y[: 2 * side, : 2 * side]


def numpy_style(values, image):
    """ml5.js' graph, as the data's description has it."""

    def at(number):
        return values[f"Variable_{number}" if number else "Variable"].astype("float64")

    def norm(x, number):
        x = (x - x.mean((0, 1))) / np.sqrt(x.var((0, 1)) + 1e-3)
        return x * at(number + 2) + at(number + 1)

    def convolved(x, number, stride=1):
        return norm(numpy_same(x, at(number), stride), number)

    x = np.maximum(convolved(image, 0), 0)
    x = np.maximum(convolved(x, 3, 2), 0)
    x = np.maximum(convolved(x, 6, 2), 0)
    for number in (9, 15, 21, 27, 33):
        x = x + convolved(np.maximum(convolved(x, number), 0), number + 3)
    for number in (39, 42):
        x = np.maximum(norm(numpy_transposed(x, at(number)), number), 0)
    return 150 * np.tanh(convolved(x, 45)) + 127.5


def test_the_style_family_is_numpys(tmp_path):
    np.savez(tmp_path / "g.npz", **{name: value.astype("float16") for name, value in ml5_arrays(3).items()})
    image = make_photos(1, 12, 12)[0].astype("float32")
    found = np.asarray(load_published(tmp_path / "g.npz", 12)({"source": image[None]})["image"])[0]
    rounded = {name: value.astype("float16") for name, value in ml5_arrays(3).items()}
    expected = numpy_style(rounded, image)
    assert expected.std() > 20
    np.testing.assert_allclose(found, expected, atol=0.05)


@pytest.mark.slow
def test_the_published_files_give_their_pictures(shared_data):
    image = make_photos(1, 64, 64)[0][None].astype("float32")
    path = shared_data / "generators" / "vintagify_G_A2B_resnet9_ngf64_fp16.npz"
    network = load_published(path, 64)
    assert network.count_params() == 11_388_675
    with np.load(path) as stored:
        expected = torch_resnet(dict(stored), image)
    np.testing.assert_allclose(network({"source": image})["image"], expected, atol=0.2)
    for name in ("rain_princess", "udnie", "wave"):
        painter = load_published(shared_data / "generators" / f"ml5_style_{name}_fp16.npz", 64)
        painted = np.asarray(painter({"source": image})["image"])
        assert painter.count_params() == 1_677_638 and painted.std() > 20 and np.isfinite(painted).all()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda values: values.clear(), "neither published family"),
        (lambda values: values.pop("Variable_46"), "has other arrays than its family"),
        (lambda values: values.update(Variable=np.zeros((9, 9, 3, 5))), "has other arrays than its family"),
    ],
)
def test_a_file_of_another_kind_is_refused(change, words, tmp_path):
    values = ml5_arrays(3)
    change(values)
    np.savez(tmp_path / "g.npz", **values)
    with pytest.raises(UserError, match=rf"^--teacher: .*g.npz .*{words}"):
        load_published(tmp_path / "g.npz", 16)
    (tmp_path / "g.npz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"^--teacher: .* is not a .npz that can be read"):
        load_published(tmp_path / "g.npz", 16)


def load(teacher, resolution, **more):
    return load_generator(pinned(GeneratorTeacherOptions(teacher=str(teacher), **more)), resolution)


@pytest.mark.slow
def test_a_run_teaches_with_both_generators(tmp_path):
    student = make_image_student()
    save_run(student, tmp_path / "run", make_photos(2, 8, 8), recipe=None)
    source = student.condition.arrays(make_photos(2, 32, 32))
    options = pinned(GeneratorTeacherOptions(teacher=f"run:{tmp_path / 'run'}"))
    assert len(options.teacher_weights_sha256) == 64 and pinned(options) == options
    teacher = load_generator(options, 32)
    np.testing.assert_array_equal(teacher.network(source)["image"], student.network(source)["image"])
    assert teacher.inverse is None and not teacher.network.trainable
    save_network(randomised(build_generator("resnet", 32, 4, 1)), tmp_path / "run" / "inverse.keras")
    assert load_generator(options, 32).inverse.name == "resnet"
    with pytest.raises(
        UserError, match=r"--teacher: .* reads and gives images of 32 and 32 px, not of --resolution=64"
    ):
        load_generator(options, 64)
    with pytest.raises(UserError, match=r"--teacher: .* has SHA-256 .*, not abc"):
        pinned(dataclasses.replace(options, teacher_weights_sha256="abc"))


def test_no_teacher_and_what_is_none():
    assert load("none", 32) is None
    with pytest.raises(UserError, match=r"--teacher: .*nowhere.*student.keras does not exist"):
        load("run:nowhere", 32)
    with pytest.raises(UserError, match="--teacher: vgg19 is none of none, run:DIR"):
        load("vgg19", 32)


@pytest.mark.slow
def test_an_exported_model_teaches(tmp_path):
    student, photos = make_image_student(), make_photos(3, 32, 32)
    version = export_student(student, tmp_path / "inks", photos, artifacts=())
    teacher = load(version, 32)
    source = student.condition.arrays(photos)
    expected = np.clip(np.rint(student.network(source)["image"]), 0, 255)
    assert np.abs(np.asarray(teacher.network(source)["image"]) - expected).max() <= 1
    with pytest.raises(UserError, match="does not read and give images of --resolution=64"):
        load(version, 64)


@pytest.mark.parametrize(
    ("kind", "norm", "depth"),
    [("resnet", "instance_affine", 2), ("style", "instance", 1), ("unet", "batch", 5)],
)
def test_a_student_as_wide_as_the_teacher_is_the_teacher(kind, norm, depth):
    teacher = randomised(build_generator(kind, 32, 4, depth, norm))
    if norm == "batch":
        for layer in teacher.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.moving_variance.assign(np.abs(layer.moving_variance) + 0.5)
    student = build_generator(kind, 32, 4, depth, norm)
    start_from_teacher(student, teacher)
    source = {"source": make_photos(1, 32, 32)[0][None].astype("float32")}
    np.testing.assert_array_equal(student(source)["image"], teacher(source)["image"])


@pytest.mark.parametrize(("kind", "first"), [("style", 0), ("resnet", -1)])
def test_upsampling_starts_as_the_mean_of_the_transposed_convolution(kind, first):
    """Its map is the mean of the teacher's over 2x2 places, which begin at the place itself or at the one before."""
    teacher = randomised(build_generator(kind, 16, 4, 1))
    student = build_generator(kind, 16, 4, 1, upsampling="nearest")
    start_from_teacher(student, teacher)
    source = {"source": make_photos(1, 16, 16)[0][None].astype("float32")}
    enlarged = "up1" if kind == "style" else "up1_crop"
    theirs = np.asarray(keras.Model(teacher.input, teacher.get_layer(enlarged).output)(source))
    ours = np.asarray(keras.Model(student.input, student.get_layer("up1").output)(source))
    rows = theirs[:, :-1] + theirs[:, 1:]
    means = (rows[:, :, :-1] + rows[:, :, 1:]) / 4
    bias = teacher.get_layer("up1").bias
    if bias is not None:
        np.testing.assert_array_equal(student.get_layer("up1").bias, bias)
    inner = slice(1, -1)
    found = ours[:, 1:-1, 1:-1]
    expected = means[:, 1:, 1:] if first == 0 else means[:, :-1, :-1]
    np.testing.assert_allclose(found[:, inner, inner], expected[:, inner, inner], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "norm"), [("resnet", "instance"), ("style", "instance"), ("unet", "batch")])
def test_channels_that_do_nothing_are_left_out(kind, norm):
    """A teacher whose other channels are zero is kept whole by a student of half its width."""
    narrow = randomised(build_generator(kind, 32, 2, 2, norm), 1)
    if norm == "batch":
        for layer in narrow.layers:
            if isinstance(layer, keras.layers.BatchNormalization):
                layer.moving_variance.assign(np.abs(layer.moving_variance) + 0.5)
    wide = build_generator(kind, 32, 4, 2, norm)
    for layer, other in zip(wide.layers, narrow.layers, strict=True):
        layer.set_weights(
            [spread(value, each.shape) for value, each in zip(other.get_weights(), layer.weights, strict=True)]
        )
    student = build_generator(kind, 32, 2, 2, norm)
    start_from_teacher(student, wide)
    for found, expected in zip(student.get_weights(), narrow.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


def spread(values, shape):
    """The values at every second channel of a larger array, zeros between them."""
    wide = np.zeros(shape, "float32")
    steps = tuple(slice(0, None, size // own) for size, own in zip(shape, values.shape, strict=True))
    wide[steps] = values
    return wide


@pytest.mark.slow
def test_fewer_blocks_are_the_first_ones_and_misfits_are_named():
    teacher = randomised(build_generator("style", 16, 4, 3))
    student = build_generator("style", 16, 4, 1)
    start_from_teacher(student, teacher)
    np.testing.assert_array_equal(
        student.get_layer("block1b").get_weights()[0], teacher.get_layer("block1b").get_weights()[0]
    )
    for wrong, words in (
        (build_generator("style", 16, 4, 4), "the teacher has no layer block4a"),
        (build_generator("style", 16, 6, 3), "has 6 channels in the student, 4 in the teacher"),
        (build_generator("resnet", 16, 4, 3), "stem has other weights in the teacher; does --generator_norm differ"),
    ):
        with pytest.raises(UserError, match=f"--student_init: {words}" if "channels" not in words else words):
            start_from_teacher(wrong, teacher)
