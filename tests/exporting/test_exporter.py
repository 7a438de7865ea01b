import dataclasses
import errno
import hashlib
import importlib
import json
import shutil
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf

import t2i_kd
from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.errors import UserError
from t2i_kd.exporting import exporter, manifest
from t2i_kd.exporting.fidelity import FidelityError


@pytest.fixture
def copied_conversions(version, monkeypatch):
    """Conversions that take no time: each gives the file of the finished export. Returns them, to be spoilt."""
    extra = version / "assets.extra"
    contents = {kind: (extra / name).read_bytes() for kind, name in manifest.FILES.items()}
    ignored = shutil.ignore_patterns("assets.extra")
    monkeypatch.setattr(
        exporter,
        "write_saved_model",
        lambda student, folder: shutil.copytree(version, folder, ignore=ignored, dirs_exist_ok=True),
    )
    monkeypatch.setattr(exporter, "convert_litert", lambda *_: {k: v for k, v in contents.items() if "onnx" not in k})
    monkeypatch.setattr(exporter, "convert_onnx", lambda *_: contents["onnx"])
    monkeypatch.setattr(exporter, "with_int8_weights", lambda _: contents["onnx_int8"])
    # A proof on all 64 items is in the finished export's manifest.
    monkeypatch.setattr(exporter, "CHECKED_ITEMS", 16)
    return contents


def export(run_dir, folder, **options):
    return exporter.export_run(run_dir, folder, **{"report": lambda line: None} | options)


def test_a_version_holds_all_its_files_and_nothing_else(version):
    assert sorted(path.name for path in (version / "assets.extra").iterdir()) == [
        "condition.json",
        "manifest.json",
        "recipe.json",
        "student.onnx",
        "student.tflite",
        "student_float16.tflite",
        "student_int8.onnx",
        "student_int8.tflite",
        "tf_serving_warmup_requests",
        "vocabulary.txt",
    ]
    beside = {"assets.extra", "batching_params.pbtxt", "fingerprint.pb", "saved_model.pb", "variables"}
    # Keras makes an `assets` folder, which may be empty.
    assert {path.name for path in version.iterdir()} - {"assets"} == beside
    assert [path.name for path in version.parent.iterdir()] == ["1"]


