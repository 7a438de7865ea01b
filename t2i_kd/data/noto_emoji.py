"""`--dataset=noto_emoji`: Google's Noto emoji (Apache-2.0), 64 x 64, with captions made from their names.

They come with the package, as `pack` has made them of the npm package emoji-datasource-google 16.0.0. `--data_dir` may
be another version of it: the .tgz that `npm pack emoji-datasource-google` downloads, read in place, or the folder that
it unpacks to (`emoji.json` and `img/google/64/`, there or in `package/`).

A picture is an emoji, or one of its skin-tone variants; variants that look like the plain emoji are left out, since
their captions would not be true. Transparent parts become white. Labels are the categories of `emoji.json`.

Splits: `test` is a quarter of the (emoji, skin tone) pairs, about an eighth of all pictures, chosen by
`t2i_kd.data.holdout` from the picture's code points; `train` is the rest. So each tested emoji is seen in training
plain or in other tones, each tone on other emoji, the pair never. There is no `validation`.
"""

import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from t2i_kd.data.decoding import decode
from t2i_kd.data.examples import Example, collect
from t2i_kd.data.holdout import position
from t2i_kd.data.sources import TarSource, open_source
from t2i_kd.errors import UserError
from t2i_kd.files import parse_json

PACKAGE = "emoji-datasource-google"
PICTURES = "img/google/64/"
# What comes along, and when its files say that they were written.
PACKED = Path(__file__).parent / "noto_emoji.zip"
PACKED_DATE = (2024, 9, 10, 0, 0, 0)
NEEDS = f"nothing, or the .tgz that `npm pack {PACKAGE}` downloads, or the folder that it unpacks to"
HELD_OUT_SHARE = 0.25
SKIN_TONES = {
    "1F3FB": "light",
    "1F3FC": "medium-light",
    "1F3FD": "medium",
    "1F3FE": "medium-dark",
    "1F3FF": "dark",
}


@dataclass(frozen=True)
class Emoji:
    """A picture of the package: its code points, its file, what it shows and in which skin tones."""

    code_points: str
    file_name: str
    name: str
    short_names: tuple[str, ...]
    category: str
    tones: tuple[str, ...] = ()


def load(split, resolution, data_dir="", max_bad_examples=0, decode=True, cache_dir=None):
    """The emoji of `train` or `test`; see `collect` for `decode`, and `open_source` for `cache_dir`.

    Raises:
        UserError: where `data_dir` is not the package, for a split `validation`, or for more bad pictures than
            `max_bad_examples`.
    """
    if split == "validation":
        raise UserError("--dataset: noto_emoji has no validation split, only train and test")
    source = _open_package(Path(data_dir or PACKED), cache_dir)
    every = _read_emoji(source)
    categories = sorted({emoji.category for emoji in every})
    chosen = [emoji for emoji in every if is_held_out(emoji) == (split == "test")]
    examples = (
        Example(
            emoji.file_name,
            captions_of(emoji),
            categories.index(emoji.category),
            source.file(PICTURES + emoji.file_name),
        )
        for emoji in chosen
    )
    return collect(f"noto_emoji/{split}", examples, categories, resolution, max_bad_examples, len(chosen), decode)


def pack(data_dir, out):
    """Writes the file that comes with this package, `PACKED`: `NEEDS` in less space, the same pixels.

    It is a .zip of `emoji.json` with the keys that are read and its licence (MIT; the pictures' is Apache-2.0), and of
    the pictures that a set has, laid on white, as lossless WebP. The same package gives the same bytes with the same
    version of Pillow.

    Args:
        data_dir: as of `load`.
        out: the file to write.
    """
    source = _open_package(Path(data_dir), None)
    licence = source.read("LICENSE")
    with zipfile.ZipFile(out, "w") as archive:

        def add(name, content, compression):
            archive.writestr(zipfile.ZipInfo(name, PACKED_DATE), content, compression)

        codes = {tone: code for code, tone in SKIN_TONES.items()}
        entries = []
        for emoji in _read_emoji(source):
            stream = io.BytesIO()
            decode(source.read(PICTURES + emoji.file_name)).save(stream, "WEBP", lossless=True, quality=100, method=6)
            image = f"{Path(emoji.file_name).stem}.webp"
            add(PICTURES + image, stream.getvalue(), zipfile.ZIP_STORED)
            picture = {"unified": emoji.code_points, "image": image, "has_img_google": True}
            # A variant comes right behind its plain emoji.
            if emoji.tones:
                entries[-1]["skin_variations"]["-".join(codes[tone] for tone in emoji.tones)] = picture
            else:
                names = {"name": emoji.name, "category": emoji.category, "short_names": emoji.short_names}
                entries.append(picture | names | {"skin_variations": {}})
        add("emoji.json", json.dumps(entries, separators=(",", ":")).encode(), zipfile.ZIP_DEFLATED)
        add("LICENSE", licence, zipfile.ZIP_DEFLATED)


