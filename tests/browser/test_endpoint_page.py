"""The page of the real command, used as people use it."""

import contextlib
import json

import pytest

from t2i_kd import generate
from tests.browser.pages import error, followed, move, saved
from tests.serving.endpoint import NAME, running
from tests.serving.tiny_translator import same_images

pytestmark = pytest.mark.slow

CIRCLE, SQUARE, TRIANGLE = (f"a small red {shape} at the top" for shape in ("circle", "square", "triangle"))
MARKUP = "<img src=x onerror=\"document.title='broken'\"> <b>red</b> &amp; <script>document.title='broken'</script>"


@pytest.fixture(scope="module")
def endpoint(version, tmp_path_factory):
    # Room for two captions: three at once are too many.
    with running(tmp_path_factory.mktemp("endpoint"), "--max_pending_items=2", version=version) as started:
        started.wait_for_log("ready")
        yield started


@pytest.fixture
def page(tab, endpoint):
    tab.goto(endpoint.rest)
    tab.wait_for_selector(f"h1:text-is('{NAME}')")
    return tab


def ask(page, caption, seed=None):
    page.fill("#caption", caption)
    if seed is not None:
        page.fill("#seed", str(seed))
    page.press("#caption", "Enter")


def generate_picture(page, caption, seed=None):
    before = page.locator("#pictures li").count()
    ask(page, caption, seed)
    page.locator("#pictures li").nth(before).wait_for()


def seeds_shown(page):
    return page.locator("#pictures .seed").all_inner_texts()


def test_a_captions_picture_is_that_of_the_generate_command(page, version, tmp_path):
    generate_picture(page, CIRCLE)
    generate.write_images(version, [CIRCLE], [], 0, tmp_path / "circle.png")
    assert saved(page) == ("a-small-red-circle-at-the-top-0.png", (tmp_path / "circle.png").read_bytes())
    image = page.locator("#pictures .generated")
    assert image.get_attribute("alt") == f"Picture of: {CIRCLE}"
    assert image.evaluate("image => image.decode().then(() => image.naturalWidth)") == 32
    assert image.evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
    assert page.inner_text("#status").startswith(f"Generated “{CIRCLE}” with seed 0 in ")


def test_seeds_of_64_bits_arrive_digit_by_digit(page, runner):
    seeds = [0, -5, 2**53 + 1, 2**63 - 1, -(2**63)]
    for seed in seeds:
        generate_picture(page, CIRCLE, seed)
        name, png = saved(page)
        assert name.endswith(f"-{seed}.png")
        assert png == runner.generate_png(CIRCLE, seed)
    assert runner.generate_png(CIRCLE, 2**53 + 1) != runner.generate_png(CIRCLE, 2**53)
    page.fill("#seed", "41")
    page.click("#next-seed")
    page.locator("#pictures li").nth(len(seeds)).wait_for()
    assert seeds_shown(page) == [f"seed {seed}" for seed in [42, *reversed(seeds)]]
    assert saved(page)[1] == runner.generate_png(CIRCLE, 42)


def test_a_picture_follows_the_seeds_slider(page, runner):
    # Without a caption it is only another way to write a seed.
    page.focus("#seed-slider")
    page.keyboard.press("ArrowRight")
    assert page.input_value("#seed") == "1" and page.inner_text("#error") == ""
    page.fill("#caption", CIRCLE)
    page.fill("#seed", str(2**63 - 3))
    asked = []

    def hold_the_first(route):
        asked.append(route)
        if len(asked) > 1:
            route.continue_()

    page.route("**/*:predict", hold_the_first)
    page.focus("#seed-slider")
    page.keyboard.press("ArrowRight")
    while not asked:
        page.wait_for_timeout(50)
    # While one picture is being drawn, the slider moves on: only the newest seed is drawn after it.
    for value in (10, 200, 255):
        move(page, "#seed-slider", value)
    before, newest = 2**63 - 2, 2**63 - 1
    assert page.input_value("#seed") == page.get_attribute("#seed-slider", "aria-valuetext") == str(newest)
    asked[0].continue_()
    assert followed(page, f"seed {newest}") == runner.generate_png(CIRCLE, newest)
    seeds = [json.loads(route.request.post_data)["inputs"]["seed"] for route in asked]
    assert seeds == [[before], [newest]]
    assert page.locator("#pictures li").count() == 0 and page.locator("#way").is_hidden()
    page.click("#seeds-keep")
    assert seeds_shown(page) == [f"seed {newest}"] and page.inner_text("#status") == "Kept."
    assert saved(page)[1] == runner.generate_png(CIRCLE, newest)


