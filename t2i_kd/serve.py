"""Serves an exported model by TF Serving's protocols: `python -m t2i_kd.serve --model_name=NAME --model_base_path=DIR`.

The flags that tensorflow_model_server also has have its names and meanings.
"""

import logging
import sys

from absl import flags

from t2i_kd import commands, shipped
from t2i_kd.conditions.catalogue import CONDITIONS
from t2i_kd.errors import UserError
from t2i_kd.serving.settings import Settings, parse_hosts, parse_labels, parse_sizes

DESCRIPTION = "Serves an exported model by TF Serving's REST and gRPC, with a page to try it."
OF_THE_MODEL = {
    "max_items_per_request": "How many captions or images a request may hold; more are answered with 400.",
    "max_item_bytes": "How many bytes a caption's UTF-8 or an encoded image may have; more are answered with 400.",
    "max_body_bytes": "How many bytes a request may have; more are answered with 413.",
    "max_pending_items": "How many captions or images may wait at once; further ones are answered with 503.",
    "max_connections": "How many connections each protocol may have at once; further ones are refused.",
}


def define_flags(arguments):
    """Defines this command's flags; what they default to is said once, in `Settings` and in the conditions' limits."""
    return {
        "The model and its addresses": commands.defining(_define_model),
        "Batches": commands.defining(_define_batches),
        "Limits": commands.defining(_define_limits),
    }


DEFAULT = Settings("name", "folder")


def _text(name, help_text, default=None):
    flags.DEFINE_string(name, getattr(DEFAULT, name) if default is None else default, help_text)


def _whole(name, help_text):
    flags.DEFINE_integer(name, getattr(DEFAULT, name), help_text)


def _real(name, help_text):
    flags.DEFINE_float(name, getattr(DEFAULT, name), help_text)


def _define_model():
    _text("model_name", "The model's name in requests.", "")
    _text(
        "model_base_path",
        "The folder that holds the version folders, saved_models/NAME. Left out, --model_name is that of a model that "
        f"comes with t2i_kd: {', '.join(shipped.models())}.",
        "",
    )
    _text("host", "The address to listen on; 0.0.0.0 listens to other hosts too.")
    _whole("port", "The port of gRPC; 0 for none.")
    _whole("rest_api_port", "The port of REST; 0 for none.")
    _text(
        "allowed_hosts",
        "The names that REST may be asked by, with commas between and without ports; * for any. By default those of "
        "loopback where --host is one of them, and any otherwise.",
        "",
    )
    flags.DEFINE_multi_string(
        "version_label", [], "LABEL:VERSION also serves this version, as /labels/LABEL; it may be given several times."
    )
    _real("file_system_poll_wait_seconds", "How many seconds lie between two looks for new version folders.")
    _real("load_timeout_seconds", "How many seconds reading a version and warming it up may take; then it is refused.")


def _define_batches():
    _whole("max_batch_size", "How many rows a batch may have.")
    sizes = ",".join(map(str, DEFAULT.allowed_batch_sizes))
    _text("allowed_batch_sizes", "Batches are filled up to one of these; the last is --max_batch_size.", sizes)
    _whole("batch_timeout_micros", "How many microseconds a request waits for others to share its batch.")
    _whole("num_batch_threads", "How many batches run at the same time.")
    _whole(
        "tensorflow_intra_op_parallelism",
        "How many threads share one operation. 0 divides the cores among --num_batch_threads.",
    )


def _define_limits():
    for name, meaning in OF_THE_MODEL.items():
        limits = ", ".join(f"{getattr(each.limits, name)} for {kind}s" for kind, each in CONDITIONS.items())
        _whole(name, f"{meaning} 0 stands for the model's own limit: {limits}.")
    _real("read_timeout_seconds", "How many seconds a request's header, its body, and 64 KiB of an answer may take.")
    _real("request_timeout_seconds", "How many seconds generating may take; then 504 is answered.")
    _real("shutdown_timeout_seconds", "How many seconds all that is in flight has, when the process is to stop.")


def settings_from_flags(values):
    """The `Settings` that the flags describe. Raises `UserError` that names the flag."""
    same = {name: values[name].value for name in Settings.__dataclass_fields__ if name in values}
    changed = {
        "model_base_path": values.model_base_path or _shipped_folder(values.model_name),
        "allowed_batch_sizes": parse_sizes(values.allowed_batch_sizes),
        "allowed_hosts": parse_hosts(values.allowed_hosts),
        "version_labels": parse_labels(values.version_label),
    }
    return Settings(**same | changed)


def _shipped_folder(name):
    known = shipped.models()
    if name not in known:
        raise UserError(
            "--model_base_path: missing; give the folder that holds the version folders, or as --model_name one of the "
            f"models that come with t2i_kd: {', '.join(known)}"
        )
    return str(known[name])


def main():
    """Runs the command; see `t2i_kd.serving.server.serve`."""
    settings = settings_from_flags(flags.FLAGS)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    try:
        from t2i_kd.serving.server import serve
    except ImportError as error:
        raise UserError(
            f"{error.name} is missing: the endpoint needs the extra `serve`: pip install '.[serve]'"
        ) from None
    serve(settings, commands.load_backend)


if __name__ == "__main__":
    commands.run(main, define_flags, DESCRIPTION)
