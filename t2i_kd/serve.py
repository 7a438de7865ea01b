"""Serves an exported model by TF Serving's protocols: `python -m t2i_kd.serve --model_name=NAME --model_base_path=DIR`.

The flags that tensorflow_model_server also has have its names and meanings.
"""

import logging
import os
import sys

from absl import flags

from t2i_kd import commands
from t2i_kd.errors import UserError
from t2i_kd.serving.requests import CAPTION, IMAGE
from t2i_kd.serving.settings import Settings, parse_labels, parse_sizes

OF_THE_MODEL = {
    "max_items_per_request": "captions or images; more are answered with 400",
    "max_item_bytes": "of a caption's UTF-8 or an encoded image; more are answered with 400",
    "max_body_bytes": "of a request; more are answered with 413",
    "max_pending_items": "waiting at once; further ones are answered with 503",
    "max_connections": "at once, by each protocol; further ones are refused",
}


def define_flags():
    """Defines this command's flags; what they default to is said once, in `Settings` and in the
    limits of `t2i_kd.serving.requests`."""
    default = Settings("name", "folder")
    text, number, real = flags.DEFINE_string, flags.DEFINE_integer, flags.DEFINE_float
    text("model_name", "", "the model's name in requests")
    text("model_base_path", "", "the folder that holds the version folders, saved_models/NAME")
    text("host", default.host, "address to listen on; 0.0.0.0 listens to other hosts too")
    number("port", default.port, "of gRPC; 0 for none")
    number("rest_api_port", default.rest_api_port, "of REST; 0 for none")
    flags.DEFINE_multi_string(
        "version_label", [], "LABEL:VERSION: serve this version too, as /labels/LABEL; may be given several times"
    )
    number("max_batch_size", default.max_batch_size, "rows of one batch")
    text(
        "allowed_batch_sizes",
        ",".join(map(str, default.allowed_batch_sizes)),
        "batches are filled up to one of these; the last is --max_batch_size",
    )
    number("batch_timeout_micros", default.batch_timeout_micros, "how long a request waits for company")
    number("num_batch_threads", default.num_batch_threads, "batches that run at the same time")
    number(
        "tensorflow_intra_op_parallelism",
        default.tensorflow_intra_op_parallelism,
        "threads that share one operation; 0 divides the cores among --num_batch_threads",
    )
    real(
        "file_system_poll_wait_seconds", default.file_system_poll_wait_seconds, "between looks for new version folders"
    )
    for name, meaning in OF_THE_MODEL.items():
        limits = f"{getattr(CAPTION.limits, name)} for captions, {getattr(IMAGE.limits, name)} for images"
        number(name, getattr(default, name), f"{meaning}; 0 for the model's own limit: {limits}")
    real("read_timeout_seconds", default.read_timeout_seconds, "for a request's header, its body, 64 KiB of an answer")
    real("request_timeout_seconds", default.request_timeout_seconds, "for generating; then 504")
    real("shutdown_timeout_seconds", default.shutdown_timeout_seconds, "for all that is in flight at a signal to stop")


def settings_from_flags(values):
    """The `Settings` that the flags describe. Raises `UserError` that names the flag."""
    same = {name: values[name].value for name in Settings.__dataclass_fields__ if name in values}
    changed = {
        "allowed_batch_sizes": parse_sizes(values.allowed_batch_sizes),
        "version_labels": parse_labels(values.version_label),
    }
    return Settings(**same | changed)


def main():
    """Runs the command; see `t2i_kd.serving.server.serve`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
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
    serve(settings)


if __name__ == "__main__":
    define_flags()
    commands.run(main)
