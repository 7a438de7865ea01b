"""The real command with a model that is asked with images, by both protocols for good and for bad."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from t2i_kd.loading import load_artifact
from t2i_kd.serving.client import Client, ServingError
from tests.exporting.tiny_student import make_photos
from tests.serving.endpoint import NAME, SHAPES, running
from tests.serving.tiny_translator import PHOTOS, SIDE, SOURCE, UNENDED, encoded, export_translator, same_images

PIXELS = np.stack(PHOTOS)


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    return export_translator(tmp_path_factory.mktemp("saved_models") / "translator")


@pytest.fixture(scope="module")
def translator(version):
    """The same model without an endpoint."""
    return load_artifact(version)


@pytest.fixture(scope="module")
def expected(translator):
    """What it gives of `PHOTOS`."""
    return translator.generate(PHOTOS)


@pytest.fixture(scope="module")
def endpoint(version, tmp_path_factory):
    with running(tmp_path_factory.mktemp("endpoint"), version=version) as started:
        started.wait_for_log("ready")
        yield started
        assert started.stop() == 0
        log = started.log.read_text()
        assert "Traceback" not in log, log


@pytest.fixture(params=["rest", "grpc"])
def client(request, endpoint):
    with Client(getattr(endpoint, request.param), NAME) as made:
        yield made


@pytest.fixture(scope="module")
def predict(endpoint):
    with grpc.insecure_channel(f"127.0.0.1:{endpoint.grpc_port}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict


@pytest.fixture
def still_answers(endpoint, expected):
    yield
    with Client(endpoint.grpc, NAME) as client:
        assert same_images(client.generate(PHOTOS), expected)


def ask_pixels(tensor):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = NAME, "pixels"
    request.inputs["image"].CopyFrom(tensor)
    return request


def coded(data):
    return {"b64": base64.b64encode(data).decode()}


def test_images_are_translated(client, expected):
    asked = [encoded(PHOTOS[0]), PHOTOS[1], Image.fromarray(PHOTOS[2])]
    assert same_images(client.generate(asked), expected[:3])
    assert client.signatures() == {
        "serving_default": (["image_bytes"], ["image_bytes"]),
        "pixels": (["image"], ["image"]),
    }


def photograph():
    """A camera's: large, a JPEG, lying on its side."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(make_photos(1, 600, 800)[0], "JPEG", exif=exif)


def of_palette(pixels):
    """A PNG of 256 colours, one of which is transparent."""
    file = io.BytesIO()
    Image.fromarray(pixels).quantize(256).save(file, "PNG", transparency=7)
    return file.getvalue()


