"""Draws a caption on a small board: a .tflite of an export, its vocabulary.txt and its manifest.json, and nothing else.

    pip install ai-edge-litert numpy pillow
    python raspberry_pi.py --model=student_int8.tflite --caption="a small red circle" --out=circle.png

The three files lie together, as an export leaves them in `1/assets.extra`. The picture is that of
`python -m t2i_kd.generate` with the same file and seed.
"""

import argparse
import json
import math
import re
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image


def tokens_of(caption, vocabulary, kind, length):
    """Token ids, int32 [1, length]; the rules are in the docstring of t2i_kd/text/tokenizer.py."""
    ids = {token.encode(): number for number, token in enumerate(vocabulary) if number > 1}
    text = caption.encode().lower()
    words = re.findall(rb"[a-z0-9'\x80-\xff]+" if kind == "words" else rb"(?s:.)", text)
    found = [ids.get(word, 1) for word in words[:length]]
    return np.array([found + [0] * (length - len(found))], np.int32)


def noise_of(seed, dim):
    """Noise of a seed, float32 [1, dim]; the rules are in the docstring of t2i_kd/noise.py."""

    def mix(word):
        word = (word ^ word >> 16) * 0x85EBCA6B & 0xFFFFFFFF
        word = (word ^ word >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
        return word ^ word >> 16

    low, high = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    words = [mix(mix(mix((i + 1) * 0x9E3779B9 & 0xFFFFFFFF) ^ low) ^ high) >> 8 for i in range(dim + dim % 2)]
    numbers = []
    for first, second in zip(words[::2], words[1::2], strict=True):
        radius, angle = math.sqrt(-2 * math.log((first + 1) / 2**24)), 2 * math.pi * second / 2**24
        numbers += [radius * math.cos(angle), radius * math.sin(angle)]
    return np.array([numbers[:dim]], np.float32)


def main():
    """Reads the command line, draws and writes the PNG."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="a .tflite with manifest.json beside it")
    parser.add_argument("--caption", required=True)
    parser.add_argument("--seed", type=int, default=0, help="of the noise, where the model takes some")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", required=True, help="the PNG to write")
    values = parser.parse_args()
    manifest = json.loads((values.model.parent / "manifest.json").read_text("utf-8"))
    reads = manifest["condition"]
    if "tokenizer" not in reads:
        what = f"vectors of {reads['encoder']}" if reads["kind"] == "caption" else f"{reads['kind']}s"
        parser.error(f"{values.model} reads {what}, not captions")
    vocabulary = (values.model.parent / "vocabulary.txt").read_bytes().decode().split("\n")[:-1]
    inputs = {"tokens": tokens_of(values.caption, vocabulary, reads["tokenizer"], reads["length"])}
    if manifest["noise_dim"]:
        inputs["noise"] = noise_of(values.seed, manifest["noise_dim"])
    interpreter = Interpreter(model_path=str(values.model), num_threads=values.threads)
    image = interpreter.get_signature_runner("serving_default")(**inputs)["image"][0]
    Image.fromarray(np.rint(np.clip(image, 0, 255)).astype(np.uint8)).save(values.out)


if __name__ == "__main__":
    main()
