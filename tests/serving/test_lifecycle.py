"""Versions that come, break and go while the real command is asked without a pause; and how it ends."""

import contextlib
import json
import shutil
import threading
import time

import httpx
import pytest

from t2i_kd.serving.client import Client, ServingError
from tests.serving.endpoint import CAPTIONS, NAME, SHAPES, running
from tests.serving.tiny_translator import same_images


@contextlib.contextmanager
def asked_without_a_pause(endpoint, pngs):
    """Asks by both protocols all the while; each answer must be the right picture."""
    done, counts, wrong = threading.Event(), {"http": 0, "grpc": 0}, []

    def ask(address):
        with Client(address, NAME, connect_retries=0) as client:
            while not done.is_set():
                try:
                    if not same_images(client.generate_png(CAPTIONS[:3]), [pngs[caption] for caption in CAPTIONS[:3]]):
                        wrong.append("another picture")
                except ServingError as error:
                    wrong.append(error)
                counts[address[:4]] += 1
                time.sleep(0.02)

    threads = [threading.Thread(target=ask, args=(address,)) for address in (endpoint.rest, endpoint.grpc)]
    for thread in threads:
        thread.start()
    try:
        yield counts
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert wrong == []
    assert min(counts.values()) > 0


def publish(endpoint, version):
    shutil.copytree(SHAPES, endpoint.base / "temporary")
    (endpoint.base / "temporary").rename(endpoint.base / str(version))


def newest(endpoint):
    return httpx.get(f"{endpoint.url}/metadata").json()["model_spec"]["version"]


@pytest.mark.slow
def test_a_life(tmp_path, pngs):
    with running(tmp_path, "--file_system_poll_wait_seconds=0.1") as endpoint:
        endpoint.wait_for_log("ready")
        with asked_without_a_pause(endpoint, pngs):
            # No saved_model.pb yet: an export that someone copies here, small files first.
            (endpoint.base / "2").mkdir()
            endpoint.wait_for_log("2: saved_model.pb is missing")
            shutil.copy(SHAPES / "saved_model.pb", endpoint.base / "2")
            endpoint.wait_for_log("manifest.json: missing")
            shutil.copytree(SHAPES, endpoint.base / "2", dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.data-*"))
            endpoint.wait_for_log("variables.data-00000-of-00001: No such file")
            data = (SHAPES / "variables" / "variables.data-00000-of-00001").read_bytes()
            half = endpoint.base / "2" / "variables" / "variables.data-00000-of-00001"
            half.write_bytes(data[: len(data) // 2])
            endpoint.wait_for_log("variables.data-00000-of-00001: damaged")
            assert newest(endpoint) == "1"
            # Whole at last.
            half.write_bytes(data)
            endpoint.wait_for_log("version 2 of shapes is loaded")
            endpoint.wait_for_log("version 1 of shapes is unloaded")
            assert newest(endpoint) == "2"
            # All folders go; what is loaded goes on.
            shutil.rmtree(endpoint.base)
            time.sleep(0.5)
            assert newest(endpoint) == "2"
            # Another comes, with a smaller number.
            endpoint.base.mkdir()
            publish(endpoint, 1)
            endpoint.wait_for_log("version 2 of shapes is unloaded")
            assert newest(endpoint) == "1"
        # A request that is under way when it is to stop is answered; a later one finds nobody.
        body = json.dumps({"instances": CAPTIONS[:3]}).encode()
        late = {}

        def pieces():
            yield body[:10]
            time.sleep(0.3)
            endpoint.process.terminate()
            endpoint.wait_for_log("stopping")
            time.sleep(0.3)
            with Client(endpoint.rest, NAME, connect_retries=0) as client, pytest.raises(ServingError) as caught:
                client.generate(CAPTIONS[:1])
            late["code"] = caught.value.code
            yield body[10:]

        answer = httpx.post(f"{endpoint.url}:predict", content=pieces(), timeout=20)
        assert len(answer.json()["predictions"]) == 3
        assert late == {"code": "UNAVAILABLE"}
        assert endpoint.process.wait(20) == 0
        log = endpoint.log.read_text()
        assert "stopped" in log and "Traceback" not in log, log
