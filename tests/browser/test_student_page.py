"""The page without a server: built by its npm script, served as plain files."""

import base64
import contextlib
import json
import shutil

import numpy as np
import pytest

from t2i_kd.loading import load_artifact
from t2i_kd.noise import noise_from_seeds
from tests.browser.conftest import NOISE_DIM
from tests.browser.pages import difference, error, followed, move, pixels, saved

pytestmark = pytest.mark.slow  # a browser

CAPTIONS = ["a small red circle at the top", "  A LARGE, green  square!", "ein rotes Fünfeck 红色 🟥", "a " * 500]
SEEDS = [0, 7, -1, -(2**40), 2**32 + 5, 2**53 + 1, 2**63 - 1, -(2**63)]


@pytest.fixture(scope="module")
def site(build, version, tmp_path_factory):
    """The folder that the build makes of the tiny student."""
    out = tmp_path_factory.mktemp("site") / "page"
    finished = build(version, out)
    assert (finished.returncode, finished.stdout.strip()) == (0, str(out)), finished.stderr
    return out


@pytest.fixture(scope="module")
def address(site, served):
    with served(site) as address:
        yield address


@pytest.fixture
def changed(site, served, tmp_path):
    """A context manager from {file: bytes, or None for no such file} to the address of a page changed so.

    The requests of a page that its service worker has taken over do not come by `page.route`.
    """

    @contextlib.contextmanager
    def changed(files):
        copy = tmp_path / "changed"
        shutil.copytree(site, copy)
        for name, content in files.items():
            if content is None:
                (copy / name).unlink()
            else:
                (copy / name).write_bytes(content)
        with served(copy) as address:
            yield address

    return changed


@pytest.fixture
def page(tab, address):
    tab.goto(address)
    tab.locator("h1:text-is('tiny')").wait_for()
    return tab


def draw(page, caption, seed=0):
    before = page.locator("#pictures li").count()
    page.fill("#caption", caption)
    page.fill("#seed", str(seed))
    page.press("#caption", "Enter")
    page.locator("#pictures li").nth(before).wait_for()


def test_a_drawn_caption_is_generates_picture_without_a_server(page, runner, tmp_path):
    page.context.set_offline(True)
    for caption, seed in zip(CAPTIONS, SEEDS[3:], strict=False):
        draw(page, caption, seed)
        picture = pixels(saved(page)[1])
        expected = runner.generate([caption], [seed])[0]
        assert difference(picture, expected) <= 2
        assert difference(picture, runner.generate([caption], [seed - 1])[0]) > 20
    assert page.inner_text("#status").startswith("Generated “a a a")


DRAW_MANY = """async ([captions, seeds]) => {
    const { loadStudent } = await import("/student.js");
    const student = await loadStudent("/model/");
    const pictures = await student.draw(captions, seeds.map(BigInt));
    return pictures.map(({ data }) => btoa(String.fromCharCode(...data)));
}"""


def test_many_captions_and_seeds_are_generates_pictures(page, runner):
    pairs = [(caption, seed) for caption in CAPTIONS for seed in SEEDS]
    captions, seeds = map(list, zip(*pairs, strict=True))
    drawn = page.evaluate(DRAW_MANY, [captions, [*map(str, seeds)]])
    rgba = np.stack([np.frombuffer(base64.b64decode(data), np.uint8).reshape(32, 32, 4) for data in drawn])
    assert (rgba[..., 3] == 255).all()
    assert difference(rgba[..., :3], runner.generate(captions, seeds)) <= 2


def test_words_that_the_student_does_not_know_are_said(page, runner):
    draw(page, "ein rotes square")
    told = "; ".join(runner.condition.unread("ein rotes square"))
    assert "'ein', 'rotes'" in told and page.inner_text("#status").endswith(f" ms. Note: {told}.")


SIZES = {131_071: "131071 bytes", 131_072: "128 KiB", 407_878: "398 KiB", 2**20: "1.0 MiB", 3_981_168: "3.8 MiB"}


def test_sizes_are_said_in_units(page):
    ask = "async (sizes) => { const { inUnits } = await import('/gallery.js'); return sizes.map(inUnits); }"
    assert page.evaluate(ask, [*SIZES]) == [*SIZES.values()]


