"""The documentation: its links, names and docstrings, the site that it makes, and its notebooks."""

import ast
import dataclasses
import functools
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from t2i_kd import systems
from t2i_kd.data.catalogue import DATASETS
from tests.systems import recipe_and_others

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "pipelines/*/**/README.md", "saved_models/**/README.md")
    for path in ROOT.glob(pattern)
    if not {"node_modules", "build"} & set(path.relative_to(ROOT).parts)
)
PARTS = sorted(path.name for path in (ROOT / "t2i_kd").iterdir() if path.suffix in ("", ".py"))
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
# The sizes at the top of a notebook, for a test.
SMALL = {
    "NUM_PICTURES": 40,
    "RESOLUTION": 32,
    "WIDTH": 1 / 32,
    "BATCH_SIZE": 4,
    "TEXT_STEPS": 2,
    "STEPS": 2,
    "REFINE_STEPS": 2,
    "NUM_CAPTIONS": 8,
}
OWN = {
    "ten_minutes_with_your_own_pictures": {"MEASURE_EVERY": 2, "METRICS": "kernel"},
    "a_new_objective_for_sdn": {"WIDTH": 0.25, "METRICS": "ssim"},
}


def named(path):
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_its_links_lead_to_files(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[\w-]*)?\)", page.read_text("utf-8"))
    assert not [link for link in links if ":" not in link and not (page.parent / link).exists()]


def test_every_page_is_in_the_sites_navigation():
    pages = re.findall(r": (\S+\.md)$", (ROOT / "mkdocs.yml").read_text("utf-8"), re.MULTILINE)
    assert len(pages) == len(set(pages))
    assert set(pages) == {named(page) for page in PAGES} - {"saved_models/README.md"}


def test_the_readme_opens_with_the_two_commands():
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert "t2i_kd.train --flagfile=pipelines/quickstart.flags" in blocks[0] and "t2i_kd.generate" in blocks[0]
    assert "pytest" in blocks[1] and "ruff check" in blocks[1]


def test_tables_leave_nothing_out():
    readme, recipes = (ROOT / "README.md").read_text("utf-8"), (ROOT / "docs" / "recipes.md").read_text("utf-8")
    families = {name.partition("/")[0] for name in DATASETS}
    assert not [name for name in families if f"`{name}`" not in readme and f"`{name}/" not in readme]
    assert not [path.name for path in (ROOT / "pipelines").glob("*.flags") if f"`{path.name}`" not in recipes]
    papers = (ROOT / "docs" / "papers.md").read_text("utf-8")
    assert not [name for name in systems.ROOMS if name != "teacher_slim" and f"`{name}`" not in papers]


@functools.cache
def parsed(path):
    return ast.parse(path.read_text("utf-8"))


def exists(name):
    """Whether a dotted name is a module of the package, or what one defines at its top, or a member of its class."""
    path, parts = ROOT, name.split(".")
    while parts and (path / parts[0]).is_dir():
        path /= parts.pop(0)
    if not parts:
        return True
    file = path / f"{parts[0]}.py"
    body = parsed(file if file.is_file() else path / "__init__.py").body
    for part in parts[1:] if file.is_file() else parts:
        found = [node for node in body if part in names_of(node)]
        if not found:
            return False
        body = getattr(found[0], "body", [])
    return True


