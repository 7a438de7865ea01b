"""The real command, asked by both protocols for good and for bad."""

import base64
import gzip
import itertools
import json
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from t2i_kd import generate
from t2i_kd.serving.client import Client, ServingError
from tests.serving.endpoint import CAPTIONS, NAME, running
from tests.serving.tiny_translator import same_images

READ_TIMEOUT = 1.5
MEBIBYTE = 1 << 20


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    with running(
        tmp_path_factory.mktemp("endpoint"), f"--read_timeout_seconds={READ_TIMEOUT}", "--version_label=stable:1"
    ) as started:
        started.wait_for_log("ready")
        yield started
        assert started.stop() == 0
        log = started.log.read_text()
        assert "Traceback" not in log, log


@pytest.fixture(scope="module")
def stubs(endpoint):
    with grpc.insecure_channel(f"127.0.0.1:{endpoint.grpc_port}") as channel:
        yield (
            prediction_service_pb2_grpc.PredictionServiceStub(channel),
            model_service_pb2_grpc.ModelServiceStub(channel),
        )


@pytest.fixture(scope="module")
def clients(endpoint):
    with Client(endpoint.rest, NAME) as by_rest, Client(endpoint.grpc, NAME) as by_grpc:
        yield by_rest, by_grpc


@pytest.fixture(params=["rest", "grpc"])
def client(request, clients):
    return clients[request.param == "grpc"]


@pytest.fixture
def still_answers(endpoint, pngs):
    """After a test's bad requests a good one is answered."""
    yield
    answer = endpoint.post({"instances": CAPTIONS[:1]})
    assert base64.b64decode(answer.json()["predictions"][0]["b64"]) == pngs[CAPTIONS[0]]


def predict_request(signature="", version=None, label="", name=NAME, **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = name, signature
    if version is not None:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    for key, values in inputs.items():
        request.inputs[key].CopyFrom(values if isinstance(values, TensorProto) else tf.make_tensor_proto(values))
    return request


# ---- good requests


def test_both_protocols_give_the_bytes_that_generate_writes(endpoint, client, pngs, tmp_path):
    caption = CAPTIONS[3]
    generate.write_images(endpoint.base / "1", [caption], [], 0, tmp_path / "one.png")
    written = (tmp_path / "one.png").read_bytes()
    assert client.generate_png([caption]) == [written] == [pngs[caption]]
    assert client.generate_png([caption], [0]) == [written]


def test_position_and_company_change_no_image(client, pngs):
    shuffled = CAPTIONS[:]
    random.Random(0).shuffle(shuffled)
    alone = [[caption] for caption in CAPTIONS]
    for captions in (CAPTIONS, shuffled, CAPTIONS[5:8], CAPTIONS[:33], [CAPTIONS[7]] * 5, *alone):
        assert same_images(client.generate_png(captions), [pngs[caption] for caption in captions])


def test_images_are_the_models(client, runner):
    pictures = client.generate(CAPTIONS[:3], seeds=[1, -2, 2**63 - 1])
    assert all(isinstance(picture, Image.Image) and picture.mode == "RGB" for picture in pictures)
    expected = runner.generate(CAPTIONS[:3], [1, -2, 2**63 - 1])
    np.testing.assert_array_equal(np.stack([np.asarray(picture) for picture in pictures]), expected)


def test_rest_knows_rows_columns_versions_and_labels(endpoint, pngs):
    caption = "a small red circle in the center on a white background"
    coded = {"b64": base64.b64encode(pngs[caption]).decode()}
    for where in ("", "/versions/1", "/labels/stable"):
        url = f"{endpoint.url}{where}:predict"
        assert endpoint.post({"instances": [caption]}, url).json() == {"predictions": [coded]}
        assert endpoint.post({"inputs": {"text": [caption]}}, url).json() == {"outputs": [coded]}
        rows = {"signature_name": "seeded", "instances": [{"text": caption, "seed": 0}]}
        assert endpoint.post(rows, url).json() == {"predictions": [coded]}
    written = base64.b64encode(caption.encode()).decode()
    assert endpoint.post({"instances": [{"b64": written}]}).json() == {"predictions": [coded]}


def test_pixels_are_the_images(endpoint, stubs, runner):
    expected = runner.generate(CAPTIONS[:2], [0, 0])
    columns = {"signature_name": "pixels", "inputs": {"text": CAPTIONS[:2], "seed": [0, 0]}}
    np.testing.assert_array_equal(endpoint.post(columns).json()["outputs"], expected)
    answer = stubs[0].Predict(predict_request("pixels", text=CAPTIONS[:2], seed=np.zeros(2, np.int64)))
    np.testing.assert_array_equal(tf.make_ndarray(answer.outputs["image"]), expected)


def test_grpc_answers_name_what_answered(stubs, pngs):
    caption = CAPTIONS[0]
    for where in ({}, {"version": 1}, {"label": "stable"}):
        request = predict_request("seeded", **where, text=[caption], seed=np.array([0]))
        request.output_filter.append("image_bytes")
        answer = stubs[0].Predict(request)
        assert list(answer.outputs) == ["image_bytes"]
        assert answer.outputs["image_bytes"].string_val == [pngs[caption]]
        spec = answer.model_spec
        assert (spec.name, spec.version.value, spec.signature_name) == (NAME, 1, "seeded")


def test_status_and_metadata(endpoint, stubs, client):
    assert httpx.get(endpoint.url).json() == {
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ]
    }
    assert [(status.version, status.state, status.error) for status in client.statuses()] == [(1, "AVAILABLE", "")]
    assert client.signatures() == {
        "serving_default": (["text"], ["image_bytes"]),
        "seeded": (["seed", "text"], ["image_bytes"]),
        "pixels": (["seed", "text"], ["image"]),
    }
    shown = httpx.get(f"{endpoint.url}/versions/1/metadata").json()
    assert shown["model_spec"] == {"name": NAME, "signature_name": "", "version": "1"}
    text = shown["metadata"]["signature_def"]["signature_def"]["seeded"]["inputs"]["text"]
    assert text["dtype"] == "DT_STRING"
    assert text["tensor_shape"] == {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}


