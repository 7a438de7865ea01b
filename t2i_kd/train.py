"""`python -m t2i_kd.train --flagfile=pipelines/NAME.flags`: trains what a recipe describes."""

import contextlib
import errno
import importlib

from absl import flags

import t2i_kd.recipe
from t2i_kd.commands import run
from t2i_kd.errors import UserError
from t2i_kd.export import export
from t2i_kd.recipe import define_flags, from_flags

DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
SYSTEMS = {
    "sdn": ("t2i_kd.sdn.trainer", "SDN"),
    "icsd_gan": ("t2i_kd.icsd_gan.trainer", "ICSDGAN"),
    "teacher_slim": ("t2i_kd.teacher_slim.trainer", "TeacherSlim"),
}
FLAGS = flags.FLAGS


def system(recipe):
    """The recipe's system, built but not trained."""
    if recipe.system not in SYSTEMS:
        raise UserError(f"--system: {recipe.system!r} is none of {', '.join(SYSTEMS)}")
    module, name = SYSTEMS[recipe.system]
    return getattr(importlib.import_module(module), name)(recipe)


def main():
    """Runs the command: build, train or resume, export."""
    recipe = from_flags(FLAGS)
    if FLAGS.dry_run:
        print(recipe.to_json(), end="")
        print("\n".join(system(recipe).describe()))
        return
    if not FLAGS.run_dir:
        raise UserError("--run_dir: say where the run is kept")
    from t2i_kd.training.determinism import make_deterministic
    from t2i_kd.training.distribution import make_strategy

    strategy = make_strategy(FLAGS.distribute)
    make_deterministic()
    with strategy.scope() if strategy else contextlib.nullcontext():
        chief = train(recipe)
    if chief:
        print(f"{FLAGS.run_dir}: trained")
        if FLAGS.export_dir:
            export(FLAGS.run_dir, FLAGS.export_dir, FLAGS.overwrite)


def train(recipe):
    """Trains a recipe on one device, or on those of the strategy whose scope this is.

    Returns:
        Whether this process is the chief, which alone writes.
    """
    from t2i_kd.training.distribution import check_batch_size, ending_with_the_cluster, is_chief
    from t2i_kd.training.run_directory import open_run_directory

    check_batch_size(recipe.training.batch_size)
    built = system(recipe)
    built.load_teacher()
    if FLAGS.export_dir:
        from t2i_kd.student import GENERATORS

        if recipe.system not in GENERATORS:
            raise UserError(f"--export_dir: {recipe.system} makes no generator that could be exported")
        from t2i_kd.exporting.exporter import check_export

        check_export(built.front_end, FLAGS.export_dir, overwrite=FLAGS.overwrite)
    if is_chief():
        open_run_directory(FLAGS.run_dir, recipe)
    try:
        with ending_with_the_cluster():
            built.train(FLAGS.run_dir)
    except OSError as error:
        if error.errno not in DISK_IS_FULL:
            raise
        raise UserError(f"--run_dir: cannot write into {FLAGS.run_dir}: {error.strerror}") from None
    return is_chief()


if __name__ == "__main__":
    define_flags()
    # So that --help lists them too.
    flags.adopt_module_key_flags(t2i_kd.recipe)
    flags.DEFINE_string("run_dir", "", "folder of the run: recipe, checkpoints, logs, samples, student")
    flags.DEFINE_string("export_dir", "", "where to export the trained student; empty: do not")
    flags.DEFINE_enum(
        "distribute",
        "none",
        ("none", "mirrored", "multi_worker"),
        "devices that share each batch: one; all of this machine's; those of TF_CONFIG's workers. Not of the recipe",
    )
    flags.DEFINE_boolean("overwrite", False, "replace the exported version if it exists")
    flags.DEFINE_boolean(
        "dry_run",
        False,
        "print the resolved recipe and parameter counts, make no run; missing data are downloaded",
    )
    run(main)
