"""Several `benchmarks.picture_worker` processes, timed by turns, so that the machine's moods are the same for all."""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np

from t2i_kd.errors import UserError

# Pictures a turn: the first after a pause is slow, the median is of those that follow.
TURN = 5


class Worker:
    """A process that has opened one model and drawn the items.

    Args:
        model, runtime, threads: see `picture_worker`'s flags.
        items: captions, or an array of images uint8 [n, height, width, 3]; the first is the one that is timed.
        folder: for files; one worker at a time must use a name.
        name: of its files.
        real_time: see `picture_worker`'s flag.

    Attributes:
        pictures: uint8 [items, height, width, 3].
        peak, growth: memory in MB: the most it had, and how much of that is the model's, the runtime being imported.
    """

    def __init__(self, model, items, folder, name, runtime="artifact", threads=1, real_time=False):
        pictures = Path(folder) / f"{name}.npy"
        if isinstance(items, np.ndarray):
            asked = Path(folder) / f"{name}_items.npy"
            np.save(asked, items)
        else:
            asked = Path(folder) / f"{name}.txt"
            asked.write_text("\n".join(items) + "\n", "utf-8")
        options = {"model": model, "runtime": runtime, "threads": threads, "items": asked, "pictures": pictures}
        command = [sys.executable, "-m", "benchmarks.picture_worker", f"--real_time={str(real_time).lower()}"]
        command += [f"--{key}={value}" for key, value in options.items()]
        quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=quiet
        )
        memory = self._answer(name)
        self.peak, self.growth = memory["peak"], memory["growth"]
        self.pictures = np.load(pictures)

    def seconds(self, count):
        """The seconds of `count` pictures, each asked for by itself."""
        print(count, file=self.process.stdin, flush=True)
        return self._answer("worker")

    def close(self):
        self.process.communicate()

    def _answer(self, name):
        line = self.process.stdout.readline()
        if not line:
            reason = self.process.communicate()[1].strip().splitlines() or ["it ended"]
            raise UserError(f"{name}: {reason[-1]}")
        return json.loads(line)


def by_turns(workers, repeats):
    """Median milliseconds of one picture of each worker.

    Args:
        workers: {name: `Worker`}.
        repeats: pictures of each, at least.

    Returns:
        {name: milliseconds}.
    """
    times = {name: [] for name in workers}
    while min(map(len, times.values())) < repeats:
        for name, worker in workers.items():
            times[name] += worker.seconds(TURN)
    return {name: statistics.median(values) * 1000 for name, values in times.items()}
