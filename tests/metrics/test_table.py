from t2i_kd.metrics.table import format_comparisons, format_table


def test_a_column_for_each_student_and_for_what_stands_beside():
    results = {
        "stage1 alone": {"values": {"colour": 0.5, "mean": 0.25}, "baselines": {"chance": {"mean": 0.2}}},
        "after stage2": {"values": {"colour": 1, "mean": 0.123456}, "intervals": {"colour": (0.9, 1)}},
    }
    results = {
        label: {"protocol": {"seed": 0, "model_sha256": "ab" * 32}, **result} for label, result in results.items()
    }
    lines = format_table("attribute_accuracy", results).splitlines()
    assert lines[0] == "attribute_accuracy (seed: 0)"
    assert lines[1].split("  ")[-1] == "chance"
    assert lines[2].split() == ["colour", "0.5", "1", "[0.9,", "1]"]
    assert lines[3].split() == ["mean", "0.25", "0.1235", "0.2"]


def test_a_line_that_only_one_student_has_is_shown():
    results = {
        label: {"protocol": {"side": side}, "values": {f"x_{side}": 1}, "baselines": {"reference": {f"x_{side}": side}}}
        for label, side in (("a", 32), ("b", 64))
    }
    first, *lines = format_table("x", results).splitlines()
    assert first == "x (side: 32 / 64)"
    assert [line.split() for line in lines] == [["a", "b", "reference"], ["x_32", "1", "32"], ["x_64", "1", "64"]]


def test_comparisons_say_whether_a_difference_is_larger_than_noise():
    found = {
        "colour": {"difference": 0.25, "interval": (0.1, 0.4), "larger_than_noise": True},
        "shape": {"difference": -0.5, "interval": (-1, 0.25), "larger_than_noise": False},
        "size": {"difference": 1, "interval": None, "larger_than_noise": None},
    }
    lines = format_comparisons("first", {"other": found}).splitlines()
    assert lines[0].startswith("other minus first (")
    assert lines[1].split() == ["colour", "+0.25", "[+0.1,", "+0.4]", "larger", "than", "noise"]
    assert lines[2].split() == ["shape", "-0.5", "[-1,", "+0.25]", "within", "noise"]
    assert lines[3].split() == ["size", "+1"]
    assert format_comparisons("first", {"other": {}}).splitlines()[1] == "no line that both have"
