"""PyTorch's student is ours: the same picture of every caption; and a contender that is not is not timed."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import latency_vs_pytorch as latency
from t2i_kd.errors import UserError
from t2i_kd.options import DataOptions, StudentOptions, TextOptions
from t2i_kd.sdn import SDNOptions, SDNRecipe

NAMES = list(latency.PYTORCH.values())


def recipe(head_rank=0, image_output="centred", **student):
    return SDNRecipe(
        data=DataOptions(resolution=32),
        text=TextOptions(text_dim=16, text_length=8, word_dim=8),
        student=StudentOptions(**student),
        sdn=SDNOptions(width=1 / 16, initializer="he", image_output=image_output, head_rank=head_rank),
    )


@pytest.mark.slow
@pytest.mark.parametrize("channels_last", [False, True])
def test_the_twin_draws_the_same(channels_last, tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not here; it comes with the extra `benchmarks`")
    from benchmarks.pytorch_student import PyTorchStudent
    from t2i_kd.student import load_student

    latency.make_run(recipe(whiten_text=True, head_rank=4), tmp_path / "run")
    student = load_student(tmp_path / "run")
    twin = PyTorchStudent(student, channels_last)
    tokens = student.condition.front_end.features(["w1", *latency.make_captions(3)])
    expected = np.clip(student.network({"tokens": tokens})["image"].numpy(), 0, 255)
    with torch.inference_mode():
        drawn = np.concatenate([twin(torch.from_numpy(row[None]).long()).numpy() for row in tokens])
    np.testing.assert_allclose(drawn, expected, atol=2e-3)
    assert expected.std() > 10


def test_a_made_up_students_pixels_spread(tmp_path):
    from t2i_kd.loading import load_artifact

    latency.make_run(recipe(), tmp_path / "run")
    captions = latency.make_captions(3)
    assert load_artifact(tmp_path / "run").generate(captions, [0] * 3).std() > 10
    assert captions == latency.make_captions(64)[:3] and len(set(captions)) == 3


def test_a_student_that_pytorch_lacks_is_refused(tmp_path):
    with pytest.raises(UserError, match="--text_encoder, --noise_dim: "):
        latency.make_run(recipe(noise_dim=2), tmp_path / "run")


def test_nothing_is_timed_that_draws_something_else():
    black, off = np.zeros((1, 4, 4, 3), np.uint8), np.full((1, 4, 4, 3), 2, np.uint8)
    drawn = {**dict.fromkeys(NAMES, black), "LiteRT int8": off, "LiteRT float16": off}
    found = latency.check_pictures({name: SimpleNamespace(pictures=pictures) for name, pictures in drawn.items()})
    assert {name: off.largest for name, off in found.items()} == dict(zip(drawn, (0, 0, 2, 2), strict=True))
    for name in ("ONNX", "TensorFlow, XLA", "LiteRT float32", NAMES[1]):
        workers = {name: SimpleNamespace(pictures=pictures) for name, pictures in (drawn | {name: off}).items()}
        with pytest.raises(UserError, match=f"{name}: differs from PyTorch by 2/255"):
            latency.check_pictures(workers)


def test_the_factor_is_to_the_better_pytorch():
    differences = dict.fromkeys([*NAMES, "ONNX"], SimpleNamespace(mean=0.0, largest=1))
    lines = latency.rows({1: dict(zip(differences, (6.0, 4.0, 2.5), strict=True))}, differences)
    assert [line["PyTorch's time / it, 1"] for line in lines] == ["0.67x", "1.00x", "1.60x"]