def test_manifest_names_every_file_with_its_checksum(version, student):
    document = json.loads((version / "assets.extra" / "manifest.json").read_text())
    entries = [entry for artifact in document["artifacts"].values() for entry in artifact["files"]]
    listed = {entry["file"] for entry in entries + document["support_files"]}
    present = {path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file()}
    assert listed == present - {"assets.extra/manifest.json"}
    for entry in entries + document["support_files"]:
        content = (version / entry["file"]).read_bytes()
        assert (entry["size"], entry["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert (document["name"], document["version"], document["format_version"]) == ("tiny", 1, 2)
    assert (document["resolution"], document["noise_dim"]) == (32, 3)
    assert document["parameters"] == student.network.count_params()
    assert {"assets.extra/tf_serving_warmup_requests", "batching_params.pbtxt"} <= {
        entry["file"] for entry in document["support_files"]
    }
    condition = document["condition"]
    assert (condition["kind"], condition["request"], condition["encoder"]) == ("caption", "text", "gru")
    assert condition["inputs"] == {"tokens": {"shape": [8], "dtype": "int32"}}
    assert (condition["tokenizer"], condition["length"], condition["vocabulary_size"]) == ("words", 8, 2 + 13)
    beside = json.loads((version / "assets.extra" / "condition.json").read_text())
    assert beside == {"format_version": 1, **condition}


def test_manifest_names_the_recipe_that_lies_beside_it(version, run_dir):
    document = json.loads((version / "assets.extra" / "manifest.json").read_text())
    recipe = (version / "assets.extra" / "recipe.json").read_bytes()
    assert recipe == (run_dir / "recipe.json").read_bytes()
    assert (document["system"], document["recipe_sha256"]) == ("sdn", hashlib.sha256(recipe).hexdigest())


def test_manifest_keeps_the_proof(version):
    artifacts = json.loads((version / "assets.extra" / "manifest.json").read_text())["artifacts"]
    largest = {kind: artifact["largest_difference"] for kind, artifact in artifacts.items()}
    assert max(largest[kind] for kind in ("saved_model", "litert", "onnx")) <= 1
    assert largest["litert_float16"] <= 2
    assert 0 < artifacts["onnx_int8"]["mean_difference"] < artifacts["litert_int8"]["mean_difference"] < 32
    assert {artifact["items"] for artifact in artifacts.values()} == {64}


def onnx_weights(version, kind):
    """The model of an ONNX artifact, and its weights: {name: array}."""
    import onnx

    model = onnx.load(version / "assets.extra" / manifest.FILES[kind])
    return model, {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_int8_weights_are_those_of_the_whole_file_to_half_a_step(version):
    whole_model, whole = onnx_weights(version, "onnx")
    model, stored = onnx_weights(version, "onnx_int8")
    large = {name for name, values in whole.items() if values.dtype == np.float32 and values.size >= 1024}
    assert large and all(whole[name].ndim >= 2 for name in large)
    assert stored.keys() == whole.keys() - large | {name + end for name in large for end in ("_int8", "_scale")}
    for name in whole.keys() - large:
        np.testing.assert_array_equal(stored[name], whole[name])
    for name in large:
        codes, scales, values = stored[f"{name}_int8"], stored[f"{name}_scale"], whole[name]
        assert codes.dtype == np.int8 and codes.shape == values.shape and np.abs(codes.astype(int)).max() == 127
        (axis,) = (axis for axis, size in enumerate(scales.shape) if size > 1)
        assert scales.dtype == np.float32 and scales.size == values.shape[axis]
        for channel, scale in enumerate(scales.ravel().astype(float)):
            exact = values.take(channel, axis).astype(float)
            assert np.abs(exact).max() == pytest.approx(127 * scale, rel=1e-6)
            np.testing.assert_allclose(codes.take(channel, axis) * scale, exact, rtol=0, atol=scale * 0.50002)
    # The rest of the graph is the same, with two nodes before it for each of these weights.
    assert list(model.graph.node)[2 * len(large) :] == list(whole_model.graph.node)
    sizes = [len(each.SerializeToString()) for each in (whole_model, model)]
    saved = sum(3 * whole[name].size - stored[f"{name}_scale"].nbytes for name in large)
    assert sizes[0] - saved < sizes[1] < sizes[0] - saved + 600 * len(large)


def test_int8_weights_compute_as_the_same_weights_in_float32(version):
    import onnx
    import onnxruntime

    model, stored = onnx_weights(version, "onnx")[0], onnx_weights(version, "onnx_int8")[1]
    for tensor in model.graph.initializer:
        if f"{tensor.name}_int8" in stored:
            values = stored[f"{tensor.name}_int8"] * stored[f"{tensor.name}_scale"]
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))
    inputs = {"tokens": np.array([[2, 5, 7, 3, 0, 0, 0, 0]], np.int32), "noise": np.ones((1, 3), np.float32)}
    files = model.SerializeToString(), (version / "assets.extra" / "student_int8.onnx").read_bytes()
    sessions = [onnxruntime.InferenceSession(each, providers=["CPUExecutionProvider"]) for each in files]
    expected, found = (session.run(["image"], inputs)[0] for session in sessions)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-3)


def test_only_the_artifacts_asked_for_are_written(run_dir, copied_conversions, tmp_path, monkeypatch):
    monkeypatch.setattr(exporter, "convert_onnx", None)
    folder = export(run_dir, tmp_path / "some", artifacts=("litert_int8",))
    names = sorted(path.name for path in (folder / "assets.extra").iterdir())
    assert names == [
        "condition.json",
        "manifest.json",
        "recipe.json",
        "student_int8.tflite",
        "tf_serving_warmup_requests",
        "vocabulary.txt",
    ]
    document = json.loads((folder / "assets.extra" / "manifest.json").read_text())
    assert list(document["artifacts"]) == ["saved_model", "litert_int8"]


def test_int8_is_calibrated_on_the_runs_own_captions(run_dir, copied_conversions, student, tmp_path, monkeypatch):
    given = []
    litert = {kind: content for kind, content in copied_conversions.items() if "onnx" not in kind}
    monkeypatch.setattr(exporter, "convert_litert", lambda _, inputs, kinds: given.append(inputs) or litert)
    export(run_dir, tmp_path / "calibrated")
    captions = (run_dir / "captions.txt").read_text().splitlines()
    tokens = given[0]["tokens"]
    assert tokens.shape == (64, 8) and given[0]["noise"].shape == (64, 3)
    assert {tuple(row) for row in tokens} == {tuple(row) for row in student.condition.front_end.tokenizer(captions)}