@pytest.mark.parametrize(
    "file",
    [
        photograph(),
        encoded(make_photos(1, 70, 50)[0]),
        encoded(PHOTOS[0][..., 0] // 64 * 85 > 99),
        encoded(make_photos(1, 33, 20)[0] // 32 * 32, "JPEG", quality=20),
        encoded(PHOTOS[0][:1, :1]),
        encoded(PHOTOS[0][..., 0]),
        encoded(PHOTOS[0][..., 0].astype(np.uint16) * 257),
        encoded(np.dstack([PHOTOS[0], PHOTOS[1][..., 0]])),
        of_palette(PHOTOS[0]),
    ],
    ids=["photograph", "tall PNG", "PNG of one bit", "small JPEG", "one pixel", "grey", "16 bits", "alpha", "palette"],
)
def test_files_are_translated_to_the_bytes_of_generate(client, translator, file):
    assert client.generate_png([file]) == [translator.generate_png(file)]
    # Outside the graph another decoder and another resizing are at work.
    difference = np.abs(np.asarray(client.generate([file])[0]).astype(int) - translator.generate([file])[0])
    assert difference.max() <= 2 and (difference > 0).mean() < 0.02


def test_a_photo_larger_than_any_captions_body_is_translated(client, translator):
    sent = encoded(np.random.default_rng(1).integers(0, 256, (1000, 1200, 3), np.uint8))
    assert len(sent) > 3 << 20
    assert same_images(client.generate([sent]), translator.generate([sent]))


def test_pixels_are_translated_too(endpoint, predict, expected):
    for form in ({"inputs": PIXELS.tolist()}, {"inputs": {"image": PIXELS.tolist()}}):
        answer = endpoint.post({"signature_name": "pixels"} | form)
        assert same_images(np.array(answer.json()["outputs"]), expected)
    rows = {"signature_name": "pixels", "instances": [{"image": row} for row in PIXELS.tolist()]}
    assert same_images(np.array(endpoint.post(rows).json()["predictions"]), expected)
    answer = predict(ask_pixels(tf.make_tensor_proto(PIXELS)))
    assert same_images(tf.make_ndarray(answer.outputs["image"]), expected)


def test_rest_takes_rows_and_columns(endpoint, translator):
    file = encoded(PHOTOS[0])
    asked, expected = coded(file), coded(translator.generate_png(file))
    assert endpoint.post({"instances": [asked]}).json() == {"predictions": [expected]}
    assert endpoint.post({"instances": [{"image_bytes": asked}]}).json() == {"predictions": [expected]}
    assert endpoint.post({"inputs": {"image_bytes": [asked]}}).json() == {"outputs": [expected]}


def pixels_with(value, where=(0, 0, 0)):
    rows = PIXELS[0].tolist()
    rows[where[0]][where[1]][where[2]] = value
    return {"signature_name": "pixels", "instances": [PIXELS[1].tolist(), rows]}


SHAPE = f"input 'image', row 0: not lists in the shape [{SOURCE}, {SOURCE}, 3] of integers from 0 to 255"


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"instances": ["a small red circle"]}, 400, 'row 0: text, but it takes bytes: give {"b64": "..."}'),
        ({"instances": [coded(b"a small red circle")]}, 400, "row 0: image: not a JPEG or PNG"),
        ({"instances": [coded(encoded(PIXELS[0], "WEBP"))]}, 400, "row 0: image: WEBP is not read"),
        ({"instances": [coded(encoded(PIXELS[0], "GIF"))]}, 400, "row 0: image: GIF is not read; give a JPEG or PNG"),
        ({"instances": [coded(encoded(PIXELS[0])[:-99])]}, 400, "row 0: image: cannot be decoded"),
        ({"instances": [coded(UNENDED)]}, 400, "the model refuses this request: "),
        ({"instances": [PIXELS[0].tolist()]}, 400, "input 'image_bytes', row 0: not a string"),
        ({"instances": [coded(bytes(17 << 20))]}, 400, f"{17 << 20} bytes, more than the {16 << 20} allowed"),
        ({"instances": [coded(b"a")] * 17}, 400, "17 images in a request; 1 to 16"),
        ({"instances": ["x" * (33 << 20)]}, 413, f"more than {32 << 20} bytes"),
        ({"inputs": {"text": ["a"]}}, 400, "unknown input 'text'; the signature takes image_bytes"),
        ({"signature_name": "seeded", "instances": [1]}, 400, "not found; there are pixels, serving_default"),
        (pixels_with(256), 400, SHAPE.replace("row 0", "row 1")),
        (pixels_with(-1), 400, SHAPE.replace("row 0", "row 1")),
        (pixels_with(1.0), 400, SHAPE.replace("row 0", "row 1")),
        (pixels_with(True), 400, SHAPE.replace("row 0", "row 1")),
        (pixels_with("x" * 9999), 400, SHAPE.replace("row 0", "row 1")),
        ({"signature_name": "pixels", "inputs": PIXELS[:1, 1:].tolist()}, 400, SHAPE),
        ({"signature_name": "pixels", "inputs": PIXELS[:1, :, 1:].tolist()}, 400, SHAPE),
        ({"signature_name": "pixels", "inputs": PIXELS[:1, ..., :1].tolist()}, 400, SHAPE),
        ({"signature_name": "pixels", "inputs": [[]]}, 400, SHAPE),
        ({"signature_name": "pixels", "inputs": [7]}, 400, SHAPE),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_bad_rest_bodies_are_refused_with_a_reason(endpoint, still_answers, body, status, message):
    answer = endpoint.post(body)
    assert (answer.status_code, list(answer.json())) == (status, ["error"]), answer.text
    assert message in answer.json()["error"]


