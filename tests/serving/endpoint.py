"""The endpoint as a process of its own, on free ports."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
SHAPES = ROOT / "saved_models" / "shapes32" / "1"
NAME = "shapes"
CAPTIONS = [
    f"a {size} {colour} {shape} in the {place} on a {ground} background"
    for size in ("small", "large")
    for colour in ("red", "blue", "green")
    for shape in ("circle", "triangle")
    for place in ("top left", "center")
    for ground in ("white", "black")
]
# In a batch of one, a pixel of these was seen to differ from what it is in company.
CAPTIONS += [
    "a large red square in the center on a white background",
    "a large yellow square in the center on a white background",
    "a large blue square in the bottom right on a white background",
]


def free_ports(count):
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


class Endpoint:
    """A running `python -m t2i_kd.serve`."""

    def __init__(self, base, log, *flags):
        self.base, self.log = base, log
        self.grpc_port, self.rest_port = free_ports(2)
        self.rest, self.grpc = f"http://127.0.0.1:{self.rest_port}", f"grpc://127.0.0.1:{self.grpc_port}"
        self.http = httpx.Client(timeout=30)
        self.url = f"{self.rest}/v1/models/{NAME}"
        command = [sys.executable, "-m", "t2i_kd.serve", f"--model_name={NAME}", f"--model_base_path={base}"]
        command += [f"--port={self.grpc_port}", f"--rest_api_port={self.rest_port}", *flags]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with log.open("wb") as file:
            self.process = subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=base)

    def wait_for_log(self, words, seconds=120):
        until = time.monotonic() + seconds
        while words not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, f"{words!r} is not in the log:\n{self.log.read_text()}"
            time.sleep(0.02)

    def post(self, body, url=None):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(url or f"{self.url}:predict", content=content)

    def peak_memory(self):
        """Bytes, the most that the process ever held."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

    def stop(self):
        """Sends SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@contextlib.contextmanager
def running(folder, *flags, version=SHAPES):
    """An endpoint of an exported version, shapes32 if none is given, as version 1 in a folder of its own."""
    base = folder / "models"
    shutil.copytree(version, base / "1")
    endpoint = Endpoint(base, folder / "log", *flags)
    try:
        yield endpoint
    finally:
        endpoint.http.close()
        if endpoint.process.poll() is None:
            endpoint.process.kill()
            endpoint.process.wait()
