"""The training of `benchmarks.step_profile`: a stage of a recipe in the real stage loop, some steps of it profiled.

Options, one JSON object: `arguments`, `stage` and `steps`, as `benchmarks.recipe_worker` has them; `folder`, for what a
run writes and for the profile, in `profile`.
"""

import json
import sys
from pathlib import Path

import tensorflow as tf

from benchmarks.recipe_worker import train


class Profiled:
    """Profiles what the stage loop does between its second and its third call of this, and ends the process.

    Args:
        folder: where the profiler writes.
    """

    def __init__(self, folder):
        self.folder, self.calls = folder, 0

    def __call__(self, stage, step, events):
        self.calls += 1
        if self.calls == 2:
            tf.profiler.experimental.start(self.folder)
        elif self.calls == 3:
            tf.profiler.experimental.stop()
            sys.exit()


def main(options):
    """Trains until the profile is written."""
    folder = Path(options["folder"])
    train(options, folder / "run", lambda training: Profiled(str(folder / "profile")))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
