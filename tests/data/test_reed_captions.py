"""Birds and flowers of the real layout: the pictures prepared by TFDS's own builders, in archives, and in folders."""

import importlib.util
import io
import sys
import tarfile

import numpy as np
import pytest
from PIL import Image

from t2i_kd.data import examples, prepared_tfds
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.data.oxford_flowers102 import LABEL_NAMES
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


def bird_files(place, number):
    return f"CUB_200_2011/images/{BIRDS[place]}/Bird_{place}_{number}.jpg"


def flower_files(place, number):
    return f"jpg/image_{10 * place + number:05d}.jpg"


def jpeg(place, number):
    stream = io.BytesIO()
    Image.fromarray(pixels(place, number)).save(stream, "JPEG", quality=95)
    return stream.getvalue()


def original_files(names):
    """What an authors' archive holds, by name: the pictures, and files that are none."""
    files = {names(place, number): jpeg(place, number) for place, number in PICTURES}
    top = names(0, 0).split("/")[0]
    return files | {f"{top}/images.txt": b"1 one.jpg", f"{top}/._image_00000.jpg": b"x"}


def write_originals(folder, as_archives):
    for archive, names in (("CUB_200_2011.tgz", bird_files), ("102flowers.tgz", flower_files)):
        files = original_files(names)
        if as_archives:
            write_tgz(folder / archive, files)
        for name, content in {} if as_archives else files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def write_tgz(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The pictures of both sets, prepared once, without captions."""
    folder = tmp_path_factory.mktemp("reed")
    prepare(folder, "caltech_birds2011", bird_examples)
    prepare(folder, "oxford_flowers102", flower_examples)
    return folder


@pytest.fixture
def described(tmp_path):
    """A folder with the captions of both sets, as the documentation of both readers says."""
    write_captions(tmp_path / "cvpr2016_cub", BIRDS, lambda place, number: f"Bird_{place}_{number}")
    write_captions(tmp_path / "cvpr2016_flowers", FLOWERS, lambda place, number: f"image_{10 * place + number:05d}")
    return tmp_path


@pytest.fixture(params=["prepared", "archives", "folders"])
def data_dir(request, described, monkeypatch):
    """The captions with the pictures in each place where they may lie; only what TFDS prepared needs TensorFlow."""
    if request.param == "prepared":
        (described / "tfds").symlink_to(request.getfixturevalue("prepared") / "tfds")
    else:
        without_tensorflow(monkeypatch)
        write_originals(described, request.param == "archives")
    return described


@pytest.fixture
def in_folders(described):
    """The captions with the pictures in folders."""
    write_originals(described, as_archives=False)
    return described


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
@pytest.mark.parametrize("decode", [True, False])
def test_splits_are_by_class(data_dir, name, folders, label_names, decode):
    for split, places in (("train", (0, 1)), ("test", (2,))):
        dataset = load_dataset(name, split, 16, str(data_dir), decode=decode)
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


def test_names_of_the_flowers_are_those_of_tfds(prepared):
    builder = tfds.builder("oxford_flowers102", data_dir=prepared / "tfds")
    assert list(LABEL_NAMES) == builder.info.features["label"].names


def test_originals_are_preferred_to_what_tfds_prepared(in_folders, monkeypatch):
    monkeypatch.setattr(prepared_tfds, "prepared_pictures", None)
    (in_folders / "tfds").mkdir()
    assert len(load_dataset("cub200", "train", 16, str(in_folders))) == 4


def test_pictures_are_decoded_only_when_they_are_asked_for(data_dir, monkeypatch):
    decoded = []
    decode = examples.decode_square
    monkeypatch.setattr(examples, "decode_square", lambda *given: decoded.append(1) or decode(*given))
    dataset = load_dataset("cub200", "train", 16, str(data_dir), decode=False)
    assert len(dataset) == 4 and not decoded
    assert dataset.images[3][0, 0, 0] == 11 and len(decoded) == 1


def test_a_picture_that_is_missing(in_folders):
    (in_folders / bird_files(1, 0)).unlink()
    with pytest.raises(UserError, match=r"1 bad .* the first: 002.Laysan_Albatross/Bird_1_0.jpg does not exist"):
        load_dataset("cub200", "train", 16, str(in_folders))
    assert len(load_dataset("cub200", "train", 16, str(in_folders), 1)) == 3
    assert len(load_dataset("cub200", "test", 16, str(in_folders))) == 2
    later = load_dataset("cub200", "train", 16, str(in_folders), decode=False)
    with pytest.raises(UserError, match=r"^002.Laysan_Albatross/Bird_1_0.jpg does not exist"):
        later.images[2]


def test_no_validation(in_folders):
    with pytest.raises(UserError, match="cub200 has no validation split"):
        load_dataset("cub200", "validation", 16, str(in_folders))


def test_class_lists_of_the_later_archive(in_folders):
    (in_folders / "flowers_icml").mkdir()
    for name in ("trainvalclasses.txt", "testclasses.txt"):
        (in_folders / "cvpr2016_flowers" / name).rename(in_folders / "flowers_icml" / name)
    assert len(load_dataset("oxford_flowers102", "train", 16, str(in_folders))) == 4


def test_picture_without_captions(data_dir):
    (data_dir / "cvpr2016_cub" / "text_c10" / BIRDS[0] / "Bird_0_1.txt").unlink()
    with pytest.raises(UserError, match=r"1 bad .* the first: Bird_0_1.jpg has no caption"):
        load_dataset("cub200", "train", 16, str(data_dir))
    assert len(load_dataset("cub200", "train", 16, str(data_dir), 1)) == 3
    assert len(load_dataset("cub200", "test", 16, str(data_dir), 1)) == 2


def test_captions_in_two_classes(in_folders):
    write_captions(in_folders / "cvpr2016_cub", BIRDS, lambda place, number: f"Bird_{number}")
    with pytest.raises(UserError, match=r"--data_dir: .*Bird_0.txt and .*Bird_0.txt are captions of one picture"):
        load_dataset("cub200", "train", 16, str(in_folders))


def test_letters_lost_in_encoding(in_folders):
    path = in_folders / "cvpr2016_cub" / "text_c10" / BIRDS[0] / "Bird_0_0.txt"
    path.write_text("a bird\N{REPLACEMENT CHARACTER}s wing\n", "utf-8")
    assert load_dataset("cub200", "train", 16, str(in_folders)).captions[0] == ("a bird s wing",)
    path.write_bytes(b"a bird\xb4s wing\n")
    with pytest.raises(UserError, match="not UTF-8"):
        load_dataset("cub200", "train", 16, str(in_folders))


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
def test_bad_class_lists(in_folders, list_name, content, message):
    path = in_folders / "cvpr2016_cub" / list_name
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=f"--data_dir: .*{message}"):
        load_dataset("cub200", "train", 16, str(in_folders))


def test_offline(described, monkeypatch):
    def fail(self, **options):
        raise ConnectionError("no network\nmore")

    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    hint = (
        r"put CUB_200_2011.tgz \(https://data.caltech.edu/.*\) in .*, or unpack it there, to get .*/CUB_200_2011/images"
    )
    with pytest.raises(UserError, match=rf"could not be downloaded \(no network\); {hint}") as caught:
        load_dataset("cub200", "train", 16, str(described))
    assert "\n" not in str(caught.value)
    without_tensorflow(monkeypatch)
    with pytest.raises(UserError, match=rf"--data_dir: the pictures of cub200 are missing; {hint}"):
        load_dataset("cub200", "train", 16, str(described))


def prepared_flowers(folder):
    return list(
        prepared_tfds.prepared_pictures("oxford_flowers102", folder / "tfds", "file_name", "", lambda name: True)
    )


def test_other_file_format(tmp_path):
    prepare(tmp_path, "oxford_flowers102", flower_examples, "array_record")
    with pytest.raises(UserError, match="is prepared as array_record, not tfrecord"):
        prepared_flowers(tmp_path)


@pytest.mark.parametrize("cut", [30, 3])
def test_damaged_records(tmp_path, cut):
    prepare(tmp_path, "oxford_flowers102", flower_examples)
    path = next((tmp_path / "tfds").glob("oxford_flowers102/*/*train.tfrecord*"))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(UserError, match=r"--data_dir: .*cannot be read"):
        prepared_flowers(tmp_path)


@pytest.mark.parametrize("decode", [True, False])
def test_damaged_archive(described, decode):
    write_originals(described, as_archives=True)
    path = described / "CUB_200_2011.tgz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(UserError, match=r"CUB_200_2011.tgz is not a readable .tgz"):
        load_dataset("cub200", "train", 16, str(described), decode=decode).images[0]