def names_of(node):
    if isinstance(node, ast.Import | ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    targets = getattr(node, "targets", [getattr(node, "target", node)])
    return [getattr(target, "id", getattr(target, "name", "")) for target in targets]


def test_what_the_pages_name_of_the_package_exists():
    """As in a stale `t2i_kd.sdn.objective.renamed`; `:::` of the reference is the site's own to find."""
    pattern = re.compile(r"`(t2i_kd(?:\.\w+)+)`")
    found = {name: named(page) for page in PAGES for name in pattern.findall(page.read_text("utf-8"))}
    assert len(found) > 30
    assert not {name: page for name, page in found.items() if not exists(name)}
    assert not exists("t2i_kd.sdn.objective.renamed") and not exists("t2i_kd.nothing")


@pytest.mark.parametrize("part", PARTS)
def test_docstrings_tell_parameters_that_there_are(part):
    """Google style: each name under `Args:` is a parameter's, of the function or of the class's `__init__`."""
    path = ROOT / "t2i_kd" / part
    stale = {}
    for file in [path] if path.is_file() else sorted(path.rglob("*.py")):
        for node in ast.walk(parsed(file)):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                told = told_arguments(ast.get_docstring(node) or "")
                missing = [name for name in told if name not in parameters_of(node)]
                if missing and not (isinstance(node, ast.ClassDef) and not own_init(node)):
                    stale[f"{file.name}:{node.lineno} {node.name}"] = missing
    assert not stale


def told_arguments(docstring):
    section = re.search(r"^Args:\n((?: {4}.*\n?|\n)*)", docstring, re.MULTILINE)
    text = section[1] if section else ""
    heads = re.findall(r"^ {4}(\*{0,2}\w+(?:, \*{0,2}\w+)*)(?: \([^)]*\))?:", text, re.MULTILINE)
    return [name.lstrip("*") for head in heads for name in head.split(", ")]


def own_init(node):
    return next((each for each in node.body if getattr(each, "name", "") == "__init__"), None)


def parameters_of(node):
    function = own_init(node) if isinstance(node, ast.ClassDef) else node
    if function is None:
        return []
    given = function.args
    several = [given.vararg, given.kwarg]
    every = [*given.posonlyargs, *given.args, *given.kwonlyargs, *(each for each in several if each)]
    return [each.arg for each in every]


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    """Links, anchors and the reference's names among it; see `validation` in mkdocs.yml."""
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    objectives = tmp_path / "site" / "docs" / "reference" / "objectives" / "index.html"
    assert "t2i_kd.icsd_gan.objective.similarity_matrix" in objectives.read_text("utf-8")


def cells(notebook):
    return json.loads(notebook.read_text("utf-8"))["cells"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=named)
def test_a_notebook_holds_no_output(notebook):
    assert not [cell["source"] for cell in cells(notebook) if cell.get("outputs") or cell.get("execution_count")]
    assert sorted({cell["id"] for cell in cells(notebook)}) == sorted(cell["id"] for cell in cells(notebook))


def test_the_notebooks_recipe_is_that_of_own_pictures():
    """All but how often it looks, and whether it mirrors: the captions of its example say left and right."""
    (notebook,) = (path for path in NOTEBOOKS if path.stem == "ten_minutes_with_your_own_pictures")
    code = ["".join(cell["source"]) for cell in cells(notebook) if cell["cell_type"] == "code"]
    values = {}
    exec(code[0], values)
    (recipe,) = (cell for cell in code if "SDNRecipe(" in cell)
    exec(recipe, values)
    flagfile = ROOT / "pipelines" / "own_pictures.flags"
    theirs, _ = recipe_and_others(f"--flagfile={flagfile}", "--data_dir=PICTURES", "--noflip")
    often = {
        name: getattr(theirs.training, name)
        for name in ("checkpoint_every", "sample_every", "measure_every", "log_every")
    }
    own = dataclasses.replace(
        values["recipe"],
        data=dataclasses.replace(values["recipe"].data, data_dir="PICTURES"),
        training=dataclasses.replace(values["recipe"].training, **often),
    )
    assert own == theirs


@pytest.mark.slow
def test_the_readmes_python_and_the_notebooks_run(tmp_path):
    """Their cells' source in order, in one process: a Jupyter kernel would need more packages to show the same."""
    (block,) = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    program = tmp_path / "run.py"
    program.write_text(f"""
import json, os, sys
import tensorflow as tf
small = json.loads({json.dumps(json.dumps(SMALL))})
own = json.loads({json.dumps(json.dumps(OWN))})
os.chdir({str(ROOT)!r})
exec({block!r})
os.chdir({str(tmp_path)!r})
for path in sys.argv[1:]:
    name = path.rpartition("/")[2].removesuffix(".ipynb")
    code = ["".join(cell["source"]) for cell in json.load(open(path))["cells"] if cell["cell_type"] == "code"]
    values = {{"__name__": "__main__"}}
    exec(compile(code[0], name, "exec"), values)
    sizes = {{key: value for key, value in small.items() if key in values}} | own[name]
    assert set(own[name]) <= set(values) and len(sizes) >= 5, "sizes are variables of the first cell"
    values.update(sizes)
    for number, cell in enumerate(code[1:], 1):
        # Two steps of a training do not pay for a graph.
        tf.config.run_functions_eagerly("t2i_kd.train(" in cell)
        exec(compile(cell, f"{{name}}, code cell {{number}}", "exec"), values)
        print(name, number, flush=True)
    print("done", name, sorted(values["report"]["metrics"]))
""")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    command = [sys.executable, str(program), *map(str, NOTEBOOKS)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "(1, 32, 32, 3) uint8" in done.stdout
    assert done.stdout.count("done") == len(NOTEBOOKS) == 2
    assert (tmp_path / "own_pictures" / "saved_models" / "1" / "assets.extra" / "student_float16.tflite").is_file()
