"""Client checks against a running server: TF Serving itself, or anything that speaks its protocols.

    TF_SERVING_URL=http://localhost:8501 python -m pytest tests/tf_serving

Environment: TF_SERVING_URL, the REST address, without which all is skipped; TF_SERVING_GRPC, the gRPC address
(localhost:8500), without which only gRPC is skipped; TF_SERVING_MODEL, the version folder that is served
(saved_models/shapes32/1); TF_SERVING_TOLERANCE, by how much a pixel may differ from this machine's own SavedModel, in
1/255: 0, the default, asks for byte-identical PNGs; 1 is for a server with another build of TensorFlow, and for a
processor on which batches of different sizes are summed in different orders (docs/serving.md).
"""

import base64
import concurrent.futures
import gzip
import io
import json
import os
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from t2i_kd.exporting.manifest import EXTRA, MANIFEST, read_manifest
from t2i_kd.loading import load_artifact

URL = os.environ.get("TF_SERVING_URL", "").rstrip("/")
GRPC = os.environ.get("TF_SERVING_GRPC", "")
FOLDER = Path(os.environ.get("TF_SERVING_MODEL", Path(__file__).parents[2] / "saved_models" / "shapes32" / "1"))
TOLERANCE = int(os.environ.get("TF_SERVING_TOLERANCE", "0"))
TIMEOUT = 60

pytestmark = pytest.mark.skipif(not URL, reason="TF_SERVING_URL is not set: no server to ask")

CAPTIONS = [
    "a small red circle in the top left on a white background",
    "a large blue cross at the bottom right of a grey picture",
    "the triangle in the bottom left is green and small, the background is black",
    "  UPPER case,with punctuation!?",
    "ein rotes Fünfeck 红色 🟥",
    "?",
    "in the top right corner: one large yellow square, brown behind it",
    "unknown " * 60,
]
SEEDS = [0, 1, -1, 2**53 + 1, 2**63 - 1, -(2**63), 7, 8]


@pytest.fixture(scope="module")
def manifest():
    return read_manifest(FOLDER / EXTRA / MANIFEST)


@pytest.fixture(scope="module")
def runner():
    return load_artifact(FOLDER)


@pytest.fixture(scope="module")
def expected(runner):
    """What the SavedModel makes here of `CAPTIONS`, by output: drawn in one batch, whatever the server does."""
    import tensorflow as tf

    text, seed = tf.constant([caption.encode("utf-8") for caption in CAPTIONS]), tf.constant(SEEDS, tf.int64)
    signatures = runner.loaded.signatures
    return {
        "serving_default": [*signatures["serving_default"](text=text)["image_bytes"].numpy()],
        "seeded": [*signatures["seeded"](text=text, seed=seed)["image_bytes"].numpy()],
        "pixels": runner.generate(CAPTIONS, SEEDS),
    }


@pytest.fixture(scope="module")
def model(manifest):
    return f"{URL}/v1/models/{manifest['name']}"


def ask(url, body=None):
    """The JSON that a GET, or with a body a POST, is answered with."""
    data = None if body is None else json.dumps(body).encode("utf-8")
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=TIMEOUT) as response:
        assert response.headers.get_content_type() == "application/json"
        return json.load(response)


def pngs_of(answers):
    assert all(list(answer) == ["b64"] for answer in answers)
    return [base64.b64decode(answer["b64"], validate=True) for answer in answers]


def check_pixels(found, expected):
    assert np.shape(found) == np.shape(expected)
    assert np.abs(np.asarray(found, int) - np.asarray(expected, int)).max() <= TOLERANCE


def check_pngs(found, expected):
    assert len(found) == len(expected)
    if TOLERANCE == 0:
        assert found == expected
    else:
        check_pixels(
            *(np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in each]) for each in (found, expected))
        )


def test_the_version_is_available(model, manifest):
    for url in (model, f"{model}/versions/{manifest['version']}"):
        states = {entry["version"]: entry for entry in ask(url)["model_version_status"]}
        entry = states[str(manifest["version"])]
        assert (entry["state"], entry["status"]["error_code"]) == ("AVAILABLE", "OK")


def test_metadata_names_the_signatures(model, manifest):
    metadata = ask(f"{model}/metadata")
    assert metadata["model_spec"]["name"] == manifest["name"]
    signatures = metadata["metadata"]["signature_def"]["signature_def"]
    described = {
        name: [{key: value["dtype"] for key, value in signatures[name][side].items()} for side in ("inputs", "outputs")]
        for name in ("serving_default", "seeded", "pixels")
    }
    both = {"text": "DT_STRING", "seed": "DT_INT64"}
    assert described == {
        "serving_default": [{"text": "DT_STRING"}, {"image_bytes": "DT_STRING"}],
        "seeded": [both, {"image_bytes": "DT_STRING"}],
        "pixels": [both, {"image": "DT_UINT8"}],
    }


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_captions_in_rows_and_in_columns(size, model, expected):
    captions, pngs = CAPTIONS[:size], expected["serving_default"][:size]
    check_pngs(pngs_of(ask(f"{model}:predict", {"instances": captions})["predictions"]), pngs)
    rows = [{"text": caption} for caption in captions]
    check_pngs(pngs_of(ask(f"{model}:predict", {"instances": rows})["predictions"]), pngs)
    check_pngs(pngs_of(ask(f"{model}:predict", {"inputs": {"text": captions}})["outputs"]), pngs)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_seeds(size, model, expected):
    captions, seeds, pngs = CAPTIONS[-size:], SEEDS[-size:], expected["seeded"][-size:]
    rows = [{"text": caption, "seed": seed} for caption, seed in zip(captions, seeds, strict=True)]
    answer = ask(f"{model}:predict", {"signature_name": "seeded", "instances": rows})
    check_pngs(pngs_of(answer["predictions"]), pngs)
    columns = {"text": captions, "seed": seeds}
    answer = ask(f"{model}:predict", {"signature_name": "seeded", "inputs": columns})
    check_pngs(pngs_of(answer["outputs"]), pngs)


