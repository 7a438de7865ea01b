from t2i_kd.metrics.table import format_table


def test_a_column_for_each_student_and_for_what_stands_beside():
    results = {
        "stage1 alone": {"values": {"colour": 0.5, "mean": 0.25}, "beside": {"chance": {"mean": 0.2}}},
        "after stage2": {"values": {"colour": 1, "mean": 0.123456}, "intervals": {"colour": (0.9, 1)}},
    }
    results = {label: {"protocol": {"seed": 0}, **result} for label, result in results.items()}
    lines = format_table("attribute_accuracy", results).splitlines()
    assert lines[0] == "attribute_accuracy (seed: 0)"
    assert lines[1].split("  ")[-1] == "chance"
    assert lines[2].split() == ["colour", "0.5", "1", "[0.900,", "1.000]"]
    assert lines[3].split() == ["mean", "0.25", "0.1235", "0.2"]
