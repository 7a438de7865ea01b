"""Data sets by name, by module and as objects, and what a wrong request says."""

import importlib
import sys

import numpy as np
import pytest

from t2i_kd.data import captioned_images, catalogue
from t2i_kd.data.catalogue import DATASETS, WITHOUT_FILES, find_dataset, load_dataset
from t2i_kd.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("birds", "train", 32), "--dataset: 'birds' is none of captioned_shapes, image_folder"),
        (("my.birds", "train", 32), "--dataset: cannot import my.birds: No module named 'my"),
        (("os.path", "train", 32), "--dataset: the module posixpath has no load"),
        (("image_folder", "val", 32, "x"), "--dataset: image_folder has no split 'val'"),
        (("image_folder", "train", 32), "--data_dir: missing; --dataset=image_folder"),
        (("image_folder", "train", 32, "/nowhere/at/all"), "--data_dir: /nowhere/at/all does not exist"),
        (("captioned_shapes", "train", 0), "--resolution: 0 "),
        (("captioned_shapes", "train", 32, "", -1), "--max_bad_examples: -1 "),
    ],
)
def test_wrong_requests(arguments, message):
    with pytest.raises(UserError) as caught:
        load_dataset(*arguments)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("name", [name for name in DATASETS if name not in WITHOUT_FILES])
def test_readers_need_a_folder(name):
    with pytest.raises(UserError, match=f"--data_dir: missing; --dataset={name}"):
        load_dataset(name, "train", 32)


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Writes `outside.NAME`, a module on the path."""
    (tmp_path / "outside").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    names = []

    def write(name, *lines):
        (tmp_path / "outside" / f"{name}.py").write_text("\n".join(lines))
        names.append(f"outside.{name}")
        importlib.invalidate_caches()
        return names[-1]

    yield write
    for name in ("outside", *names):
        sys.modules.pop(name, None)


HEAD = ("import numpy as np", "from t2i_kd.data.captioned_images import CaptionedImages")
RETURN = (
    "    found.append((split, resolution, *given))",
    "    images = np.zeros((2, resolution, resolution, 3), np.uint8)",
    "    return CaptionedImages('mine', images, (('a',), ('b',)), np.zeros(2, np.int32), ('x',))",
    "found = []",
)


@pytest.mark.parametrize(
    ("name", "signature", "given", "expected"),
    [
        ("short", "split, resolution", "", ()),
        ("usual", "split, resolution, data_dir, max_bad_examples", "data_dir, max_bad_examples", ("there", 3)),
        ("lazy", "split, resolution, decode=True", "decode,", (False,)),
        (
            "every",
            "split, resolution, **options",
            "*sorted(options),",
            ("cache_dir", "data_dir", "decode", "max_bad_examples"),
        ),
    ],
)
def test_a_module_gets_what_its_load_takes(module, name, signature, given, expected):
    path = module(name, *HEAD, f"def load({signature}):", f"    given = ({given})", *RETURN)
    dataset = load_dataset(path, "test", 16, "there", 3, decode=False)
    assert (len(dataset), dataset.images[0].shape) == (2, (16, 16, 3))
    assert sys.modules[path].found == [("test", 16, *expected)]
    assert find_dataset(path) is sys.modules[path]


def test_a_module_may_do_without_a_folder(module):
    path = module("alone", *HEAD, "def load(split, resolution, data_dir, max_bad_examples):", "    given = ()", *RETURN)
    assert load_dataset(path, "test", 16).captions == (("a",), ("b",))


@pytest.mark.parametrize(
    ("name", "lines", "message"),
    [
        ("broken", ["1 / 0"], "cannot import outside.broken: division by zero"),
        ("unfinished", ["def load(:"], "cannot import outside.unfinished: invalid syntax"),
        ("needy", ["import nothing_of_this_name"], "cannot import outside.needy: No module named"),
        ("other", ["load = 3"], "outside.other.load is int, not a function"),
        ("array", ["def load(split, resolution):", "    return [1]"], "outside.array.load returns list"),
    ],
)
def test_a_wrong_module_is_one_line(module, name, lines, message):
    path = module(name, *lines)
    with pytest.raises(UserError, match=f"^--dataset: {message}") as caught:
        load_dataset(path, "train", 32)
    assert "\n" not in str(caught.value)


def test_empty_sets_are_refused(monkeypatch, tmp_path):
    nothing = captioned_images.CaptionedImages("image_folder/train", [], (), np.zeros(0, np.int32), ())
    reader = type("Reader", (), {"load": staticmethod(lambda *arguments: nothing)})
    monkeypatch.setattr(catalogue.importlib, "import_module", lambda name: reader)
    with pytest.raises(UserError, match=r"--data_dir: image_folder/train in .* is empty"):
        load_dataset("image_folder", "train", 32, str(tmp_path))
