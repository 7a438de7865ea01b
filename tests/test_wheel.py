"""A wheel, built from what the Dockerfile copies and installed outside the repository, used in another folder."""

import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from PIL import Image

from tests.commands import ROOT, environment
from tests.dockerfile import copied

pytestmark = pytest.mark.slow


def pip(*arguments, **options):
    """Runs pip, which asks nobody."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        *map(str, arguments),
        "--no-deps",
        "--no-index",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, **options)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel's file. A model without a card lies in the repository that it is built of."""
    folder = tmp_path_factory.mktemp("source")
    for name in copied():
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / name)
    (folder / "saved_models" / "mine" / "1").mkdir(parents=True)
    (folder / "saved_models" / "mine" / "1" / "saved_model.pb").write_bytes(b"")
    pip("wheel", "--no-build-isolation", "--wheel-dir=dist", ".", cwd=folder)
    (file,) = (folder / "dist").glob("*.whl")
    return file


@pytest.fixture(scope="module")
def run(wheel, tmp_path_factory):
    """A function that runs a module of the installed package in a folder of its own, and returns what it prints."""
    site, folder = tmp_path_factory.mktemp("site"), tmp_path_factory.mktemp("elsewhere")
    pip("install", "--no-compile", "--target", site, wheel)

    def run(module, *arguments, code=0):
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment(PYTHONPATH=str(site)),
            timeout=600,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout or done.stderr

    run.folder, run.site = folder, site
    return run


def test_it_has_all_that_the_package_reads_and_no_more(wheel):
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
    files = {path for path in (ROOT / "t2i_kd").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    expected = {path.relative_to(ROOT).as_posix() for path in files}
    models = [card.parent for card in (ROOT / "saved_models").glob("*/README.md")]
    brought = [path for model in models for path in model.rglob("*") if path.is_file()]
    brought += (ROOT / "pipelines").glob("*.flags")
    assert names == expected | {f"t2i_kd/{path.relative_to(ROOT).as_posix()}" for path in brought}


def test_a_model_that_comes_along_generates(run):
    caption = "a small red circle in the top left on a white background"
    run("t2i_kd.generate", "--model=shapes32", f"--caption={caption}", "--out=circle.png")
    with Image.open(run.folder / "circle.png") as picture:
        assert picture.size == (32, 32)
    line = run("t2i_kd.generate", "--model=shapes31", f"--caption={caption}", "--out=circle.png", code=2)
    assert line.startswith("error: shapes31: no such file or folder; models that come with t2i_kd: ")


def test_a_recipe_is_trained_by_its_name(run):
    output = run("t2i_kd.train", "--flagfile=quickstart", "--dry_run")
    assert "stage stage2: perceptual, 3,000 steps" in output
    assert os.listdir(run.folder) in ([], ["circle.png"])
    assert run("t2i_kd.train", "--show_recipe=quickstart") == (ROOT / "pipelines" / "quickstart.flags").read_text()
    listed = run("t2i_kd.train", "--list_recipes")
    assert all(f"{path.stem} " in listed for path in (ROOT / "pipelines").glob("*.flags"))
    assert ", quickstart, " in run("t2i_kd.train", "--flagfile=pipelines/absent.flags", code=2)


def test_the_commands_are_listed(run):
    assert "python -m t2i_kd.serve" in run("t2i_kd")
    assert "shapes32" in run("t2i_kd.serve", "--model_name=absent", code=2)
