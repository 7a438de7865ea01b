"""Draws captions: `python -m t2i_kd.generate --model=PATH --caption="a small red circle" --out=FILE.png`.

One caption gives the picture itself, several give a captioned grid. The same caption and seed give the same picture
from every artifact of a model.
"""

import os
from pathlib import Path

from absl import flags

from t2i_kd import commands
from t2i_kd.data.captioned_images import check_caption
from t2i_kd.errors import UserError
from t2i_kd.exporting.artifacts import load_artifact
from t2i_kd.imaging import captioned_grid, encode_png, write_file_atomically

SEEDS = range(-(2**63), 2**63)


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_string("model", "", "a version folder, a .tflite, an .onnx or a run directory")
    flags.DEFINE_multi_string("caption", [], "what to draw; give it several times for a grid")
    flags.DEFINE_integer("seed", 0, "of the noise, where the model takes some; 64 bits")
    flags.DEFINE_string("out", "", "the PNG to write")


def draw(model, captions, seed, out):
    """Writes the pictures of captions into one PNG.

    Args:
        model: a path; see `load_artifact`.
        captions: at least one string.
        seed: an integer of 64 bits, the same for every caption.
        out: path of the PNG, in a folder that exists.

    Raises:
        UserError: naming the flag or file that is wrong; `out` is then as it was.
    """
    captions = _check_captions(captions)
    if seed not in SEEDS:
        raise UserError(f"--seed: {seed} is not an integer of 64 bits")
    out = _check_out(out)
    if not model:
        raise UserError("--model: missing")
    artifact = load_artifact(model)
    if len(captions) == 1:
        png = artifact.generate_png(captions[0], seed)
    else:
        png = encode_png(captioned_grid(artifact.generate(captions, [seed] * len(captions)), captions))
    try:
        write_file_atomically(out, png)
    except OSError as error:
        raise UserError(f"--out: {out}: {error.strerror or error}") from None


def _check_captions(captions):
    if not captions:
        raise UserError("--caption: missing; say what to draw")
    try:
        return [check_caption(caption) for caption in captions]
    except UserError as error:
        raise UserError(f"--{error}") from None


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
    """Runs the command; see `draw`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    values = flags.FLAGS
    draw(values.model, values.caption, values.seed, values.out)
    print(values.out)


if __name__ == "__main__":
    define_flags()
    commands.run(main)
