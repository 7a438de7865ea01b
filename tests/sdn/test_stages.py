"""Which stages SDN refuses, before anything is loaded."""

import pytest

from t2i_kd.errors import UserError
from t2i_kd.options import DataOptions, TeacherOptions
from t2i_kd.recipe_flags import parse_stage
from t2i_kd.sdn import SDNOptions, SDNRecipe, SDNStage
from t2i_kd.sdn.trainer import check_stage
from t2i_kd.teachers.vgg19 import TAPS, tap_shapes

VGG_LIKE = """
import keras

def load(options, resolution):
    image = keras.Input((resolution, resolution, 3), name="image")
    half = keras.layers.AveragePooling2D(2)
    first = keras.layers.Conv2D(16, 3, padding="same")(image)
    small = keras.layers.Conv2D(16, 3, padding="same")(half(first))
    return keras.Model(image, {"image": image, "conv1_1": first, "pool1": small, "conv2_1": small, "edges": first})
"""


def check(stage, resolution=32, width=0.25, **teacher):
    recipe = SDNRecipe(
        data=DataOptions(resolution=resolution),
        teacher=TeacherOptions(**teacher),
        sdn=SDNOptions(width=width),
    )
    check_stage(parse_stage(f"I: steps=1 {stage}", SDNStage), recipe)


def refused(named, *arguments, **options):
    with pytest.raises(UserError, match=named) as refusal:
        check(*arguments, **options)
    assert "\n" not in str(refusal.value)


def test_a_student_mirrors_the_vgg19_of_its_width():
    check("objective=mirrored", teacher="vgg19_slim")
    check("objective=mirrored", width=1.0, teacher="vgg19")
    check("objective=mirrored tap_weights=image:1", width=0.5, teacher="vgg19_slim")
    check("objective=perceptual", width=0.5, teacher="vgg19_slim")
    refused(
        r"^--width: 0.5 does not match the teacher's 0.25 \(vgg19_slim\), and stage I compares",
        "objective=mirrored",
        width=0.5,
        teacher="vgg19_slim",
    )
    refused("^--resolution: 48 is not a positive multiple of 32", "objective=mirrored", 48, teacher="vgg19_slim")


def test_without_a_teacher_only_the_image_is_compared():
    check("objective=mirrored tap_weights=image:2", teacher="none")
    for taps in ("", "tap_weights=conv1_1:1", "tap_weights=image:1,pool5:1"):
        refused("^--stage I: without a teacher only tap_weights=image:1", f"objective=mirrored {taps}", teacher="none")


def test_another_networks_taps_are_not_mirrored():
    taps = "tap_weights=image:1,expanded_conv_*:1"
    check(f"objective=perceptual {taps}", teacher="MobileNetV2")
    check("objective=mirrored tap_weights=image:1", teacher="MobileNetV2")
    refused(
        r"^--stage I: .*does not mirror expanded_conv_depthwise \(16, 16, 32\) of MobileNetV2: it has none",
        f"objective=mirrored {taps}",
        teacher="MobileNetV2",
    )
    refused("fits none of the taps image, Conv1, ", "objective=perceptual tap_weights=pool5:1", teacher="MobileNetV2")


def test_another_teachers_taps_are_mirrored_where_names_and_shapes_are_the_students(tmp_path, monkeypatch):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "like_vgg.py").write_text(VGG_LIKE)
    monkeypatch.syspath_prepend(tmp_path)
    check("objective=mirrored tap_weights=image:1,conv1_1:1,pool1:1", teacher="outside.like_vgg")
    refused(
        r"^--stage I: .*does not mirror conv2_1 \(16, 16, 16\) of outside.like_vgg: .* that name is \(16, 16, 32\)",
        "objective=mirrored tap_weights=conv*:1",
        teacher="outside.like_vgg",
    )
    refused("does not mirror edges .* has none", "objective=mirrored tap_weights=e*:1", teacher="outside.like_vgg")


def test_shapes_are_those_of_the_students_tensors():
    assert tuple(tap_shapes(64, 0.5)) == TAPS
    assert (tap_shapes(64, 0.5)["image"], tap_shapes(64, 0.5)["pool5"]) == ((64, 64, 3), (2, 2, 256))