def test_sliders_lead_from_seed_to_seed(page, runner, version):
    assert "by a model of " in page.inner_text("#about")
    move(page, "#way", 50)
    error(page, "Type a caption first.")
    seed, second = 2**53 + 1, -(2**63)
    page.fill("#caption", CAPTIONS[0])
    page.fill("#seed", str(seed))
    page.fill("#second-seed", "1.5")
    move(page, "#way", 60)
    error(page, "Second seed: give a whole number from ")
    assert page.locator("#second-seed[aria-invalid=true]:focus").count() == 1
    page.fill("#second-seed", str(second))
    shown = {}
    for percent in (0, 40, 100):
        move(page, "#way", percent)
        words = {0: f"seed {seed}", 100: f"seed {second}"}.get(percent, f"40 % from seed {seed} to seed {second}")
        shown[percent] = pixels(followed(page, words))
    assert page.inner_text("#error") == "" and page.locator("[aria-invalid]").count() == 0
    # The ends are the pictures that are drawn of the two seeds, and between them is that of NumPy's noise.
    for percent, end in ((0, seed), (100, second)):
        draw(page, CAPTIONS[0], end)
        np.testing.assert_array_equal(shown[percent], pixels(saved(page)[1]))
        assert difference(shown[40], shown[percent]) > 5
    first, last = noise_from_seeds([seed, second], NOISE_DIM).astype(np.float64)
    angle = np.arccos(first @ last / np.linalg.norm(first) / np.linalg.norm(last))
    noise = (np.sin(0.6 * angle) * first + np.sin(0.4 * angle) * last) / np.sin(angle)
    onnx = load_artifact(version / "assets.extra" / "student.onnx")
    inputs = onnx.condition.arrays([CAPTIONS[0]]) | {"noise": noise[None].astype(np.float32)}
    (expected,) = onnx.session.run(["image"], inputs)[0]
    assert difference(shown[40], np.rint(expected)) <= 1
    # A seed that is typed is drawn at once, and what is shown can be kept.
    move(page, "#way", 40)
    page.fill("#seed", "7")
    kept = followed(page, f"40 % from seed 7 to seed {second}")
    page.click("#seeds-keep")
    assert saved(page) == (f"a-small-red-circle-at-the-top-7-to-{second}-at-40.png", kept)
    for at, expected in ((1, [str(second), "0"]), (0, ["7", "40"])):
        page.get_by_label(f"Edit: {CAPTIONS[0]}").nth(at).click()
        assert [page.input_value(field) for field in ("#seed", "#way")] == expected


def test_a_student_without_noise_has_no_sliders(tab, changed, version):
    manifest = json.loads((version / "assets.extra" / "manifest.json").read_text()) | {"noise_dim": 0}
    with changed({"model/manifest.json": json.dumps(manifest).encode()}) as address:
        tab.goto(address)
        tab.locator("#seed-note", has_text="This model takes no noise").wait_for()
        assert tab.locator("input[type=range]:visible, #second-seed:visible").count() == 0


def test_the_page_opens_without_its_server(tab, site, served, runner):
    with served(site) as address:
        tab.goto(address)
        tab.locator("h1:text-is('tiny')").wait_for()
        tab.evaluate("navigator.serviceWorker.ready.then(() => navigator.serviceWorker.controller || 0)")
        link = tab.get_attribute("link[rel=manifest]", "href")
        manifest = json.loads(tab.evaluate("link => fetch(link).then((answer) => answer.text())", link))
        assert (manifest["name"], manifest["start_url"], manifest["display"]) == ("tiny", "./", "standalone")
    # The server is gone.
    for where in (address, f"{address}index.html"):
        tab.goto(where)
        tab.locator("h1:text-is('tiny')").wait_for()
    (drawn,) = tab.evaluate(DRAW_MANY, [[CAPTIONS[0]], ["7"]])
    image = np.frombuffer(base64.b64decode(drawn), np.uint8).reshape(32, 32, 4)[..., :3]
    assert difference(image, runner.generate([CAPTIONS[0]], [7])[0]) <= 2


def test_what_is_no_caption_is_said_in_words(page):
    page.fill("#caption", "🟥" * 2001)
    page.press("#caption", "Enter")
    error(page, "caption: 2001 characters, more than the 2000 allowed")
    draw(page, CAPTIONS[0])
    assert page.locator("#error").inner_text() == ""


