import errno
import threading
from pathlib import Path

import pytest

from t2i_kd.errors import UserError
from t2i_kd.serving.errors import RequestError
from t2i_kd.serving.metrics import Metrics
from t2i_kd.serving.repository import Repository
from t2i_kd.serving.settings import Settings


class Fake:
    """A model that is whole where its folder holds a file `whole`."""

    def __init__(self, folder):
        if not (folder / "whole").exists():
            raise UserError(f"{folder}: half written")
        self.version, self.signatures = int(folder.name), {}
        self.loads.append(self.version)

    loads: list

    def warm_up(self, sizes):
        self.warm = sizes

    def run(self, signature, inputs):
        return inputs


@pytest.fixture
def load(monkeypatch):
    monkeypatch.setattr(Fake, "loads", [], raising=False)
    return Fake


@pytest.fixture
def write(tmp_path):
    def write(version, whole=True):
        (tmp_path / str(version)).mkdir(exist_ok=True)
        (tmp_path / str(version) / ("whole" if whole else "half")).touch()

    return write


@pytest.fixture
def make(tmp_path, load):
    made = []

    def make(**settings):
        settings = Settings("m", str(tmp_path), file_system_poll_wait_seconds=1000, **settings)
        made.append(Repository(settings, Metrics((2, 32)), load))
        return made[-1]

    yield make
    for repository in made:
        assert repository.stop(10)


def newest(repository):
    with repository.hold() as (model, _):
        return model.version


def test_the_newest_whole_version_is_served_and_warm(make, write):
    write(1), write(3), write(4, whole=False), write("2")
    repository = make()
    repository.start()
    with repository.hold() as (model, _):
        assert (model.version, model.warm) == (3, (2, 4, 8, 16, 32))
    assert Fake.loads == [3]
    shown = {version: state for version, state, _ in repository.statuses()}
    assert shown == {3: "AVAILABLE", 4: "END"}


def test_a_new_version_replaces_the_old_one_once_it_is_whole(make, write, caplog):
    write(1)
    repository = make()
    repository.start()
    write(2, whole=False)
    repository.poll()
    repository.poll()
    assert newest(repository) == 1
    refusals = [record for record in caplog.records if "half written" in record.message]
    assert len(refusals) == 1, "a version that does not change is looked at once"
    write(2)
    repository.poll()
    assert newest(repository) == 1, "its files have just changed"
    repository.poll()
    assert newest(repository) == 2
    with pytest.raises(RequestError, match=r"Specific\(m, 1\)"), repository.hold(1):
        pass


def test_a_version_that_never_rests_is_refused_once(make, write, tmp_path, caplog):
    write(1)
    repository = make()
    repository.start()
    write(2, whole=False)
    for size in range(10):
        (tmp_path / "2" / "growing").write_bytes(bytes(size))
        repository.poll()
    assert caplog.text.count("half written") == 1
    repository.poll()
    assert caplog.text.count("half written") == 2
    assert newest(repository) == 1


def test_a_version_that_changes_while_it_is_read_is_refused(make, write, tmp_path, caplog, monkeypatch):
    def warm_up(model, sizes):
        if model.version == 2:
            (tmp_path / "2" / "whole").write_bytes(b"other weights")

    monkeypatch.setattr(Fake, "warm_up", warm_up)
    write(1)
    repository = make()
    repository.start()
    write(2)
    repository.poll()
    assert newest(repository) == 1
    assert caplog.text.count("2: its files changed while they were read") == 1
    monkeypatch.setattr(Fake, "warm_up", lambda model, sizes: None)
    repository.poll()
    repository.poll()
    assert newest(repository) == 2


