"""Models and recipes that come with the package: by name, from the repository and from an installed package."""

from pathlib import Path

import pytest

import t2i_kd
from t2i_kd import loading, shipped
from t2i_kd.errors import UserError
from t2i_kd.evaluation import labels_of, recipe_of
from t2i_kd.exporting.manifest import EXTRA, MANIFEST, read_manifest
from tests.commands import ROOT, finish, refused, start


def write_models(folder, **models):
    """Version folders of models, `NAME=(VERSION, ...)`, each with a card."""
    for name, versions in models.items():
        for version in versions:
            (folder / name / str(version)).mkdir(parents=True)
        (folder / name / "README.md").write_text(f"# {name}\n")


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty current folder."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return tmp_path / "elsewhere"


@pytest.fixture
def package(tmp_path, monkeypatch):
    """The folder of a package that nothing comes with."""
    (tmp_path / "t2i_kd").mkdir()
    monkeypatch.setattr(shipped, "PACKAGE", tmp_path / "t2i_kd")
    return tmp_path / "t2i_kd"


def test_every_card_of_the_repository_belongs_to_a_model():
    models = shipped.models()
    assert "shapes32" in models
    for name, folder in models.items():
        assert folder == ROOT / "saved_models" / name
        artifacts = read_manifest(shipped.model_path(name) / EXTRA / MANIFEST)["artifacts"]
        # What a phone and the page without a server take.
        assert {"litert_int8", "onnx_int8"} <= artifacts.keys()


def test_what_comes_along_is_light():
    """A wheel holds all of it: BUILD.md."""
    files = [path for folder in shipped.models().values() for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 40e6


@pytest.mark.parametrize("installed", [False, True])
def test_a_name_is_its_newest_version(package, elsewhere, installed):
    folder = package / "saved_models" if installed else package.parent / "saved_models"
    write_models(folder, birds=(1, 2, 10), cats=(3,))
    (folder / "mine" / "1").mkdir(parents=True)
    assert list(shipped.models()) == ["birds", "cats"]
    assert shipped.model_path("birds") == folder / "birds" / "10"
    assert shipped.model_path(Path("cats")) == folder / "cats" / "3"


def test_a_path_that_exists_wins_over_a_name(elsewhere):
    assert shipped.model_path("shapes32") == ROOT / "saved_models" / "shapes32" / "1"
    (elsewhere / "shapes32").mkdir()
    assert shipped.model_path("shapes32") == Path("shapes32")
    with pytest.raises(UserError, match=r"^shapes32: neither a version folder"):
        t2i_kd.load("shapes32")


@pytest.mark.parametrize("name", ["shapes31", "shapes32/1", "runs/mine", "x" * 5000, "nul\0"])
def test_what_is_neither_is_answered_with_the_names(package, elsewhere, name):
    write_models(package / "saved_models", shapes32=(1,), painter=(1,))
    # No version of the current folder is taken for one.
    (elsewhere / "7").mkdir()
    with pytest.raises(UserError) as error:
        t2i_kd.load(name)
    assert str(error.value) == f"{name}: no such file or folder; models that come with t2i_kd: painter, shapes32"


def test_load_and_evaluate_take_a_name(elsewhere, monkeypatch):
    monkeypatch.setattr(loading, "_load_folder", lambda folder, threads: folder)
    assert t2i_kd.load("shapes32") == ROOT / "saved_models" / "shapes32" / "1"
    # A report says the name.
    assert recipe_of("shapes32").data.dataset == "captioned_shapes" and labels_of(["shapes32"]) == ["shapes32"]


def test_recipes_are_listed_with_what_they_are(elsewhere):
    output = finish(start("--list_recipes"))
    listed = dict(line.split(maxsplit=1) for line in output.partition("\n\n")[0].splitlines())
    assert listed.keys() == {path.stem for path in (ROOT / "pipelines").glob("*.flags")}
    assert listed["quickstart"].startswith("Quickstart: SDN at 32 px on procedural shapes")


def test_a_recipe_is_shown_as_it_is(elsewhere):
    text = (ROOT / "pipelines" / "own_pictures.flags").read_text()
    assert finish(start("--show_recipe=own_pictures")) == text
    line = refused("--show_recipe=absent")
    assert line.startswith("error: --show_recipe: absent: No such file") and ", quickstart, " in line
