"""Who may know whom: the imports of every part of the package, read from its source."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "t2i_kd"

COMMANDS = {"train", "evaluate", "export", "generate", "prepare", "serve"}
ROOMS = {"sdn", "icsd_gan", "kd_dlgan", "srpkd", "teacher_slim"}
BELOW_ROOMS = {
    *("checksums", "conditions", "data", "dtype_policy", "errors", "files", "imaging", "metrics", "noise", "options"),
    *("plugins", "recipe", "runners", "student", "teachers", "text", "training", "trust", "weight_files"),
}
# Part: the other parts of the package that it may import. Rooms, the systems' own folders, never import each other.
MAY_KNOW = {
    "checksums": {"files"},
    "dtype_policy": set(),
    "errors": set(),
    "files": {"errors"},
    "imaging": set(),
    "noise": set(),
    "quiet": set(),
    "processors": set(),
    "stopping": set(),
    "trust": {"errors", "files"},
    "weight_files": {"errors", "files"},
    "command_line": {"errors", "files", "shipped"},
    "shipped": {"errors", "versions"},
    "versions": set(),
    "locking": {"errors", "files"},
    "plugins": {"errors", "quiet"},
    "options": {"errors"},
    "recipe": {"errors", "files"},
    "data": {"checksums", "errors", "files", "imaging", "plugins", "processors"},
    "text": {"errors", "files", "imaging", "trust", "weight_files"},
    "conditions": {"data", "errors", "files", "imaging", "text"},
    "student": {"conditions", "dtype_policy", "errors", "imaging", "registered_layers", "weight_files"},
    "registered_layers": {"srpkd", "teachers", "text", "training"},
    "runners": {"errors", "imaging", "noise", "quiet"},
    "tiling": {"errors", "imaging"},
    "teachers": {
        *("checksums", "dtype_policy", "errors", "files", "imaging", "plugins", "quiet", "student", "text"),
        "weight_files",
    },
    "metrics": {
        "checksums",
        "data",
        "errors",
        "files",
        "imaging",
        "options",
        "plugins",
        "teachers",
        "text",
        "training",
    },
    "exporting": {
        *("checksums", "conditions", "errors", "files", "locking", "noise", "quiet", "recipe", "runners", "student"),
    },
    "loading": {"conditions", "errors", "exporting", "runners", "shipped", "student", "trust", "versions"},
    "training": BELOW_ROOMS | {"exporting", "locking", "stopping"},
    "serving": {
        *("conditions", "data", "errors", "exporting", "imaging", "loading", "processors", "runners", "trust"),
        "versions",
    },
    **dict.fromkeys(ROOMS, BELOW_ROOMS),
}


def imported_by(path):
    """The parts of the package that a file imports, at its top or inside a function."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]  # A module that is imported by its name.
        yield from (name.split(".")[1] for name in names if name.startswith("t2i_kd."))


@pytest.mark.parametrize("part", sorted(MAY_KNOW))
def test_a_part_imports_only_what_it_may_know(part):
    files = sorted((PACKAGE / part).rglob("*.py")) or [PACKAGE / f"{part}.py"]
    known = {name: path.name for path in files for name in imported_by(path)}
    assert not {name: file for name, file in known.items() if name not in {part, *MAY_KNOW[part]}}


def test_every_room_has_a_line():
    from t2i_kd.systems import ROOMS as known

    assert {module.removeprefix("t2i_kd.") for module in known.values()} == ROOMS


def test_nothing_imports_a_command():
    """A command is run, not imported: an import would put it where the package has a function of the same name."""
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if path.stem not in COMMANDS or path.parent != PACKAGE]
    assert len(files) > 100
    assert not {(path.name, name) for path in files for name in imported_by(path) if name in COMMANDS}
