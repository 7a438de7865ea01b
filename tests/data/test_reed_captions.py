"""Birds and flowers of the real layout, the pictures prepared by TFDS's own builders, with and without TensorFlow."""

import importlib.util
import sys

import numpy as np
import pytest

from t2i_kd.data import prepared_tfds
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.errors import UserError

tfds = pytest.importorskip("tensorflow_datasets")

BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "200.Common_Yellowthroat")
FLOWERS = ("class_00001", "class_00002", "class_00102")
# Two pictures a class: its colour is 10 x the number of its class's place here + the picture's number.
PICTURES = [(place, number) for place in range(3) for number in range(2)]


def pixels(place, number):
    return np.full((20, 30, 3), 10 * place + number, np.uint8)


def bird_examples(places):
    for place, number in PICTURES:
        if (place + number) % 2 in places:
            name = f"CUB_200_2011/images/{BIRDS[place]}/Bird_{place}_{number}.jpg"
            yield (
                name,
                {
                    "image": pixels(place, number),
                    "image/filename": name,
                    "label": int(BIRDS[place][:3]) - 1,
                    "label_name": "bird",
                    "bbox": tfds.features.BBox(0.0, 0.0, 1.0, 1.0),
                    "segmentation_mask": np.zeros((20, 30, 1), np.uint8),
                },
            )


def flower_examples(places):
    for place, number in PICTURES:
        if (place + number) % 2 in places:
            name = f"image_{10 * place + number:05d}.jpg"
            label = int(FLOWERS[place][-5:]) - 1
            yield name, {"image": pixels(place, number), "label": label, "file_name": name}


def prepare(folder, name, examples, file_format="tfrecord"):
    """Runs TFDS's own builder of the set on other examples: its features, versions and files are the real ones."""
    changes = {
        "code_path": None,  # where TFDS would look for checksums of downloads
        "_split_generators": lambda self, manager: {"train": examples((0,)), "test": examples((1,))},
        "_generate_examples": lambda self: iter(()),
    }
    real = tfds.builder_cls(name)
    with tfds.core.registered.skip_registration():
        builder = type(real.__name__, (real,), changes | {"__module__": real.__module__})
    builder(data_dir=folder / "tfds", file_format=file_format).download_and_prepare()


