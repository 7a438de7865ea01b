from benchmarks import head_rank


def test_a_line_has_its_own_sizes_and_both_accuracies():
    def result(shape):
        shape_line, mean_line = (f"attribute_{what}_classifier_32_n300" for what in ("shape", "mean"))
        intervals = {shape_line: [0.1, 0.9], mean_line: [0.25, 0.75]}
        return {"values": {shape_line: shape, mean_line: 0.5}, "intervals": intervals}

    def manifest(count):
        artifacts = {"litert_float16": {"size": 2_000_000 * count}, "litert_int8": {"size": 1_000_000 * count}}
        return {"parameters": 1_000_000 * count, "artifacts": artifacts}

    lines = head_rank.rows([0, 8], [manifest(2), manifest(1)], [result(share / 10) for share in (8, 7, 6, 5)])
    assert [line["head_rank"] for line in lines] == ["0 (whole)", 8]
    assert list(lines[1].values()) == [
        *(8, "1,000,000", "2.00", "1.00"),
        *("0.600 [0.100, 0.900]", "0.500 [0.250, 0.750]", "0.500 [0.100, 0.900]", "0.500 [0.250, 0.750]"),
    ]
    assert lines[0]["shape, int8"].startswith("0.700")
