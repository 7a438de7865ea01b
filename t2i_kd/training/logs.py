"""What a run writes while it trains: a progress bar, metrics.jsonl and TensorBoard events."""

import contextlib
import json
import math
import time
from pathlib import Path

import keras
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from tqdm import tqdm

from t2i_kd.errors import UserError
from t2i_kd.files import parse_json, read_text
from t2i_kd.imaging import write_file_atomically

# Of metrics.jsonl, in bytes.
LARGEST_METRICS = 2**27


class EventLog:
    """TensorBoard scalars and pictures without TensorFlow, of the steps after `done`."""

    def __init__(self, folder, done):
        self.writer = EventFileWriter(str(folder))
        # Tells TensorBoard to drop what an interrupted run wrote from this step on.
        self._add(done + 1, session_log=SessionLog(status=SessionLog.START))

    def _add(self, step, **content):
        self.writer.add_event(Event(wall_time=time.time(), step=step, **content))

    def scalars(self, step, values):
        self._add(step, summary=Summary(value=[Summary.Value(tag=k, simple_value=v) for k, v in values.items()]))

    def picture(self, step, tag, width, height, png):
        image = Summary.Image(width=width, height=height, colorspace=3, encoded_image_string=png)
        self._add(step, summary=Summary(value=[Summary.Value(tag=tag, image=image)]))
        self.writer.flush()

    def close(self):
        # On a full disk the last events are lost; what filled it is reported elsewhere.
        with contextlib.suppress(OSError):
            self.writer.close()


def cut_metrics(path, last_step):
    """Drops the lines of metrics.jsonl beyond `last_step`: they belong to steps that will be trained again."""
    path = Path(path)
    if not path.exists():
        return
    kept = [line + "\n" for line, entry in _entries(path) if entry["step"] <= last_step]
    write_file_atomically(path, "".join(kept).encode("utf-8"))


def read_metrics(path, stage):
    """The entries of one stage in metrics.jsonl, a list of {name: number}; none where there is no file."""
    path = Path(path)
    entries = (entry for _, entry in _entries(path) if entry["stage"] == stage) if path.exists() else ()
    return [{name: value for name, value in entry.items() if isinstance(value, int | float)} for entry in entries]


def _entries(path):
    """(text, what it says, a dict) of every line of metrics.jsonl; what a kill cut short at its end is left out.

    Raises:
        UserError: naming the file and the line that is no entry.
    """
    lines = read_text(path, LARGEST_METRICS).split("\n")
    for number, line in enumerate(lines, 1):
        where = f"{path} line {number}"
        try:
            entry = parse_json(line, where)
        except UserError:
            if number == len(lines):
                return
            raise
        if not isinstance(entry, dict) or type(entry.get("step")) is not int or "stage" not in entry:
            raise UserError(f"{where}: not an entry of a stage's step")
        yield line, entry


class ProgressLog(keras.callbacks.Callback):
    """Counts images on a progress bar, writes every `log_every`-th step's terms, and stops when the loss is not finite.

    Args:
        stage: name of the stage.
        run_dir: where `metrics.jsonl` lies.
        events: `EventLog`.
        first_step, last_step: global steps of the stage's start and end.
        done: steps of the stage that a resumed run already has.
        batch_size: images a step.
        log_every: steps from one entry to the next.
    """

    def __init__(self, stage, run_dir, events, first_step, last_step, done, batch_size, log_every):
        super().__init__()
        self.stage, self.events, self.batch_size, self.log_every = stage, events, batch_size, log_every
        self.metrics_path = Path(run_dir) / "metrics.jsonl"
        self.first_step, self.step, self.last_step = first_step, first_step + done, last_step
        self.bar = tqdm(
            total=(last_step - first_step) * batch_size,
            initial=done * batch_size,
            desc=stage,
            unit="img",
            mininterval=1.0,
            dynamic_ncols=True,
        )
        self.clock, self.clock_step = time.monotonic(), self.step
        self.measured = {}

    def measure(self, values):
        """Adds {name: float} to the entry of the step that is about to end, which then is written in any case."""
        self.measured = values

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        values = {name: float(value) for name, value in logs.items()}
        if not math.isfinite(values["loss"]):
            raise UserError(f"stage {self.stage}: the loss is {values['loss']} at step {self.step}; training stopped")
        self.bar.update(self.batch_size)
        if self.step % self.log_every == 0 or self.step == self.last_step or self.measured:
            self._write(values | self.measured)
            self.measured = {}

    def _write(self, values):
        now = time.monotonic()
        speed = (self.step - self.clock_step) * self.batch_size / max(now - self.clock, 1e-9)
        self.clock, self.clock_step = now, self.step
        values["images_per_second"] = round(speed, 2)
        with open(self.metrics_path, "a", encoding="utf-8") as file:
            file.write(json.dumps({"stage": self.stage, "step": self.step, **values}) + "\n")
        shown = values | self._learning_rate()
        self.events.scalars(self.step, {f"{self.stage}/{name}": value for name, value in shown.items()})
        steps = f"{self.step - self.first_step:,}/{self.last_step - self.first_step:,}"
        self.bar.set_postfix(step=steps, loss=f"{values['loss']:.4g}", refresh=False)

    def _learning_rate(self):
        """{"learning_rate": that of the next step}, of an optimizer that has one."""
        rate = getattr(getattr(self.model, "optimizer", None), "learning_rate", None)
        return {} if rate is None else {"learning_rate": float(keras.ops.convert_to_numpy(rate))}

    def close(self):
        """Ends the bar's line, so that what is printed next has one of its own."""
        self.bar.close()
