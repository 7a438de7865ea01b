"""One tiny student, one run directory and one export, made once and shared by the tests of this folder."""

import importlib.util

import numpy as np
import pytest

from tests.exporting.tiny_student import CAPTIONS, make_student, save_run

# A host that trains on JAX alone has nothing to export with.
collect_ignore_glob = [] if importlib.util.find_spec("tensorflow") else ["test_*.py"]


@pytest.fixture(scope="session")
def student():
    return make_student()


@pytest.fixture(scope="session")
def run_dir(student, tmp_path_factory):
    return save_run(student, tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="session")
def version(run_dir, tmp_path_factory):
    from t2i_kd.exporting.exporter import export_run

    return export_run(run_dir, tmp_path_factory.mktemp("saved_models") / "tiny", report=lambda line: None)


@pytest.fixture(scope="session")
def captions():
    return [*CAPTIONS[::5], "  A LARGE, green  square!", "ein rotes Fünfeck 红色"]


@pytest.fixture(scope="session")
def pictures(student, captions):
    """What the Keras network draws of `captions` with seeds 0, 1, ..., rounded by NumPy."""
    from t2i_kd.noise import noise_from_seeds

    noise = noise_from_seeds(range(len(captions)), 3)
    image = student.network({"tokens": student.condition.front_end.tokenizer(captions), "noise": noise})["image"]
    return np.rint(np.clip(image.numpy(), 0, 255)).astype(int)