def test_metrics_count_what_was_asked(endpoint):
    def count():
        lines = httpx.get(f"{endpoint.rest}/monitoring/prometheus/metrics").text.splitlines()
        wanted = 't2i_kd_requests_total{code="NOT_FOUND",method="predict",protocol="rest"}'
        return sum(float(line.split()[-1]) for line in lines if line.startswith(wanted))

    before = count()
    endpoint.post({"instances": ["a"]}, f"{endpoint.rest}/v1/models/other:predict")
    assert count() == before + 1
    text = httpx.get(f"{endpoint.rest}/monitoring/prometheus/metrics").text
    assert 't2i_kd_model_version_loaded{version="1"} 1.0' in text and "t2i_kd_pending_items 0.0" in text


def test_health(endpoint):
    assert httpx.get(f"{endpoint.rest}/healthz").json() == {"status": "serving"}


def test_the_page_may_load_nothing_from_elsewhere(endpoint):
    files = {"/": "html", "/gallery.css": "css", "/gallery.js": "javascript"}
    files |= {f"/{name}.js": "javascript" for name in ("camera", "main", "seeds")}
    for path, media_type in files.items():
        answer = httpx.get(endpoint.rest + path)
        assert answer.status_code == 200 and answer.text
        assert answer.headers["content-type"] == f"text/{media_type}; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"
        policy = answer.headers["content-security-policy"].split("; ")
        assert {"default-src 'none'", "script-src 'self'", "connect-src 'self'"} < set(policy)
        assert "unsafe" not in answer.headers["content-security-policy"]
    assert httpx.post(endpoint.rest).status_code == 405
    assert httpx.get(endpoint.rest + "/page.json").json() == {
        "model": NAME,
        "condition": {
            "kind": "caption",
            "request": "text",
            "inputs": {"tokens": {"shape": [20], "dtype": "int32"}},
        },
        "resolution": 32,
        "noise_dim": 0,
        "max_items_per_request": 64,
        "max_item_bytes": 8000,
        "max_body_bytes": MEBIBYTE,
    }


def test_the_page_is_told_what_the_model_cannot_read(endpoint):
    def ask(content):
        return httpx.post(endpoint.rest + "/unread.json", content=content)

    captions = ["a small red circle", "a xyzzy circle", "red " * 20 + "plugh red"]
    assert ask(json.dumps(captions)).json() == [
        [],
        ["the student does not know 'xyzzy'"],
        ["the student reads 20 words, not 'plugh', 'red'"],
    ]
    for wrong in ("{", "3", json.dumps([" "]), "[" * 100_000):
        answer = ask(wrong)
        assert answer.status_code == 400 and "captions" in answer.json()["error"]
    assert httpx.get(endpoint.rest + "/unread.json").status_code == 405


