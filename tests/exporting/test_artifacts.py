import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from t2i_kd.errors import UserError
from t2i_kd.loading import load_artifact

EXACT = (".", "assets.extra/student.tflite", "assets.extra/student.onnx")


@pytest.fixture
def copy(version, tmp_path):
    """A copy of the export that a test may spoil."""
    return shutil.copytree(version, tmp_path / "tiny" / "1")


@pytest.mark.parametrize("name", EXACT)
def test_every_artifact_draws_the_same(name, version, captions, pictures):
    artifact = load_artifact(version / name)
    drawn = artifact.generate(captions, list(range(len(captions))))
    assert drawn.dtype == np.uint8 and artifact.resolution == 32
    assert np.abs(drawn.astype(int) - pictures).max() <= 1


def test_float16_and_int8_draw_nearly_the_same(version, captions, pictures):
    seeds = list(range(len(captions)))
    half = load_artifact(version / "assets.extra" / "student_float16.tflite").generate(captions, seeds)
    assert np.abs(half.astype(int) - pictures).max() <= 2
    eighth = load_artifact(version / "assets.extra" / "student_int8.tflite").generate(captions, seeds)
    assert np.abs(eighth.astype(int) - pictures).mean() < 0.5 * np.abs(pictures - pictures.mean(0)).mean()


def test_a_run_directory_draws_the_same(run_dir, captions, pictures):
    drawn = load_artifact(run_dir).generate(captions, list(range(len(captions))))
    assert np.abs(drawn.astype(int) - pictures).max() <= 1


def test_edge_seeds_agree(version):
    seeds = [-1, 2**63 - 1, -(2**63), 2**32]
    drawn = [load_artifact(version / name).generate(["a red circle"] * 4, seeds).astype(int) for name in EXACT]
    assert np.abs(drawn[0] - drawn[1]).max() <= 1
    assert np.abs(drawn[0] - drawn[2]).max() <= 1
    assert np.abs(drawn[0][0] - drawn[0][1]).max() > 1


@pytest.mark.parametrize("name", ["student.tflite", "student.onnx"])
def test_files_are_drawn_without_tensorflow(name, version, tmp_path):
    out = tmp_path / "picture.png"
    program = (
        "import sys\n"
        "from t2i_kd.generate import write_images\n"
        f"write_images({str(version / 'assets.extra' / name)!r}, ['a small red circle'], [], 3, {str(out)!r})\n"
        "unwanted = {'tensorflow', 'keras', 'jax', 't2i_kd.teachers', 't2i_kd.training', 't2i_kd.student'}\n"
        "unwanted |= {'t2i_kd.data.' + name for name in ('batches', 'catalogue', 'captioned_shapes')}\n"
        "loaded = unwanted & set(sys.modules)\n"
        "assert not loaded, loaded\n"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True)
    expected = load_artifact(version).generate(["a small red circle"], [3])[0]
    assert np.abs(np.asarray(Image.open(out)).astype(int) - expected).max() <= 1


@pytest.mark.slow
def test_the_command_draws_a_saved_model(version, tmp_path):
    out = tmp_path / "grid.png"
    command = [sys.executable, "-m", "t2i_kd.generate", f"--model={version}", f"--out={out}", "--seed=5"]
    subprocess.run([*command, "--caption=a red circle", "--caption=a blue square"], check=True)
    sheet = np.asarray(Image.open(out)).astype(int)
    expected = load_artifact(version).generate(["a red circle", "a blue square"], [5, 5]).astype(int)
    for left, picture in ((8, expected[0]), (8 + 128 + 8, expected[1])):
        assert np.abs(sheet[8:136:4, left : left + 128 : 4] - picture).max() <= 1


def test_damaged_files_are_named(copy):
    extra = copy / "assets.extra"
    for name in ("student.tflite", "student.onnx"):
        content = bytearray((extra / name).read_bytes())
        content[len(content) // 2] ^= 1
        (extra / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: damaged"):
            load_artifact(extra / name)
    variables = copy / "variables" / "variables.data-00000-of-00001"
    variables.write_bytes(variables.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"variables.*: damaged"):
        load_artifact(copy)
    variables.unlink()
    with pytest.raises(UserError, match=r"variables.*: No such file"):
        load_artifact(copy)


@pytest.mark.parametrize("name", ["student.tflite", "student.onnx"])
def test_a_file_that_its_runtime_cannot_read_is_named(name, copy):
    import hashlib

    extra = copy / "assets.extra"
    document = json.loads((extra / "manifest.json").read_text())
    content = b"this is no model"
    (extra / name).write_bytes(content)
    for artifact in document["artifacts"].values():
        for entry in artifact["files"]:
            if entry["file"].endswith(name):
                entry |= {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (extra / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(UserError, match=f"{name}: not an? .* model that can be read"):
        load_artifact(extra / name)


def test_what_lies_beside_a_file_is_needed(copy, tmp_path):
    extra = copy / "assets.extra"
    alone = tmp_path / "student.tflite"
    shutil.copy(extra / "student.tflite", alone)
    with pytest.raises(UserError, match=r"manifest\.json: missing"):
        load_artifact(alone)
    renamed = extra / "mine.tflite"
    shutil.copy(extra / "student.tflite", renamed)
    with pytest.raises(UserError, match=r"mine\.tflite: not listed"):
        load_artifact(renamed)
    (extra / "vocabulary.txt").write_text("[PAD]\n[UNK]\nother\n")
    with pytest.raises(UserError, match=r"vocabulary\.txt: damaged"):
        load_artifact(extra / "student.tflite")
    (extra / "vocabulary.txt").unlink()
    with pytest.raises(UserError, match=r"vocabulary\.txt: No such file"):
        load_artifact(extra / "student.tflite")
    (extra / "condition.json").write_text("{}")
    with pytest.raises(UserError, match=r"condition\.json: damaged"):
        load_artifact(extra / "student.tflite")
    (extra / "condition.json").unlink()
    with pytest.raises(UserError, match=r"condition\.json: No such file"):
        load_artifact(extra / "student.tflite")
    for old in ("{}", '{"format_version": 1, "text": {}}'):
        (extra / "manifest.json").write_text(old)
        with pytest.raises(UserError, match=r"manifest\.json: not a manifest of format 2"):
            load_artifact(extra / "student.tflite")
    (extra / "manifest.json").write_bytes(b"\xff{")
    with pytest.raises(UserError, match=r"manifest\.json: not text in UTF-8"):
        load_artifact(copy)


def test_paths_that_are_no_model_are_named(version, tmp_path):
    with pytest.raises(UserError, match="nowhere: no such file or folder"):
        load_artifact(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds versions of a model; give one of them: .*1$"):
        load_artifact(version.parent)
    with pytest.raises(UserError, match="neither a version folder"):
        load_artifact(tmp_path)
    (tmp_path / "weights.h5").touch()
    with pytest.raises(UserError, match=r"weights\.h5: not a model"):
        load_artifact(tmp_path / "weights.h5")
    (tmp_path / "best.keras").touch()
    with pytest.raises(UserError, match=r"best\.keras: no folder above it holds the condition\.json of a run"):
        load_artifact(tmp_path / "best.keras")


@pytest.mark.parametrize(
    ("module", "name", "extra"),
    [("ai_edge_litert.interpreter", "student.tflite", "litert"), ("onnxruntime", "student.onnx", "onnx")],
)
def test_a_missing_runtime_is_named_by_its_extra(module, name, extra, version, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=f"needs the extra `{extra}`"):
        load_artifact(version / "assets.extra" / name)
