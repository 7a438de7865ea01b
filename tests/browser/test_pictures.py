"""Both pages with a student that reads images: files and the camera, generated as the runner generates them."""

import base64
import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.browser.pages import difference, error, pixels, saved
from tests.exporting.tiny_student import make_image_student, make_photos
from tests.serving.endpoint import running
from tests.serving.tiny_translator import encoded

pytestmark = pytest.mark.slow  # a browser

SIDE = 32


@pytest.fixture(scope="module")
def version(tmp_path_factory):
    from t2i_kd.exporting.exporter import export_student

    folder = tmp_path_factory.mktemp("saved_models") / "pictures"
    return export_student(make_image_student(SIDE), folder, make_photos(8, 48, 56), artifacts=("onnx",))


@pytest.fixture(scope="module")
def runner(version):
    from t2i_kd.loading import load_artifact

    return load_artifact(version)


@pytest.fixture(scope="module")
def site(build, version, tmp_path_factory):
    """The folder of the page without a server."""
    out = tmp_path_factory.mktemp("site") / "page"
    finished = build(version, out)
    assert finished.returncode == 0, finished.stderr
    assert not (out / "model" / "vocabulary.txt").exists()
    return out


@pytest.fixture(scope="module", params=["endpoint", "without a server"])
def address(request, version, tmp_path_factory):
    if request.param == "endpoint":
        with running(tmp_path_factory.mktemp("endpoint"), version=version) as started:
            started.wait_for_log("ready", 600)
            yield started.rest
    else:
        with request.getfixturevalue("served")(request.getfixturevalue("site")) as found:
            yield found


@pytest.fixture
def page(tab, address):
    tab.goto(address)
    tab.locator("#camera-field").wait_for()
    return tab


CANVASES = """() => JSON.stringify(["camera-before", "camera-after"].map((id) => {
    const canvas = document.getElementById(id);
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    return btoa(String.fromCharCode(...data));
}))"""


def canvases(page):
    """The camera's picture and what is generated from it, as they stand side by side."""
    found = [np.frombuffer(base64.b64decode(data), np.uint8) for data in json.loads(page.evaluate(CANVASES))]
    return [each.reshape(SIDE, SIDE, 4)[..., :3] for each in found]


def test_the_cameras_pictures_are_generated_from_side_by_side(page, runner):
    # Nobody has allowed it yet.
    page.click("#camera")
    error(page, "The camera may not be used: allow it for this page in the browser's settings.")
    page.context.grant_permissions(["camera"])
    page.focus("#camera")
    page.keyboard.press("Enter")
    page.locator("#camera-rate", has_text="frames a second").wait_for()
    assert page.inner_text("#status") == "The camera runs." and page.inner_text("#error") == ""
    assert page.inner_text("#camera") == "Stop camera"
    rate, milliseconds = map(
        float, re.fullmatch(r"([\d.]+) frames a second, (\d+) ms a frame", page.inner_text("#camera-rate")).groups()
    )
    assert 0 < rate < 100 and 0 <= milliseconds < 10_000
    first = second = canvases(page)
    while np.array_equal(first[0], second[0]):
        page.wait_for_timeout(100)
        second = canvases(page)
    for before, after in (first, second):
        assert np.ptp(before) > 100 and difference(after, runner.generate([before])[0]) <= 2
    assert difference(first[1], second[1]) > 20
    left, right = (page.locator(f"#camera-{which}").bounding_box() for which in ("before", "after"))
    assert left["x"] + left["width"] <= right["x"] and left["y"] == right["y"]
    page.keyboard.press("Enter")
    page.locator("#status", has_text="The camera is stopped.").wait_for()
    assert page.inner_text("#camera") == "Start camera"
    last = canvases(page)
    page.wait_for_timeout(500)
    np.testing.assert_array_equal(canvases(page), last)
    page.click("#camera-keep")
    page.locator("#pictures li").wait_for()
    assert page.inner_text("#pictures .caption") == "camera 1.png"
    assert difference(pixels(saved(page)[1]), last[1]) <= 2


def test_no_camera_is_told(page):
    page.evaluate(
        "() => { navigator.mediaDevices.getUserMedia = async () => { throw new DOMException('', 'NotFoundError') } }"
    )
    page.click("#camera")
    error(page, "There is no camera here.")
    page.evaluate("() => { Object.defineProperty(navigator, 'mediaDevices', { value: undefined }) }")
    page.click("#camera")
    error(page, "A camera needs a page from an https address or from localhost.")
    assert page.inner_text("#camera") == "Start camera" and page.locator("#camera").is_enabled()


def test_a_files_picture_is_the_runners(page, runner):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo, clear = make_photos(1, 90, 130, seed=3)[0], np.zeros((40, 50, 4), np.uint8)
    clear[5:20, 10:30] = (200, 30, 60, 255)
    files = {
        "photo.png": encoded(photo),
        "turned.jpg": encoded(photo, "JPEG", exif=exif, quality=95),
        "clear.png": encoded(clear),
        "grey.png": encoded(photo[..., 0]),
        "small.png": encoded(photo[:9, :7]),
    }
    for name, content in files.items():
        page.set_input_files("#file", {"name": name, "mimeType": f"image/{name[-3:]}", "buffer": content})
        page.locator("#pictures li").first.locator(".caption", has_text=name).wait_for()
        assert difference(pixels(saved(page)[1]), runner.generate([content])[0]) <= 3, name
    page.set_input_files("#file", {"name": "text.png", "mimeType": "image/png", "buffer": b"no image"})
    page.locator("#error").filter(has_text="not an image that this browser reads").or_(
        page.locator("#error").filter(has_text="Not generated: image: not a JPEG or PNG")
    ).wait_for()
