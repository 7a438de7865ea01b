"""TF Serving's layout, `NAME/VERSION/`: the versions in a model's folder."""

from pathlib import Path

LARGEST_VERSION = 2**63 - 1


def find_versions(base):
    """{number: folder} of the folders in `base` that are named by a number; none where `base` cannot be read."""
    try:
        entries = [entry for entry in Path(base).iterdir() if entry.name.isascii() and entry.name.isdecimal()]
        folders = {int(entry.name): entry for entry in entries if len(entry.name) < 20 and entry.is_dir()}
    except OSError:
        return {}
    return {version: folder for version, folder in folders.items() if version <= LARGEST_VERSION}
