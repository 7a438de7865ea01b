"""What a compressed student saves, side by side with the one that taught it: weights, arithmetic, files, latency.

    python -m benchmarks.compression --model=saved_models/flowers64/1 --run=runs/flowers64 \
        --model=saved_models/flowers64_small/1 --run=runs/srpkd_flowers64_small --caption="a yellow flower"

Every artifact of every model runs in a process of its own, all are timed by turns, one caption to one picture.
"""

from pathlib import Path

from absl import flags

from benchmarks import command
from benchmarks.on_device import NAMES, artifacts_of, measure
from benchmarks.reports import markdown
from t2i_kd.errors import UserError
from t2i_kd.imaging import write_file_atomically


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_multi_string("model", [], "version folders of exports that read captions, the one that taught first")
    flags.DEFINE_multi_string("run", [], "the run directory of each model, in their order")
    flags.DEFINE_multi_string("caption", [], "what is drawn; the first is timed")
    flags.DEFINE_list("threads", ["1", "2"], "numbers with commas between them")
    flags.DEFINE_integer("repeats", 50, "pictures that are timed, of each artifact and number of threads", 30)
    flags.DEFINE_boolean("real_time", False, "time at real-time priority, on a machine that others use; Linux, root")
    flags.DEFINE_string("out", "", "the Markdown file to write; empty: only print")


def multiply_adds_of(run_dir):
    """The multiply-adds of one image of a run's student, of its convolutions and dense layers; see `multiply_adds`."""
    from t2i_kd.srpkd.networks import multiply_adds
    from t2i_kd.student import load_student

    return multiply_adds(load_student(run_dir).network)


def rows(models, found):
    """The table's lines, {heading: cell}, a model's artifacts one after the other.

    Args:
        models: {label: (manifest, multiply-adds)}, the one that others are compared with first.
        found: {(label, kind): {"milliseconds": {threads: median}, ...}}; see `on_device.measure`.

    Returns:
        A list of dicts with the same keys; in brackets the share of the first model's.
    """
    first, *_ = models
    lines = []
    for (label, kind), values in found.items():
        (manifest, products), (big, big_products) = models[label], models[first]
        sizes = [each["artifacts"].get(kind, {}).get("size", 0) / 1e6 for each in (manifest, big)]
        line = {
            "model": label,
            "artifact": NAMES[kind],
            "parameters": _beside(manifest["parameters"], big["parameters"], "{:,}"),
            "G multiply-adds": _beside(products / 1e9, big_products / 1e9, "{:.4g}"),
            "MB": _beside(*sizes, "{:.2f}"),
        }
        for count, milliseconds in values["milliseconds"].items():
            theirs = found.get((first, kind), {"milliseconds": {count: 0}})["milliseconds"][count]
            line[f"ms, {count} thread{'s' * (count > 1)}"] = _beside(milliseconds, theirs, "{:.2f}")
        lines.append(line)
    return lines


def _beside(value, first, form):
    """A number, and in brackets what share of the first model's it is, where that has one."""
    return form.format(value) + (f" ({value / first:.2f})" if first else "")


def main():
    """Runs the command and prints the table."""
    values = flags.FLAGS
    if not values.model or len(set(values.model)) < len(values.model):
        raise UserError("--model: missing, or one twice; give the version folders of exports")
    if len(values.run) != len(values.model):
        raise UserError(f"--run: {len(values.run)} run directories for {len(values.model)} models")
    if not values.caption:
        raise UserError("--caption: missing; say what is drawn")
    if not values.threads or not all(text.isdigit() and int(text) for text in values.threads):
        raise UserError(f"--threads: {','.join(values.threads)!r} is no list of positive numbers")
    models, paths = {}, {}
    for model, run_dir in zip(values.model, values.run, strict=True):
        artifacts, manifest = artifacts_of(model)
        models[model] = manifest, multiply_adds_of(Path(run_dir))
        paths |= {(model, kind): path for kind, path in artifacts.items()}
    keys = {f"{index}": key for index, key in enumerate(paths)}
    named = {index: paths[key] for index, key in keys.items()}
    threads = [int(text) for text in values.threads]
    measured = measure(named, values.caption, threads, values.repeats, values.real_time)
    table = markdown(rows(models, {keys[index]: each for index, each in measured.items()}))
    print(table)
    if values.out:
        write_file_atomically(values.out, (table + "\n").encode())


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
