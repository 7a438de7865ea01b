"""Reed's pickles: read without running anything, joined to captions through file names."""

import codecs
import os
import pickle
import resource
from collections import OrderedDict

import numpy as np
import pytest

from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.errors import UserError
from t2i_kd.options import TextOptions
from t2i_kd.text.front_end import build_front_end, load_front_end
from t2i_kd.text.safe_pickle import load_arrays
from tests import bombs

NAMES = ["001.Gull/gull_1", "001.Gull/gull_2", "002.Owl/owl_1"]
CAPTIONS = (("a gull", "a white bird"), ("a big gull", "the gull"), ("an owl", "a white bird"))
VECTORS = np.random.default_rng(0).normal(size=(3, 2, 6)).astype(np.float32)
VECTORS[2, 1] = VECTORS[0, 1]


def write_split(folder, names, arrays, protocol=2):
    folder.mkdir(parents=True)
    (folder / "filenames.pickle").write_bytes(pickle.dumps(names, protocol))
    (folder / "char-CNN-RNN-embeddings.pickle").write_bytes(pickle.dumps(arrays, protocol))


@pytest.fixture
def embeddings_dir(tmp_path):
    write_split(tmp_path / "reed" / "train", NAMES[:2], list(VECTORS[:2]))
    write_split(tmp_path / "reed" / "test", NAMES[2:], list(VECTORS[2:]))
    return tmp_path / "reed"


def dataset(rows, captions=CAPTIONS, file_names=None):
    file_names = file_names or [f"images/{NAMES[row]}.jpg" for row in rows]
    chosen = tuple(captions[row] for row in rows)
    return CaptionedImages("birds", (), chosen, np.zeros(len(rows), np.int32), ("x",), file_names=tuple(file_names))


def recipe(folder, **fields):
    return TextOptions(text_encoder="precomputed", embeddings_dir=str(folder), text_dim=6, **fields)


def test_captions_find_their_vectors_whatever_the_data_sets_order(embeddings_dir):
    front_end = build_front_end(recipe(embeddings_dir), dataset([1, 0]))
    features = front_end.features(["a gull", "the gull", "a white bird"])
    np.testing.assert_array_equal(features, [VECTORS[0, 0], VECTORS[1, 1], VECTORS[0, 1]])
    assert (front_end.input_name, front_end.input_shape, front_end.input_dtype) == ("embedding", (6,), "float32")
    np.testing.assert_array_equal(front_end.build_encoder(recipe(embeddings_dir))({"embedding": features}), features)


def test_covering_adds_the_test_split(embeddings_dir):
    front_end = build_front_end(recipe(embeddings_dir), dataset([0, 1]))
    with pytest.raises(UserError, match=r"^caption: 'an owl'"):
        front_end.features(["an owl"])
    both = front_end.covering(dataset([2]))
    np.testing.assert_array_equal(both.features(["an owl", "a gull"]), [VECTORS[2, 0], VECTORS[0, 0]])


def test_loaded_front_end_knows_its_width_and_learns_captions_by_covering(embeddings_dir, tmp_path):
    described = build_front_end(recipe(embeddings_dir), dataset([0, 1])).describe()
    loaded = load_front_end(tmp_path, described)
    assert loaded.input_shape == (6,)
    assert not loaded.reads_any_text
    with pytest.raises(UserError, match=r"^caption"):
        loaded.features(["a gull"])
    np.testing.assert_array_equal(loaded.covering(dataset([0])).features(["a gull"]), VECTORS[0, :1])
    with pytest.raises(UserError, match="precomputed"):
        loaded.in_graph(["a gull"])


def test_python_2_pickle_is_read(tmp_path):
    # What Python 2's NumPy wrote (protocol 2, arrays' data and text as byte strings), opcode by opcode.
    data = np.arange(4, dtype="<f4").tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
        b"(K\x01K\x02K\x02\x86cnumpy\ndtype\n(U\x02f4K\x00K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89U" + bytes([len(data)]) + data + b"tb"
    )
    path = tmp_path / "old.pickle"
    path.write_bytes(b"\x80\x02](" + array + b"U\x06gull_1e.")
    loaded, name = load_arrays(path)
    np.testing.assert_array_equal(loaded, [[0, 1], [2, 3]])
    assert name == "gull_1"


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_containers_are_read(protocol, tmp_path):
    path = tmp_path / "plain.pickle"
    ragged = np.empty(2, object)
    ragged[:] = [np.ones((2, 3), np.float32), np.zeros((1, 3))]
    value = {"a": [VECTORS, (1, 2.5, None, True)], b"b": {"s"}, "o": OrderedDict(x=1), "r": ragged, "n": np.float32(3)}
    path.write_bytes(pickle.dumps(value, protocol))
    loaded = load_arrays(path)
    assert list(loaded) == list(value)
    np.testing.assert_array_equal(loaded["a"][0], VECTORS)
    assert loaded["a"][1] == (1, 2.5, None, True)
    assert (loaded[b"b"], loaded["o"], loaded["n"]) == ({"s"}, OrderedDict(x=1), 3)
    np.testing.assert_array_equal(loaded["r"][0], np.ones((2, 3)))


