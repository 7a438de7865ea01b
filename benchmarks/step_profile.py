"""Which operations a training step of a recipe spends its time in: two tables, by kind and by part of the network.

    python -m benchmarks.step_profile --stage=gan
        --training="--flagfile=pipelines/flowers64.flags --data_dir=FLOWERS.zip"

The stage is trained in the real stage loop on one thread under TensorFlow's profiler; what runs outside of the step's
graph, input pipeline and logs, is left out. Times are by the wall clock, so that other work on the machine lengthens
all of them; the profiler itself costs some microseconds an operation, which are counted to the executor. A part is a
network of the step, with a number where the step passes it more than once.
"""

import collections
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from absl import flags

from benchmarks import command, reports
from benchmarks.recipe_step import split_flags
from benchmarks.train_step import thread_limits
from t2i_kd import quiet
from t2i_kd.errors import UserError

# How the nodes of a step's graph begin, and the span of the thread that runs them.
GRAPH, EXECUTOR = "StatefulPartitionedCall/", "ExecutorState::Process"
GRADIENT = "gradient_tape"
PICOSECONDS = 1e12


def own_times(spans):
    """What each span of a thread took without those within it.

    Args:
        spans: list of (name, begin, duration), whole numbers; of two of them one lies within the other, or they are
            apart.

    Returns:
        list of (name, own duration), in the order of their begin.
    """
    spans = sorted(spans, key=lambda span: (span[1], -span[2]))
    own, open_spans = [duration for _, _, duration in spans], []
    for index, (_, begin, duration) in enumerate(spans):
        while open_spans and open_spans[-1][0] <= begin:
            open_spans.pop()
        if open_spans:
            own[open_spans[-1][1]] -= duration
        open_spans.append((begin + duration, index))
    return [(name, each) for (name, _, _), each in zip(spans, own, strict=True)]


def kind_of(name):
    """The operation that a span is: `Mul` of `a/b:Mul`, oneDNN's under TensorFlow's name; None: of no step's graph."""
    if name.startswith(EXECUTOR):
        return "the executor itself"
    if GRAPH not in name or ":" not in name:
        return None
    return name.rpartition(":")[2].removeprefix("_Mkl").removeprefix("Native")


def part_of(name):
    """The part of the network that a span of a graph is of, `gradient` before it where it belongs to its gradient."""
    scopes = name.rpartition(":")[0].partition(GRAPH)[2].split("/")
    gradient = scopes[0] == GRADIENT
    scopes = scopes[gradient:]
    named = scopes[0] if len(scopes) > 1 else "no part"
    return f"gradient of {named}" if gradient else named


def spans_of(space):
    """The spans of every thread of a profile, an `XSpace`: lists of (name, begin, duration in picoseconds)."""
    for plane in space.planes:
        if "CPU" in plane.name:
            for line in plane.lines:
                yield [
                    (plane.event_metadata[event.metadata_id].name, event.offset_ps, event.duration_ps)
                    for event in line.events
                ]


def totals(threads, steps):
    """Seconds and calls a step of every kind of operation, and seconds a step of every part.

    Args:
        threads: what `spans_of` gives.
        steps: that were profiled.

    Returns:
        ({kind: (seconds, calls)}, {part: seconds}), the longest first.
    """
    seconds, calls, parts = collections.Counter(), collections.Counter(), collections.Counter()
    for spans in threads:
        for name, own in own_times(spans):
            node, taken = name.partition("#")[0], own / PICOSECONDS / steps
            kind = kind_of(node)
            if kind is None:
                continue
            seconds[kind] += taken
            calls[kind] += 1 / steps
            parts[part_of(node) if GRAPH in node else kind] += taken
    return {kind: (taken, calls[kind]) for kind, taken in seconds.most_common()}, dict(parts.most_common())


def markdown(kinds, parts, rows):
    """Both tables, each with its longest rows, and what is left over in a last one."""
    whole, tables = sum(taken for taken, _ in kinds.values()), []
    shown = [(kind, taken, f"{calls:.0f}") for kind, (taken, calls) in kinds.items()]
    for heading, lines in (("operation", shown), ("part", [(part, taken, "") for part, taken in parts.items()])):
        left = sum(taken for _, taken, _ in lines[rows:])
        lines = lines[:rows] + ([("all others", left, "")] if left else [])
        tables.append(
            reports.markdown(
                [
                    {heading: name, "ms a step": f"{1e3 * taken:.1f}", "of the step": f"{taken / whole:.1%}"}
                    | ({"calls": calls} if heading == "operation" else {})
                    for name, taken, calls in lines
                ]
            )
        )
    return "\n\n".join(tables)


def profile(arguments, stage, steps):
    """The `XSpace` of some steps of a stage of the recipe that arguments of `t2i_kd.train` make.

    Raises:
        UserError: where the training fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = {"arguments": arguments, "stage": stage, "steps": steps, "folder": folder}
        worker = [sys.executable, "-m", "benchmarks.profile_worker", json.dumps(options)]
        # Its processor's step: of a GPU's the profile has other planes.
        environment = os.environ | thread_limits(1) | {"CUDA_VISIBLE_DEVICES": "-1"}
        done = subprocess.run(worker, env=environment, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"--training: {' '.join(done.stderr.split())[-400:]}")
        with quiet.standard_error_held():
            from tensorflow.tsl.profiler.protobuf import xplane_pb2
        (path,) = Path(folder).rglob("*.xplane.pb")
        return xplane_pb2.XSpace.FromString(path.read_bytes())


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_string("training", "", "flags of t2i_kd.train")
    flags.DEFINE_string("stage", "gan", "the stage that is trained")
    flags.DEFINE_integer("steps", 4, "that are profiled", 1)
    flags.DEFINE_integer("rows", 15, "of each table", 1)


def main():
    """Profiles and prints."""
    values = flags.FLAGS
    space = profile(split_flags("--training", values.training), values.stage, values.steps)
    kinds, parts = totals(spans_of(space), values.steps)
    if not parts:
        raise UserError("--training: the profile has no operation of a TensorFlow graph; leave --jit_compile out")
    print(markdown(kinds, parts, values.rows))


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