@pytest.mark.slow
def test_many_clients_at_once_get_their_own_images(clients, runner):
    seeds = [0, 9]
    expected = {(caption, seed): runner.generate_png(caption, seed) for caption in CAPTIONS for seed in seeds}

    def ask(number):
        chance = random.Random(number)
        for _ in range(6):
            captions = chance.sample(CAPTIONS, chance.choice([1, 1, 1, 2, 5, 40]))
            chosen = [chance.choice(seeds) for _ in captions]
            answer = chance.choice(clients).generate_png(captions, chosen)
            assert same_images(answer, [expected[pair] for pair in zip(captions, chosen, strict=True)])
        return True

    with ThreadPoolExecutor(24) as pool:
        assert sum(pool.map(ask, range(48))) == 48


# ---- bad requests

CAPTION = "a small red circle"
TWO = {"signature_name": "seeded"}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b'{"instances": ["a"', 400, "JSON Parse error"),
        (b'{"instances": ["\xff\xfe"]}', 400, "not UTF-8"),
        (b'{"instances": ["\\ud800"]}', 400, "row 0: caption: not UTF-8"),
        (b"[" * 500_000, 400, "JSON Parse error"),
        ({"instances": [{"b64": "//4="}]}, 400, "row 0: caption: not UTF-8"),
        ({"instances": [7]}, 400, "input 'text', row 0: not a string"),
        ({"instances": [["a"]]}, 400, "input 'text', row 0: not a string"),
        ({"instances": [{"text": None}]}, 400, "input 'text', row 0: not a string"),
        ({"instances": [CAPTION, "  "]}, 400, "row 1: caption: empty"),
        ({"instances": [{"text": CAPTION, "colour": 1}]}, 400, "unknown input 'colour'"),
        ({"instances": [CAPTION], "signature_name": "paint"}, 400, '"paint" not found'),
        ({"instances": [CAPTION], "signature_name": "__saved_model_init_op"}, 400, "not found"),
        (TWO | {"inputs": {"text": [CAPTION]}}, 400, "input 'seed' is missing"),
        (TWO | {"inputs": {"text": [CAPTION], "seed": [1, 2]}}, 400, "differ in length: text 1, seed 2"),
        (TWO | {"inputs": {"text": [CAPTION], "seed": [1.0]}}, 400, "input 'seed', row 0: not an integer of 64"),
        (TWO | {"inputs": {"text": [CAPTION], "seed": [True]}}, 400, "not an integer of 64 bits"),
        (TWO | {"inputs": {"text": [CAPTION], "seed": ["1"]}}, 400, "not an integer of 64 bits"),
        (TWO | {"inputs": {"text": [CAPTION], "seed": [2**63]}}, 400, "not an integer of 64 bits"),
        (TWO | {"inputs": {"text": [CAPTION], "seed": 1}}, 400, "'seed' is not a list"),
        ({"instances": []}, 400, "0 captions"),
        ({"instances": [CAPTION] * 65}, 400, "65 captions in a request; 1 to 64"),
        ({"instances": [CAPTION] * 10_000}, 400, "10000 captions in a request; 1 to 64"),
        ({"instances": ["x" * 8001]}, 400, "caption: 8001 bytes, more than the 8000 allowed (--max_item_bytes)"),
        ({"instances": ["x" * 2001]}, 400, "2001 characters, more than the 2000"),
        ({"instances": ["x" * 10 * MEBIBYTE]}, 413, "more than 1048576 bytes"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_bad_rest_bodies_are_refused_with_a_reason(endpoint, still_answers, body, status, message):
    answer = endpoint.post(body)
    assert (answer.status_code, list(answer.json())) == (status, ["error"])
    assert message in answer.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", f"/v1/models/{NAME}/versions/7:predict", 404),
        ("POST", f"/v1/models/{NAME}/versions/9223372036854775808:predict", 400),
        ("GET", f"/v1/models/{NAME}/versions/{'9' * 5000}", 400),
        ("POST", f"/v1/models/{NAME}/versions/-1:predict", 400),
        ("POST", f"/v1/models/{NAME}/labels/canary:predict", 400),
        ("POST", f"/v1/models/{NAME}:classify", 400),
        ("POST", "/v1/models/", 400),
        ("GET", "/v1/models", 400),
        ("GET", "/v1/other", 400),
        ("GET", f"/v1/models/{NAME}:predict", 400),
        ("POST", f"/v1/models/{NAME}", 400),
        ("POST", f"/v1/models/{NAME}/metadata", 400),
        ("DELETE", f"/v1/models/{NAME}", 400),
        ("DELETE", "/healthz", 405),
        ("GET", f"/v1/models/{NAME}/versions/7", 404),
        ("GET", f"/v1/models/{NAME}/labels/canary/metadata", 400),
        ("GET", "/etc/passwd", 404),
        ("GET", "/v2", 404),
    ],
)
def test_unknown_places_are_refused(endpoint, still_answers, method, path, status):
    content = json.dumps({"instances": [CAPTION]}) if method == "POST" else None
    answer = httpx.request(method, endpoint.rest + path, content=content)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert str(endpoint.base) not in answer.text