class Reduced:
    def __init__(self, *call):
        self.call = call

    def __reduce__(self):
        return self.call


def attacks(target):
    yield Reduced(os.system, (f"touch {target}",))
    yield Reduced(eval, (f"open({str(target)!r}, 'w')",))
    yield Reduced(getattr, (os, "sep"))
    yield Reduced(np.fromfile, (str(target),))
    yield Reduced(np.load, (str(target),))
    yield Reduced(codecs.encode, ("x", "rot13"))
    yield [VECTORS, {"deep": (Reduced(exec, (f"open({str(target)!r}, 'w')",)),)}]
    yield np.array([Reduced(os.mkdir, (str(target),))], object)


@pytest.mark.parametrize("number", range(8))
@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_malicious_pickle_is_refused_and_does_nothing(number, protocol, tmp_path):
    target = tmp_path / "harm"
    path = tmp_path / "embeddings.pickle"
    attack = list(attacks(target))[number]
    path.write_bytes(pickle.dumps(attack, protocol) if number != 2 else b"cbuiltins\ngetattr\n(cos\nsep\ntR.")
    with pytest.raises(UserError, match=r"embeddings\.pickle"):
        load_arrays(path)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"\x80", b"garbage", pickle.dumps([1, 2])[:-3]])
def test_damaged_pickle_is_refused(content, tmp_path):
    path = tmp_path / "embeddings.pickle"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"embeddings\.pickle"):
        load_arrays(path)


def test_missing_folder_names_the_flag(tmp_path):
    with pytest.raises(UserError, match=r"^--embeddings_dir"):
        build_front_end(recipe(tmp_path), dataset([0]))


@pytest.mark.parametrize(
    ("names", "arrays", "message"),
    [
        (NAMES, list(VECTORS[:2]), "2 images, but"),
        (NAMES[:1], [np.ones(6)], "finite float array"),
        (NAMES[:1], [np.full((2, 6), np.nan)], "finite float array"),
        (NAMES[:1], [["a", "b"]], "finite float array"),
        (7, list(VECTORS), "not a list"),
    ],
)
def test_wrong_pickles_are_named(names, arrays, message, tmp_path):
    write_split(tmp_path / "reed" / "train", names, arrays)
    with pytest.raises(UserError, match=rf"\.pickle: .*{message}"):
        build_front_end(recipe(tmp_path / "reed"), dataset([0]))


def test_images_and_captions_must_match_the_pickles(embeddings_dir):
    with pytest.raises(UserError, match=r"no vectors for image other\.jpg"):
        build_front_end(recipe(embeddings_dir), dataset([0], file_names=["other.jpg"]))
    with pytest.raises(UserError, match="1 captions, but 2 vectors"):
        build_front_end(recipe(embeddings_dir), dataset([0], captions=(("a gull",),)))
    without = CaptionedImages("birds", (), CAPTIONS, np.zeros(3, np.int32), ("x",))
    with pytest.raises(UserError, match="file names"):
        build_front_end(recipe(embeddings_dir), without)


def test_captions_in_another_order_than_the_vectors_are_noticed(embeddings_dir):
    swapped = (CAPTIONS[0], CAPTIONS[1], ("a white bird", "an owl"))
    with pytest.raises(UserError, match="order"):
        build_front_end(recipe(embeddings_dir), dataset([0, 1, 2], captions=swapped))


