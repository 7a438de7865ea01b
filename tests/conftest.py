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


# Files, folders and rooms that take longest, the longest first; of the others, those of most tests come first.
LONGEST = (
    *("tests/test_pipelines.py", "sdn", "kd_dlgan", "icsd_gan", "icsd_gan_teacher", "kd_dlgan_teacher", "srpkd_hosts"),
    *("tests/exporting/", "tests/browser/", "tests/test_extending.py", "teacher_slim", "tests/test_jax.py"),
    *("strangers.room", "srpkd", "tests/test_evaluate.py", "tests/test_train.py", "tests/test_commands.py"),
    *("tests/training/test_distribution.py", "tests/teacher_slim/test_trainer.py", "tests/sdn/test_trainer.py"),
    *("tests/sdn/test_adversarial.py", "tests/srpkd/test_two_devices.py", "tests/icsd_gan/test_commands.py"),
)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Of `--dist loadfile`: what shares a fixture stays together, and the workers end at about the same time.

    A file's tests stay together, of `test_systems.py` a room's, and those of a folder whose fixtures are a session's.
    """
    from xdist.scheduler.loadfile import LoadFileScheduling

    class ByFixture(LoadFileScheduling):
        def _split_scope(self, nodeid):
            room = re.search(r"/test_systems\.py::.*\[([^-\]]+)", nodeid)
            folder = re.match("tests/(exporting|browser)/", nodeid)
            return room[1] if room else folder[0] if folder else super()._split_scope(nodeid)

        def _assign_work_unit(self, node):
            longest = next((scope for scope in LONGEST if scope in self.workqueue), None)
            if longest is not None:
                self.workqueue.move_to_end(longest, last=False)
            super()._assign_work_unit(node)

    return ByFixture(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def shared_data():
    """The folder of the research data; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the research data (../shared/data) is not here")
    return SHARED_DATA


@pytest.fixture
def uncompiled():
    """A step or two do not pay for a graph; that every system's steps can be one is tested in `test_systems.py`."""
    import keras

    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


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
