"""Trains the rows of SDN's ablation, each for the same number of steps and with several seeds.

    python -m benchmarks.ablations --data_dir=FLOWERS.zip --run_dir=runs/ablations_flowers [--rows=a,b] [--seeds=0,1]

The text encoder is trained first, once (DS-SJE), and every row starts from it. A finished row is not trained again,
an interrupted one goes on. Of a finished row the checkpoints are dropped: 30 runs of 40 million parameters fill a disk.
`python -m benchmarks.ablation_table` then compares them.
"""

from pathlib import Path

from absl import flags

from benchmarks import command
from benchmarks.runs import asked_of, chosen_cores, chosen_seeds, define_cores, train, train_rows
from t2i_kd.errors import UserError
from t2i_kd.training.text_to_image import TEXT_WEIGHTS_FILE

RECIPE = "benchmarks/sdn_ablations32.flags"
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


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_string("data_dir", "", "folder or .zip of the pictures, with metadata.jsonl")
    flags.DEFINE_string("teacher_weights", "imagenet", "of VGG19; see t2i_kd.train")
    flags.DEFINE_string("run_dir", "", "folder of the runs")
    flags.DEFINE_list("rows", [], f"names with commas between them; empty: all of {', '.join(ROWS)}")
    flags.DEFINE_list("seeds", ["0", "1"], "seeds with commas between them")
    flags.DEFINE_integer("steps", 240, "of each row, in all of its stages", 90)
    define_cores()


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
    seeds, cores = chosen_seeds(values.seeds), chosen_cores(values.cores)
    train(root / "text", asked_of(RECIPE, *common, f"--stage={TEXT_STAGE}"))
    common.append(f"--text_weights={root / 'text' / TEXT_WEIGHTS_FILE}")
    asked = {
        root / f"{row}-seed{seed}": asked_of(RECIPE, *common, *row_flags(row, values.steps, int(seed)))
        for seed in seeds
        for row in rows
    }
    train_rows(asked, cores)


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
