"""What the endpoint's model generates without the endpoint."""

import importlib.util

import pytest

from tests.serving.endpoint import CAPTIONS, SHAPES

# A host that trains on JAX alone has nothing to serve with.
collect_ignore_glob = [] if importlib.util.find_spec("tensorflow") else ["test_*.py"]


@pytest.fixture(scope="session")
def runner():
    from t2i_kd.loading import load_artifact

    return load_artifact(SHAPES)


@pytest.fixture(scope="session")
def pngs(runner):
    """{caption: the bytes that `generate` writes}."""
    return {caption: runner.generate_png(caption, 0) for caption in CAPTIONS}
