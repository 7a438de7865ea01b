"""The registry of teachers: which there are, what is refused, and teachers from outside."""

import sys

import keras
import numpy as np
import pytest

from t2i_kd.errors import UserError
from t2i_kd.options import TeacherOptions
from t2i_kd.teachers.catalogue import load_teacher, teacher_shapes, teacher_taps
from t2i_kd.teachers.vgg19 import TAPS, build_vgg19

OUTSIDE = """
import keras

def load(options, resolution):
    image = keras.Input((resolution, resolution, 3))
    small = keras.layers.AveragePooling2D(2)(image)
    return keras.Model(image, {"zoomed_out": small, "colour": keras.layers.GlobalAveragePooling2D()(small)})
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """The name of a module on the path."""
    folder = tmp_path_factory.mktemp("path")
    (folder / "teachers_from_outside").mkdir()
    (folder / "teachers_from_outside" / "average.py").write_text(OUTSIDE)
    (folder / "teachers_from_outside" / "wrong.py").write_text("def load(options, resolution):\n    return 3\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield "teachers_from_outside"
    for name in [name for name in sys.modules if name.startswith("teachers_from_outside")]:
        del sys.modules[name]


@pytest.mark.parametrize(("teacher", "width"), [("vgg19", 1.0), ("vgg19_slim", 0.25)])
def test_shapes_are_known_without_weights(teacher, width):
    options = TeacherOptions(teacher=teacher, teacher_weights="absent.weights.h5")
    found = teacher_shapes(options, 64)
    built = build_vgg19(64, width).output
    assert list(found.items()) == [(tap, tuple(output.shape[1:])) for tap, output in built.items()]
    assert teacher_taps(options, 64) == TAPS


def test_no_teacher_is_the_image_itself():
    options = TeacherOptions(teacher="none")
    assert teacher_shapes(options, 48) == {"image": (48, 48, 3)}
    image = np.random.default_rng(0).uniform(0, 255, (1, 48, 48, 3)).astype("float32")
    np.testing.assert_array_equal(load_teacher(options, 48)(image)["image"], image)


def test_a_module_on_the_path_is_a_teacher(package):
    options = TeacherOptions(teacher=f"{package}.average")
    assert teacher_shapes(options, 4) == {"zoomed_out": (2, 2, 3), "colour": (3,)}
    teacher = load_teacher(options, 4)
    image = np.arange(48, dtype="float32").reshape(1, 4, 4, 3)
    np.testing.assert_allclose(teacher(image)["colour"], image.mean((1, 2)))
    assert isinstance(teacher, keras.Model) and not teacher.trainable


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            {"teacher": "VGG20"},
            "^--teacher: 'VGG20' is none of vgg19, vgg19_slim, .*none, .*MobileNetV2.*run:DIR, .*or",
        ),
        ({"teacher": ""}, "^--teacher: '' is none of vgg19"),
        ({"teacher": "a.b-c"}, "^--teacher: 'a.b-c' is none of vgg19"),
        ({"teacher": "absent.module"}, "^--teacher: cannot import absent.module: No module named 'absent'"),
        ({"teacher": "os.path"}, "^--teacher: the module posixpath has no load"),
        ({"teacher": "teachers_from_outside.wrong"}, "^--teacher: .*wrong.load gives no keras.Model"),
        ({"teacher": "run:some/run"}, "^--teacher: some/run/student.keras does not exist; has the run finished"),
        ({"teacher": "VGG16", "teacher_weights": "absent.h5"}, "^--teacher_weights: no file absent.h5"),
        ({"teacher": "VGG16", "teacher_weights_sha256": "0"}, "^--teacher_weights_sha256: Keras checks"),
        ({"teacher": "VGG16", "teacher_pooling": "max"}, "^--teacher_pooling: VGG16 has no such option, only vgg19"),
        ({"teacher": "os.path", "teacher_preprocessing": "none"}, "^--teacher_preprocessing: os.path has no such"),
    ],
)
def test_what_is_no_teacher_is_named(package, options, named):
    with pytest.raises(UserError, match=named):
        load_teacher(TeacherOptions(**options), 32)


@pytest.mark.parametrize(
    ("name", "strided"),
    [
        ("efficientnet_lite0", {"block2_1_depthwise", "block3_1_depthwise", "block4_1_depthwise"}),
        ("MobileNet", {"conv_dw_2", "conv_dw_4", "conv_dw_6", "conv_dw_12"}),
    ],
)
def test_half_precision_leaves_strided_depthwise_layers_in_single(name, strided, tmp_path):
    images, options = (
        np.random.default_rng(2).uniform(0, 255, (2, 64, 64, 3)).astype("float32"),
        TeacherOptions(teacher=name),
    )
    if name == "MobileNet":
        keras.applications.MobileNet(include_top=False, weights=None).save_weights(tmp_path / "m.weights.h5")
        options = TeacherOptions(teacher=name, teacher_weights=str(tmp_path / "m.weights.h5"))
    single = load_teacher(options, 64)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = load_teacher(options, 64)
    finally:
        keras.config.set_dtype_policy(before)
    layers = [each for each in half.layers if isinstance(each, keras.layers.DepthwiseConv2D)]
    assert {each.name for each in layers if each.compute_dtype == "float32"} == strided
    assert {each.compute_dtype for each in layers} == {"float32", "bfloat16"}
    assert {each.compute_dtype for each in single.layers} == {"float32"}
    expected = single(images)
    for tap, values in half(images).items():
        wrong = np.abs(np.asarray(values, "float32") - expected[tap]).mean()
        assert wrong <= 0.08 * np.abs(expected[tap]).mean(), tap