def test_a_read_that_never_ends_is_given_up(make, write, tmp_path, caplog, monkeypatch):
    ended, begun = threading.Event(), []

    def warm_up(model, sizes):
        if model.version == 2:
            begun.append(model)
            assert ended.wait(60)

    monkeypatch.setattr(Fake, "warm_up", warm_up)
    write(1)
    repository = make(load_timeout_seconds=0.2)
    repository.start()
    write(2)
    for size in (0, 0, 1, 1, 1):
        (tmp_path / "2" / "growing").write_bytes(bytes(size))
        repository.poll()
    assert newest(repository) == 1
    # Even though its files changed: the thread that reads them is still there.
    assert len(begun) == 1
    assert caplog.text.count("2: not read and warmed up within 0.2 seconds (--load_timeout_seconds)") == 1
    ended.set()
    repository._reader.join()
    repository.poll()
    assert newest(repository) == 2


def test_a_folder_that_cannot_be_read_is_told_once(make, write, caplog, monkeypatch):
    def refuse(path, pattern):
        raise OSError(errno.EIO, "Input/output error", str(path))

    write(1)
    repository = make()
    repository.start()
    write(2, whole=False)
    monkeypatch.setattr(Path, "rglob", refuse)
    for _ in range(4):
        repository.poll()
    assert caplog.text.count("version 2 of m is not loaded") == 1


def test_a_version_that_is_held_is_not_let_go(make, write):
    write(1)
    repository = make()
    repository.start()
    with repository.hold() as (model, batcher):
        write(2)
        repository.poll()
        assert newest(repository) == 2
        assert [state for version, state, _ in repository.statuses() if version == 1] == ["UNLOADING"]
        import numpy as np

        answer = batcher.submit("a", {"x": np.arange(3)}).result(10)
        assert (model.version, answer["x"].tolist()) == (1, [0, 1, 2])
    assert [state for version, state, _ in repository.statuses() if version == 1] == ["END"]
    assert batcher.join(10)


def test_a_deleted_version_is_served_until_another_is_there(make, write, tmp_path):
    write(5)
    repository = make()
    repository.start()
    (tmp_path / "5" / "whole").unlink()
    (tmp_path / "5").rmdir()
    repository.poll()
    assert newest(repository) == 5
    write(4)
    repository.poll()
    assert newest(repository) == 4


def test_a_labelled_version_stays(make, write):
    write(1), write(2)
    repository = make(version_labels={"stable": 1})
    repository.start()
    write(3)
    repository.poll()
    with repository.hold(label="stable") as (model, _):
        assert model.version == 1
    assert newest(repository) == 3
    for wrong, code in (({"label": "other"}, "INVALID_ARGUMENT"), ({"version": 2}, "NOT_FOUND")):
        with pytest.raises(RequestError) as caught, repository.hold(**wrong):
            pass
        assert caught.value.code == code


def test_folders_that_are_no_versions_are_ignored(make, write, tmp_path):
    for name in ("latest", ".exporting-7-12", "-3", "9" * 30, "²"):
        write(name)
    (tmp_path / "8").touch()
    with pytest.raises(UserError, match=r"--model_base_path: .*no folder named by a number"):
        make().start()
    write(1)
    repository = make()
    repository.start()
    assert newest(repository) == 1


def test_nothing_to_serve_says_why(make, write):
    write(1, whole=False)
    with pytest.raises(UserError, match=r"--model_base_path: .*nothing to serve: .*1: half written"):
        make().start()
    write(2)
    with pytest.raises(UserError, match="--version_label: old:1: that version cannot be loaded"):
        make(version_labels={"old": 1}).start()


def test_the_folder_itself_may_go(make, write, tmp_path):
    write(1)
    repository = make()
    repository.start()
    (tmp_path / "1" / "whole").unlink()
    (tmp_path / "1").rmdir()
    tmp_path.rmdir()
    repository.poll()
    assert newest(repository) == 1
    tmp_path.mkdir()


def test_finished_versions_are_forgotten_in_the_end(make, write):
    write(1)
    repository = make()
    repository.start()
    for version in range(2, 40):
        write(version)
        repository.poll()
    assert len(repository.statuses()) == 1 + 16
