"""What tests share."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data():
    """The folder of the research data; the test is skipped where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the research data (../shared/data) is not here")
    return SHARED_DATA
