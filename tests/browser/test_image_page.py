"""The page of the real command with a model that is asked with images, used as people use it."""

import base64

import pytest

from t2i_kd.loading import load_artifact
from t2i_kd.serving.client import Client
from tests.browser.pages import error, saved
from tests.serving.endpoint import NAME, running
from tests.serving.tiny_translator import PHOTOS, SIDE, SOURCE, encoded, export_translator, same_images

pytestmark = pytest.mark.slow
MOST_BYTES = 8000
FILES = [{"name": f"photo {at}.png", "mimeType": "image/png", "buffer": encoded(PHOTOS[at])} for at in range(3)]
TOO_LARGE = FILES[0] | {"name": "large.png", "buffer": bytes(MOST_BYTES + 1)}


@pytest.fixture(scope="module", params=[0, 4], ids=["without noise", "with noise"])
def endpoint(request, tmp_path_factory):
    version = export_translator(tmp_path_factory.mktemp("saved_models") / "translator", request.param)
    with running(tmp_path_factory.mktemp("endpoint"), f"--max_item_bytes={MOST_BYTES}", version=version) as started:
        started.noise, started.translator = bool(request.param), load_artifact(version)
        started.wait_for_log("ready")
        yield started


@pytest.fixture
def page(tab, endpoint):
    tab.goto(endpoint.rest)
    tab.locator("#image-field").wait_for()
    tab.noise = endpoint.noise
    return tab


def wait_for(page, count):
    page.locator("#pictures li").nth(count - 1).wait_for()
    assert page.locator("#pictures li").count() == count


DROP = """([type, files]) => {
    const data = new DataTransfer();
    for (const { name, content } of files) {
        const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
        data.items.add(new File([bytes], name, { type: "image/png" }));
    }
    const options = { bubbles: true, cancelable: true };
    if (type === "paste") return !document.dispatchEvent(new ClipboardEvent(type, { ...options, clipboardData: data }));
    return !document.body.dispatchEvent(new DragEvent(type, { ...options, dataTransfer: data }));
}"""


def give(page, how, *files):
    """Drops or pastes files; says whether the page took them instead of the browser."""
    content = [{"name": file["name"], "content": base64.b64encode(file["buffer"]).decode()} for file in files]
    return page.evaluate(DROP, [how, content])


def test_a_chosen_image_appears_beside_its_translation(page, endpoint):
    assert page.title() == f"{NAME}: generate pictures"
    sizes = f"Images are read at {SOURCE} \u00d7 {SOURCE} pixels and answered at {SIDE} \u00d7 {SIDE}"
    assert page.inner_text("#about").startswith(sizes)
    assert page.locator("#caption").is_hidden()
    assert page.locator("#seed").is_visible() == page.locator("#generate").is_visible() == endpoint.noise
    page.set_input_files("#file", FILES[0])
    wait_for(page, 1)
    name, content = saved(page)
    assert name == ("photo-0-generated-0.png" if endpoint.noise else "photo-0-generated.png")
    with Client(endpoint.grpc, NAME) as client:
        assert [content] == client.generate_png([FILES[0]["buffer"]])
    assert content == endpoint.translator.generate_png(FILES[0]["buffer"])
    original, generated = page.locator("#pictures img").all()
    for image, alt, width in (
        (original, "Original: photo 0.png", SOURCE),
        (generated, "Generated from: photo 0.png", SIDE),
    ):
        assert image.get_attribute("alt") == alt
        assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == width
    left, right = original.bounding_box(), generated.bounding_box()
    assert left["x"] + left["width"] <= right["x"] and left["y"] == right["y"]
    assert page.inner_text("#status").startswith("Generated “photo 0.png”")
    # The same file once more is an image of its own.
    page.set_input_files("#file", FILES[0])
    wait_for(page, 2)


@pytest.mark.parametrize("how", ["drop", "paste"])
def test_images_are_dropped_in_and_pasted(page, endpoint, how):
    assert give(page, "dragover", FILES[0]) and page.locator(".dropping").count() == 1
    assert give(page, how, *FILES) or how == "paste"
    wait_for(page, 3)
    assert page.locator(".dropping").count() == (how == "paste")
    assert same_images([saved(page, at)[1] for at in (2, 1, 0)], endpoint.translator.generate(PHOTOS[:3]))
    for at, file in enumerate(reversed(FILES)):
        assert page.locator("#pictures .caption").nth(at).inner_text() == file["name"]


def test_seeds_are_those_of_the_form(page, endpoint):
    if not page.noise:
        assert page.locator("#all-again").is_hidden()
        return
    page.click("#generate")
    error(page, "Choose an image first.")
    page.fill("#seed", "6")
    page.set_input_files("#file", FILES[:2])
    wait_for(page, 2)
    page.click("#next-seed")
    wait_for(page, 3)
    page.fill("#seed", "9")
    page.click("#all-again")
    page.locator("#status", has_text="Generated 3 images with seed 9").wait_for()
    expected = endpoint.translator.generate([PHOTOS[number] for number in (1, 1, 0)], [9] * 3)
    assert same_images([saved(page, at)[1] for at in range(3)], expected)


def test_what_is_wrong_is_said_in_words(page):
    page.set_input_files("#file", TOO_LARGE)
    error(page, f"large.png: {MOST_BYTES + 1} bytes, more than the {MOST_BYTES} bytes that this endpoint takes.")
    assert page.locator("#file[aria-invalid=true]:focus").count() == 1
    page.set_input_files("#file", FILES[0] | {"buffer": b"no image"})
    error(page, "Not generated: image: not a JPEG or PNG")
    page.set_input_files("#file", FILES[0] | {"buffer": b""})
    error(page, "Not generated: image: not a JPEG or PNG")
    give(page, "drop")
    page.set_input_files("#file", FILES[0])
    wait_for(page, 1)
    assert page.inner_text("#error") == "" and page.locator("[aria-invalid]").count() == 0


def chosen_by_space(page):
    """The file chooser that the space bar opens. A busy Chromium drops keys of a page that has just come."""
    from playwright.sync_api import TimeoutError as NotInTime

    for _ in range(12):
        try:
            with page.expect_file_chooser(timeout=5000) as chooser:
                page.keyboard.press("Space")
            return chooser.value
        except NotInTime:
            continue
    raise AssertionError("no file chooser within a minute")


def test_all_by_keyboard(page):
    assert page.evaluate("document.activeElement.id") == "file"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    chosen_by_space(page).set_files(FILES[:2])
    wait_for(page, 2)
    page.get_by_label("Save PNG: photo 1.png").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.ariaLabel") == "Remove: photo 1.png"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.ariaLabel") == "Remove: photo 0.png"
    page.click("#remove-all")
    assert page.evaluate("document.activeElement.id") == "file"
    assert page.locator("#pictures li").count() == 0


def test_names_of_files_are_text_and_never_markup(page):
    name = "<img src=x onerror=\"document.title='broken'\">.png"
    give(page, "drop", FILES[0] | {"name": name})
    wait_for(page, 1)
    assert page.inner_text("#pictures .caption") == name
    assert page.locator("#pictures img").count() == 2 and "broken" not in page.title()


def test_a_phone_scrolls_in_one_direction(page):
    page.set_viewport_size({"width": 360, "height": 640})
    page.set_input_files("#file", [FILES[0] | {"name": "long" * 50 + ".png"}, FILES[1]])
    wait_for(page, 2)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for button in page.locator("button:visible, input:visible, #pictures a").all():
        box = button.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360 and box["height"] >= 30
