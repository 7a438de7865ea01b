"""The dense head's rank against size and quality: the quickstart's student, trained once for each `--head_rank`.

    python -m benchmarks.head_rank --run_dir=runs/head_rank [--ranks=0,128,32,8] [--out=report.json]

A run that is finished is not trained again, an export that is there not made again. The table has the accuracy of the
float32 student and of its int8 file, on the same held-out captions, with 95 % intervals.
"""

import subprocess
import sys
from pathlib import Path

from absl import flags

from benchmarks import command
from benchmarks.reports import line_of, markdown, with_interval
from t2i_kd.errors import UserError
from t2i_kd.exporting.manifest import EXTRA, FILES, MANIFEST, read_manifest
from t2i_kd.student import WEIGHTS_FILE

RECIPE = "pipelines/quickstart.flags"
KINDS = ("litert_float16", "litert_int8")


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_string("run_dir", "", "folder of the runs and their exports")
    flags.DEFINE_list("ranks", ["0", "128", "32", "8"], "numbers with commas between them; 0: the whole head")
    flags.DEFINE_string("cache_dir", "~/.cache/t2i_kd", "see t2i_kd.evaluate")
    flags.DEFINE_string("out", "", "the JSON report to write; empty: only print")


def make(root, rank):
    """Trains and exports the student of a rank, where that has not been done; its version's folder."""
    run, version = root / f"rank{rank}", root / f"export{rank}" / "1"
    if not (run / WEIGHTS_FILE).is_file():
        command = [sys.executable, "-m", "t2i_kd.train", f"--flagfile={RECIPE}", f"--head_rank={rank}"]
        if subprocess.run([*command, f"--run_dir={run}", "--export_dir="]).returncode:
            raise UserError(f"--run_dir: training {run} failed")
    if not version.is_dir():
        from t2i_kd.exporting.exporter import export_run

        export_run(run, version.parent, artifacts=KINDS)
    return version


def rows(ranks, manifests, metrics):
    """The table's lines.

    Args:
        ranks: their numbers.
        manifests: of their versions.
        metrics: attribute_accuracy's results, of each one's float32 student and int8 file in turn.
    """
    lines = []
    for index, (rank, manifest) in enumerate(zip(ranks, manifests, strict=True)):
        sizes = {kind: manifest["artifacts"][kind]["size"] / 1e6 for kind in KINDS}
        line = {"head_rank": rank or "0 (whole)", "parameters": f"{manifest['parameters']:,}"}
        line |= {"float16 MB": f"{sizes[KINDS[0]]:.2f}", "int8 MB": f"{sizes[KINDS[1]]:.2f}"}
        for name, result in zip(("float32", "int8"), metrics[2 * index : 2 * index + 2], strict=True):
            for value in ("shape", "mean"):
                line[f"{value}, {name}"] = with_interval(result, line_of(result, f"attribute_{value}_"))
        lines.append(line)
    return lines


def main():
    """Trains, exports, evaluates and prints the table."""
    values = flags.FLAGS
    if not values.run_dir:
        raise UserError("--run_dir: say where the runs are kept")
    if not values.ranks or not all(rank.isdigit() for rank in values.ranks):
        raise UserError(f"--ranks: {','.join(values.ranks)!r} is no list of numbers")
    if not Path(RECIPE).is_file():
        raise UserError(f"{RECIPE} is not here; run this from the repository's root")
    from t2i_kd.evaluation import evaluate

    ranks = [int(rank) for rank in values.ranks]
    versions = [make(Path(values.run_dir), rank) for rank in ranks]
    models = [str(path) for version in versions for path in (version, version / EXTRA / FILES["litert_int8"])]
    report = evaluate(
        models, "captioned_shapes", "attribute_accuracy", out=values.out, cache_dir=values.cache_dir, report=print
    )
    manifests = [read_manifest(version / EXTRA / MANIFEST) for version in versions]
    print(markdown(rows(ranks, manifests, list(report["metrics"]["attribute_accuracy"].values()))))


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
