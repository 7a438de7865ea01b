"""What can be known of the container without building it: its files, its user, its command line, its health check."""

import http.server
import re
import subprocess
import sys
import threading

import pytest

from tests.commands import ROOT, finish, start
from tests.dockerfile import arguments_of, copied, instructions

# The settings of the command line behind `-m t2i_kd.serve`.
SETTINGS = """
import sys
from absl import flags
from t2i_kd import serve
serve.define_flags(sys.argv)
flags.FLAGS(sys.argv)
settings = serve.settings_from_flags(flags.FLAGS)
print(settings.host, settings.port, settings.rest_api_port, settings.model_name, settings.model_base_path)
"""


def test_what_is_copied_is_there_and_is_sent_to_the_builder():
    ignored, *kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert ignored == "*"
    assert all((ROOT / source).exists() for source in copied())
    assert sorted(copied()) == sorted(line.removeprefix("!") for line in kept if line.startswith("!"))


def test_its_python_is_one_that_the_package_runs_on():
    (base,) = {text.split()[0] for name, text in instructions() if name == "FROM"}
    version = re.fullmatch(r"python:(3\.\d+)-slim", base)[1]
    assert f'"Programming Language :: Python :: {version}"' in (ROOT / "setup.py").read_text()


def test_it_is_not_run_by_root():
    names = [name for name, _ in instructions()]
    (user,) = [text for name, text in instructions() if name == "USER"]
    # A number, so that Kubernetes can tell.
    assert int(user) > 0 and names.index("USER") < names.index("ENTRYPOINT")


@pytest.mark.parametrize(
    ("more", "model"),
    [
        (None, f"shapes32 {ROOT / 'saved_models' / 'shapes32'}"),
        (["--model_name=mine", "--model_base_path=/models/mine"], "mine /models/mine"),
    ],
)
def test_its_command_line_is_the_endpoints(more, model):
    program, *entry = arguments_of("ENTRYPOINT")
    assert (program, *entry[:2]) == ("python", "-m", "t2i_kd.serve")
    output = finish(start(*entry[2:], *(more or arguments_of("CMD")), code=SETTINGS))
    assert output == f"0.0.0.0 8500 8501 {model}\n"
    assert ("EXPOSE", "8500 8501") in instructions()


@pytest.mark.parametrize("status", [200, 503])
def test_it_is_healthy_while_healthz_says_so(status):
    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/healthz" else 404)
            self.end_headers()

        def log_message(self, *arguments):
            pass

    program, option, code = arguments_of("HEALTHCHECK")
    assert (program, option) == ("python", "-c") and "8501" in code
    with http.server.HTTPServer(("127.0.0.1", 0), Answer) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        code = code.replace("8501", str(server.server_port))
        done = subprocess.run([sys.executable, option, code], capture_output=True, timeout=60)
        server.shutdown()
    assert done.returncode == (status != 200), done.stderr
    # Nobody listens there any more.
    assert subprocess.run([sys.executable, option, code], capture_output=True, timeout=60).returncode == 1
