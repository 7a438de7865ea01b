"""Emoji from a small package of the same layout."""

import hashlib
import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from t2i_kd.data import examples, noto_emoji
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.data.noto_emoji import SKIN_TONES, Emoji, captions_of, is_held_out
from t2i_kd.errors import UserError


def png(value):
    stream = io.BytesIO()
    image = Image.new("RGBA", (64, 64), (0, 0, 0, 0))
    image.paste((value, 0, 0, 255), (32, 0, 64, 64))
    image.save(stream, "PNG")
    return stream.getvalue()


def entry(name, unified, category, short_names, tones=()):
    def picture(code_points):
        return {"unified": code_points, "image": f"{code_points.lower()}.png", "has_img_google": True}

    values = picture(unified) | {"name": name, "category": category, "short_names": short_names}
    if tones:
        values["skin_variations"] = {tone: picture(f"{unified}-{tone}") for tone in tones}
    return values


def package():
    pairs = [f"{first}-{second}" for first in SKIN_TONES for second in SKIN_TONES]
    entries = [
        entry("FATHER CHRISTMAS", "1F385", "People & Body", ["santa"], tuple(SKIN_TONES)),
        entry("KISS: MAN, MAN", "1F468", "People & Body", ["man-kiss-man"], pairs),
        entry("France Flag", "1F1EB", "Flags", ["fr"]),
        entry("SNOWBOARDER", "1F3C2", "People & Body", ["snowboarder"], tuple(SKIN_TONES)),
        entry("NOT DRAWN", "1F000", "Objects", ["nothing"]) | {"has_img_google": False},
    ]
    files = {"emoji.json": json.dumps(entries).encode()}
    shown = [picture for item in entries for picture in (item, *item.get("skin_variations", {}).values())]
    for value, picture in enumerate(shown):
        same = picture["unified"].startswith("1F3C2")
        files[f"img/google/64/{picture['image']}"] = png(255 if same else value)
    return files


