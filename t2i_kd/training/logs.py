"""What a run writes while it trains: a line of progress, metrics.jsonl and TensorBoard events."""

import collections
import contextlib
import datetime
import json
import math
import os
import sys
import time
from pathlib import Path

import keras
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from t2i_kd.errors import UserError
from t2i_kd.files import parse_json, read_text
from t2i_kd.imaging import write_file_atomically

# Of metrics.jsonl, in bytes.
LARGEST_METRICS = 2**27
# From one line of progress to the next, in seconds: in its place on a terminal, a line of its own elsewhere.
ON_A_TERMINAL, ELSEWHERE = 1.0, 30.0
# After the first step, which compiles, the first line comes soon.
FIRST_LINE = 2.0
# Lines that a speed is measured over.
MEASURED_LINES = 20
USUAL_COLUMNS = 80


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


class ProgressLine:
    """Says on standard error how far a stage is: its step, speed, time left, loss, and the newest sheet's path.

    On a terminal one line is rewritten once a second, without the loss and the sheet's folder where it is too narrow.
    Elsewhere, in a file or a pipe, whole lines follow each other twice a minute. The last one stands at the end.

    Args:
        stage: name of the stage.
        steps: of the stage.
        done: steps of the stage that a resumed run already has.
        batch_size: images a step.
        deadline: the time of `time.monotonic` at which the training ends early; infinity: never.
    """

    def __init__(self, stage, steps, done, batch_size, deadline):
        self.stage, self.steps, self.step, self.batch_size = stage, steps, done, batch_size
        self.deadline, self.loss, self.sheet = deadline, math.nan, None
        self.stream = sys.stderr
        self.in_place = self.stream.isatty()
        self.seen, self.due = collections.deque(maxlen=MEASURED_LINES), 0.0

    def advance(self, loss):
        """Counts a step with its loss, and shows the line where one is due."""
        self.step, self.loss, now = self.step + 1, loss, time.monotonic()
        if self.seen and now < self.due:
            return
        if self.seen:
            self._show(now)
        self.due = now + ((ON_A_TERMINAL if self.in_place else ELSEWHERE) if self.seen else FIRST_LINE)
        self.seen.append((now, self.step))

    def close(self):
        """Shows how far the stage is, for good; nothing where it has made no step."""
        if self.seen:
            self._show(time.monotonic())
            if self.in_place:
                print(file=self.stream, flush=True)

    def _show(self, now):
        told = [f"{self.stage}: step {self.step:,} of {self.steps:,}", *self._pace(now)]
        sheet = [f"newest sheet {self.sheet}"] if self.sheet else []
        line = ", ".join([*told, f"loss {self.loss:.4g}", *sheet])
        if not self.in_place:
            print(line, file=self.stream, flush=True)
            return
        width = (os.get_terminal_size(self.stream.fileno()).columns or USUAL_COLUMNS) - 1
        shorter = [", ".join([*told, *sheet]), ", ".join([*told, *([self.sheet.name] if self.sheet else [])])]
        line = next((each for each in (line, *shorter) if len(each) <= width), shorter[-1][:width])
        print(f"\r{line:<{width}}", end="", file=self.stream, flush=True)

    def _pace(self, now):
        """Images a second over the last lines, and how long the rest takes at that; nothing after the first step."""
        then, step = self.seen[0]
        if step == self.step:
            return []
        speed = (self.step - step) * self.batch_size / max(now - then, 1e-9)
        left = min((self.steps - self.step) * self.batch_size / speed, self.deadline - now)
        shown = f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"
        return [f"{shown} images/s", f"{datetime.timedelta(seconds=max(0, round(left)))} left"]


class ProgressLog(keras.callbacks.Callback):
    """Counts steps on a `ProgressLine`, writes every `log_every`-th one's terms, stops where the loss is not finite.

    Args:
        stage: name of the stage.
        run_dir: where `metrics.jsonl` lies.
        events: `EventLog`.
        first_step, last_step: global steps of the stage's start and end.
        done: steps of the stage that a resumed run already has.
        batch_size: images a step.
        log_every: steps from one entry to the next.
        deadline: see `ProgressLine`.
    """

    def __init__(self, stage, run_dir, events, first_step, last_step, done, batch_size, log_every, deadline):
        super().__init__()
        self.stage, self.events, self.batch_size, self.log_every = stage, events, batch_size, log_every
        self.metrics_path = Path(run_dir) / "metrics.jsonl"
        self.step, self.last_step = first_step + done, last_step
        self.line = ProgressLine(stage, last_step - first_step, done, batch_size, deadline)
        self.clock, self.clock_step = time.monotonic(), self.step
        self.measured = {}

    def show_sheet(self, path):
        """Has the line of progress name a new sheet from now on. Args: path: a `pathlib.Path`; None: there is none."""
        self.line.sheet = path or self.line.sheet

    def measure(self, values):
        """Adds {name: float} to the entry of the step that is about to end, which then is written in any case."""
        self.measured = values

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        values = {name: float(value) for name, value in logs.items()}
        if not math.isfinite(values["loss"]):
            raise UserError(f"stage {self.stage}: the loss is {values['loss']} at step {self.step}; training stopped")
        self.line.advance(values["loss"])
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

    def _learning_rate(self):
        """{"learning_rate": that of the next step}, of an optimizer that has one."""
        rate = getattr(getattr(self.model, "optimizer", None), "learning_rate", None)
        return {} if rate is None else {"learning_rate": float(keras.ops.convert_to_numpy(rate))}

    def close(self):
        """Ends the line of progress, so that what is printed next has one of its own."""
        self.line.close()