def test_captions_stand_side_by_side_and_can_go(page, runner):
    for caption in (CIRCLE, SQUARE, TRIANGLE):
        generate_picture(page, caption)
    assert page.locator("#pictures .caption").all_inner_texts() == [TRIANGLE, SQUARE, CIRCLE]
    tops = {box["y"] for box in (item.bounding_box() for item in page.locator("#pictures li").all())}
    assert len(tops) == 1

    page.fill("#seed", "9")
    page.click("#all-again")
    error(page, "The endpoint is busy, try again in a moment: too busy")
    assert seeds_shown(page) == ["seed 0"] * 3

    page.get_by_label(f"Remove: {SQUARE}").click()
    page.click("#all-again")
    page.locator("#status", has_text="Generated 2 captions with seed 9").wait_for()
    assert page.locator("#error").inner_text() == ""
    assert seeds_shown(page) == ["seed 9"] * 2
    assert same_images([saved(page, at)[1] for at in (0, 1)], runner.generate([TRIANGLE, CIRCLE], [9, 9]))

    page.get_by_label(f"Edit: {CIRCLE}").click()
    assert page.input_value("#caption") == CIRCLE
    page.click("#remove-all")
    assert page.locator("#pictures li").count() == 0
    assert page.locator("#for-all").is_hidden() and page.locator("#none").is_visible()


def test_all_by_keyboard(page):
    def focused():
        return page.evaluate("document.activeElement.ariaLabel ?? document.activeElement.id")

    def tab_to(name):
        page.keyboard.press("Tab")
        assert focused() == name
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    assert focused() == "caption"
    for number, caption in enumerate((CIRCLE, SQUARE)):
        page.keyboard.press("Control+A")
        page.keyboard.type(caption)
        page.keyboard.press("Enter")
        page.locator("#pictures li").nth(number).wait_for()
    for name in ("seed", "generate", "next-seed", "seed-slider", "all-again", "remove-all"):
        tab_to(name)
    for caption in (SQUARE, CIRCLE):
        for action in ("Save PNG", "Edit", "Remove"):
            tab_to(f"{action}: {caption}")
    page.keyboard.press("Enter")
    assert focused() == f"Remove: {SQUARE}"
    assert page.inner_text("#status") == "Removed."
    page.keyboard.press("Space")
    assert focused() == "pictures-heading"
    assert page.locator("#pictures li").count() == 0


def test_what_is_wrong_is_said_in_words(page):
    ask(page, "x" * 2001)
    error(page, "Not generated: caption: 2001 characters, more than the 2000 allowed")
    ask(page, "  ")
    error(page, "Type a caption first.")
    assert page.locator("#caption[aria-invalid=true]").count() == 1
    for seed in ("", "1.5", "1e3", "0x10", str(2**63), str(-(2**63) - 1), "9" * 40):
        ask(page, CIRCLE, seed)
        error(page, f"Seed: give a whole number from {-(2**63)} to {2**63 - 1}.")
        assert page.locator("#seed[aria-invalid=true]:focus").count() == 1
    page.context.set_offline(True)
    ask(page, CIRCLE, 3)
    error(page, "The endpoint cannot be reached. Does it still run?")
    page.context.set_offline(False)
    generate_picture(page, CIRCLE)
    assert page.locator("#error").inner_text() == "" and page.locator("[aria-invalid]").count() == 0
    assert page.locator("#error[role=alert]").count() == page.locator("#status[role=status]").count() == 1


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (404, {"error": "Servable not found"}, "The model is gone: Servable not found"),
        (
            504,
            {"error": "not generated within 30 seconds"},
            "The endpoint took too long: not generated within 30 seconds",
        ),
        (502, "<h1>Bad gateway</h1>", "The endpoint failed (502): <h1>Bad gateway</h1>"),
    ],
)
def test_rarer_answers_are_said_in_words_too(page, status, body, words):
    content = body if isinstance(body, str) else json.dumps(body)
    page.route("**/*:predict", lambda route: route.fulfill(status=status, body=content))
    ask(page, CIRCLE)
    error(page, words)


