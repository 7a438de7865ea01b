import hashlib

import keras
import numpy as np
import pytest

from t2i_kd.errors import UserError
from t2i_kd.metrics.cache import ArrayCache, digest, digest_of_images, digest_of_training, scratch_array


def maker(calls, value=1.0):
    def make():
        calls.append(value)
        return [np.full((2, 3), value, np.float32), np.arange(4)]

    return make


def test_what_was_made_is_read_again(tmp_path):
    calls, cache = [], ArrayCache(tmp_path / "new" / "folder")
    first, again = (cache.arrays("reference", digest("key"), maker(calls)) for _ in range(2))
    assert len(calls) == 1
    for one, other in zip(first, again, strict=True):
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    cache.arrays("reference", digest("another key"), maker(calls))
    assert len(calls) == 2


@pytest.mark.parametrize("file", ["0.npy", "1.npy", "sha256.txt"])
@pytest.mark.parametrize(
    "damage", [lambda b: b[:-2], lambda b: b[:40] + b"x" + b[41:], lambda b: b"", lambda b: b[32:], lambda b: None]
)
def test_a_damaged_file_is_made_anew(tmp_path, damage, file, caplog):
    calls, cache = [], ArrayCache(tmp_path)
    cache.arrays("reference", digest("key"), maker(calls))
    (folder,) = tmp_path.iterdir()
    damaged = damage((folder / file).read_bytes())
    if damaged is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(damaged)
    (found, _) = cache.arrays("reference", digest("key"), maker(calls, 2.0))
    assert calls == [1.0, 2.0] and found[0, 0] == 2
    assert [record.getMessage() for record in caplog.records] == [f"{folder}: damaged, made anew"]
    assert cache.arrays("reference", digest("key"), maker(calls, 3.0))[0][0, 0] == 2


def test_a_half_forgotten_list_of_checksums_is_no_shorter_list_of_arrays(tmp_path):
    calls, cache = [], ArrayCache(tmp_path)
    cache.arrays("reference", digest("key"), maker(calls))
    (file,) = tmp_path.glob("*/sha256.txt")
    file.write_text(file.read_text().splitlines()[0] + "\n")
    assert len(cache.arrays("reference", digest("key"), maker(calls))) == 2 and len(calls) == 2


def test_arrays_are_plain_files_that_numpy_and_sha256sum_read(tmp_path):
    ArrayCache(tmp_path).arrays("reference", digest("key"), maker([]))
    (folder,) = tmp_path.iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["0.npy", "1.npy", "sha256.txt"]
    np.testing.assert_array_equal(np.load(folder / "1.npy"), np.arange(4))
    expected = [f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}" for name in ("0.npy", "1.npy")]
    assert (folder / "sha256.txt").read_text().splitlines() == expected


def test_two_that_make_the_same_at_once_leave_one(tmp_path):
    """The second comes while the first makes; neither loses its arrays, and no temporary folder stays."""
    cache, second = ArrayCache(tmp_path), []

    def make():
        second.append(ArrayCache(tmp_path).arrays("reference", digest("key"), maker([], 2.0)))
        return maker([], 1.0)()

    first = cache.arrays("reference", digest("key"), make)
    assert first[0][0, 0] == 1 and second[0][0][0, 0] == 2
    assert len(list(tmp_path.iterdir())) == 1
    assert len(cache.arrays("reference", digest("key"), maker([]))) == 2


def test_without_a_folder_nothing_is_kept():
    calls = []
    for _ in range(2):
        ArrayCache(None).arrays("reference", digest("key"), maker(calls))
    assert len(calls) == 2


def test_a_folder_that_cannot_be_written_names_the_flag(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"--cache_dir: .*file"):
        ArrayCache(tmp_path / "file").arrays("reference", digest("key"), maker([]))


def test_a_digest_tells_apart_what_differs():
    zeros = np.zeros(4, np.float32)
    others = [("ab", "c"), ("a", "bc"), (zeros,), (zeros.reshape(2, 2),), (zeros.view(np.int32),), ("abc",)]
    assert len({digest(*parts) for parts in others}) == len(others)
    images = np.zeros((2, 4, 4, 3), np.uint8)
    before = digest_of_images(images)
    assert before == digest_of_images(list(images))
    images[1, 3, 3, 2] = 1
    assert digest_of_images(images) != before


def test_another_network_or_version_is_another_evaluator(monkeypatch):
    def network(width):
        image = keras.Input((2,))
        return keras.Model(image, keras.layers.Dense(width)(image), name="evaluator")

    found = {digest_of_training(network(3), "key"), digest_of_training(network(4), "key")}
    assert len(found) == 2 and digest_of_training(network(3), "key") in found
    monkeypatch.setattr("t2i_kd.__version__", "another")
    assert digest_of_training(network(3), "key") not in found


def test_a_scratch_array_outlives_its_file():
    array = scratch_array((3, 2), np.uint8)
    array[1] = 7
    assert array.tolist() == [[0, 0], [7, 7], [0, 0]]