def is_held_out(emoji):
    """Whether a picture belongs to `test`: a skin-tone variant in the lowest quarter of `holdout.position`."""
    return bool(emoji.tones) and position(emoji.code_points) < HELD_OUT_SHARE


def captions_of(emoji):
    """Several phrasings of what an emoji shows, its names in lower case and its skin tones in words, none twice."""
    name = emoji.name.lower()
    tones = _tones_in_words(emoji.tones)
    phrases = [f"{name}{tones}", f"an emoji of {name}{tones}", f"{_plain(emoji.category)} emoji: {name}{tones}"]
    phrases += [f"a picture of {short}{tones}" for short in _spoken(emoji)]
    if tones:
        phrases.append(f"{' and '.join(emoji.tones)} skin: {name}")
    return tuple(dict.fromkeys(phrases))


def parts_of(file_name):
    """(emoji, tones) of a picture's file: its code points without the tones, and the tones with " and " between.

    Of 1f44b-1f3fb.png they are ("1F44B", "light").
    """
    codes = file_name.rpartition(".")[0].upper().split("-")
    tones = " and ".join(SKIN_TONES[code] for code in codes if code in SKIN_TONES)
    # Of a plain emoji some files have this mark, of its variants none.
    return "-".join(code for code in codes if code not in SKIN_TONES and code != "FE0F"), tones


def _tones_in_words(tones):
    if not tones:
        return ""
    if len(tones) == 2 and tones[0] == tones[1]:
        return f", both with {tones[0]} skin"
    return " with " + " and ".join(f"{tone} skin" for tone in tones)


def _spoken(emoji):
    """The short names that are words, unlike `fr` of a flag or `+1`; at least the name itself."""
    words = [_plain(short) for short in emoji.short_names if len(short) > 2 and emoji.category != "Flags"]
    return words or [emoji.name.lower()]


def _plain(text):
    return text.replace("&", "and").replace("_", " ").replace("-", " ").lower()


def _open_package(path, cache_dir):
    if path.is_file() and not zipfile.is_zipfile(path):
        source = TarSource(path, lambda name: name in ("emoji.json", "LICENSE") or name.startswith(PICTURES))
    else:
        source = open_source(path / "package" if (path / "package" / "emoji.json").is_file() else path, cache_dir)
    if "emoji.json" not in source.names():
        raise UserError(
            f"--data_dir: no emoji.json in {path}; give the .tgz of `npm pack {PACKAGE}@16.0.0` or its unpacked folder"
        )
    return source


def _read_emoji(source):
    found = []
    try:
        for entry in parse_json(source.read("emoji.json"), "emoji.json"):
            if not entry["has_img_google"]:
                continue
            plain = _emoji(entry, entry)
            found.append(plain)
            for code, variation in entry.get("skin_variations", {}).items():
                tones = tuple(SKIN_TONES[tone] for tone in code.split("-"))
                variant = _emoji(entry, variation, tones)
                if variation["has_img_google"] and not _look_alike(source, plain, variant):
                    found.append(variant)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"--data_dir: {source.path}: emoji.json is not that of {PACKAGE}: {error!r}") from None
    return found


def _emoji(entry, picture, tones=()):
    texts = (picture["unified"], picture["image"], entry["name"], entry["category"], *entry["short_names"])
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a name is no text")
    return Emoji(
        picture["unified"],
        picture["image"],
        entry["name"],
        tuple(entry["short_names"]),
        entry["category"],
        tones,
    )


def _look_alike(source, plain, variant):
    try:
        return source.read(PICTURES + plain.file_name) == source.read(PICTURES + variant.file_name)
    except UserError:
        return False  # A picture that cannot be read is counted as a bad example later.
