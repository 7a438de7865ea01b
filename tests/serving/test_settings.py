import pytest

from t2i_kd.conditions.caption import CaptionCondition as CAPTION
from t2i_kd.conditions.image import ImageCondition as IMAGE
from t2i_kd.errors import UserError
from t2i_kd.serving.settings import Settings, parse_labels, parse_sizes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_name": ""}, "--model_name: ''"),
        ({"model_name": "a/../b"}, "--model_name: 'a/../b'"),
        ({"model_base_path": ""}, "--model_base_path: missing"),
        ({"port": 70000}, "--port: 70000"),
        ({"rest_api_port": -1}, "--rest_api_port: -1"),
        ({"port": 8501}, "--rest_api_port: 8501 is also --port"),
        ({"port": 0, "rest_api_port": 0}, "--port and --rest_api_port: both are 0, so nothing"),
        (
            {"max_body_bytes": 3_000_000_000},
            "--max_body_bytes: 3000000000 is not between 0, the model's own limit, and",
        ),
        ({"read_timeout_seconds": float("inf")}, "--read_timeout_seconds: inf"),
        ({"shutdown_timeout_seconds": float("inf")}, "--shutdown_timeout_seconds: inf"),
        ({"request_timeout_seconds": 1e6}, "--request_timeout_seconds: 1000000.0 is not .* of at most 86400"),
        ({"batch_timeout_micros": 10**12}, "--batch_timeout_micros: 1000000000000"),
        ({"tensorflow_intra_op_parallelism": -1}, "--tensorflow_intra_op_parallelism: -1 is not between 0 and 1024"),
        ({"num_batch_threads": 0}, "--num_batch_threads: 0 is not between 1 and 1024"),
        ({"batch_timeout_micros": -1}, "--batch_timeout_micros: -1"),
        ({"max_item_bytes": -1}, "--max_item_bytes: -1"),
        ({"max_batch_size": 0}, "--max_batch_size: 0"),
        ({"read_timeout_seconds": 0.0}, "--read_timeout_seconds: 0"),
        ({"request_timeout_seconds": float("nan")}, "--request_timeout_seconds: nan"),
        ({"file_system_poll_wait_seconds": -1.0}, "--file_system_poll_wait_seconds: -1"),
        ({"allowed_batch_sizes": ()}, "--allowed_batch_sizes"),
        ({"allowed_batch_sizes": (4, 2, 32)}, "--allowed_batch_sizes: 4,2,32"),
        ({"allowed_batch_sizes": (0, 32)}, "--allowed_batch_sizes: 0,32"),
        ({"allowed_batch_sizes": (2, 4)}, "last is --max_batch_size, 32"),
    ],
)
def test_what_is_wrong_is_named(changes, message):
    with pytest.raises(UserError, match=message):
        Settings(**{"model_name": "m", "model_base_path": "d"} | changes)


@pytest.mark.parametrize(
    ("cores", "batches", "wanted", "threads"), [(1, 2, 0, 1), (2, 2, 0, 1), (8, 2, 0, 4), (8, 1, 0, 8), (8, 2, 3, 3)]
)
def test_batches_that_run_at_once_share_the_cores(monkeypatch, cores, batches, wanted, threads):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(cores)))
    settings = Settings("m", "d", num_batch_threads=batches, tensorflow_intra_op_parallelism=wanted)
    assert settings.threads == threads


@pytest.mark.parametrize("kind", [CAPTION, IMAGE])
def test_limits_are_the_models_unless_they_are_given(kind):
    settings = Settings("m", "d", max_item_bytes=7).with_limits(kind.limits)
    assert (settings.max_item_bytes, settings.max_body_bytes) == (7, kind.limits.max_body_bytes)


def test_sizes_and_labels_are_read():
    assert parse_sizes("2,4,8") == (2, 4, 8)
    assert parse_labels(["stable:1", "next:12"]) == {"stable": 1, "next": 12}


def test_sizes_and_labels_that_cannot_be_read_are_named():
    with pytest.raises(UserError, match="--allowed_batch_sizes: '2;4'"):
        parse_sizes("2;4")
    for labels in (["stable"], ["stable:x"], ["a/b:1"]):
        with pytest.raises(UserError, match=f"--version_label: '{labels[0]}'"):
            parse_labels(labels)
    with pytest.raises(UserError, match="'a' is given twice"):
        parse_labels(["a:1", "a:2"])


def test_cores_are_counted_where_a_platform_does_not_say_which(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    assert Settings("name", "folder", num_batch_threads=2).threads == 3