def test_captions_are_text_and_never_markup(page):
    generate_picture(page, MARKUP)
    assert page.inner_text("#pictures .caption") == MARKUP
    assert page.locator("#pictures").evaluate("list => list.querySelectorAll('img[src], b, script').length") == 1
    assert page.title() == f"{NAME}: generate pictures"


LOAD_FROM_ELSEWHERE = """async () => {
    const blocked = [];
    document.addEventListener("securitypolicyviolation", (event) => blocked.push(event.effectiveDirective));
    const elsewhere = "http://127.0.0.1:9/x";
    await fetch(elsewhere).catch(() => {});
    const add = (name, values) => document.head.append(Object.assign(document.createElement(name), values));
    add("img", { src: elsewhere });
    add("link", { rel: "stylesheet", href: elsewhere });
    add("style", { textContent: "body { display: none }" });
    try { add("script", { src: elsewhere }) } catch { blocked.push("no script") }
    try { document.body.innerHTML = "<b>x</b>" } catch { blocked.push("no markup") }
    await new Promise((resolve) => setTimeout(resolve, 200));
    return blocked;
}"""


def test_nothing_can_be_loaded_from_elsewhere(browser, endpoint):
    with contextlib.closing(browser.new_page()) as page:
        page.goto(endpoint.rest)
        blocked = page.evaluate(LOAD_FROM_ELSEWHERE)
    assert {"connect-src", "img-src", "style-src-elem", "no script", "no markup"} <= set(blocked)


def test_a_model_without_noise_says_so(tab, endpoint):
    about = endpoint.http.get(endpoint.rest + "/page.json").json()
    assert about["noise_dim"] == 3
    tab.route("**/page.json", lambda route: route.fulfill(json=about | {"noise_dim": 0}))
    tab.goto(endpoint.rest)
    tab.locator("#seed-note", has_text="This model takes no noise").wait_for()
    assert tab.locator("#seed").is_disabled() and tab.locator("#next-seed").is_disabled()
    generate_picture(tab, CIRCLE)
    assert seeds_shown(tab) == [""]
    assert tab.locator("#all-again").is_hidden() and tab.locator("input[type=range]:visible").count() == 0
    assert saved(tab)[0] == "a-small-red-circle-at-the-top.png"


def test_a_phone_scrolls_in_one_direction(page):
    page.set_viewport_size({"width": 360, "height": 640})
    generate_picture(page, "red" * 300, 2**63 - 1)
    generate_picture(page, CIRCLE)
    ask(page, "x" * 2001)
    error(page, "2001 characters")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    for button in page.locator("button:visible, input:visible, #pictures a").all():
        box = button.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 360 and box["height"] >= 30


CONTRASTS = """() => {
    const channel = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    const luminance = (colour) => {
        const [r, g, b] = colour.match(/[0-9.]+/g).map(Number).map(channel);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const paper = (element) => {
        const { backgroundColor } = getComputedStyle(element);
        return backgroundColor === "rgba(0, 0, 0, 0)" ? paper(element.parentElement) : backgroundColor;
    };
    const texts = ["h1", "#about", "#error", "#generate", "#all-again", ".caption", ".seed"];
    return Object.fromEntries(texts.map((selector) => {
        const element = document.querySelector(selector);
        const lights = [getComputedStyle(element).color, paper(element)].map(luminance).sort((a, b) => b - a);
        return [selector, (lights[0] + 0.05) / (lights[1] + 0.05)];
    }));
}"""


def test_light_and_dark_can_be_read(page):
    generate_picture(page, CIRCLE)
    ask(page, " ")
    papers = set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        papers.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        # WCAG 2.2, AA: 4.5 between text and what is behind it.
        assert min(page.evaluate(CONTRASTS).values()) >= 4.5
    assert len(papers) == 2
