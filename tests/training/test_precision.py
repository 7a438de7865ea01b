"""What `--dtype_policy=auto` finds, writes and keeps."""

import json

import keras
import pytest

import t2i_kd
from t2i_kd import api
from t2i_kd.dtype_policy import dtype_policy
from t2i_kd.errors import UserError
from t2i_kd.icsd_gan.networks import Discriminator as StageDiscriminator
from t2i_kd.kd_dlgan.networks import Discriminator
from t2i_kd.options import DataOptions, TeacherOptions, TextOptions, TrainingOptions
from t2i_kd.sdn import SDNOptions, SDNRecipe, SDNStage
from t2i_kd.srpkd.networks import build_discriminator
from t2i_kd.training import precision
from t2i_kd.training.projected import enlarged_teacher


def recipe_of(policy):
    return SDNRecipe(
        data=DataOptions(dataset="captioned_shapes", resolution=32),
        text=TextOptions(text_dim=8, word_dim=4, text_length=4),
        teacher=TeacherOptions(teacher="none"),
        sdn=SDNOptions(width=1 / 32, initializer="he"),
        training=TrainingOptions(batch_size=2, dtype_policy=policy),
        stages=(SDNStage("one", "mirrored", steps=1, tap_weights=(("image", 1.0),)),),
    )


def times(monkeypatch, single, half):
    """Lets each pass take so many seconds; returns the list of the passes."""
    passes = []

    def seconds(images, kernel):
        passes.append(str(images.dtype))
        return half if "bfloat16" in str(images.dtype) else single

    monkeypatch.setattr(precision, "_seconds", seconds)
    return passes


@pytest.mark.parametrize(
    ("single", "half", "policy", "told"),
    [
        (0.06, 0.03, "mixed_bfloat16", "2 times as fast"),
        (0.055, 0.05, "float32", "1.1 times as fast"),
        (0.03, 0.05, "float32", "0.6 times as fast"),
    ],
)
def test_half_precision_is_taken_where_it_is_faster(monkeypatch, single, half, policy, told):
    passes = times(monkeypatch, single, half)
    found, line = precision.fastest_policy()
    assert found == policy and f"auto: {policy}, " in line and told in line
    assert len(passes) == 2 * (1 + precision.TURNS)


def test_where_it_is_emulated_one_turn_is_enough(monkeypatch):
    passes = times(monkeypatch, 0.03, 3.0)
    assert precision.fastest_policy()[0] == "float32" and len(passes) == 4


def test_this_machine_is_measured():
    assert 0 < precision.measured_speedup() < 100


def test_a_run_keeps_what_it_began_with(monkeypatch, tmp_path):
    times(monkeypatch, 0.06, 0.03)
    told = []
    t2i_kd.train(recipe_of("auto"), tmp_path / "run", report=told.append)
    assert any(line.startswith("--dtype_policy=auto: mixed_bfloat16") for line in told)
    kept = (tmp_path / "run" / "recipe.json").read_text()
    assert json.loads(kept)["training"]["dtype_policy"] == "mixed_bfloat16"
    # On a machine where it would be float32 the same command goes on as it began.
    passes = times(monkeypatch, 0.03, 0.06)
    assert t2i_kd.train(recipe_of("auto"), tmp_path / "run").finished and not passes
    assert (tmp_path / "run" / "recipe.json").read_text() == kept
    with pytest.raises(UserError, match="--dtype_policy=mixed_bfloat16 there, --dtype_policy=float32 here"):
        t2i_kd.train(recipe_of("float32"), tmp_path / "run")


def test_workers_would_each_find_their_own(tmp_path):
    with pytest.raises(UserError, match="--dtype_policy=auto: the workers"):
        api.train(recipe_of("auto"), tmp_path / "run", distribute="multi_worker")
    assert not (tmp_path / "run").exists()


NETWORKS = {
    "through a teacher": lambda: enlarged_teacher(TeacherOptions(teacher="efficientnet_lite0"), 16, 32),
    "of BigGAN": lambda: Discriminator(16, 4, 2).trunk,
    "of a stage": lambda: StageDiscriminator(8, 4, 2).trunk,
    "PatchGAN": lambda: build_discriminator(32, 2, 2, "instance"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_pixels_are_scaled_in_float32_whatever_the_policy(name):
    """In bfloat16 that took longer than a convolution, and rounded pixels twice."""
    with dtype_policy("mixed_bfloat16"):
        layers = NETWORKS[name]()._flatten_layers()
    kinds = (keras.layers.Rescaling, keras.layers.UpSampling2D)
    scaling = [each for each in layers if isinstance(each, kinds)]
    convolutions = [each for each in layers if isinstance(each, keras.layers.Conv2D)]
    assert scaling and {each.compute_dtype for each in scaling} == {"float32"}
    assert convolutions[0].compute_dtype == "bfloat16"
