"""`python -m t2i_kd.prepare --dataset=NAME --data_dir=DIR --resolution=N --out=shards/`: a data set as shards."""

import os
from pathlib import Path

from absl import flags

from t2i_kd import commands
from t2i_kd.data import cycle_gan
from t2i_kd.data.catalogue import DATASETS, SPLITS
from t2i_kd.errors import UserError
from t2i_kd.locking import LOCK, only_process

FLAGS = flags.FLAGS
# Data sets that are shards already, or not of captioned images.
NOT_PREPARED = ("shards", "paired_folder", "unpaired_folder", *cycle_gan.SETS)
DESCRIPTION = (
    "Writes a data set of captioned images as ArrayRecord shards, its images at the training's size, by an Apache Beam "
    "pipeline. A training reads them with --dataset=shards --data_dir=OUT. The same command goes on with one that was "
    "stopped."
)


def define_flags(arguments):
    """Defines this command's flags."""
    return {"Preparing": commands.defining(_define)}


def _define():
    known = ", ".join(name for name in DATASETS if name not in NOT_PREPARED)
    flags.DEFINE_string("dataset", "", f"The data set: {known}, or a module of your own on Python's path.")
    flags.DEFINE_string("data_dir", "", "The folder or .zip of the data set, where it needs one.")
    flags.DEFINE_integer("resolution", 64, "The side of the images in pixels, that of the training.", 1)
    flags.DEFINE_string("out", "", "The folder of the shards. With a runner on several machines, all must see it.")
    flags.DEFINE_list("splits", ["train", "test"], f"The splits that are written, any of {', '.join(SPLITS)}.")
    flags.DEFINE_integer(
        "max_bad_examples",
        0,
        "How many broken images or unusable captions of a split may be left out; more of them stop the command.",
        0,
    )
    flags.DEFINE_integer("examples_per_shard", 4096, "How many examples of the data set a shard covers.", 1)
    flags.DEFINE_string(
        "beam_runner",
        "DirectRunner",
        "The runner of Apache Beam: DirectRunner is this machine with all its cores; others, such as FlinkRunner, "
        "SparkRunner and DataflowRunner, are theirs, whose workers must have t2i_kd and see --data_dir and --out.",
    )
    flags.DEFINE_list(
        "beam_pipeline_options", [], "Further options of Apache Beam with commas between, as in name=value,name=value."
    )


def main():
    """Runs the command; see `t2i_kd.data.shard_writer.prepare`."""
    for name in ("dataset", "out"):
        if not FLAGS[name].value:
            raise UserError(f"--{name}: missing")
    if FLAGS.dataset == "shards":
        raise UserError("--dataset: shards are prepared already")
    for split in FLAGS.splits:
        if split not in SPLITS:
            raise UserError(f"--splits: {split!r} is none of {', '.join(SPLITS)}")
    if not FLAGS.splits:
        raise UserError("--splits: missing")
    from t2i_kd.data.shard_writer import Preparation, prepare

    # The workers may have another current folder.
    preparation = Preparation(
        FLAGS.dataset,
        os.path.abspath(FLAGS.data_dir) if FLAGS.data_dir else "",
        FLAGS.resolution,
        FLAGS.max_bad_examples,
        FLAGS.examples_per_shard,
        os.path.abspath(FLAGS.out),
    )
    try:
        Path(FLAGS.out).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: cannot use {FLAGS.out}: {error.strerror or error}") from None
    with only_process(Path(FLAGS.out) / LOCK, f"--out: {FLAGS.out}"):
        prepare(
            preparation,
            tuple(dict.fromkeys(FLAGS.splits)),
            FLAGS.beam_runner,
            tuple(FLAGS.beam_pipeline_options),
            commands.say,
        )


if __name__ == "__main__":
    commands.run(main, define_flags, DESCRIPTION)
