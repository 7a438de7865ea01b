"""Pictures of two sides from folders and zips, good and bad, and the batches that are made of them."""

import io

import numpy as np
import pytest
from PIL import Image

from t2i_kd.data import from_image_pairs
from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.data.image_pairs import ImagePairs
from t2i_kd.data.translation_batches import TranslationBatches
from t2i_kd.errors import UserError
from tests.data_files import write, write_zip

RED, BLUE = (200, 0, 0), (0, 0, 200)


def png(colour, size=(8, 8), mode="RGB"):
    stream = io.BytesIO()
    Image.new(mode, size, colour).save(stream, "PNG")
    return stream.getvalue()


def joined(left, right, size=(16, 8)):
    """A|B side by side."""
    image = Image.new("RGB", size, left)
    image.paste(right, (size[0] // 2, 0, *size))
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def load(dataset, path, split="train", resolution=8, bad=0, **options):
    return load_dataset(dataset, split, resolution, str(path), bad, kinds=(ImagePairs,), **options)


def colours(side):
    return [tuple(int(value) for value in picture.mean((0, 1))) for picture in side]


SIDE_BY_SIDE = {
    "train/2.png": joined(RED, BLUE),
    "train/10.png": joined((10, 10, 10), (20, 20, 20)),
    "val/1.png": joined(BLUE, RED),
}
APART = {
    "A/train/2.png": png(RED),
    "A/train/10.jpg": png((10, 10, 10)),
    "B/train/10.png": png((20, 20, 20)),
    "B/train/2.png": png(BLUE),
    "A/val/1.png": png(BLUE),
    "B/val/1.png": png(RED),
}
UNPAIRED = {
    "trainA/x.png": png(RED),
    "trainB/y.png": png(BLUE),
    "trainB/z.png": png((20, 20, 20)),
    "testA/x.png": png(RED),
    "testB/u.png": png(BLUE),
}


@pytest.mark.parametrize("files", [SIDE_BY_SIDE, APART], ids=["side_by_side", "apart"])
@pytest.mark.parametrize("form", ["folder", "zip", "zip_with_a_folder"])
def test_pairs_of_every_layout(files, form, tmp_path):
    if form == "folder":
        path = write(tmp_path, files)
    else:
        inside = "facades/" if form == "zip_with_a_folder" else ""
        path = write_zip(tmp_path / "set.zip", {inside + name: content for name, content in files.items()})
    found = load("paired_folder", path)
    assert found.paired and len(found) == 2 and found.name == "paired_folder/train"
    assert colours(found.first) == [(10, 10, 10), RED]
    assert colours(found.second) == [(20, 20, 20), BLUE]
    assert found.turned("BtoA") == (found.second, found.first) and found.turned("AtoB")[0] is found.first
    # There is no test split: the validation pictures stand in for it, and say so.
    test = load("paired_folder", path, "test", decode=False)
    assert test.name == "paired_folder/val"
    assert (colours(test.first), colours(test.second)) == ([BLUE], [RED])


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_sides_that_do_not_belong_together(form, tmp_path):
    path = write(tmp_path, UNPAIRED)
    if form == "zip":
        path = write_zip(tmp_path / "set.zip", {f"horse2zebra/{name}": content for name, content in UNPAIRED.items()})
    found = load("unpaired_folder", path)
    assert not found.paired and len(found) == 2
    assert (colours(found.first), colours(found.second)) == ([RED], [BLUE, (20, 20, 20)])
    assert colours(load("unpaired_folder", path, "test").second) == [BLUE]


def test_grey_transparent_and_oblong_pictures_are_read_as_everywhere(tmp_path):
    clear = png((255, 0, 0, 0), mode="RGBA")
    files = {"trainA/a.png": png(90, mode="L"), "trainA/b.png": clear, "trainB/c.png": png(BLUE, (30, 8))}
    found = load("unpaired_folder", write(tmp_path, files))
    assert colours(found.first) == [(90, 90, 90), (255, 255, 255)] and found.second[0].shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("dataset", "files", "message"),
    [
        (
            "paired_folder",
            {"train/1.png": joined(RED, BLUE, (15, 8))},
            "train/1.png is 15 pixels wide; A and B side by",
        ),
        ("paired_folder", {"train/1.png": b"no picture"}, "1 bad pictures .* the first: train/1.png is not a"),
        (
            "paired_folder",
            {"A/train/1.png": png(RED), "A/train/2.png": png(RED), "B/train/2.png": png(RED)},
            "2 pictures in A/train and 1 in B/train, 1 without a twin, such as A/train/1, which B/train lacks",
        ),
        (
            "paired_folder",
            {"A/train/1.png": png(RED), "B/train/2.png": png(RED)},
            "1 pictures in A/train and 1 in B/train, 2 without a twin, such as A/train/1, which B/train lacks",
        ),
        ("paired_folder", {"A/train/1.png": png(RED), "B/test/1.png": png(RED)}, "--data_dir: .*: B/train is empty"),
        (
            "paired_folder",
            {"A/train/1.png": png(RED), "A/train/1.jpg": png(RED), "B/train/1.png": png(RED)},
            "A/train/1.jpg has the name of another picture",
        ),
        ("paired_folder", {**APART, "train/1.png": joined(RED, BLUE)}, "has train and A/train; which of the two"),
        ("paired_folder", {"test/1.png": joined(RED, BLUE)}, "--data_dir: .* has no pictures for train; --dataset="),
        ("unpaired_folder", SIDE_BY_SIDE, "--data_dir: .* has no pictures for train; --dataset=unpaired_folder needs"),
        (
            "unpaired_folder",
            {"trainA/1.png": png(RED)[:40], "trainB/1.png": png(RED)},
            "the first: trainA/1.png is not a",
        ),
    ],
)
def test_wrong_folders_are_one_line(dataset, files, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        load(dataset, write(tmp_path, files))
    assert "\n" not in str(caught.value)


def test_bad_pictures_that_are_allowed_are_left_out_in_pairs(tmp_path, caplog):
    files = {**SIDE_BY_SIDE, "train/5.png": joined(RED, BLUE, (15, 8)), "train/readme.txt": b"!"}
    found = load("paired_folder", write(tmp_path / "pairs", files), bad=1)
    assert colours(found.first) == [(10, 10, 10), RED] and len(found.second) == 2
    half = {**APART, "B/train/2.png": b"no picture"}
    assert colours(load("paired_folder", write(tmp_path / "apart", half), bad=1).first) == [(10, 10, 10)]
    one = {**UNPAIRED, "trainA/bad.png": b"no picture"}
    assert len(load("unpaired_folder", write(tmp_path / "sides", one), bad=1).first) == 1


def test_an_empty_set_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"--data_dir: unpaired_folder/train .* is empty"):
        load("unpaired_folder", write(tmp_path, {"trainA/1.png": b"", "trainB/1.png": b""}), bad=2)


def test_what_a_system_does_not_read_is_refused(tmp_path):
    path = write(tmp_path, SIDE_BY_SIDE)
    with pytest.raises(
        UserError, match=r"--dataset: paired_folder holds pictures of two sides, A and B; .* reads capt"
    ):
        load_dataset("paired_folder", "train", 8, str(path))
    with pytest.raises(
        UserError, match=r"--dataset: captioned_shapes holds captioned images; .* reads pictures of two"
    ):
        load_dataset("captioned_shapes", "test", 8, kinds=(ImagePairs,))
    assert len(load_dataset("captioned_shapes", "test", 8, kinds=(ImagePairs, CaptionedImages)))


def numbered(count, start):
    """Pictures that tell their number by their colour and their places by a gradient."""
    ramp = np.arange(6, dtype=np.uint8)
    pictures = np.zeros((count, 6, 6, 3), np.uint8)
    pictures[..., 0] = (start + np.arange(count))[:, None, None]
    pictures[..., 1], pictures[..., 2] = ramp[:, None], ramp
    return list(pictures)


def batches(paired, first=0, last=8, **options):
    sources, targets = numbered(4, 0), numbered(4 if paired else 3, 100)
    return TranslationBatches(sources, targets, paired, 4, 2, 5, first, last, **options)


def test_pairs_share_order_crop_and_flip():
    crops, flips = set(), set()
    for batch in list(batches(True, flip=True)):
        source, image = batch["source"].astype(int), batch["image"].astype(int)
        np.testing.assert_array_equal(image[..., 0], source[..., 0] + 100)
        np.testing.assert_array_equal(image[..., 1:], source[..., 1:])
        for picture in source:
            crops.add((picture[0, 0, 1], min(picture[0, 0, 2], picture[0, -1, 2])))
            flips.add(bool(picture[0, 0, 2] > picture[0, -1, 2]))
    assert flips == {True, False} and len(crops) > 3
    assert {top for top, _ in crops} == {left for _, left in crops} == {0, 1, 2}


def test_every_picture_of_each_side_comes_once_an_epoch():
    for paired in (True, False):
        found = [
            [picture[0, 0, 0] for picture in batch[side]] for side in ("source", "image") for batch in batches(paired)
        ]
        sources, targets = np.concatenate(found[:8]), np.concatenate(found[8:])
        assert sorted(sources[:4]) == sorted(sources[4:8]) == [0, 1, 2, 3]
        count = 4 if paired else 3
        assert sorted(targets[:count]) == list(range(100, 100 + count))
        assert paired == all(targets[:8] == sources[:8] + 100)


def test_a_step_follows_from_seed_and_step_alone():
    whole, rest = batches(False, flip=True, uniforms=3), batches(False, 5, flip=True, uniforms=3)
    for name in ("source", "image", "uniforms"):
        np.testing.assert_array_equal(whole[5][name], rest[0][name])
    assert whole[0]["uniforms"].shape == (2, 3) and not np.array_equal(whole[0]["uniforms"], whole[1]["uniforms"])
    assert set(TranslationBatches(numbered(4, 0), [], False, 4, 2, 5, 0, 1)[0]) == {"source"}


def test_arrays_are_a_data_set():
    made = from_image_pairs(numbered(3, 0), numbered(3, 100), numbered(1, 0), numbered(1, 100))
    found = load_dataset(made, "train", 6, kinds=(ImagePairs,))
    np.testing.assert_array_equal(np.stack(found.second), np.stack(numbered(3, 100)))
    other = from_image_pairs(numbered(3, 0), numbered(3, 101), numbered(1, 0), numbered(1, 100))
    assert (made.digest != other.digest) and found.paired and len(made.digest) == 64
    with pytest.raises(UserError, match="second: pairs have as many"):
        from_image_pairs(numbered(3, 0), numbered(2, 0), [], [])
    with pytest.raises(UserError, match=r"test_first\[0\]: float64"):
        from_image_pairs([], [], [np.zeros((4, 4, 3))], [], paired=False)