def test_an_int8_file_that_moves_pixels_far_is_made_anew_of_8_bit_weights_alone(
    run_dir, copied_conversions, tmp_path, monkeypatch
):
    asked, lines = [], []
    files = {True: copied_conversions["litert_int8"], False: copied_conversions["litert_float16"]}

    def convert(student, inputs, kinds):
        asked.append((inputs is None, tuple(kinds)))
        return {"litert_int8": files[inputs is not None]}

    monkeypatch.setattr(exporter, "convert_litert", convert)
    cases = ((255.0, True, [False]), (-1.0, True, [False, True]), (-1.0, False, [False]))
    for number, (bound, takes, calls) in enumerate(cases):
        asked.clear()
        lines.clear()
        monkeypatch.setattr(exporter.fidelity, "MOST_OF_CALIBRATED", bound)
        monkeypatch.setattr(exporter, "takes_8_bit_activations", lambda _, takes=takes: takes)
        folder = export(run_dir, tmp_path / str(number), artifacts=("litert_int8",), report=lines.append)
        assert asked == [(anew, ("litert_int8",)) for anew in calls]
        assert (folder / "assets.extra" / "student_int8.tflite").read_bytes() == files[calls == [False]]
        assert sum("now weights alone" in line for line in lines) == len(calls) - 1


def test_an_existing_version_is_kept_unless_told(version, run_dir, copied_conversions, tmp_path):
    with pytest.raises(UserError, match=r"--export_dir: .*1 exists.*--overwrite"):
        export(run_dir, version.parent)
    folder = tmp_path / "again"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "old").touch()
    published = export(run_dir, folder, overwrite=True)
    assert (published / "saved_model.pb").is_file() and not (published / "old").exists()
    assert export(run_dir, folder, version=2).name == "2"
    assert sorted(path.name for path in folder.iterdir()) == ["1", "2"]


@pytest.mark.parametrize(
    ("kind", "instead"),
    [("litert", "litert_int8"), ("litert_float16", "litert_int8"), ("onnx", None), ("onnx_int8", None)],
)
def test_a_conversion_that_draws_something_else_is_not_published(kind, instead, run_dir, copied_conversions, tmp_path):
    copied_conversions[kind] = copied_conversions[instead] if instead else _other_constants(copied_conversions[kind])
    with pytest.raises(FidelityError, match=f"{kind} differs from the Keras model by .*nothing was published"):
        export(run_dir, tmp_path / "spoilt")
    assert list((tmp_path / "spoilt").iterdir()) == []


def _other_constants(content):
    """The same ONNX graph with its largest weight set to zero."""
    import numpy as np
    import onnx

    model = onnx.load_from_string(content)
    largest = max(model.graph.initializer, key=lambda tensor: len(tensor.raw_data))
    zeros = onnx.numpy_helper.from_array(np.zeros_like(onnx.numpy_helper.to_array(largest)), largest.name)
    largest.CopyFrom(zeros)
    return model.SerializeToString()


def test_the_command_ends_with_1_and_one_line_when_the_proof_fails(run_dir, tmp_path, monkeypatch):
    from absl import flags

    # An import of the command puts it where the package's function of the same name is; the patch puts that back.
    monkeypatch.setattr(t2i_kd, "export", t2i_kd.export)
    command = importlib.import_module("t2i_kd.export")

    def fail(*_, **__):
        raise FidelityError("onnx differs")

    values = flags.FlagValues()
    flags.DEFINE_string("run_dir", str(run_dir), "", flag_values=values)
    flags.DEFINE_string("export_dir", str(tmp_path / "model"), "", flag_values=values)
    flags.DEFINE_integer("version", 1, "", flag_values=values)
    flags.DEFINE_boolean("overwrite", False, "", flag_values=values)
    flags.DEFINE_float("truncation", 1.0, "", flag_values=values)
    flags.DEFINE_list("artifacts", [], "", flag_values=values)
    values.mark_as_parsed()
    monkeypatch.setattr(command.flags, "FLAGS", values)
    monkeypatch.setattr(command.commands, "load_backend", lambda: None)
    monkeypatch.setattr(exporter, "export_run", fail)
    with pytest.raises(SystemExit, match="error: onnx differs"):
        command.main()
    values.artifacts = ["onnx", "flash"]
    with pytest.raises(UserError, match="--artifacts: 'flash' is none of litert, "):
        command.main()


