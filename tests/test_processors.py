"""What the package asks of the processor."""

import os
import platform
import subprocess
import sys

import pytest

from t2i_kd import processors


def test_the_environment_decides_about_onednn(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    monkeypatch.delenv(processors.ONEDNN, raising=False)
    processors.take_onednn()
    assert os.environ[processors.ONEDNN] == "1"
    monkeypatch.setenv(processors.ONEDNN, "0")
    processors.take_onednn()
    assert os.environ[processors.ONEDNN] == "0"


def test_other_processors_are_left_alone(monkeypatch):
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    monkeypatch.delenv(processors.ONEDNN, raising=False)
    processors.take_onednn()
    assert processors.ONEDNN not in os.environ


@pytest.mark.skipif(platform.machine() != "x86_64" or sys.platform != "linux", reason="is in its wheels there")
def test_tensorflow_takes_it():
    asked = "import t2i_kd\nfrom tensorflow.python.util import _pywrap_util_port as port\nprint(port.IsMklEnabled())"
    environment = {name: value for name, value in os.environ.items() if name != processors.ONEDNN}
    found = subprocess.run([sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True"]
