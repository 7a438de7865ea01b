"""What the tests of all pages read off them."""

import base64
import io
from pathlib import Path

import numpy as np
from PIL import Image


def error(page, words):
    """Waits until the page says what is wrong in these words."""
    page.locator("#error", has_text=words).wait_for()


def saved(page, position=0):
    """The name and the bytes of the PNG that a picture's link gives."""
    with page.expect_download() as started:
        page.locator("#pictures li").nth(position).get_by_text("Save").click()
    return started.value.suggested_filename, Path(started.value.path()).read_bytes()


def move(page, slider, value):
    """Moves a slider as a hand does."""
    page.locator(slider).evaluate(MOVE, value)


MOVE = """(slider, value) => {
    slider.value = value;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
}"""


def followed(page, words):
    """The bytes of the PNG that follows the sliders, once these words stand beneath it."""
    page.locator("#followed-words", has_text=f"{words}, in ").wait_for()
    return base64.b64decode(page.get_attribute("#followed-image", "src").split(",")[1])


def pixels(png):
    """uint8 RGB [height, width, 3] of a PNG's bytes."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def difference(made, expected):
    """The largest difference of two images' values."""
    return np.abs(np.asarray(made, int) - expected).max()
