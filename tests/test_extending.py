"""Every block of docs/extending.md, as a reader follows it: files are written, commands run, Python executed."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text("utf-8")
BLOCK = re.compile(r"(?:^`(?P<file>[\w./]+)`\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks():
    return list(BLOCK.finditer(PAGE))


def test_the_page_has_what_its_table_promises():
    files = {block["file"] for block in blocks() if block["file"]}
    assert {f"my_package/my_{name}.py" for name in ("data", "metric", "teacher", "objective")} <= files
    assert len([name for name in files if name.startswith("my_package/my_system/")]) == 3
    assert sum(block["kind"] == "sh" for block in blocks()) == 5


@pytest.mark.slow
def test_every_block_works(tmp_path):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}

    def run(*command):
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    (tmp_path / "my_package").mkdir()
    (tmp_path / "my_package" / "__init__.py").touch()
    for block in blocks():
        if block["file"]:
            (tmp_path / block["file"]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / block["file"]).write_text(block["text"])
        elif block["kind"] == "python":
            run(sys.executable, "-c", block["text"])
        elif block["kind"] == "sh":
            shell = block["text"].replace("python -m", f"{sys.executable} -m")
            run("bash", "-euc", shell)
    assert (tmp_path / "mine.png").stat().st_size > 0 and (tmp_path / "report.json").stat().st_size > 0
