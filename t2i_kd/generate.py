"""Generates images: `python -m t2i_kd.generate --model=PATH --caption="a small red circle" --out=FILE.png`.

One item gives the image itself, several give a captioned grid; of images, each beside what is made of it. A model reads
images of one size: others are resized to it, or translated in tiles with `--large_images=tile`. The same caption or
image and the same seed give the same image from every artifact of a model.
"""

import functools
import math
import sys
from pathlib import Path

from absl import flags

from t2i_kd import api, commands
from t2i_kd.errors import UserError
from t2i_kd.files import LARGEST_PICTURE, read_bytes
from t2i_kd.imaging import captioned_grid, encode_png, to_uint8, write_file_atomically
from t2i_kd.shipped import model_path
from t2i_kd.tiling import OVERLAP, check_tiles, generate_tiled

# Of all images on a sheet, in pixels.
LARGEST_GRID = 100_000_000
SEEDS = range(-(2**63), 2**63)
DESCRIPTION = "Generates the images of captions, or of images, with a trained or exported model, and writes one PNG."


def define_flags(arguments):
    """Defines this command's flags."""
    return {"Generating": commands.defining(_define)}


def _define():
    flags.DEFINE_string(
        "model",
        "",
        "The model: a version folder, a .tflite, an .onnx, a run directory or a .keras file in one. "
        + commands.named_models(),
    )
    flags.DEFINE_multi_string("caption", [], "What to generate, for a model of captions. Several of them give a grid.")
    flags.DEFINE_multi_string(
        "image",
        [],
        "The file of an image to translate, for a model of images. Several give a grid, each beside its result.",
    )
    flags.DEFINE_enum(
        "large_images",
        "resize",
        ["resize", "tile"],
        "What becomes of an image of another size than the model reads: its centred square is resized, or it keeps its "
        "size and is translated in tiles that overlap, which a model with instance norms may tint each for itself.",
    )
    flags.DEFINE_float(
        "tile_overlap",
        OVERLAP,
        "The share of a tile's side that it has in common with its neighbour, 0 to 0.75, for --large_images=tile.",
    )
    flags.DEFINE_integer("seed", 0, "The seed of the noise, where the model takes some: an integer of 64 bits.")
    flags.DEFINE_string("out", "", "The PNG to write.")
    commands.define_hub_handle()


def write_images(model, captions, images, seed, out, large_images="resize", tile_overlap=OVERLAP):
    """Writes the images of captions or of images into one PNG.

    Args:
        model: a path or a name; see `t2i_kd.load`.
        captions: strings, for a model of captions.
        images: paths of pictures, for a model of images.
        seed: an integer of 64 bits, the same for every item.
        out: path of the PNG, in a folder that exists.
        large_images: `resize`, or `tile` for images that keep their sizes; see `t2i_kd.tiling`.
        tile_overlap: the share of a tile that its neighbour has too.

    Raises:
        UserError: naming the flag or file that is wrong; `out` is then as it was.
    """
    if captions and images:
        raise UserError("--image: give captions or images, not both")
    if seed not in SEEDS:
        raise UserError(f"--seed: {seed} is not an integer of 64 bits")
    out = _check_out(out)
    given = {"caption": _check_captions(captions), "image": _read(images)}
    if not model:
        raise UserError("--model: missing")
    runner = api.load(model)
    kind = runner.condition.kind
    other = next(name for name in given if name != kind)
    if given[other]:
        raise UserError(f"--{other}: {model} reads {kind}s; give --{kind}")
    items = given[kind]
    if not items:
        raise UserError(f"--{kind}: missing; say what to generate")
    _check_images(runner.condition, images, given["image"])
    _tell_unread(runner.condition, items)
    labels = items if kind == "caption" else [Path(path).name for path in images]
    make = _png
    if large_images == "tile":
        if kind != "image":
            raise UserError(f"--large_images: {model} reads {kind}s")
        check_tiles(runner, tile_overlap)
        make = functools.partial(_tiled_png, overlap=tile_overlap)
    try:
        png = make(runner, items, labels, seed)
        write_file_atomically(out, png)
    except UserError as error:
        raise UserError(f"--{kind}: {error}") from None
    except OSError as error:
        raise UserError(f"--out: {out}: {error.strerror or error}") from None


def _png(runner, items, labels, seed):
    if len(items) == 1:
        return runner.generate_png(items[0], seed)
    images = runner.generate(items, [seed] * len(items))
    if runner.condition.kind != "image":
        return encode_png(captioned_grid(images, labels))
    from t2i_kd.conditions.image import SOURCE, ImageCondition

    return _before_and_after(to_uint8(ImageCondition(runner.resolution).arrays(items)[SOURCE]), images, labels)


def _tiled_png(runner, items, labels, seed, overlap):
    pictures = [runner.condition.pixels(item) for item in items]
    if len(items) == 1:
        return encode_png(generate_tiled(runner, pictures[0], seed, overlap))
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    if 2 * len(items) * height * width > LARGEST_GRID:
        raise UserError(
            f"a grid of {2 * len(items)} images of up to {width} x {height} pixels is too large; give fewer"
        )
    return _before_and_after(pictures, [generate_tiled(runner, each, seed, overlap) for each in pictures], labels)


def _before_and_after(before, after, labels):
    both = [image for pair in zip(before, after, strict=True) for image in pair]
    # An even number of columns keeps what belongs together in one row.
    columns = 2 * math.ceil(math.sqrt(len(labels) / 2))
    return encode_png(captioned_grid(both, [text for label in labels for text in (label, "")], columns))


def _check_captions(captions):
    from t2i_kd.data.captioned_images import check_caption

    try:
        return [check_caption(caption) for caption in captions]
    except UserError as error:
        raise UserError(f"--{error}") from None


def _read(paths):
    contents = []
    for path in paths:
        try:
            contents.append(read_bytes(path, LARGEST_PICTURE))
        except UserError as error:
            raise UserError(f"--image: {error}") from None
    return contents


def _tell_unread(condition, items):
    """Names on standard error the words of captions that the model does not know or does not reach."""
    for item in items:
        for line in condition.unread(item):
            print(f"warning: --{condition.kind} {item[:60]!r}: {line}", file=sys.stderr)


def _check_images(condition, paths, contents):
    for path, content in zip(paths, contents, strict=True):
        try:
            condition.check(content)
        except UserError as error:
            raise UserError(f"--image: {path}: {error}") from None


def _check_out(out):
    if not out:
        raise UserError("--out: missing; name the PNG to write")
    out = Path(out)
    if out.suffix.lower() != ".png":
        raise UserError(f"--out: {out} does not end in .png")
    if out.is_dir():
        raise UserError(f"--out: {out} is a folder")
    if not out.parent.is_dir():
        raise UserError(f"--out: the folder {out.parent} does not exist")
    return out


def main():
    """Runs the command; see `write_images`."""
    values = flags.FLAGS
    if not values.caption and not values.image:
        raise UserError("--caption: missing; say what to generate, or give --image for a model of images")
    if values.model and model_path(values.model).is_dir():
        commands.load_backend()
    write_images(
        *(values.model, values.caption, values.image, values.seed, values.out),
        values.large_images,
        values.tile_overlap,
    )
    print(values.out)


if __name__ == "__main__":
    commands.run(main, define_flags, DESCRIPTION)
