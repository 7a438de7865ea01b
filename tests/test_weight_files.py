"""Files of weights: what they claim is known before it is read, and none takes much more memory than it has bytes."""

import io
import zipfile

import h5py
import keras
import numpy as np
import pytest

from t2i_kd.errors import UserError
from t2i_kd.student import load_network
from t2i_kd.weight_files import Arrays, check_hdf5
from tests import bombs

READ = """
import sys
from pathlib import Path
from types import SimpleNamespace
import t2i_kd.student
from t2i_kd.errors import UserError
from t2i_kd.student import load_network
from t2i_kd.teachers.vgg19_weights import _read_slim
from t2i_kd.text.encoders import build_gru
from t2i_kd.text.front_end import load_text_weights
from t2i_kd.training import checkpoints
folder = Path(sys.argv[1])
groups = {"trained": [SimpleNamespace(path="v", shape=(3,))]}
encoder = build_gru(5, 3, 2, 2)
load_network(folder / "good.keras")
for name in ("shape", "more", "other"):
    measured(lambda: checkpoints.read(folder / f"{name}.npz", groups))
measured(lambda: _read_slim(folder / "slim.npz"))
measured(lambda: load_text_weights(encoder, folder / "bomb.weights.h5"))
for name in ("units", "stored", "packed", "config"):
    measured(lambda: load_network(folder / f"{name}.keras"))
"""


def write_network(path, side=3):
    """A network of one dense layer in Keras's own format."""
    image = keras.Input((side,), name="image")
    keras.Model({"image": image}, keras.layers.Dense(2, name="dense")(image)).save(path)


def with_config(path, good, old, new):
    """The network of a file with another configuration."""
    path.write_bytes(good.read_bytes())
    with zipfile.ZipFile(path) as archive:
        config = archive.read("config.json").decode()
    assert old in config
    bombs.replace_in_zip(path, config_json=config.replace(old, new))


def test_small_files_take_little_memory(tmp_path):
    good = tmp_path / "good.keras"
    write_network(good)
    variable = "trained/0000/v"
    bombs.write_npz(tmp_path / "shape.npz", {variable: ((3 * 2**28,), 3072)})
    bombs.write_npz(tmp_path / "more.npz", {variable: ((3,), 3072)})
    bombs.write_npz(tmp_path / "other.npz", {"else": ((3 * 2**28,), 3072)})
    bombs.write_npz(tmp_path / "slim.npz", {"conv1_1/kernel": ((3 * 2**28,), 3072)})
    bombs.write_hdf5(tmp_path / "bomb.weights.h5", (10**9,), chunks=(10**6,), compression="gzip")
    with_config(tmp_path / "units.keras", good, '"units": 2', '"units": 1000000000')
    (tmp_path / "stored.keras").write_bytes(good.read_bytes())
    stored = io.BytesIO()
    bombs.write_hdf5(stored, (10**9,), chunks=(10**6,))
    bombs.replace_in_zip(tmp_path / "stored.keras", model_weights_h5=stored.getvalue())
    whole = {"model.weights.h5": (bombs.zeros(1024), 2**30), "config.json": (b"\x03\x00", 0)}
    bombs.write_zip(tmp_path / "packed.keras", whole)
    bombs.write_zip(tmp_path / "config.keras", whole | {"config.json": (bombs.zeros(1024), 100)})
    assert all(path.stat().st_size < 4e6 for path in tmp_path.iterdir())
    expected = (
        "shape.npz: not a readable checkpoint: trained/0000/v has shape (805306368,) of float32, not (3,)",
        "more.npz: not a readable checkpoint: trained/0000/v holds more than it says",
        "other.npz: its variables are not this recipe's (first difference: else)",
        "slim.npz is not a .npz of a slim VGG19: conv1_1/kernel and those before it are larger",
        "bomb.weights.h5: its array layers/dense/vars/0 and those before it claim much more",
        "units.keras: not a network that can be read: its layer dense has more weights than the file holds",
        "stored.keras: not a network that can be read: its array layers/dense/vars/0 and those before it claim",
        "packed.keras: not a network that can be read: claims to hold much more than it does",
        "config.keras: not a network that can be read: claims to hold much more than it does",
    )
    bombs.check(READ, tmp_path, expected, 100)


