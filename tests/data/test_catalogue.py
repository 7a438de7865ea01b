"""Data sets by name, and what a wrong request says."""

import numpy as np
import pytest

from t2i_kd.data import captioned_images, catalogue
from t2i_kd.data.catalogue import DATASETS, load_dataset
from t2i_kd.errors import UserError


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("birds", "train", 32), "--dataset: 'birds' is none of captioned_shapes, image_folder"),
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


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "captioned_shapes"])
def test_readers_need_a_folder(name):
    with pytest.raises(UserError, match=f"--data_dir: missing; --dataset={name}"):
        load_dataset(name, "train", 32)


def test_empty_sets_are_refused(monkeypatch, tmp_path):
    nothing = captioned_images.CaptionedImages("image_folder/train", [], (), np.zeros(0, np.int32), ())
    reader = type("Reader", (), {"load": staticmethod(lambda *arguments: nothing)})
    monkeypatch.setattr(catalogue.importlib, "import_module", lambda name: reader)
    with pytest.raises(UserError, match=r"--data_dir: image_folder/train in .* is empty"):
        load_dataset("image_folder", "train", 32, str(tmp_path))
