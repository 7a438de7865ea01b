"""What tests share."""

import functools
import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Lets `--dist loadgroup` keep together what shares a fixture: a file's tests, of `test_systems.py` a room's.

    First, since pytest-xdist's own hook reads the groups.
    """
    for item in items:
        room = item.callspec.params.get("room") if hasattr(item, "callspec") else None
        group = item.path.name if room is None else f"{item.path.name} {room.title}"
        item.add_marker(pytest.mark.xdist_group(f"{item.path.parent.name}/{group}"))


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