def write_captions(folder, classes, file_names, lines=10):
    for place, number in PICTURES:
        path = folder / "text_c10" / classes[place] / f"{file_names(place, number)}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        texts = [f"caption {line} of {classes[place]} {number}" for line in range(lines)]
        path.write_text("\n".join(texts) + "\n\n", "utf-8")
    (folder / "trainvalclasses.txt").write_text("\n".join(classes[:2]) + "\n")
    (folder / "testclasses.txt").write_text(classes[2])
    return folder


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The pictures of both sets, prepared once, without captions."""
    folder = tmp_path_factory.mktemp("reed")
    prepare(folder, "caltech_birds2011", bird_examples)
    prepare(folder, "oxford_flowers102", flower_examples)
    return folder


@pytest.fixture
def data_dir(prepared, tmp_path):
    """A folder laid out as the documentation of both readers says."""
    (tmp_path / "tfds").symlink_to(prepared / "tfds")
    write_captions(tmp_path / "cvpr2016_cub", BIRDS, lambda place, number: f"Bird_{place}_{number}")
    write_captions(tmp_path / "cvpr2016_flowers", FLOWERS, lambda place, number: f"image_{10 * place + number:05d}")
    return tmp_path


def without_tensorflow(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert importlib.util.find_spec("tensorflow") is None


@pytest.mark.parametrize(
    ("name", "folders", "label_names"),
    [
        ("cub200", BIRDS, {0: "black footed albatross", 1: "laysan albatross", 199: "common yellowthroat"}),
        ("oxford_flowers102", FLOWERS, {0: "pink primrose", 1: "hard-leaved pocket orchid", 101: "blackberry lily"}),
    ],
)
@pytest.mark.parametrize("tensorflow", [True, False])
def test_splits_are_by_class(data_dir, monkeypatch, name, folders, label_names, tensorflow):
    if not tensorflow:
        without_tensorflow(monkeypatch)
    for split, places in (("train", (0, 1)), ("test", (2,))):
        dataset = load_dataset(name, split, 16, str(data_dir))
        expected = [(place, number) for place, number in PICTURES if place in places]
        assert dataset.name == f"{name}/{split}"
        assert [texts[3] for texts in dataset.captions] == [f"caption 3 of {folders[p]} {n}" for p, n in expected]
        assert {len(texts) for texts in dataset.captions} == {10}
        assert [int(image[0, 0, 0]) for image in dataset.images] == [10 * p + n for p, n in expected]
        assert dataset.images[0].shape == (16, 16, 3)
        assert [name.split("/")[0] for name in dataset.file_names] == [folders[p] for p, _ in expected]
        assert [dataset.label_names[label] for label in dataset.labels] == [
            label_names[int(folders[p].split(".")[0].split("_")[-1]) - 1] for p, _ in expected
        ]


def test_no_validation(data_dir):
    with pytest.raises(UserError, match="cub200 has no validation split"):
        load_dataset("cub200", "validation", 16, str(data_dir))


def test_class_lists_of_the_later_archive(data_dir):
    (data_dir / "flowers_icml").mkdir()
    for name in ("trainvalclasses.txt", "testclasses.txt"):
        (data_dir / "cvpr2016_flowers" / name).rename(data_dir / "flowers_icml" / name)
    assert len(load_dataset("oxford_flowers102", "train", 16, str(data_dir))) == 4


def test_picture_without_captions(data_dir):
    (data_dir / "cvpr2016_cub" / "text_c10" / BIRDS[0] / "Bird_0_1.txt").unlink()
    with pytest.raises(UserError, match=r"1 bad .* the first: 001.Black_footed_Albatross/Bird_0_1.jpg has no caption"):
        load_dataset("cub200", "train", 16, str(data_dir))
    assert len(load_dataset("cub200", "train", 16, str(data_dir), 1)) == 3
    assert len(load_dataset("cub200", "test", 16, str(data_dir))) == 2


def test_letters_lost_in_encoding(data_dir):
    path = data_dir / "cvpr2016_cub" / "text_c10" / BIRDS[0] / "Bird_0_0.txt"
    path.write_text("a bird\N{REPLACEMENT CHARACTER}s wing\n", "utf-8")
    assert load_dataset("cub200", "train", 16, str(data_dir)).captions[0] == ("a bird s wing",)
    path.write_bytes(b"a bird\xb4s wing\n")
    with pytest.raises(UserError, match="not UTF-8"):
        load_dataset("cub200", "train", 16, str(data_dir))


def test_captions_missing(tmp_path):
    with pytest.raises(UserError, match=r"cvpr2016_cub/text_c10 is missing; unpack cvpr2016_cub.tar.gz"):
        load_dataset("cub200", "train", 16, str(tmp_path))


@pytest.mark.parametrize(
    ("list_name", "content", "message"),
    [
        ("trainvalclasses.txt", None, "the class list .*trainvalclasses.txt is missing"),
        ("trainvalclasses.txt", "../secrets\n", "line 1: '../secrets' is not the name of a class folder"),
        ("testclasses.txt", "\n000.Nothing", "line 2: '000.Nothing' is not"),
        ("testclasses.txt", BIRDS[0], "class 001.Black_footed_Albatross is in both"),
    ],
)
def test_bad_class_lists(data_dir, list_name, content, message):
    path = data_dir / "cvpr2016_cub" / list_name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=f"--data_dir: .*{message}"):
        load_dataset("cub200", "train", 16, str(data_dir))


def test_offline(tmp_path, monkeypatch):
    write_captions(tmp_path / "cvpr2016_cub", BIRDS, lambda place, number: f"Bird_{place}_{number}")

    def fail(self, **options):
        raise ConnectionError("no network\nmore")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    message = r"could not be downloaded \(no network\); run `tfds build caltech_birds2011 --data_dir=.*tfds`"
    with pytest.raises(UserError, match=message) as caught:
        load_dataset("cub200", "train", 16, str(tmp_path))
    assert "\n" not in str(caught.value)
    without_tensorflow(monkeypatch)
    with pytest.raises(UserError, match="TensorFlow and tensorflow-datasets are not installed"):
        load_dataset("cub200", "train", 16, str(tmp_path))


def test_other_file_format(tmp_path):
    prepare(tmp_path, "oxford_flowers102", flower_examples, "array_record")
    with pytest.raises(UserError, match="is prepared as array_record, not tfrecord"):
        prepared_tfds.open_prepared("oxford_flowers102", tmp_path / "tfds", "file_name")


@pytest.mark.parametrize("tensorflow", [True, False])
@pytest.mark.parametrize("cut", [30, 3])
def test_damaged_records(tmp_path, monkeypatch, tensorflow, cut):
    prepare(tmp_path, "oxford_flowers102", flower_examples)
    path = next((tmp_path / "tfds").glob("oxford_flowers102/*/*train.tfrecord*"))
    path.write_bytes(path.read_bytes()[:-cut])
    if not tensorflow:
        without_tensorflow(monkeypatch)
    pictures = prepared_tfds.open_prepared("oxford_flowers102", tmp_path / "tfds", "file_name")
    with pytest.raises(UserError, match=r"--data_dir: .*(cannot be read|ends within a record)"):
        list(pictures.records())


def test_example_parser_agrees_with_tensorflow():
    tf = pytest.importorskip("tensorflow")
    rng = np.random.default_rng(0)
    for number in (0, 1, 127, 128, 300, 2**40):
        image = rng.bytes(1000)
        feature = {
            "image": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
            "label": tf.train.Feature(int64_list=tf.train.Int64List(value=[number])),
            "box": tf.train.Feature(float_list=tf.train.FloatList(value=[0.5, 1.0])),
            "nothing": tf.train.Feature(),
        }
        message = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
        assert prepared_tfds.parse_example(message) == {"image": image, "label": number}
