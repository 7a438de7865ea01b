"""A headless Chromium, a web server for folders, and a tiny student that takes noise."""

import contextlib
import functools
import hashlib
import http.server
import importlib.util
import os
import shutil
import subprocess
import tempfile
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

# A host that trains on JAX alone has nothing to export with.
collect_ignore_glob = [] if importlib.util.find_spec("tensorflow") else ["test_*.py"]

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ROOT / "pipelines" / "browser"
NOISE_DIM = 3
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
ARGUMENTS += ["--disable-background-networking", "--disable-component-update"]
# A camera whose picture moves.
ARGUMENTS += ["--use-fake-device-for-media-stream"]


@pytest.fixture(scope="module")
def browser():
    """One Chromium a module: its driver's event loop must be gone before other tests run theirs."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        pytest.skip("there is no Chromium here (Debian: apt-get install chromium)")
    with sync_api.sync_playwright() as driver:
        launched = driver.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture
def tab(browser):
    """A page in a fresh profile. At its end nothing was asked of a second origin, and no script had failed."""
    with contextlib.closing(browser.new_context()) as context:
        asked, failures = [], []
        context.on("request", lambda request: asked.append(request.url))
        page = context.new_page()
        page.set_default_timeout(60_000)
        page.on("pageerror", lambda error: failures.append(str(error)))
        yield page
        assert not failures
        assert len({urlsplit(url).netloc for url in asked if not url.startswith(("blob:", "data:"))}) == 1, asked


@pytest.fixture(scope="session")
def version(tmp_path_factory):
    """An exported version with SavedModel and ONNX."""
    from t2i_kd.exporting.exporter import export_run
    from tests.exporting.tiny_student import make_student, save_run

    folder = tmp_path_factory.mktemp("tiny")
    run_dir = save_run(make_student(NOISE_DIM), folder / "run")
    return export_run(run_dir, folder / "saved_models" / "tiny", artifacts=("onnx",), report=lambda line: None)


@pytest.fixture(scope="session")
def runner(version):
    from t2i_kd.loading import load_artifact

    return load_artifact(version)


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *message):
        pass


@contextlib.contextmanager
def _served(folder):
    handler = functools.partial(_Handler, directory=folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()


@pytest.fixture(scope="session")
def served():
    """A context manager from a folder to the address at which it is served."""
    return _served


@pytest.fixture(scope="session")
def checkout(pytestconfig, tmp_path_factory):
    """Copies of pipelines/browser and of the files it shares, in their places, with `npm ci` done: once a lock file."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no npm here (Debian: apt-get install npm)")
    lock = (PIPELINE / "package-lock.json").read_bytes()
    installed = Path(pytestconfig.cache.mkdir("browser")) / hashlib.sha256(lock).hexdigest()[:16]
    if not installed.is_dir():
        _install(npm, installed)
    folder = tmp_path_factory.mktemp("checkout")
    copy = folder / "pipelines" / "browser"
    shutil.copytree(PIPELINE, copy, ignore=shutil.ignore_patterns("node_modules", "dist"))
    shared = Path("t2i_kd", "serving", "page")
    shutil.copytree(ROOT / shared, folder / shared)
    (copy / "node_modules").symlink_to(installed / "node_modules")
    return copy


def _install(npm, folder):
    unfinished = Path(tempfile.mkdtemp(dir=folder.parent))
    for name in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(PIPELINE / name, unfinished)
    finished = subprocess.run([npm, "ci"], cwd=unfinished, capture_output=True, text=True, check=False)
    if finished.returncode:
        shutil.rmtree(unfinished)
        pytest.skip(f"npm ci failed: {finished.stderr.strip().splitlines()[:1]}")
    try:
        unfinished.rename(folder)
    except OSError:
        # Another worker of pytest-xdist was faster.
        shutil.rmtree(unfinished)


@pytest.fixture(scope="session")
def build(checkout):
    """Runs `npm run build -- ARGUMENTS`, typed in the checkout's root."""
    root = checkout.parents[1]

    def run(*arguments):
        command = ["npm", "run", "--silent", f"--prefix={checkout}", "build", "--", *map(str, arguments)]
        # npm tells its script where the user stood, unless an npm around it already has.
        environment = {name: value for name, value in os.environ.items() if name != "INIT_CWD"}
        return subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)

    return run