def test_a_phone_scrolls_in_one_direction(page):
    page.set_viewport_size({"width": 360, "height": 640})
    draw(page, "red" * 300, 2**63 - 1)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


def without(*keys):
    def change(manifest):
        *path, last = keys
        for key in path:
            manifest = manifest[key]
        del manifest[last]

    return change


def with_values(**values):
    return lambda manifest: manifest.update(values)


BAD_MANIFESTS = [
    (with_values(format_version=1), "not a manifest of format 2"),
    (without("condition"), "condition is missing"),
    (without("noise_dim"), "noise_dim is missing"),
    (without("artifacts", "onnx"), "this export has no ONNX file; export again with --artifacts=onnx"),
    (with_values(condition={"kind": "caption", "encoder": "hub"}), "this student reads vectors of hub, not captions"),
    (with_values(condition={"kind": "sound"}), "this student reads sounds, neither captions nor images"),
    (with_values(condition={"kind": "image"}), "condition.inputs.source is missing"),
]


@pytest.mark.parametrize(("change", "words"), BAD_MANIFESTS, ids=[words for _, words in BAD_MANIFESTS])
def test_a_manifest_that_does_not_fit_is_told_by_page_and_build(tab, changed, build, version, tmp_path, change, words):
    manifest = json.loads((version / "assets.extra" / "manifest.json").read_text())
    change(manifest)
    with changed({"model/manifest.json": json.dumps(manifest).encode()}) as address:
        tab.goto(address)
        error(tab, f"model/manifest.json: {words}")
    extra = tmp_path / "1" / "assets.extra"
    extra.mkdir(parents=True)
    (extra / "manifest.json").write_text(json.dumps(manifest))
    finished = build(tmp_path / "1", tmp_path / "page")
    assert finished.returncode == 2
    assert finished.stderr.startswith(f"{extra / 'manifest.json'}: {words}") and finished.stderr.count("\n") == 1
    assert not (tmp_path / "page").exists()


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("model/manifest.json", "model/manifest.json: missing"),
        ("model/vocabulary.txt", "model/vocabulary.txt: missing"),
        ("model/student.onnx", "model/student.onnx: missing"),
        ("ort/ort.wasm.bundle.min.mjs", "ort/ort.wasm.bundle.min.mjs: "),
        ("ort/ort-wasm-simd-threaded.wasm", "ort/ort-wasm-simd-threaded.wasm: missing"),
    ],
)
def test_a_missing_file_is_named(tab, changed, file, words):
    with changed({file: None}) as address:
        tab.goto(address)
        error(tab, words)
        assert tab.locator("#generate").is_disabled()


def test_a_damaged_model_is_named(tab, changed, site):
    with changed({"model/student.onnx": (site / "model" / "student.onnx").read_bytes()[:-3]}) as address:
        tab.goto(address)
        error(tab, "model/student.onnx: ")


def test_a_vocabulary_of_another_export_is_named(tab, changed):
    with changed({"model/vocabulary.txt": b"[PAD]\n[UNK]\na\n"}) as address:
        tab.goto(address)
        error(tab, "model/vocabulary.txt: 3 tokens, but ")


def test_the_build_makes_all_or_nothing(build, checkout, site, version, tmp_path):
    def said(*arguments):
        finished = build(*arguments)
        assert finished.returncode == 2 and finished.stderr.count("\n") == 1
        return finished.stderr

    damaged = tmp_path / "1"
    shutil.copytree(version / "assets.extra", damaged / "assets.extra")
    (damaged / "assets.extra" / "vocabulary.txt").write_text("[PAD]\n[UNK]\na\n")
    (tmp_path / "mine").mkdir()
    before = sorted(site.rglob("*"))
    assert "vocabulary.txt: damaged" in said(damaged, site)
    assert "manifest.json: missing" in said(tmp_path / "nowhere", site)
    assert "saved_models/NAME/1" in said()
    assert "is no page that was built" in said(version, tmp_path / "mine")
    assert sorted(site.rglob("*")) == before
    # Built again, and from the folder in which the command is typed, into `dist`.
    (checkout.parents[1] / "1").symlink_to(version)
    for _ in range(2):
        assert build("1").returncode == 0
    assert sorted(path.name for path in (checkout / "dist").iterdir()) == sorted(path.name for path in site.iterdir())
