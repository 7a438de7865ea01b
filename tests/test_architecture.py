"""Who may know whom: the imports of every part of the package, read from its source."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "t2i_kd"

BELOW_SYSTEMS = {"errors", "imaging", "noise", "recipe", "data", "text", "conditions", "teachers", "training", "system"}
# Part: the other parts of the package that it may import. Systems never import each other.
MAY_KNOW = {
    "errors": set(),
    "imaging": set(),
    "noise": set(),
    "data": {"errors", "imaging"},
    "text": {"errors", "imaging", "teachers", "training"},
    "sdn": BELOW_SYSTEMS,
    "icsd_gan": BELOW_SYSTEMS,
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


@pytest.mark.parametrize("part", MAY_KNOW)
def test_a_part_imports_only_what_it_may_know(part):
    files = sorted((PACKAGE / part).rglob("*.py")) or [PACKAGE / f"{part}.py"]
    known = {name: path.name for path in files for name in imported_by(path)}
    assert not {name: file for name, file in known.items() if name not in {part, *MAY_KNOW[part]}}