def tensor(dtype="string", shape=(1,), strings=(b"a small red circle",), ints=(), unknown_rank=False):
    made = TensorProto()
    made.dtype = tf.as_dtype(dtype).as_datatype_enum
    made.tensor_shape.unknown_rank = unknown_rank
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    made.string_val.extend(strings)
    made.int64_val.extend(ints)
    return made


INT = {"dtype": "int64", "strings": ()}
OVER = tensor("int64", (2,), ())
OVER.tensor_content = b"\0" * 9


@pytest.mark.parametrize(
    ("request_fields", "code", "message"),
    [
        ({"name": "other", "text": tensor()}, "NOT_FOUND", "other"),
        ({"version": 7, "text": tensor()}, "NOT_FOUND", "Specific"),
        ({"version": -1, "text": tensor()}, "NOT_FOUND", "Specific"),
        ({"label": "canary", "text": tensor()}, "INVALID_ARGUMENT", "version label: canary"),
        ({"signature": "paint", "text": tensor()}, "INVALID_ARGUMENT", "not found"),
        ({}, "INVALID_ARGUMENT", "'text' is missing"),
        ({"text": tensor(), "colour": tensor()}, "INVALID_ARGUMENT", "unknown input 'colour'"),
        ({"text": tensor("float32", strings=())}, "INVALID_ARGUMENT", "dtype"),
        ({"text": tensor(**INT, ints=[1])}, "INVALID_ARGUMENT", "its dtype is not string"),
        ({"text": tensor(shape=())}, "INVALID_ARGUMENT", "its shape is []"),
        ({"text": tensor(shape=(1, 1))}, "INVALID_ARGUMENT", "its shape is [1, 1]"),
        ({"text": tensor(shape=(), unknown_rank=True)}, "INVALID_ARGUMENT", "shape"),
        ({"text": tensor(shape=(-1,))}, "INVALID_ARGUMENT", "-1 captions"),
        ({"text": tensor(shape=(0,), strings=())}, "INVALID_ARGUMENT", "0 captions"),
        ({"text": tensor(shape=(1,), strings=[b"a", b"b"])}, "INVALID_ARGUMENT", "do not fill"),
        ({"text": tensor(shape=(10_000,), strings=[b"a"] * 10_000)}, "INVALID_ARGUMENT", "10000 captions"),
        ({"text": tensor(strings=[b"\xff\xfe"])}, "INVALID_ARGUMENT", "not UTF-8"),
        ({"text": tensor(strings=[b"x" * 9000])}, "INVALID_ARGUMENT", "9000 bytes"),
        ({"text": tensor(strings=[b"x" * 10 * MEBIBYTE])}, "RESOURCE_EXHAUSTED", "larger than max"),
        (
            {"signature": "seeded", "text": tensor(), "seed": tensor(**INT, shape=(2**40,), ints=[1])},
            "INVALID_ARGUMENT",
            f"{2**40} captions",
        ),
        ({"signature": "seeded", "text": tensor(shape=(2,), strings=[b"a"] * 2), "seed": OVER}, "INVALID_ARGUMENT", ""),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_bad_grpc_requests_are_refused_with_a_reason(stubs, still_answers, request_fields, code, message):
    with pytest.raises(grpc.RpcError) as caught:
        stubs[0].Predict(predict_request(**request_fields), timeout=20)
    assert caught.value.code().name == code, caught.value
    assert message in caught.value.details()


def test_grpc_refuses_what_it_does_not_offer(stubs, still_answers):
    prediction, models = stubs
    predict = predict_request(text=tensor())
    predict.output_filter.append("sound")
    metadata = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["secrets"])
    metadata.model_spec.name = NAME
    status = get_model_status_pb2.GetModelStatusRequest()
    status.model_spec.name, status.model_spec.version.value = NAME, 7
    reload = model_management_pb2.ReloadConfigRequest()
    reload.config.model_config_list.config.add(name="x", base_path="/etc")
    for method, request, code in [
        (prediction.Predict, predict, "INVALID_ARGUMENT"),
        (prediction.GetModelMetadata, metadata, "INVALID_ARGUMENT"),
        (models.GetModelStatus, status, "NOT_FOUND"),
        (models.HandleReloadConfigRequest, reload, "UNIMPLEMENTED"),
    ]:
        with pytest.raises(grpc.RpcError) as caught:
            method(request, timeout=20)
        assert caught.value.code().name == code


def test_packed_bodies_are_unpacked_within_the_same_bounds(endpoint, still_answers, pngs):
    def post(body, encoding="gzip"):
        return endpoint.http.post(f"{endpoint.url}:predict", content=body, headers={"content-encoding": encoding})

    good = json.dumps({"instances": CAPTIONS[:1]}).encode()
    for encoding in ("gzip", "GZIP"):
        answer = post(gzip.compress(good), encoding)
        assert base64.b64decode(answer.json()["predictions"][0]["b64"]) == pngs[CAPTIONS[0]]
    assert post(good, "identity").status_code == 200
    assert post(gzip.compress(good.ljust(MEBIBYTE))).status_code == 200
    # A thousand times as large when it is unpacked.
    before = endpoint.peak_memory()
    bomb = gzip.compress(bytes(128 * MEBIBYTE), 9)
    for body, encoding, status, message in [
        (gzip.compress(good.ljust(MEBIBYTE + 1)), "gzip", 413, "the unpacked body has more than 1048576 bytes"),
        (bomb, "gzip", 413, "the unpacked body has more than 1048576 bytes"),
        (good, "gzip", 400, "not gzip"),
        (b"", "gzip", 400, "the beginning of something larger"),
        (gzip.compress(good)[:-9], "gzip", 400, "the beginning of something larger"),
        (good, "br", 415, "'br' is not known; gzip is"),
        (good, "gzip, gzip", 415, "is not known"),
    ]:
        answer = post(body, encoding)
        assert (answer.status_code, list(answer.json())) == (status, ["error"])
        assert message in answer.json()["error"]
    assert endpoint.peak_memory() - before < 16 * MEBIBYTE


def test_clients_hear_the_same_words_by_both_protocols(clients):
    heard = []
    for client in clients:
        with pytest.raises(ServingError) as caught:
            client.generate([CAPTION, " "])
        heard.append((caught.value.code, caught.value.message))
    assert heard[0] == heard[1] == ("INVALID_ARGUMENT", "input 'text', row 1: caption: empty")


def test_huge_bodies_leave_no_trace_in_memory(endpoint, still_answers):
    before = endpoint.peak_memory()
    body = json.dumps({"instances": ["x" * 20 * MEBIBYTE]}).encode()
    with ThreadPoolExecutor(2) as pool:
        statuses = list(pool.map(lambda _: endpoint.post(body).status_code, range(6)))
    assert statuses == [413] * 6
    assert endpoint.peak_memory() - before < 24 * MEBIBYTE


def closed_after(endpoint, *pieces, wait=0.3):
    """Sends pieces one after another; returns what came back, and the seconds until the server hung up."""
    began, answer = time.monotonic(), b""
    with socket.create_connection(("127.0.0.1", endpoint.rest_port), timeout=wait) as connection:
        for piece in itertools.chain(pieces, itertools.repeat(b"")):
            try:
                connection.sendall(piece)
                received = connection.recv(4096)
            except TimeoutError:
                assert time.monotonic() - began < 10, "the server still waits"
                continue
            except OSError:
                break
            answer += received
            if not received:
                break
    return answer, time.monotonic() - began


def slowly(data):
    return (data[at : at + 1] for at in range(len(data)))


def test_slow_headers_are_hung_up_on(endpoint, still_answers):
    head = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: localhost\r\n".encode()
    for pieces in ([], [head], slowly(head)):
        answer, seconds = closed_after(endpoint, *pieces)
        assert answer == b""
        assert READ_TIMEOUT - 0.1 < seconds < READ_TIMEOUT + 2


def test_slow_bodies_are_answered_with_408(endpoint, still_answers):
    head = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99\r\n\r\n".encode()
    for pieces in ([head], [head, *slowly(b'{"instances": ["a small red circle"]}')]):
        answer, seconds = closed_after(endpoint, *pieces)
        assert answer.startswith(b"HTTP/1.1 408")
        assert b'{"error":"the body did not arrive within 1.5 seconds"}' in answer
        assert seconds < READ_TIMEOUT + 2


def test_what_is_no_http_is_refused(endpoint, still_answers):
    answer, seconds = closed_after(endpoint, b"\x16\x03\x01 hello\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 400") and seconds < 1
    answer, _ = closed_after(endpoint, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"y" * 100_000)
    assert answer.startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "OWN", "content-type": "application/json"}, 200),
        ({"content-type": "application/x-www-form-urlencoded"}, 200),
        ({"host": "evil.example"}, 403),
        ({"origin": "https://evil.example", "content-type": "application/x-www-form-urlencoded"}, 403),
        ({"origin": "null"}, 403),
        ({"content-type": "text/plain"}, 415),
    ],
    ids=str,
)
def test_no_page_of_another_site_is_answered(endpoint, still_answers, headers, status):
    headers = {name: endpoint.rest if value == "OWN" else value for name, value in headers.items()}
    body = json.dumps({"instances": [CAPTION]})
    answer = endpoint.http.post(f"{endpoint.url}:predict", content=body, headers=headers)
    assert answer.status_code == status
    assert list(answer.json()) == (["predictions"] if status == 200 else ["error"])


