"""Manifests of strangers: every field, whatever it holds, is taken or named in one line."""

import copy
import json
import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2i_kd.errors import UserError
from t2i_kd.exporting.manifest import check_file, read_manifest
from t2i_kd.loading import check_saved_model
from t2i_kd.serving.folders import fingerprint
from tests.any_json import any_json

SHAPES = Path(__file__).parents[2] / "saved_models" / "shapes32" / "1"
MANIFEST = json.loads((SHAPES / "assets.extra" / "manifest.json").read_text())
ANY = any_json("../x", "/etc", "\ud800")


def places(value, path=()):
    """The path of every value in a manifest, its own keys and indices."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in items:
        yield from places(each, (*path, key))


def write_changed(path, place, value):
    """Writes the manifest of shapes32 with another value in one place."""
    changed = copy.deepcopy(MANIFEST)
    holder = changed
    for key in place[:-1]:
        holder = holder[key]
    holder[place[-1]] = value
    path.write_text(json.dumps(changed))


PLACES = [place for place in places(MANIFEST) if place]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.sampled_from(PLACES), value=ANY)
def test_whatever_a_field_holds_the_manifest_is_taken_or_refused(tmp_path, place, value):
    write_changed(tmp_path / "manifest.json", place, value)
    try:
        found = read_manifest(tmp_path / "manifest.json")
        for artifact in found["artifacts"].values():
            for entry in artifact["files"]:
                check_file(SHAPES / entry["file"], entry)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 700


@pytest.mark.parametrize(
    ("place", "value", "named"),
    [
        (("resolution",), 0, "resolution is no whole number from 1 to 65536"),
        (("resolution",), float("inf"), "resolution is no whole number"),
        (("noise_dim",), True, "noise_dim is no whole number from 0"),
        (("condition", "vocabulary"), "../vocabulary.txt", "condition: vocabulary is no name of a file"),
        (("artifacts",), [], "artifacts is no object"),
        (("support_files",), {}, "support_files: the files are no list"),
        (("support_files", 0, "file"), "/etc/passwd", "support_files: '/etc/passwd' is not a file within"),
        (("artifacts", "saved_model", "files", 0, "file"), "../../x", r"saved_model: '../../x' is not a file within"),
        (("artifacts", "saved_model", "files", 0, "sha256"), 7, "saved_model: fingerprint.pb has no size and SHA-256"),
        (("artifacts", "saved_model", "files", 0, "size"), -1, "saved_model: fingerprint.pb has no size and SHA-256"),
    ],
)
def test_what_no_manifest_holds_is_named(tmp_path, place, value, named):
    write_changed(tmp_path / "manifest.json", place, value)
    with pytest.raises(UserError, match=named):
        read_manifest(tmp_path / "manifest.json")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[" * 100_000, "not JSON"),
        ('{"resolution": ' + 5000 * "9" + "}", "not JSON"),
        (5_000_000 * " ", "larger than"),
    ],
)
def test_what_is_no_manifest_is_named(tmp_path, text, named):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UserError, match=named):
        read_manifest(tmp_path / "manifest.json")


def test_pipes_are_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: not a file"):
        read_manifest(tmp_path / "pipe")
    with pytest.raises(UserError, match="pipe: not a file"):
        check_file(tmp_path / "pipe", {"size": 0, "sha256": 64 * "0"})


def linked(tmp_path, manifest):
    """A version folder with shapes32's files and another manifest."""
    for path in SHAPES.rglob("*"):
        if path.is_file():
            (tmp_path / path.relative_to(SHAPES)).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path.relative_to(SHAPES)).symlink_to(path)
    (tmp_path / "assets.extra" / "manifest.json").unlink()
    (tmp_path / "assets.extra" / "manifest.json").write_text(json.dumps(manifest))
    return tmp_path


@pytest.mark.parametrize("left_out", ["saved_model.pb", "variables/variables.index"])
def test_what_tensorflow_reads_must_be_listed(tmp_path, left_out):
    changed = copy.deepcopy(MANIFEST)
    files = changed["artifacts"]["saved_model"]["files"]
    changed["artifacts"]["saved_model"]["files"] = [entry for entry in files if entry["file"] != left_out]
    with pytest.raises(UserError, match=f"does not list {left_out}$"):
        check_saved_model(linked(tmp_path, changed))


def test_a_manifest_without_the_saved_model_is_named(tmp_path):
    changed = copy.deepcopy(MANIFEST)
    del changed["artifacts"]["saved_model"]
    with pytest.raises(UserError, match=r"lists no saved_model$"):
        check_saved_model(linked(tmp_path, changed))
    (tmp_path / "assets.extra" / "manifest.json").write_text(json.dumps(MANIFEST))
    check_saved_model(tmp_path)


def test_a_link_to_nothing_is_no_change(tmp_path):
    (tmp_path / "a").symlink_to("nothing")
    first = fingerprint(tmp_path)
    assert fingerprint(tmp_path) == first
    (tmp_path / "b").touch()
    assert fingerprint(tmp_path) != first
