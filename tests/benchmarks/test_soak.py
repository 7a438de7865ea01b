"""The soak is itself tried: small on the real endpoint, and its verdicts on what never was."""

import io
import itertools
import json
import random
import subprocess
import sys
import types

import pytest
from PIL import Image

from benchmarks import soak
from tests.commands import environment
from tests.serving.endpoint import ROOT, SHAPES

SMALL = ["--clients=4", "--seconds=2", "--rest_mutations=120", "--grpc_mutations=60", "--publications=2"]


def answer(outcome, sent=0.0, ended=1.0, protocol="REST"):
    return soak.Answer(protocol, sent, ended, outcome, "" if outcome == soak.RIGHT else "why")


def test_nothing_and_anything_but_right_is_not_held():
    assert soak._all([answer(soak.RIGHT)], soak.RIGHT)
    assert soak._all([answer(soak.RIGHT), answer(soak.REFUSED)], soak.RIGHT, soak.REFUSED)
    assert not soak._all([], soak.RIGHT)
    for outcome in (soak.REFUSED, soak.WRONG, soak.BROKEN):
        assert not soak._all([answer(soak.RIGHT), answer(outcome)], soak.RIGHT)


def png(colour, odd=()):
    image, file = Image.new("RGB", (32, 32), colour), io.BytesIO()
    for at, value in odd:
        image.putpixel(at, value)
    image.save(file, "PNG")
    return file.getvalue()


def test_answers_are_compared_with_the_versions_own():
    expected = soak.Expected(types.SimpleNamespace(generate_png=lambda caption, seed: png((9, 9, 9))))
    item = expected.items[0]
    assert expected.outcome(item, png((9, 9, 9))) == soak.RIGHT
    assert expected.outcome(item, png((9, 9, 9), [((0, 0), (9, 10, 9))])) == soak.RIGHT
    for wrong in (png((9, 9, 9), [((0, 0), (9, 11, 9))]), png((9, 10, 9)), b"", b"\x89PNG", png((9, 9, 9))[:-30]):
        assert expected.outcome(item, wrong) == soak.WRONG


def test_damages_are_those_of_the_seed(monkeypatch):
    # Whatever the time of day.
    monkeypatch.setattr("time.time", itertools.count(1e9, 10).__next__)
    made = [[soak.damaged_rest(random.Random(f"{seed} {number}")) for number in range(200)] for seed in (0, 0, 1)]
    assert made[0] == made[1] != made[2]
    assert len(set(made[0])) > 190


@pytest.mark.slow
def test_a_small_soak_is_held(tmp_path):
    out = tmp_path / "report.json"
    asked = [sys.executable, "-m", "benchmarks.soak", f"--model={SHAPES}", *SMALL, "--kills=1", "--terminations=2"]
    done = subprocess.run(
        [*asked, f"--out={out}"], capture_output=True, text=True, env=environment(), cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(out.read_text())
    assert set(found) == {
        *("start", "load by REST", "load by gRPC", "damaged by REST", "damaged by gRPC", "memory", "versions"),
        *("kill -9", "SIGTERM", "log"),
    }
    assert sum(found["damaged by REST"]["statuses"].values()) == 120
    assert found["SIGTERM"]["exit_codes"] == [0, 0]
