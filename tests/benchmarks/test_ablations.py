"""The ablation's rows differ in what their names say and in nothing else, and its table shows what was measured."""

from pathlib import Path

import pytest

from benchmarks import ablation_table, ablations
from t2i_kd.errors import UserError
from t2i_kd.recipe_flags import parse_stage
from t2i_kd.sdn import SDNStage
from t2i_kd.teachers.tap_weights import resolve_tap_weights
from t2i_kd.teachers.vgg19 import TAPS

BLOCKS = {"low": ("image", "conv1", "pool1", "conv2", "pool2"), "middle": ("conv3", "pool3")}
BLOCKS["high"] = ("conv4", "pool4", "conv5", "pool5")


def parts(row, steps=240):
    given = ablations.row_flags(row, steps, 3)
    stages = [parse_stage(flag.removeprefix("--stage="), SDNStage) for flag in given if flag.startswith("--stage=")]
    return stages, [flag for flag in given if not flag.startswith("--stage=")]


@pytest.mark.parametrize("row", ablations.ROWS)
def test_every_row_has_the_same_steps_and_rates(row):
    stages, others = parts(row)
    assert sum(stage.steps for stage in stages) == 240
    assert {(stage.learning_rate, stage.schedule, stage.warmup_steps) for stage in stages} == {(5e-4, "cosine", 20)}
    assert "--seed=3" in others
    objectives = [stage.objective for stage in stages]
    single = {"stage1": ["mirrored"], "stage2": ["perceptual"], "pixels": ["perceptual"]}
    assert objectives == single.get(row.rpartition("_")[2], ["mirrored", "perceptual"])


@pytest.mark.parametrize("left_out", BLOCKS)
def test_taps_are_left_out_where_the_row_says_so(left_out):
    for stage in parts(f"without_{left_out}")[0]:
        kept = {tap for tap in TAPS if not tap.startswith(BLOCKS[left_out])}
        assert resolve_tap_weights(stage.tap_weights, TAPS) == dict.fromkeys((t for t in TAPS if t in kept), 1.0)


def test_other_rows_differ_from_both_in_one_thing():
    both, plain = parts("both")
    assert plain == ["--seed=3"]
    assert [stage.steps for stage in both] == [80, 160]
    assert resolve_tap_weights(parts("pixels")[0][0].tap_weights, TAPS) == {"image": 1.0}
    assert {(s.error, s.scaling) for s in parts("slim_quarter_raw_l1")[0]} == {("l1", "raw")}
    assert {(s.error, s.scaling) for s in parts("raw")[0]} == {("squared", "raw")}
    assert parts("max_pooling") == (both, ["--teacher_pooling=max", "--seed=3"])
    assert parts("slim_quarter_both")[0] == both
    plain = parts("slim_quarter_both")[1][:-1]
    assert parts("slim_quarter_paper_start_both") == (both, [*plain, *ablations.PAPER_START, "--seed=3"])


def test_only_finished_runs_are_evaluated_both_first(tmp_path):
    for name in ("pixels-seed0", "both-seed1", "both-seed0", "raw-seed0"):
        (tmp_path / name).mkdir()
        if name != "raw-seed0":
            (tmp_path / name / "student.keras").write_bytes(b"")
    found = ablation_table.finished_runs(tmp_path, ["0", "1"])
    assert list(found) == ["both", "pixels"]
    assert [Path(run).name for run in found["both"]] == ["both-seed0", "both-seed1"]


def test_the_table_has_every_seed_and_the_anchors():
    runs = {"both": ["r/both-seed0", "r/both-seed1"], "pixels": ["r/pixels-seed0"]}
    taps = {"tap_image_vgg19_32": 9.0, "tap_normalised_sum_vgg19_32": 20.0}
    report = {
        "metrics": {
            "ssim": {
                run: {"values": {"ssim_32": value}, "baselines": {"another real picture": {"ssim_32": 0.25}}}
                for run, value in (("r/both-seed0", 0.5), ("r/both-seed1", 0.75), ("r/pixels-seed0", 0.125))
            },
            "tap_distance": {run: {"values": taps, "baselines": {}} for runs_of in runs.values() for run in runs_of},
        }
    }
    assert ablation_table.markdown(report, runs).splitlines() == [
        "|  | ssim_32 | tap_normalised_sum_vgg19_32 |",
        "| --- | --- | --- |",
        "| pixels | 0.125 | 20 |",
        "| both | 0.5 / 0.75 | 20 / 20 |",
        "| another real picture | 0.25 |  |",
    ]


def test_unknown_rows_are_named(monkeypatch):
    from types import SimpleNamespace

    values = SimpleNamespace(rows=["both", "everything"], run_dir="runs")
    monkeypatch.setattr(ablations.flags, "FLAGS", values)
    with pytest.raises(UserError, match="--rows: 'everything' is none of pixels, stage1"):
        ablations.main()
