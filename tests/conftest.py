"""What tests share."""

import functools
import os
import re
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

# Before TensorFlow, which asks once what `t2i_kd.processors` says to it.
import t2i_kd  # noqa: F401

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keeps together, in `--dist loadfile`, what shares a fixture: a file's tests, of `test_systems.py` a room's."""
    from xdist.scheduler.loadfile import LoadFileScheduling

    class ByFixture(LoadFileScheduling):
        def _split_scope(self, nodeid):
            room = re.search(r"/test_systems\.py::.*\[([^-\]]+)", nodeid)
            return room[1] if room else super()._split_scope(nodeid)

    return ByFixture(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def shared_data():
    """The folder of the research data; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the research data (../shared/data) is not here")
    return SHARED_DATA


@pytest.fixture(scope="session", autouse=True)
def shapes_drawn_once():
    """`load_dataset` draws the procedural pictures of a split once a process, not once a call."""
    from t2i_kd.data import captioned_shapes

    draw = captioned_shapes.load

    @functools.cache
    def load(split, resolution):
        dataset = draw(split, resolution)
        dataset.images.flags.writeable = False
        return dataset

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(captioned_shapes, "load", load)
        yield