def test_two_lengths_end_the_connection(endpoint, still_answers):
    head = f"POST /v1/models/{NAME}:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n".encode()
    for second in (b"Transfer-Encoding: chunked", b"Content-Length: 2"):
        answer, seconds = closed_after(endpoint, head + second + b"\r\n\r\n{}")
        assert answer.startswith(b"HTTP/1.1 400") and b'{"error": "Malformed request: ' in answer
        assert seconds < READ_TIMEOUT


def test_a_connection_is_good_for_many_requests(endpoint):
    with httpx.Client() as client:
        for _ in range(3):
            assert client.post(f"{endpoint.url}:predict", json={"instances": [CAPTION]}).status_code == 200
            assert client.post(f"{endpoint.url}:predict", content=b"{").status_code == 400


VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(CAPTIONS)
ROWS = VALUES | st.dictionaries(st.sampled_from(["text", "seed", "b64"]), VALUES) | st.lists(VALUES, max_size=2)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "instances": st.lists(ROWS, max_size=4) | ROWS,
        "inputs": st.dictionaries(st.sampled_from(["text", "seed"]), st.lists(ROWS, max_size=4) | ROWS) | ROWS,
        "signature_name": st.sampled_from(["serving_default", "seeded", "pixels", "other"]) | VALUES,
    },
)


@settings(max_examples=60, deadline=None)
@given(BODIES)
def test_any_body_is_answered_or_refused(endpoint, body):
    answer = endpoint.post(json.dumps(body).encode())
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 400:
        assert isinstance(answer.json()["error"], str)
    else:
        assert len(answer.json()) == 1


@settings(max_examples=20, deadline=None)
@given(
    st.lists(
        st.tuples(st.text(min_size=1, max_size=40).filter(str.strip), st.integers(-(2**63), 2**63 - 1)),
        min_size=1,
        max_size=12,
    )
)
def test_any_caption_and_seed_give_the_same_image_everywhere(clients, runner, asked):
    captions, seeds = zip(*asked, strict=True)
    by_rest, by_grpc = clients
    answer = by_rest.generate_png(captions, seeds)
    assert by_grpc.generate_png(captions, seeds) == answer
    assert same_images(answer, runner.generate(captions, seeds))
    assert same_images(answer[-1:], [runner.generate_png(captions[-1], seeds[-1])])
