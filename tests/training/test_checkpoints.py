"""Checkpoints: whole or not at all, and never of another recipe."""

import errno
import os
import subprocess

import keras
import numpy as np
import pytest

from t2i_kd.errors import UserError
from t2i_kd.training import checkpoints


def groups(*shapes, name="v", value=0.0):
    variables = [keras.Variable(np.full(shape, value, "float32"), name=name) for shape in shapes]
    return {"trained": variables, "optimizer": [keras.Variable(np.array(7, "int32"), dtype="int32", name="iteration")]}


def values(given):
    return [np.array(variable) for variables in given.values() for variable in variables]


def test_what_is_written_is_read(tmp_path):
    written, read = groups((2, 3), (4,)), groups((2, 3), (4,))
    rng = np.random.default_rng(0)
    for variable in written["trained"]:
        variable.assign(rng.standard_normal(variable.shape))
    written["optimizer"][0].assign(41)
    path = tmp_path / "stage" / "step-00000001.npz"
    checkpoints.write(path, written)
    checkpoints.read(path, read)
    assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(values(written), values(read), strict=True))
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_the_newest_is_found_and_the_oldest_are_dropped(tmp_path):
    assert checkpoints.newest(tmp_path / "absent") == (0, None)
    for step in (5, 100, 20):
        checkpoints.step_path(tmp_path, step).touch()
    (tmp_path / ".step-00000900.npz.tmp").touch()
    (tmp_path / "step-7.npz").touch()
    (tmp_path / checkpoints.FINAL).touch()
    assert checkpoints.newest(tmp_path) == (100, checkpoints.step_path(tmp_path, 100))
    (tmp_path / "step-7.npz").unlink()
    checkpoints.drop_old(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("step*")) == ["step-00000020.npz", "step-00000100.npz"]
    checkpoints.drop_old(tmp_path, kept=0)
    assert not list(tmp_path.glob("step*")) and (tmp_path / checkpoints.FINAL).exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 but no archive", None])
def test_an_unreadable_checkpoint_is_named_and_nothing_is_assigned(tmp_path, content):
    path = tmp_path / "step-00000001.npz"
    given = groups((50,), value=1.0)
    checkpoints.write(path, given)
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    read = groups((50,), value=2.0)
    with pytest.raises(UserError, match=str(path)) as error:
        checkpoints.read(path, read)
    assert "\n" not in str(error.value)
    assert set(values(read)[0]) == {2.0}


@pytest.mark.parametrize("flipped", range(60, 400, 17))
def test_a_flipped_byte_is_noticed_or_harmless(tmp_path, flipped):
    path = tmp_path / "step-00000001.npz"
    checkpoints.write(path, groups((50,), value=1.0))
    content = bytearray(path.read_bytes())
    content[flipped] ^= 0xFF
    path.write_bytes(content)
    read = groups((50,), value=2.0)
    try:
        checkpoints.read(path, read)
    except UserError:
        assert set(values(read)[0]) == {2.0}
    else:
        assert set(values(read)[0]) == {1.0}


@pytest.mark.parametrize(
    ("other", "named"),
    [(groups((2, 3), (5,)), "has shape"), (groups((2, 3)), "variables"), (groups((2, 3), (4,), name="w"), "variables")],
)
def test_another_recipes_checkpoint_is_refused_whole(tmp_path, other, named):
    path = tmp_path / "final.npz"
    checkpoints.write(path, groups((2, 3), (4,), value=1.0))
    with pytest.raises(UserError, match=named):
        checkpoints.read(path, other)
    assert all(set(value.ravel()) <= {0.0, 7} for value in values(other))


def test_weights_that_are_not_finite_are_not_kept(tmp_path):
    path = tmp_path / "step-00000003.npz"
    with pytest.raises(UserError, match=r"step-00000003.npz.*not finite"):
        checkpoints.write(path, groups((2, 3), value=np.nan))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "step-00000001.npz"
    checkpoints.write(path, groups((50,), value=1.0))
    before = path.read_bytes()

    def fill_the_disk(file, **arrays):
        file.write(b"PK\x03\x04 and then")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", fill_the_disk)
    with pytest.raises(UserError, match=r"--run_dir: .*step-00000001.npz: No space left on device") as error:
        checkpoints.write(path, groups((50,), value=2.0))
    assert "\n" not in str(error.value)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]
    assert path.read_bytes() == before


def test_a_really_full_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(command, capture_output=True).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no right to mount a small disk")
    try:
        checkpoints.write(disk / "step-00000001.npz", groups((5000,), value=1.0))
        with pytest.raises(UserError, match=r"--run_dir: .*step-00000002.npz: No space left on device"):
            checkpoints.write(disk / "step-00000002.npz", groups((14000,), value=2.0))
        assert [each.name for each in disk.iterdir()] == ["step-00000001.npz"]
        read = groups((5000,))
        checkpoints.read(disk / "step-00000001.npz", read)
        assert set(values(read)[0]) == {1.0}
    finally:
        subprocess.run(["umount", str(disk)], check=True)
