"""One process at a time, and no lock that outlives its process."""

import os
import signal
import subprocess
import sys

import pytest

from t2i_kd.errors import UserError
from t2i_kd.locking import only_process
from tests.commands import environment

HOLD = """
import sys, time
from t2i_kd.locking import only_process
with only_process(sys.argv[1], "--run_dir: run"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / ".lock")], env=environment(), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def hold(path):
    """Takes the lock, which is to be held already."""
    with only_process(path, "--run_dir: run"):
        raise AssertionError("held twice")


def test_the_second_is_told_who_is_first(holder, tmp_path):
    with pytest.raises(UserError, match=rf"--run_dir: run is in use by process {holder.pid} on \S+ since 2\d\d\d-"):
        hold(tmp_path / ".lock")
    assert holder.poll() is None and (tmp_path / ".lock").exists()


def test_a_killed_process_holds_nothing(holder, tmp_path):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".lock").exists()
    with only_process(tmp_path / ".lock", "--run_dir: run"):
        assert str(os.getpid()) in (tmp_path / ".lock").read_text()
    assert not (tmp_path / ".lock").exists()


def test_a_lock_ends_with_an_error(tmp_path):
    with pytest.raises(ValueError, match="boom"), only_process(tmp_path / ".lock", "x"):
        raise ValueError("boom")
    with only_process(tmp_path / ".lock", "x"):
        pass


def test_the_same_process_holds_it_once(tmp_path):
    with only_process(tmp_path / ".lock", "x"), pytest.raises(UserError, match="in use by process"):
        hold(tmp_path / ".lock")