ARRAYS = {
    "a": np.arange(12, dtype=np.float16).reshape(3, 4),
    "b/c": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "scalar": np.array(7, np.int32),
    "names": np.array(["one", "zwölf"]),
    "empty": np.zeros((0, 3), np.float32),
}


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_read_as_numpy_reads_them(tmp_path, save):
    save(tmp_path / "a.npz", **ARRAYS)
    with Arrays(tmp_path / "a.npz", 2**20) as stored, np.load(tmp_path / "a.npz") as expected:
        assert stored.names == expected.files and "b/c" in stored and "b" not in stored
        for name, array in ARRAYS.items():
            assert stored.shape(name) == array.shape
            shape = array.shape if array.dtype.kind != "U" else None
            found = stored.read(name, shape)
            np.testing.assert_array_equal(found, expected[name])
            assert found.dtype == expected[name].dtype


def test_arrays_that_are_not_wanted_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", **ARRAYS, objects=np.array([{}], object))
    for name, shape, most, said in [
        ("a", (4, 3), 2**20, r"a has shape \(3, 4\) of float16, not \(4, 3\)"),
        ("names", (2,), 2**20, r"names has shape \(2,\) of <U5, not"),
        ("a", None, 23, "a and those before it are larger than they may be together"),
        ("empty", None, 2**20, r"empty is empty: its shape is \(0, 3\)"),
        ("objects", None, 2**20, "an array of objects"),
        ("d", None, 2**20, "d cannot be read: .*no item named 'd.npy'"),
    ]:
        with Arrays(tmp_path / "a.npz", most) as stored, pytest.raises(ValueError, match=said):
            stored.read(name, shape)


def test_a_changed_npz_is_refused_or_gives_plain_values(tmp_path):
    """One byte or a few of it, many times, from a seed."""
    rng, whole, path = np.random.default_rng(0), [], tmp_path / "a.npz"
    for save in (np.savez, np.savez_compressed):
        save(path, **ARRAYS)
        whole.append(np.frombuffer(path.read_bytes(), np.uint8))
    refused = 0
    for _ in range(600):
        path.write_bytes(bombs.damaged(whole, rng))
        try:
            with Arrays(path, 2**20) as stored:
                for name in stored.names:
                    stored.read(name)
        except (OSError, ValueError):
            refused += 1
    assert 0 < refused <= 600


def test_weights_that_are_all_there_pass(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("a", data=np.zeros(100_000, np.float32), compression="gzip")
        file.create_dataset("b/c", data=np.ones((3, 4)))
    check_hdf5(tmp_path / "a.h5")
    (tmp_path / "b.h5").write_bytes(b"nothing")
    for name, said in {"b.h5": "signature", "c.h5": "No such file", "": "Is a directory"}.items():
        with pytest.raises(UserError, match=said):
            check_hdf5(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"[" * 100_000, "config.json: not JSON: maximum recursion"),
        (b'{"a": ' * 900 + b"1" + b"}" * 900, "not a network that can be read"),
        (b"9" * 5000, "config.json: not JSON: Exceeds the limit"),
        (b"[]", "not a network that can be read"),
        (b"1e999", "not a network that can be read"),
        (b'"' + b"x" * 5_000_000 + b'"', "claims to hold much more|config.json is larger than 4,194,304 bytes"),
    ],
)
def test_a_configuration_that_is_none_is_named(tmp_path, content, said):
    write_network(tmp_path / "a.keras")
    bombs.replace_in_zip(tmp_path / "a.keras", config_json=content)
    with pytest.raises(UserError, match=rf"a\.keras: .*{said}") as caught:
        load_network(tmp_path / "a.keras")
    assert "\n" not in str(caught.value)


def test_a_map_that_is_too_large_is_named(tmp_path):
    source = keras.Input((4, 4, 3), name="source")
    large = keras.layers.UpSampling2D(5000, name="large")(source)
    keras.Model({"source": source}, keras.layers.MaxPooling2D(5000)(large)).save(tmp_path / "a.keras")
    with pytest.raises(UserError, match=r"its layer large gives \(20000, 20000, 3\) numbers for an image"):
        load_network(tmp_path / "a.keras")


def test_a_network_of_many_weights_is_read(tmp_path):
    """More than what may be there beside those that the file holds."""
    image = keras.Input((2000,), name="image")
    network = keras.Model(image, keras.layers.Dense(1000)(image))
    network.save(tmp_path / "a.keras")
    found = load_network(tmp_path / "a.keras")
    np.testing.assert_array_equal(found.get_weights()[0], network.get_weights()[0])
