"""Trains the rows of SDN's ablation, each for the same number of steps and with several seeds.

    python -m benchmarks.ablations --data_dir=FLOWERS.zip --run_dir=runs/ablations_flowers [--rows=a,b] [--seeds=0,1]

The text encoder is trained first, once (DS-SJE), and every row starts from it. A finished row is not trained again,
an interrupted one goes on. Of a finished row the checkpoints are dropped: 30 runs of 40 million parameters fill a disk.
`python -m t2i_kd.evaluate --model=RUN,RUN,...` then compares them.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from absl import flags

from benchmarks import command
from t2i_kd.errors import UserError
from t2i_kd.imaging import write_file_atomically
from t2i_kd.student import WEIGHTS_FILE
from t2i_kd.training.text_to_image import TEXT_WEIGHTS_FILE

RECIPE = "benchmarks/sdn_ablations32.flags"
# Of a run's folder: the flags that it was trained with, as its checkpoints, which would say so, are dropped.
COMMAND_FILE = "command.json"
TEXT_STAGE = "text: objective=ds_sje steps=300 learning_rate=1e-3 schedule=cosine warmup_steps=30 tap_weights=pool4:1"
ADAM = "schedule=cosine warmup_steps=20 learning_rate=5e-4"
NORMALISED = "error=squared scaling=normalised"
PIXELS = f"{NORMALISED} tap_weights=image:1"
# The share of the steps that Stage I has where both stages are trained.
STAGE1_SHARE = 1 / 3

LOW = "image:0,conv1_*:0,pool1:0,conv2_*:0,pool2:0"
MIDDLE = "conv3_*:0,pool3:0"
HIGH = "conv4_*:0,pool4:0,conv5_*:0,pool5:0"


def stage1(share, options=NORMALISED):
    """A stage that compares the student's own tensors, for a share of the steps."""
    return ("stage1: objective=mirrored", share, options)


def stage2(share, options=NORMALISED):
    """A stage that compares the teacher's features, for a share of the steps."""
    return ("stage2: objective=perceptual", share, options)


def both(options=NORMALISED):
    """Stage I, then Stage II."""
    return [stage1(STAGE1_SHARE, options), stage2(1 - STAGE1_SHARE, options)]


SLIM = ["--teacher=vgg19_slim", "--teacher_weights=imagenet"]
QUARTER = ["--width=0.25"]
# The paper's initial weights, unwhitened text vectors and image range, in place of ours.
PAPER_START = ["--initializer=paper", "--nowhiten_text", "--image_output=paper"]
# Row -> (its stages, its further flags). The first four are the paper's claim.
ROWS = {
    "pixels": ([stage2(1, PIXELS)], []),
    "stage1": ([stage1(1)], []),
    "stage2": ([stage2(1)], []),
    "both": (both(), []),
    "raw": (both("error=squared scaling=raw"), []),
    "without_low": (both(f"{NORMALISED} tap_weights=*:1,{LOW}"), []),
    "without_middle": (both(f"{NORMALISED} tap_weights=*:1,{MIDDLE}"), []),
    "without_high": (both(f"{NORMALISED} tap_weights=*:1,{HIGH}"), []),
    "max_pooling": (both(), ["--teacher_pooling=max"]),
    "slim_stage2": ([stage2(1)], SLIM),
    "quarter_stage2": ([stage2(1)], QUARTER),
    "slim_quarter_stage2": ([stage2(1)], [*SLIM, *QUARTER]),
    "slim_quarter_both": (both(), [*SLIM, *QUARTER]),
    "slim_quarter_stage1": ([stage1(1)], [*SLIM, *QUARTER]),
    "slim_quarter_pixels": ([stage2(1, PIXELS)], [*SLIM, *QUARTER]),
    "slim_quarter_raw_l1": (both("error=l1 scaling=raw"), [*SLIM, *QUARTER]),
    "slim_quarter_paper_start_stage2": ([stage2(1)], [*SLIM, *QUARTER, *PAPER_START]),
    "slim_quarter_paper_start_both": (both(), [*SLIM, *QUARTER, *PAPER_START]),
}


def row_flags(row, steps, seed):
    """The flags of `t2i_kd.train` that make a row what it is."""
    stages, further = ROWS[row]
    texts = [f"{kind} steps={round(steps * share)} {ADAM} {options}" for kind, share, options in stages]
    return [*further, f"--seed={seed}", *(f"--stage={text}" for text in texts)]


def checkpoints(run_dir):
    """The files from which a run would go on."""
    return sorted(Path(run_dir).glob("checkpoints/*/*.npz"))


def train(recipe, run_dir, *options, stages=None):
    """Runs `t2i_kd.train` on a flagfile, unless `run_dir` is finished and has no checkpoints any more.

    Args:
        recipe: path of the flagfile.
        run_dir: the run's folder.
        options: further flags.
        stages: names of the recipe's stages to train; None: all.

    Raises:
        UserError: where it fails, or `run_dir` is finished and was trained with other flags.
    """
    if not Path(recipe).is_file():
        raise UserError(f"{recipe} is not here; run this from the repository's root")
    lines = [line for line in Path(recipe).read_text("utf-8").splitlines() if line.startswith("--")]
    if stages is not None:
        lines = [line for line in lines if not line.startswith("--stage=") or line[8:].partition(":")[0] in stages]
    asked = [*(line for line in lines if not line.startswith(("--run_dir=", "--export_dir="))), *options]
    note = Path(run_dir) / COMMAND_FILE
    # Where there are checkpoints it may have been ended early, and its command goes on with it or ends at once.
    if (Path(run_dir) / WEIGHTS_FILE).is_file() and not checkpoints(run_dir):
        if note.is_file() and json.loads(note.read_text("utf-8")) != asked:
            raise UserError(f"--run_dir: {run_dir} was trained with other flags; remove it, or name another folder")
        print(f"{run_dir}: is finished")
        return
    if subprocess.run([sys.executable, "-m", "t2i_kd.train", *asked, f"--run_dir={run_dir}"]).returncode:
        raise UserError(f"--run_dir: training {run_dir} failed")
    write_file_atomically(note, json.dumps(asked, indent=2).encode("utf-8"))


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_string("data_dir", "", "folder or .zip of the pictures, with metadata.jsonl")
    flags.DEFINE_string("teacher_weights", "imagenet", "of VGG19; see t2i_kd.train")
    flags.DEFINE_string("run_dir", "", "folder of the runs")
    flags.DEFINE_list("rows", [], f"names with commas between them; empty: all of {', '.join(ROWS)}")
    flags.DEFINE_list("seeds", ["0", "1"], "seeds with commas between them")
    flags.DEFINE_integer("steps", 240, "of each row, in all of its stages", 90)


def main():
    """Trains the text encoder, then every row with every seed."""
    values = flags.FLAGS
    rows = values.rows or list(ROWS)
    for row in rows:
        if row not in ROWS:
            raise UserError(f"--rows: {row!r} is none of {', '.join(ROWS)}")
    if not values.run_dir:
        raise UserError("--run_dir: say where the runs are kept")
    root = Path(values.run_dir)
    common = [f"--data_dir={values.data_dir}", f"--teacher_weights={values.teacher_weights}"]
    train(RECIPE, root / "text", *common, f"--stage={TEXT_STAGE}")
    common.append(f"--text_weights={root / 'text' / TEXT_WEIGHTS_FILE}")
    for seed in values.seeds:
        for row in rows:
            folder = root / f"{row}-seed{seed}"
            train(RECIPE, folder, *common, *row_flags(row, values.steps, int(seed)))
            shutil.rmtree(folder / "checkpoints", ignore_errors=True)


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
