"""The ICSD ablation's statistics and table."""

import numpy as np
import pytest

from benchmarks.icsd_ablation import COLUMNS, markdown
from benchmarks.reports import compared, difference
from benchmarks.runs import asked_of
from t2i_kd.errors import UserError


def test_differences_are_paired_by_seed():
    mean, half = difference([3.0, 5.0, 7.0], [1.0, 2.0, 3.0])
    # 2, 3, 4: standard error 1 / sqrt(3), and t of 2 degrees of freedom at 97.5 % is 4.3027.
    assert mean == 3 and half == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
    mean, half = difference([3.0], [1.0])
    assert mean == 2 and np.isnan(half)
    assert compared([3.0], [1.0]) == "3 (+2)" and compared([3.0, 5.0], [1.0, 3.0]) == "4 (+2 ± 0)"


def test_the_table_has_a_line_for_every_stage_and_lambda():
    evaluated = {
        (weight, seed): {
            stage: dict.fromkeys(COLUMNS, base + seed_value) for stage, base in (("8 px", 1), ("16 px", 2))
        }
        for weight, shift in (("0", 0), ("1", 10))
        for seed, seed_value in (("0", shift), ("1", shift + 1))
    }
    lines = markdown(evaluated, ["0", "1"], ["0", "1"]).splitlines()
    assert len(lines) == 2 + 4
    assert lines[2].startswith("| 8 px | 0 | 1.5 |") and "±" not in lines[2]
    assert lines[5].startswith("| 16 px | 1 | 12.5 (+10 ± 0) |")


def test_the_table_has_the_columns_that_were_measured():
    evaluated = {(weight, "0"): {"8 px": {"kernel": float(weight)}} for weight in ("0", "1")}
    lines = markdown(evaluated, ["0", "1"], ["0"]).splitlines()
    assert lines[0] == "| image | lambda | kernel |" and lines[3].startswith("| 8 px | 1 | 1 (+1) |")


def test_a_recipe_that_is_not_here_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.flags is not here"):
        asked_of(tmp_path / "nowhere.flags")