def forged(dtype, data=b"S'\\x00AAAA\\x00\\x00\\x00'\n", shape=b"(I1\nt"):
    """A pickle of an array, protocol 0, whose dtype and data are what is given."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR(I1\n"
    return array + shape + dtype + b"I00\n" + data + b"tb."


def named(dtype, state=b""):
    return b"cnumpy\ndtype\n(S'%s'\nI0\nI1\ntR%s" % (dtype, state)


FORGED = {
    # An object field behind plain bytes: numbers would become pointers.
    "fields": forged(named(b"V8", b"(I3\nS'|'\nN(S'a'\nt(dS'a'\n(" + named(b"O8") + b"I0\ntsI8\nI1\nI0\ntb")),
    "fields of a plain dtype": forged(
        named(b"f8", b"(I3\nS'<'\nN(S'a'\nt(dS'a'\n(" + named(b"O8") + b"I0\ntsI8\nI1\nI0\ntb")
    ),
    "objects of bytes": forged(named(b"O8")),
    "subarray": forged(named(b"f8", b"(I3\nS'<'\n(" + named(b"O8") + b"(I1\nttNNI8\nI1\nI0\ntb")),
    "structure": forged(named(b"f4,O8")),
    "dates": forged(named(b"M8[s]")),
    "nothing": forged(named(b"S0"), b"S''\n", b"(I9999999999\nt"),
    "too few bytes": forged(named(b"f8"), shape=b"(I2\nt"),
    "many rows of nothing": forged(named(b"f8"), b"S''\n", b"(I99999999999\nt"),
    "negative": forged(named(b"f8"), shape=b"(I-1\nt"),
    "no text": forged(named(b"U2", b"(I3\nS'<'\nNNNI8\nI4\nI8\ntb"), b"S'AAAAAAAA'\n"),
    "a dtype's state for a constructor": b"cnumpy\ndtype\n}b.",
    "attributes of a constructor": b"cnumpy\ndtype\n(N(dS'call'\nS'x'\nstb.",
    "a constructor alone": b"ccollections\nOrderedDict\n.",
    "subclass": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nmemmap\n(I0\ntS'b'\ntR.",
    "dtype as the array": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\ndtype\n(I0\ntS'b'\ntR.",
    "many bytes": b"cbuiltins\nbytes\n(I5000000000\ntR.",
    "many zeros": b"cbuiltins\nbytearray\n(I5000000000\ntR.",
    "a far place": b"\x80\x02]r\xff\xff\xff\x7f.",
    "long bytes": b"\x80\x04\x8e" + (5 << 30).to_bytes(8, "little") + b"abc.",
    "long bytearray": b"\x80\x05\x96" + (5 << 30).to_bytes(8, "little") + b"abc.",
    "deep": b"]" * 100_000 + b"a" * 99_999 + b".",
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_pickle_is_refused(name, tmp_path):
    path = tmp_path / "embeddings.pickle"
    path.write_bytes(FORGED[name])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"embeddings\.pickle: not a pickle of arrays: "):
        load_arrays(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def test_what_is_shared_many_times_is_read_once(tmp_path):
    value = VECTORS
    for _ in range(60):
        value = [value, value]
    (tmp_path / "shared.pickle").write_bytes(pickle.dumps(value))
    loaded = load_arrays(tmp_path / "shared.pickle")
    while isinstance(loaded, list):
        assert loaded[0] is loaded[1]
        loaded = loaded[0]
    np.testing.assert_array_equal(loaded, VECTORS)


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize(
    "array",
    [
        np.array([["a", "\U0001f600"]]),
        np.array([b"ab", b"c"]),
        np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
        np.zeros((0, 4), np.float16),
        np.array(2.5),
        np.array([True, False]),
        np.arange(3) * 1j,
    ],
    ids=str,
)
def test_plain_arrays_of_every_kind_are_read(array, protocol, tmp_path):
    (tmp_path / "array.pickle").write_bytes(pickle.dumps(array, protocol))
    loaded = load_arrays(tmp_path / "array.pickle")
    np.testing.assert_array_equal(loaded, array)
    assert (type(loaded), loaded.dtype, loaded.shape) == (np.ndarray, array.dtype, array.shape)


def test_a_changed_pickle_is_refused_or_gives_plain_values(tmp_path):
    """One byte or a few of it, many times, from a seed: no crash, and no dtype but plain ones."""
    rng, path = np.random.default_rng(0), tmp_path / "changed.pickle"
    ragged = np.empty(2, object)
    ragged[:] = [np.ones((2, 3), np.float32), np.array(["a"])]
    whole = [np.frombuffer(pickle.dumps([VECTORS[0], ragged, {"a": (1, b"x")}], p), np.uint8) for p in (0, 2, 5)]
    read = 0
    for _ in range(3000):
        path.write_bytes(bombs.damaged(whole, rng))
        try:
            loaded = load_arrays(path)
        except UserError:
            continue
        read += 1
        repr(loaded)
    assert 0 < read < 3000
