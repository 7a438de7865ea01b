"""What each artifact of an exported version costs and how well it draws: size, latency, memory, quality.

    python -m benchmarks.on_device --model=saved_models/quickstart/1 --dataset=captioned_shapes [--out=table.md]
    python -m benchmarks.on_device --model=saved_models/painter/1 --dataset=unpaired_folder --data_dir=HORSE2ZEBRA.zip

Every artifact runs in fresh processes, one for each number of threads. Its pictures of held-out captions, or of
held-out images of side A at the side that the model reads, are compared with those of the SavedModel, which is the
float32 student. Time and memory are of one item to one picture: 1000 divided by the milliseconds are frames a second.
"""

import tempfile
from pathlib import Path

import numpy as np
from absl import flags

from benchmarks import command
from benchmarks.reports import line_of, markdown, with_interval
from benchmarks.workers import Worker, by_turns
from t2i_kd.errors import UserError
from t2i_kd.exporting.fidelity import difference
from t2i_kd.exporting.manifest import EXTRA, FILES, MANIFEST, read_manifest
from t2i_kd.imaging import write_file_atomically

NAMES = {
    "saved_model": "SavedModel",
    "litert": "LiteRT float32",
    "litert_float16": "LiteRT float16",
    "litert_int8": "LiteRT int8",
    "onnx": "ONNX",
    "onnx_int8": "ONNX int8",
}

# The line that stands for a metric of several, by how it begins.
LINES = {"attribute_accuracy": "attribute_mean_", "manifold": "coverage_", "tap_distance": "tap_normalised_sum_"}


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_string("model", "", "version folder of an export")
    flags.DEFINE_string("dataset", "captioned_shapes", "data set whose held-out captions or images are drawn")
    flags.DEFINE_string("data_dir", "", "folder or .zip of the data set, where it needs one")
    flags.DEFINE_integer("num_captions", 64, "captions or images, for the pixel differences", 1)
    flags.DEFINE_list("threads", ["1", "2"], "numbers with commas between them")
    flags.DEFINE_integer("repeats", 50, "pictures that are timed, of each artifact and number of threads", 30)
    flags.DEFINE_string(
        "metric", None, "of t2i_kd.evaluate; empty: none. Without: attribute_accuracy of captions, none of images"
    )
    flags.DEFINE_string("cache_dir", "~/.cache/t2i_kd", "see t2i_kd.evaluate")
    flags.DEFINE_boolean("real_time", False, "time at real-time priority, on a machine that others use; Linux, root")
    flags.DEFINE_string("out", "", "the Markdown file to write; empty: only print")


def artifacts_of(folder):
    """{kind: path} of a version's artifacts, the SavedModel first, and the manifest."""
    manifest = read_manifest(Path(folder) / EXTRA / MANIFEST)
    kinds = [kind for kind in NAMES if kind in manifest["artifacts"]]
    return {kind: Path(folder) / EXTRA / FILES[kind] if kind in FILES else Path(folder) for kind in kinds}, manifest


def held_out_items(dataset, data_dir, manifest, count):
    """What the model is asked with: `count` of the test split at even distances.

    Returns:
        Captions, each picture's first; or images at the side that the model reads, uint8 [count, side, side, 3].
    """
    from t2i_kd.data.catalogue import KINDS, load_dataset
    from t2i_kd.training.system import evenly

    condition = manifest["condition"]
    if condition["kind"] == "caption":
        loaded = load_dataset(dataset, "test", manifest["resolution"], data_dir)
        return [texts[0] for texts in evenly(loaded.captions, count)]
    (source,) = condition["inputs"].values()
    loaded = load_dataset(dataset, "test", source["shape"][0], data_dir, kinds=tuple(KINDS))
    return np.stack(evenly(loaded.first if hasattr(loaded, "first") else loaded.images, count))


def measure(paths, items, threads, repeats, real_time=False):
    """Draws and times every artifact.

    Args:
        paths: {kind: path}.
        items: what is drawn; the first is timed.
        threads: list of numbers.
        repeats: pictures timed of each.
        real_time: see `picture_worker`.

    Returns:
        {kind: {"pictures", "peak", "growth", "milliseconds": {threads: median}}}, memory and pictures with the first
        number of threads.
    """
    found = {kind: {"milliseconds": {}} for kind in paths}
    for count in threads:
        with tempfile.TemporaryDirectory() as folder:
            workers = {
                kind: Worker(path, items, folder, kind, threads=count, real_time=real_time)
                for kind, path in paths.items()
            }
            for kind, milliseconds in by_turns(workers, repeats).items():
                worker = workers[kind]
                found[kind].setdefault("pictures", worker.pictures)
                found[kind].setdefault("peak", worker.peak)
                found[kind].setdefault("growth", worker.growth)
                found[kind]["milliseconds"][count] = milliseconds
                worker.close()
    return found


def quality(paths, metric, values):
    """{kind: "value [low, high]"} of the metric's mean, or None without a metric."""
    if not metric:
        return None
    from t2i_kd.evaluation import evaluate

    report = evaluate(
        [str(path) for path in paths.values()],
        values.dataset,
        metric,
        data_dir=values.data_dir,
        cache_dir=values.cache_dir,
        report=print,
    )
    cells = {}
    for kind, result in zip(paths, report["metrics"][metric].values(), strict=True):
        cells[kind] = with_interval(result, line_of(result, LINES.get(metric, "")))
    return cells


def rows(found, manifest, metric, accuracies=None):
    """The table's lines, {heading: cell}."""
    expected = found["saved_model"]["pictures"]
    lines = []
    for kind, values in found.items():
        off = difference(expected, values["pictures"])
        line = {"artifact": NAMES[kind], "MB": f"{manifest['artifacts'][kind]['size'] / 1e6:.2f}"}
        for count, milliseconds in values["milliseconds"].items():
            line[f"ms, {count} thread{'s' * (count > 1)}"] = f"{milliseconds:.2f}"
        line |= {"MB for the model": f"{values['growth']:.0f}", "MB at most": f"{values['peak']:.0f}"}
        line |= {"mean difference /255": f"{off.mean:.3f}", "largest": off.largest}
        if accuracies:
            line[metric] = accuracies[kind]
        lines.append(line)
    return lines


def main():
    """Runs the command and prints the table."""
    values = flags.FLAGS
    if not values.model:
        raise UserError("--model: missing; give the version folder of an export")
    if not all(text.isdigit() and int(text) for text in values.threads) or not values.threads:
        raise UserError(f"--threads: {','.join(values.threads)!r} is no list of positive numbers")
    paths, manifest = artifacts_of(values.model)
    items = held_out_items(values.dataset, values.data_dir, manifest, values.num_captions)
    metric = values.metric
    if metric is None:
        metric = "attribute_accuracy" if manifest["condition"]["kind"] == "caption" else ""
    threads = [int(text) for text in values.threads]
    found = measure(paths, items, threads, values.repeats, values.real_time)
    table = markdown(rows(found, manifest, metric, quality(paths, metric, values)))
    print(table)
    if values.out:
        write_file_atomically(values.out, (table + "\n").encode())


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
