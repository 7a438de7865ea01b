"""A student that goes from images to images, made by hand: exported and asked like any other."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

from t2i_kd.errors import UserError
from t2i_kd.exporting import tf_serving
from t2i_kd.exporting.exporter import export_run
from t2i_kd.generate import write_images
from t2i_kd.loading import load_artifact
from tests.exporting.cpp_session import CppSession, library
from tests.exporting.tiny_student import make_image_student, make_photos, save_run

FILES = ("assets.extra/student.tflite", "assets.extra/student.onnx")


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def uploads():
    """Files as users send them, by name; none has the student's size."""
    photo, other, square = (
        Image.fromarray(make_photos(1, *size, seed=3)[0]) for size in ((75, 50), (40, 90), (64, 64))
    )
    transparent = square.copy()
    transparent.putalpha(Image.fromarray(np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))))
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "photo.jpg": encoded(photo, "JPEG", quality=90),
        "turned.jpg": encoded(other, "JPEG", exif=turned),
        "alpha.png": encoded(transparent, "PNG"),
        "photo.webp": encoded(other, "WEBP", lossless=True),
    }


UPLOADS = uploads()


@pytest.fixture(scope="module")
def student():
    return make_image_student()


@pytest.fixture(scope="module")
def run_dir(student, tmp_path_factory):
    """A run directory without a recipe: nothing trained this student."""
    return save_run(student, tmp_path_factory.mktemp("runs") / "inks", make_photos(40, 48, 40), recipe=None)


@pytest.fixture(scope="module")
def version(run_dir, tmp_path_factory):
    return export_run(run_dir, tmp_path_factory.mktemp("saved_models") / "inks")


@pytest.fixture(scope="module")
def loaded(version):
    return tf.saved_model.load(str(version))


@pytest.fixture(scope="module")
def expected(student):
    """What the network gives of each upload, by Keras and NumPy alone: int [n, 32, 32, 3]."""
    source = np.concatenate([student.condition.arrays([file])["source"] for file in UPLOADS.values()])
    image = student.network({"source": source})["image"].numpy()
    assert image.std() > 40 and image.min() < 30 and image.max() > 225
    return np.rint(np.clip(image, 0, 255)).astype(int)


def specs(signature):
    inputs = signature.structured_input_signature[1]
    return [
        {name: (each.dtype.name, each.shape.as_list()) for name, each in named.items()}
        for named in (inputs, signature.structured_outputs)
    ]


def test_signatures(loaded):
    assert set(loaded.signatures) == {"serving_default", "pixels"}
    strings, pixels = {"image_bytes": ("string", [None])}, {"image": ("uint8", [None, 32, 32, 3])}
    assert specs(loaded.signatures["serving_default"]) == [strings, strings]
    assert specs(loaded.signatures["pixels"]) == [pixels, pixels]


def test_the_files_inputs_and_outputs(version):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(version / FILES[1]), providers=["CPUExecutionProvider"])
    described = [
        [(each.name, each.type, each.shape) for each in ends] for ends in (session.get_inputs(), session.get_outputs())
    ]
    assert described == [
        [("source", "tensor(float)", ["batch", 32, 32, 3])],
        [("image", "tensor(float)", ["batch", 32, 32, 3])],
    ]
    from ai_edge_litert.interpreter import Interpreter

    for name in ("student.tflite", "student_float16.tflite", "student_int8.tflite"):
        runner = Interpreter(str(version / "assets.extra" / name)).get_signature_runner("serving_default")
        ends = runner.get_input_details(), runner.get_output_details()
        assert [{key: (value["dtype"], [*value["shape"]]) for key, value in each.items()} for each in ends] == [
            {"source": (np.float32, [1, 32, 32, 3])},
            {"image": (np.float32, [1, 32, 32, 3])},
        ]


def test_the_manifest_describes_and_proves_it(version):
    document = json.loads((version / "assets.extra" / "manifest.json").read_text())
    assert (document["name"], document["noise_dim"], document["resolution"]) == ("inks", 0, 32)
    assert (document["system"], document["recipe_sha256"]) == ("", "")
    condition = document["condition"]
    assert (condition["kind"], condition["request"]) == ("image", "image_bytes")
    assert condition["inputs"] == {"source": {"shape": [32, 32, 3], "dtype": "float32"}}
    artifacts = document["artifacts"]
    assert {artifact["items"] for artifact in artifacts.values()} == {64}
    assert max(artifacts[kind]["largest_difference"] for kind in ("saved_model", "litert", "onnx")) <= 1
    assert artifacts["litert_float16"]["largest_difference"] <= 2
    assert 0 < artifacts["litert_int8"]["mean_difference"] < 8
    names = {entry["file"] for entry in document["support_files"]}
    assert names == {
        "assets.extra/condition.json",
        "assets.extra/tf_serving_warmup_requests",
        "batching_params.pbtxt",
    }


def test_every_artifact_and_the_run_directory_give_the_same_pixels(version, run_dir, expected):
    for path in (run_dir, version, *(version / name for name in FILES)):
        runner = load_artifact(path)
        found = runner.generate(list(UPLOADS.values()))
        assert found.dtype == np.uint8 and (runner.resolution, runner.condition.kind) == (32, "image")
        assert np.abs(found.astype(int) - expected).max() <= 1
        alone = np.stack([runner.generate([file], [7])[0] for file in UPLOADS.values()])
        assert np.abs(alone.astype(int) - expected).max() <= 1


def test_arrays_and_pictures_are_the_file(version, student):
    image = make_photos(1, 50, 70, seed=4)[0]
    png = encoded(Image.fromarray(image), "PNG")
    for runner in (load_artifact(version), load_artifact(version / FILES[1])):
        found = runner.generate([image, Image.fromarray(image), png])
        np.testing.assert_array_equal(found[0], found[1])
        np.testing.assert_array_equal(found[0], found[2])