def write(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_tgz(path, files):
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def load(path, split="train", bad=0):
    return load_dataset("noto_emoji", split, 32, str(path), bad)


def test_splits_share_no_pair_and_leave_nothing_out(tmp_path):
    folder = write(tmp_path, package())
    train, test = load(folder), load(folder, "test")
    # 5 + 25 variants, four plain emoji; the variants that look like the plain snowboarder are not used.
    assert len(train) + len(test) == 34
    assert not {texts[0] for texts in train.captions} & {texts[0] for texts in test.captions}
    assert len(test) == sum(
        is_held_out(Emoji(f"{base}-{tone}", "", "", (), "", ("x",)))
        for base, tones in (("1F385", SKIN_TONES), ("1F468", [f"{a}-{b}" for a in SKIN_TONES for b in SKIN_TONES]))
        for tone in tones
    )
    assert 0.1 <= len(test) / 34 <= 0.5
    assert {"father christmas", "snowboarder", "france flag"} <= {texts[0] for texts in train.captions}
    assert train.label_names == test.label_names == ("Flags", "People & Body")
    assert train.labels[train.captions.index(next(t for t in train.captions if t[0] == "france flag"))] == 0


def test_transparent_parts_are_white(tmp_path):
    image = load(write(tmp_path, package())).images[0]
    assert (image.shape, image.dtype) == ((32, 32, 3), np.uint8)
    assert image[:, :10].min() == 255
    assert image[:, 22:, 1:].max() == 0


def test_archive_equals_folder(tmp_path):
    plain = load(write(tmp_path / "plain", package()))
    for path in (write(tmp_path / "up" / "package", package()).parent, write_tgz(tmp_path / "a.tgz", package())):
        other = load(path)
        assert other.captions == plain.captions
        np.testing.assert_array_equal(np.stack(list(other.images)), np.stack(list(plain.images)))


def test_pictures_are_decoded_only_when_they_are_asked_for(tmp_path, monkeypatch):
    eager = load(write_tgz(tmp_path / "a.tgz", package()))
    decoded = []
    decode = examples.decode_square
    monkeypatch.setattr(examples, "decode_square", lambda *given: decoded.append(1) or decode(*given))
    lazy = load_dataset("noto_emoji", "train", 32, str(tmp_path / "a.tgz"), decode=False)
    assert lazy.captions == eager.captions and not decoded
    np.testing.assert_array_equal(lazy.images[3], eager.images[3])
    assert len(decoded) == 1


def contents(dataset):
    """SHA-256 of all pixels, and of all that is said of them."""
    pixels = hashlib.sha256(b"".join(np.asarray(image).tobytes() for image in dataset.images))
    said = repr((dataset.captions, dataset.labels.tolist(), dataset.label_names))
    return len(dataset), pixels.hexdigest(), hashlib.sha256(said.encode()).hexdigest()


@pytest.mark.parametrize(
    ("split", "expected"),
    [
        (
            "train",
            (
                3307,
                "1cfee2e82297a2633136e002e20864815cfb82e1445778e03169ad629b39689a",
                "10a1fbd8fd32ba21cbde011eef6195cd471121df5f42b96c2876eacfecf0a5f9",
            ),
        ),
        (
            "test",
            (
                474,
                "9e16859330a9a1987bbe6357b14a9ce54dc131fa80b1e81e02c8c46e403a7674",
                "e914d048b5777b4fed3d0300792bb054f6f07283021396df81646acbc5a0311c",
            ),
        ),
    ],
)
def test_what_comes_along_is_the_npm_package(split, expected):
    """The values are those of the .tgz of emoji-datasource-google 16.0.0, its PNGs laid on white."""
    assert contents(load_dataset("noto_emoji", split, 64)) == expected


def test_packed(tmp_path):
    """A packed package has the pictures, captions and splits of the package, and may be given as it is."""
    plain = write_tgz(tmp_path / "plain.tgz", package() | {"LICENSE": b"Apache"})
    packed = tmp_path / "packed.zip"
    noto_emoji.pack(plain, packed)
    for split in ("train", "test"):
        assert contents(load(packed, split)) == contents(load(plain, split))


def test_captions():
    assert captions_of(Emoji("", "", "FATHER CHRISTMAS", ("santa",), "People & Body", ("medium-dark",))) == (
        "father christmas with medium-dark skin",
        "an emoji of father christmas with medium-dark skin",
        "people and body emoji: father christmas with medium-dark skin",
        "a picture of santa with medium-dark skin",
        "medium-dark skin: father christmas",
    )
    assert captions_of(Emoji("", "", "France Flag", ("fr",), "Flags"))[-1] == "a picture of france flag"
    both = captions_of(Emoji("", "", "KISS", ("couplekiss",), "People & Body", ("dark", "dark")))
    assert both[0] == "kiss, both with dark skin"
    pair = captions_of(Emoji("", "", "KISS", ("couplekiss",), "People & Body", ("dark", "light")))
    assert pair[0] == "kiss with dark skin and light skin"


def test_missing_picture(tmp_path):
    files = package()
    del files["img/google/64/1f1eb.png"]
    with pytest.raises(UserError, match=r"1 bad .* the first: 1f1eb.png does not exist"):
        load(write(tmp_path, files))
    assert "france flag" not in {texts[0] for texts in load(tmp_path, bad=1).captions}


@pytest.mark.parametrize("content", [b"{}", b"[1]", b"not json", b"\xff", b'[{"has_img_google": true}]', b"[]"])
def test_other_packages(tmp_path, content):
    with pytest.raises(UserError, match=r"--data_dir: .*(emoji.json is not that of|is empty)"):
        load(write(tmp_path, {"emoji.json": content}))


def test_wrong_places(tmp_path):
    with pytest.raises(UserError, match=r"no emoji.json in .*npm pack"):
        load(tmp_path)
    (tmp_path / "text.tgz").write_bytes(b"text")
    with pytest.raises(UserError, match=r"is not a readable .tgz"):
        load(tmp_path / "text.tgz")
    content = write_tgz(tmp_path / "whole.tgz", package()).read_bytes()
    (tmp_path / "half.tgz").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"is not a readable .tgz"):
        load(tmp_path / "half.tgz")
    with pytest.raises(UserError, match=r"--data_dir: .*/nowhere does not exist"):
        load(tmp_path / "nowhere")
    with pytest.raises(UserError, match="noto_emoji has no validation split"):
        load(tmp_path, "validation")
