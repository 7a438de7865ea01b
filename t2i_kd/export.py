"""Exports a trained student: `python -m t2i_kd.export --run_dir=DIR --export_dir=saved_models/NAME`."""

import os

from absl import flags

from t2i_kd import commands
from t2i_kd.errors import UserError
from t2i_kd.exporting.manifest import FILES

DESCRIPTION = "Exports a finished run as SavedModel, LiteRT and ONNX, and proves that they give the same images."


def define_flags(arguments):
    """Defines this command's flags."""
    return {"Exporting": commands.defining(_define)}


def _define():
    flags.DEFINE_string("run_dir", "", "The run directory of a finished training.")
    flags.DEFINE_string("export_dir", "", "The folder of the exported model, saved_models/NAME.")
    flags.DEFINE_integer("version", 1, "The version, a folder in --export_dir.")
    flags.DEFINE_boolean("overwrite", False, "Replace the version if it exists.")
    flags.DEFINE_float(
        "truncation", 1.0, "The factor on the noise, 0 to 1: a smaller one gives less varied and more typical images."
    )
    commands.define_hub_handle()
    flags.DEFINE_list("artifacts", list(FILES), f"What stands beside the SavedModel: any of {', '.join(FILES)}.")


def main():
    """Runs the command; see `t2i_kd.exporting.exporter.export_run`."""
    values = flags.FLAGS
    for name in ("run_dir", "export_dir"):
        if not values[name].value:
            raise UserError(f"--{name}: missing")
    # Whatever Keras trained on, only TensorFlow writes these formats.
    os.environ["KERAS_BACKEND"] = "tensorflow"
    commands.load_backend()
    commands.export(
        values.run_dir, values.export_dir, values.version, values.overwrite, values.artifacts, values.truncation
    )


if __name__ == "__main__":
    commands.run(main, define_flags, DESCRIPTION)
