"""CycleGAN's own sets by name: as TFDS's builder prepares them, and what is told where there are none."""

import numpy as np
import pytest

from t2i_kd.data import prepared_tfds
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.data.image_pairs import ImagePairs
from t2i_kd.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")
NAME = "cycle_gan/horse2zebra"
COUNTS = {"trainA": 2, "trainB": 3, "testA": 1, "testB": 2}


def grey(split, number):
    return 20 * list(COUNTS).index(split) + 10 * ("B" in split) + number


def examples(split):
    for number in range(COUNTS[split]):
        picture = np.full((20, 30, 3), grey(split, number), np.uint8)
        yield f"{number}.jpg", {"image": picture, "label": split[-1]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """TFDS's own builder, whose features, version and files are the real ones, run on other pictures."""
    folder = tmp_path_factory.mktemp("tensorflow_datasets")
    real = tfds.builder_cls("cycle_gan")
    changes = {
        "code_path": None,  # where TFDS would look for checksums of downloads
        "_split_generators": lambda self, manager: {split: examples(split) for split in COUNTS},
        "_generate_examples": lambda self: iter(()),
        "__module__": real.__module__,
    }
    with tfds.core.registered.skip_registration():
        builder = type(real.__name__, (real,), changes)
    builder(data_dir=folder, config="horse2zebra").download_and_prepare()
    return folder


def load(folder, split, name=NAME, **options):
    return load_dataset(name, split, 8, str(folder), kinds=(ImagePairs,), **options)


@pytest.mark.parametrize("decode", [True, False])
def test_a_prepared_set_is_two_sides(folder, decode):
    for split in ("train", "test"):
        found = load(folder, split, decode=decode)
        assert found.name == f"{NAME}/{split}" and not found.paired
        for letter, side, names in (("A", found.first, found.first_names), ("B", found.second, found.second_names)):
            greys = sorted(int(picture.mean()) for picture in side)
            assert greys == [grey(split + letter, number) for number in range(COUNTS[split + letter])]
            assert all(picture.shape == (8, 8, 3) and np.ptp(picture) == 0 for picture in side)
            assert names == tuple(f"{split}{letter}/{number}" for number in range(len(side)))
    assert [digest for _, (digest, _) in load(folder, "test").described()] == [
        digest for _, (digest, _) in load(folder, "test").described()
    ]


HINT = r"download https://.*/horse2zebra.zip and give --dataset=unpaired_folder --data_dir=horse2zebra.zip in its place"


def test_what_is_missing_is_one_line(folder, tmp_path, monkeypatch):
    def fail(self, **options):
        raise ConnectionError("no network\nmore")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(UserError, match=rf"--data_dir: {NAME} .*{tmp_path} .* \(no network\); {HINT}") as caught:
        load(tmp_path, "train")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(prepared_tfds, "is_installed", lambda: False)
    with pytest.raises(UserError, match=rf"--data_dir: {NAME} is read .* not installed; {HINT}"):
        load(tmp_path, "train")
    with pytest.raises(UserError, match=f"--dataset: {NAME} has no validation split, only train and test"):
        load(folder, "validation")
    with pytest.raises(UserError, match=r"--dataset: 'cycle_gan/dog2cat' is none of .*, cycle_gan/apple2orange"):
        load(folder, "train", "cycle_gan/dog2cat")


def test_its_names_are_those_of_tfds():
    from t2i_kd.data.cycle_gan import NAMES

    assert set(NAMES) == {config.name for config in tfds.builder_cls("cycle_gan").BUILDER_CONFIGS}
