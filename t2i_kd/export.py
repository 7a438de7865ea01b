"""Exports a trained student: `python -m t2i_kd.export --run_dir=DIR --export_dir=saved_models/NAME`."""

import os
import sys

from absl import flags

from t2i_kd import commands
from t2i_kd.errors import UserError
from t2i_kd.exporting.manifest import FILES


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_string("run_dir", "", "run directory of a finished training")
    flags.DEFINE_string("export_dir", "", "folder of the exported model, saved_models/NAME")
    flags.DEFINE_integer("version", 1, "version, a sub-folder of --export_dir")
    flags.DEFINE_boolean("overwrite", False, "replace the version if it exists")
    flags.DEFINE_float("truncation", 1.0, "factor on the noise, 0 to 1: smaller is less varied and more typical")
    flags.DEFINE_list("artifacts", list(FILES), f"what stands beside the SavedModel: any of {', '.join(FILES)}")


def export(run_dir, export_dir, overwrite, version=1, artifacts=tuple(FILES), truncation=1.0):
    """Exports a run; a failed proof of the artifacts, which is nobody's input, ends in one line and exit code 1."""
    from t2i_kd.exporting.exporter import export_run
    from t2i_kd.exporting.fidelity import FidelityError

    try:
        export_run(run_dir, export_dir, version, overwrite, tuple(artifacts), truncation=truncation)
    except FidelityError as error:
        sys.exit(f"error: {error}")


def main():
    """Runs the command; see `t2i_kd.exporting.exporter.export_run`."""
    values = flags.FLAGS
    for name in ("run_dir", "export_dir"):
        if not values[name].value:
            raise UserError(f"--{name}: missing")
    for kind in values.artifacts:
        if kind not in FILES:
            raise UserError(f"--artifacts: {kind!r} is none of {', '.join(FILES)}")
    # Whatever Keras trained on, only TensorFlow writes these formats.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    export(values.run_dir, values.export_dir, values.overwrite, values.version, values.artifacts, values.truncation)


if __name__ == "__main__":
    define_flags()
    commands.run(main)