def test_pixels(model, expected):
    rows = [{"text": caption, "seed": seed} for caption, seed in zip(CAPTIONS, SEEDS, strict=True)]
    answer = ask(f"{model}:predict", {"signature_name": "pixels", "instances": rows})
    check_pixels(answer["predictions"], expected["pixels"])


def test_a_version_in_the_address_and_base64_text(model, expected, manifest):
    text = base64.b64encode(CAPTIONS[4].encode("utf-8")).decode("ascii")
    answer = ask(f"{model}/versions/{manifest['version']}:predict", {"instances": [{"b64": text}]})
    check_pngs(pngs_of(answer["predictions"]), expected["serving_default"][4:5])


def test_each_of_many_gets_its_own_picture(model, expected):
    """So many at once that a server which batches puts strangers together."""

    def draw(turn):
        return pngs_of(ask(f"{model}:predict", {"instances": [CAPTIONS[turn % len(CAPTIONS)]]})["predictions"])[0]

    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        check_pngs([*pool.map(draw, range(64))], expected["serving_default"] * 8)


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        (":predict", {"instances": [{"caption": "a red circle"}]}, 400),
        (":predict", {"signature_name": "nothing", "instances": ["a red circle"]}, 400),
        (":predict", {"signature_name": "seeded", "inputs": {"text": ["a", "b"], "seed": [1]}}, 400),
        ("/versions/999999:predict", {"instances": ["a red circle"]}, 404),
        ("nothing:predict", {"instances": ["a red circle"]}, 404),
    ],
)
def test_a_bad_request_is_answered_with_an_error(path, body, code, model, expected):
    with pytest.raises(urllib.error.HTTPError) as caught:
        ask(f"{model}{path}", body)
    with caught.value as error:
        assert error.code == code
        assert json.load(error)["error"]
    answer = ask(f"{model}:predict", {"instances": CAPTIONS[:1]})
    check_pngs(pngs_of(answer["predictions"]), expected["serving_default"][:1])


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "{model}:predict", 400),
        ("POST", "{model}", 400),
        ("POST", "{model}/metadata", 400),
        ("POST", "{model}:draw", 400),
        ("DELETE", "{model}", 400),
        ("GET", "{model}/versions/99999999999999999999", 400),
        ("GET", "{model}/versions/one", 400),
        ("POST", "{model}/labels/nothing:predict", 400),
        ("GET", "{url}/v1/models", 400),
        ("GET", "{url}/v1/models/", 400),
        ("GET", "{url}/v1/nothing", 400),
        ("GET", "{url}/nothing", 404),
    ],
)
def test_what_is_malformed_is_answered_with_its_status(method, path, code, model):
    data = b'{"instances": ["a red circle"]}' if method == "POST" else None
    request = urllib.request.Request(path.format(model=model, url=URL), data, method=method)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=TIMEOUT)
    with caught.value as error:
        assert error.code == code


def test_unknown_keys_beside_the_instances_are_ignored(model, expected):
    answer = ask(f"{model}:predict", {"instances": CAPTIONS[:1], "parameters": {"scale": 2}})
    check_pngs(pngs_of(answer["predictions"]), expected["serving_default"][:1])


def test_packed_bodies(model, expected):
    data = gzip.compress(json.dumps({"instances": CAPTIONS[:2]}).encode("utf-8"))
    request = urllib.request.Request(f"{model}:predict", data, {"Content-Encoding": "gzip"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        check_pngs(pngs_of(json.load(response)["predictions"]), expected["serving_default"][:2])


@pytest.mark.skipif(not GRPC, reason="TF_SERVING_GRPC is not set: no gRPC address to ask")
def test_grpc(manifest, expected):
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import get_model_metadata_pb2 as metadata_pb2
    from tensorflow_serving.apis import get_model_status_pb2 as status_pb2
    from tensorflow_serving.apis import model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc

    with grpc.insecure_channel(GRPC) as channel:
        request = status_pb2.GetModelStatusRequest()
        request.model_spec.name = manifest["name"]
        status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request, TIMEOUT)
        states = {entry.version: entry.state for entry in status.model_version_status}
        assert states[manifest["version"]] == status_pb2.ModelVersionStatus.AVAILABLE

        service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        request = metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = manifest["name"]
        signatures = metadata_pb2.SignatureDefMap()
        assert service.GetModelMetadata(request, TIMEOUT).metadata["signature_def"].Unpack(signatures)
        assert {"serving_default", "seeded", "pixels"} <= set(signatures.signature_def)

        for name, key in (("seeded", "image_bytes"), ("pixels", "image")):
            request = predict_pb2.PredictRequest()
            request.model_spec.name, request.model_spec.signature_name = manifest["name"], name
            request.inputs["text"].CopyFrom(tf.make_tensor_proto([caption.encode("utf-8") for caption in CAPTIONS]))
            request.inputs["seed"].CopyFrom(tf.make_tensor_proto(SEEDS, tf.int64))
            response = service.Predict(request, TIMEOUT)
            found = tf.make_ndarray(response.outputs[key])
            assert response.model_spec.version.value == manifest["version"]
            if name == "seeded":
                check_pngs([*found], expected[name])
            else:
                check_pixels(found, expected[name])