def test_the_signatures_agree(loaded, student, expected):
    condition, files = student.condition, list(UPLOADS.values())
    answers = loaded.signatures["serving_default"](image_bytes=tf.constant(condition.encode(files)))["image_bytes"]
    decoded = np.stack([np.asarray(Image.open(io.BytesIO(png))) for png in answers.numpy()])
    assert np.abs(decoded.astype(int) - expected).max() <= 1
    pixels = loaded.signatures["pixels"](image=tf.constant(condition.core_values(files)))["image"].numpy()
    assert np.abs(pixels.astype(int) - decoded).max() <= 1
    # What a client sends without this package: the files that TensorFlow itself decodes.
    known = [UPLOADS[name] for name in ("photo.jpg", "turned.jpg", "alpha.png")]
    raw = loaded.signatures["serving_default"](image_bytes=tf.constant(known))["image_bytes"].numpy()
    assert [*raw] == [*answers.numpy()[:3]]


def test_the_cpp_loader_answers_alike(version, loaded, student):
    api = library()
    if api is None:
        pytest.skip("this platform's TensorFlow ships no C API")
    session = CppSession(api, version)
    assert set(session.signatures) - {"__saved_model_init_op"} == {"serving_default", "pixels"}
    files = student.condition.encode(list(UPLOADS.values()))
    expected = loaded.signatures["serving_default"](image_bytes=tf.constant(files))["image_bytes"].numpy()
    assert [*session.run("serving_default", image_bytes=files)["image_bytes"]] == [*expected]
    values = student.condition.core_values(files)
    expected = loaded.signatures["pixels"](image=tf.constant(values))["image"].numpy()
    np.testing.assert_array_equal(session.run("pixels", image=values)["image"], expected)


def test_warm_up_requests_are_images_of_the_run(version, loaded):
    records = tf.data.TFRecordDataset(str(version / tf_serving.WARMUP))
    sizes = []
    for record in records:
        request = PredictionLog.FromString(record.numpy()).predict_log.request
        assert request.model_spec.signature_name == "serving_default" and list(request.inputs) == ["image_bytes"]
        files = tf.make_ndarray(request.inputs["image_bytes"])
        assert all(Image.open(io.BytesIO(file)).size == (32, 32) for file in files)
        assert len(loaded.signatures["serving_default"](image_bytes=tf.constant(files))["image_bytes"]) == len(files)
        sizes.append(len(files))
    assert tuple(sizes) == tf_serving.BATCH_SIZES


def test_what_is_no_image_is_refused_by_every_artifact(version, run_dir):
    for path in (run_dir, version, *(version / name for name in FILES)):
        runner = load_artifact(path)
        for item in (b"no image", b"", UPLOADS["photo.jpg"][:200], "a red circle", np.zeros((4, 4), np.uint8), None):
            with pytest.raises(UserError, match=r"^image: "):
                runner.generate([UPLOADS["alpha.png"], item])


def test_a_run_without_images_of_its_own_is_refused(student, tmp_path):
    save_run(student, tmp_path / "run", make_photos(2, 8, 8), recipe=None)
    for path in (tmp_path / "run" / "source_images").iterdir():
        path.unlink()
    with pytest.raises(UserError, match="source_images: holds no image"):
        export_run(tmp_path / "run", tmp_path / "model")


@pytest.fixture
def photos(tmp_path):
    for name, content in UPLOADS.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "text.jpg").write_text("no image")
    return tmp_path


def generate(folder, *arguments):
    command = [sys.executable, "-m", "t2i_kd.generate", *arguments, f"--out={folder / 'out.png'}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("where", ["version", "run_dir", *FILES])
def test_the_command_translates_a_photo(where, version, run_dir, photos, expected):
    model = {"version": version, "run_dir": run_dir}.get(where, version / where)
    done = generate(photos, f"--model={model}", f"--image={photos / 'photo.jpg'}")
    assert (done.returncode, done.stdout) == (0, f"{photos / 'out.png'}\n"), done.stderr
    assert np.abs(np.asarray(Image.open(photos / "out.png")).astype(int) - expected[0]).max() <= 1


def test_several_photos_are_a_grid_of_before_and_after(version, photos, student, expected):
    names = list(UPLOADS)[:3]
    write_images(str(version / FILES[1]), [], [str(photos / name) for name in names], 0, photos / "grid.png")
    sheet = np.asarray(Image.open(photos / "grid.png")).astype(int)
    # Cells of 4 x 32 pixels, 8 apart; two pairs in a row, and the third begins the next.
    top, below = sheet[8 : 8 + 128], sheet[sheet.shape[0] // 2 :]
    before = student.condition.arrays([UPLOADS[name] for name in names])["source"]
    for row in range(2):
        for offset, images in enumerate((before, expected)):
            left = 8 + (2 * row + offset) * 136
            assert np.abs(top[2::4, left : left + 128 : 4] - images[row]).max() <= 1
    assert (below[:, 8 + 2 * 136 :] == 255).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--caption=a red circle"], "--caption: "),
        (["--image={folder}/text.jpg"], "--image: {folder}/text.jpg: "),
        (["--image={folder}/nowhere.jpg"], "--image: {folder}/nowhere.jpg: No such file"),
        (["--image={folder}/photo.jpg", "--caption=a red circle"], "--image: give captions or images, not both"),
    ],
)
def test_the_command_ends_with_2_and_one_line(arguments, words, version, photos):
    given = [each.format(folder=photos) for each in arguments]
    done = generate(photos, f"--model={version / FILES[1]}", *given)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: " + words.format(folder=photos)) and done.stderr.count("\n") == 1
    assert not (photos / "out.png").exists()
