"""The repository's Dockerfile, read."""

import json
import re

from tests.commands import ROOT


def instructions():
    """(instruction, its text) in their order; lines that go on are joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text("utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def copied():
    """What is copied from the repository."""
    texts = [text for name, text in instructions() if name == "COPY" and not text.startswith("--from=")]
    return [source for text in texts for source in text.split()[:-1]]


def arguments_of(name):
    """The words of the one ENTRYPOINT, CMD or HEALTHCHECK."""
    (text,) = [text for each, text in instructions() if each == name]
    return json.loads(text[text.index("[") :])