def test_a_full_disk_leaves_the_old_version(run_dir, copied_conversions, tmp_path, monkeypatch):
    folder = tmp_path / "full"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "old").touch()

    def no_space(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(exporter, "convert_onnx", no_space)
    with pytest.raises(UserError, match=r"--export_dir: .*No space left on device"):
        export(run_dir, folder, overwrite=True)
    assert [path.name for path in folder.rglob("*")] == ["1", "old"]


@pytest.mark.slow
@pytest.mark.parametrize("kibibytes", [16, 200])
def test_a_disk_that_fills_while_tensorflow_writes(run_dir, tmp_path, kibibytes):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(disk)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        with pytest.raises(UserError, match=r"--export_dir: .*No space left on device") as caught:
            export(run_dir, disk / "model")
        assert "\n" not in str(caught.value)
        assert not list((disk / "model").iterdir())
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_bad_input_is_named(run_dir, tmp_path):
    with pytest.raises(UserError, match=r"--run_dir: .*is its training finished"):
        export(tmp_path, tmp_path / "a")
    with pytest.raises(UserError, match="--version: 0"):
        export(run_dir, tmp_path / "b", version=0)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="--export_dir"):
        export(run_dir, tmp_path / "file")
    without_captions = shutil.copytree(run_dir, tmp_path / "run")
    (without_captions / "captions.txt").write_text("\n \n")
    with pytest.raises(UserError, match=r"captions\.txt: holds no caption"):
        export(without_captions, tmp_path / "c")


def test_a_student_that_reads_no_new_captions_is_refused(student, tmp_path):
    class Precomputed(type(student.condition.front_end)):
        reads_any_text = False

    condition = CaptionCondition(Precomputed("precomputed", student.condition.front_end.tokenizer))
    bound = dataclasses.replace(student, condition=condition)
    with pytest.raises(UserError, match=r"--text_encoder=precomputed reads only captions .*gru, char_cnn_rnn or hub"):
        exporter.export_student(bound, tmp_path / "model", ["a"])
    assert not (tmp_path / "model").exists()


def test_another_backend_is_sent_to_tensorflow(student, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match="KERAS_BACKEND=jax: exporting needs TensorFlow"):
        exporter.export_student(student, tmp_path / "model", ["a"])
    assert not (tmp_path / "model").exists()


def test_a_version_is_exported_by_one_process_at_a_time(tmp_path):
    target, refused = tmp_path / "1", pytest.raises(UserError, match=r"--export_dir: .*1 is in use by process \d+ on")
    with exporter._locked(target), refused, exporter._locked(target):
        raise AssertionError("held twice")
    with exporter._locked(tmp_path / "2"), exporter._locked(target):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_export_left_is_removed_and_a_version_moved_aside_comes_back(tmp_path):
    for name in (".exporting-1-77", ".replaced-1-77", ".exporting-12-77"):
        (tmp_path / name).mkdir()
    (tmp_path / ".replaced-1-77" / "old").touch()
    with exporter._locked(tmp_path / "1"):
        assert {path.name for path in tmp_path.iterdir()} == {".1.lock", "1", ".exporting-12-77"}
    assert (tmp_path / "1" / "old").exists()


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (OSError(errno.ENOSPC, "x"), "No space left on device"),
        (tf.errors.ResourceExhaustedError(None, None, "a/b; No space left on device"), "No space left on device"),
        (RuntimeError("while writing: File too large"), "File too large"),
        (RuntimeError("the shapes differ"), ""),
        (tf.errors.InvalidArgumentError(None, None, "wrong"), ""),
    ],
)
def test_a_disk_that_refuses_is_told_from_a_mistake(error, refused):
    assert exporter._disks_reason(error) == refused
    try:
        try:
            raise error
        except Exception as cause:
            raise ValueError("in between") from cause
    except ValueError as outer:
        assert exporter._disks_reason(outer) == refused
