import socket

import pytest

from tests.commands import Fork
from tests.serving.endpoint import SHAPES, free_ports


@pytest.fixture
def taken():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model_name": "a/b"}, "--model_name: 'a/b'"),
        (
            {"model_base_path": ""},
            "--model_base_path: missing; give the folder that holds the version folders, or as --",
        ),
        ({"model_base_path": "/nowhere/at/all"}, "--model_base_path: the folder /nowhere/at/all does not exist"),
        ({"model_base_path": str(SHAPES)}, "nothing to serve: it holds no folder named by a number"),
        ({"model_base_path": "HALF"}, "saved_model.pb is missing"),
        ({"rest_api_port": "TAKEN"}, "--rest_api_port: 127.0.0.1:{port} cannot be had: Address already in use"),
        ({"port": "TAKEN"}, "--port: 127.0.0.1:{port} cannot be had"),
        ({"host": "no.such.host.invalid"}, "--rest_api_port: no.such.host.invalid:"),
        ({"allowed_batch_sizes": "2,4"}, "--allowed_batch_sizes: 2,4"),
        ({"read_timeout_seconds": "inf"}, "--read_timeout_seconds: inf"),
        ({"version_label": "stable"}, "--version_label: 'stable'"),
        ({"max_captions": "1"}, "max_captions"),
        ({"max_item_bytes": "-1"}, "--max_item_bytes: -1 is not between 0, the model's own limit,"),
    ],
)
def test_what_is_wrong_is_one_line_and_exit_code_2(flags, message, taken, tmp_path):
    (tmp_path / "1").mkdir()
    port, rest_port = free_ports(2)
    wanted = {"model_name": "shapes", "model_base_path": str(SHAPES.parent), "port": port, "rest_api_port": rest_port}
    wanted |= {name: {"TAKEN": taken, "HALF": tmp_path}.get(value, value) for name, value in flags.items()}
    process = Fork(*(f"--{name}={value}" for name, value in wanted.items()), module="t2i_kd.serve")
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 2
    lines = errors.splitlines()
    assert message.format(port=taken) in lines[-1]
    # What the log says of a broken version comes before.
    assert len(lines) <= 2 and not any("Traceback" in line for line in lines), lines