def claimed(*shape, dtype=tf.uint8, **values):
    made = TensorProto(dtype=dtype.as_datatype_enum, **values)
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (claimed(2, SOURCE, SOURCE, 3, tensor_content=b"\0"), "its values do not fill its shape"),
        (claimed(1, SOURCE, SOURCE, 3, int_val=[300]), "its values do not fill its shape"),
        (claimed(1, 1 << 20, 1 << 20, 3, int_val=[0]), f"not [batch, {SOURCE}, {SOURCE}, 3]"),
        (claimed(1 << 40, SOURCE, SOURCE, 3, int_val=[0]), f"{1 << 40} images in a request"),
        (claimed(*[1] * 9999, int_val=[0]), "its shape is [1, 1, 1"),
        (claimed(1, SOURCE, SOURCE, 3, dtype=tf.float32, float_val=[0]), "its dtype is not uint8"),
        (claimed(1, dtype=tf.string, string_val=[b"a"]), "its dtype is not uint8"),
    ],
)
def test_bad_tensors_are_refused_with_a_reason(predict, still_answers, tensor, message):
    with pytest.raises(grpc.RpcError) as caught:
        predict(ask_pixels(tensor), timeout=20)
    assert caught.value.code().name == "INVALID_ARGUMENT"
    assert message in caught.value.details() and len(caught.value.details()) < 300


def large_png():
    file = io.BytesIO()
    Image.new("1", (10_000, 10_000)).save(file, "PNG")
    return file.getvalue()


def large_jpeg():
    """A small JPEG whose header says that it is large."""
    content = bytearray(encoded(PHOTOS[0], "JPEG"))
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = 2 * (10_000).to_bytes(2, "big")
    return bytes(content)


def test_a_picture_of_100_megapixels_is_refused_by_its_header(endpoint, client, still_answers):
    before = endpoint.peak_memory()
    for file in (large_png(), large_jpeg()):
        with pytest.raises(ServingError, match="image: 10000 x 10000 pixels, more than the 50000000 allowed") as caught:
            client.generate([file])
        assert caught.value.code == "INVALID_ARGUMENT"
    # Decoded, one alone would take 100 MB.
    assert endpoint.peak_memory() - before < 32 << 20


def test_a_bad_image_does_not_spoil_its_company(endpoint):
    good = coded(encoded(PIXELS[0]))
    expected = endpoint.post({"instances": [good]}).json()

    def ask(number):
        return endpoint.post({"instances": [coded(UNENDED) if number % 3 == 0 else good]})

    with ThreadPoolExecutor(12) as pool:
        for number, answer in enumerate(pool.map(ask, range(60))):
            if number % 3:
                assert answer.json() == expected
            else:
                assert answer.status_code == 400


def test_the_page_hears_what_the_model_takes(endpoint):
    about = httpx.get(f"{endpoint.rest}/page.json").json()
    assert about == {
        "model": NAME,
        "condition": {
            "kind": "image",
            "request": "image_bytes",
            "inputs": {"source": {"shape": [SOURCE, SOURCE, 3], "dtype": "float32"}},
        },
        "resolution": SIDE,
        "noise_dim": 0,
        "max_items_per_request": 16,
        "max_item_bytes": 16 << 20,
        "max_body_bytes": 32 << 20,
    }


@pytest.mark.slow
def test_limits_can_be_given_and_another_kind_of_model_is_not_loaded(tmp_path, version):
    flags = ("--max_item_bytes=99", "--file_system_poll_wait_seconds=0.1")
    with running(tmp_path, *flags, version=version) as endpoint:
        endpoint.wait_for_log("ready")
        with Client(endpoint.rest, NAME) as client, pytest.raises(ServingError, match="more than the 99 allowed"):
            client.generate([bytes(100)])
        (endpoint.base / "2").symlink_to(SHAPES)
        endpoint.wait_for_log("2: takes captions, but since its start this endpoint takes images")
        assert httpx.get(f"{endpoint.url}/metadata").json()["model_spec"]["version"] == "1"


@pytest.mark.slow
def test_an_images_noise_is_its_seeds(tmp_path):
    version, seeds = export_translator(tmp_path / "translator", noise_dim=4), [0, 7, -1]
    expected = load_artifact(version).generate(PHOTOS[:1] * 3, seeds)
    assert not same_images(expected[1:], expected[:2])
    with running(tmp_path, version=version) as endpoint:
        endpoint.wait_for_log("ready")
        for address in (endpoint.rest, endpoint.grpc):
            with Client(address, NAME) as client:
                assert same_images(client.generate(PHOTOS[:1] * 3, seeds), expected)
        body = {"signature_name": "pixels", "inputs": {"image": [PHOTOS[0].tolist()] * 3, "seed": seeds}}
        assert same_images(np.array(json.loads(endpoint.post(body).content)["outputs"]), expected)
