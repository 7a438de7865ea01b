import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from t2i_kd.serving.client import Client, ServingError
from tests.serving.endpoint import free_ports


class Answers(BaseHTTPRequestHandler):
    """Answers every request in turn with what the test prepared: (status, body), or None to hang up."""

    def do_POST(self):
        self.server.asked.append((self.path, json.loads(self.rfile.read(int(self.headers["content-length"])))))
        prepared = self.server.prepared.pop(0)
        if prepared is None:
            self.close_connection = True
            return
        if prepared == "wait":
            self.server.wait.wait(10)
            return
        status, body = prepared
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words):
        pass


@pytest.fixture
def server():
    with HTTPServer(("127.0.0.1", 0), Answers) as made:
        made.asked, made.prepared, made.wait = [], [], threading.Event()
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.wait.set()
        made.shutdown()
        thread.join()


@pytest.fixture
def client(server):
    with Client(f"http://127.0.0.1:{server.server_port}", "m", version=3, timeout=0.5) as made:
        yield made


PICTURE = (200, b'{"outputs": [{"b64": "AAEC"}]}')


def test_what_is_asked(server, client):
    server.prepared += [PICTURE, PICTURE]
    assert client.generate_png(["ä"]) == client.generate_png(["ä"], [7]) == [b"\x00\x01\x02"]
    path = "/v1/models/m/versions/3:predict"
    assert server.asked == [
        (path, {"signature_name": "serving_default", "inputs": {"text": ["ä"]}}),
        (path, {"signature_name": "seeded", "inputs": {"text": ["ä"], "seed": [7]}}),
    ]


@pytest.mark.parametrize(
    ("prepared", "code", "message"),
    [
        ((400, b'{"error": "wrong"}'), "INVALID_ARGUMENT", "wrong"),
        ((404, b'{"error": "who?"}'), "NOT_FOUND", "who"),
        ((413, b"{}"), "INVALID_ARGUMENT", "413"),
        ((503, b"Service Unavailable"), "UNAVAILABLE", "503"),
        ((504, b'{"error": "late"}'), "DEADLINE_EXCEEDED", "late"),
        ((418, b"[]"), "INTERNAL", "418"),
        ((200, b"<html>"), "INTERNAL", "not JSON"),
        (None, "UNAVAILABLE", "disconnected"),
        ("wait", "DEADLINE_EXCEEDED", "no answer in time"),
    ],
)
def test_a_request_that_was_sent_is_not_sent_again(server, client, prepared, code, message):
    server.prepared += [prepared, PICTURE]
    with pytest.raises(ServingError, match=message) as caught:
        client.generate(["a"])
    assert caught.value.code == code
    assert len(server.asked) == 1


def test_connecting_is_tried_again():
    (port,) = free_ports(1)

    def come_late():
        with HTTPServer(("127.0.0.1", port), Answers) as late:
            late.asked, late.prepared = [], [PICTURE]
            late.handle_request()

    thread = threading.Timer(0.3, come_late)
    thread.start()
    with Client(f"http://127.0.0.1:{port}", "m", connect_retries=3) as client:
        assert client.generate_png(["a"]) == [b"\x00\x01\x02"]
    thread.join()


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_there(scheme):
    with Client(f"{scheme}://127.0.0.1:{free_ports(1)[0]}", "m", timeout=5, connect_retries=0) as client:
        with pytest.raises(ServingError) as caught:
            client.generate(["a"])
        assert caught.value.code == "UNAVAILABLE"


@pytest.mark.parametrize(
    "arguments", [{"address": "localhost:8501"}, {"address": "http://h/v1"}, {"version": 1, "label": "a"}]
)
def test_wrong_arguments_are_refused(arguments):
    with pytest.raises(ValueError):
        Client(**{"address": "http://localhost:8501", "model_name": "m"} | arguments)


def test_wrong_questions_are_refused(client):
    for captions, seeds in (([], None), ("a circle", None), (["a"], [1, 2])):
        with pytest.raises(ValueError):
            client.generate(captions, seeds)
