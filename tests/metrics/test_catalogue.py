import pytest

from t2i_kd.errors import UserError
from t2i_kd.metrics.catalogue import METRICS, only_the_teacher_evaluates, resolve_metrics


def test_every_known_metric_can_be_asked_for():
    measures = resolve_metrics(", ".join(METRICS))
    assert list(measures) == list(METRICS)
    assert all(callable(part) for metric in measures.values() for part in metric)


@pytest.mark.parametrize("names", ["", " , ", "attribute_accuracy,beauty"])
def test_missing_or_unknown_metrics_list_the_known(names):
    with pytest.raises(UserError, match=r"--metrics: .*known: attribute_accuracy, classification, .*tap_distance"):
        resolve_metrics(names)


@pytest.mark.parametrize(
    ("names", "extractor", "alone"),
    [
        (["tap_distance"], "own", True),
        (["tap_distance", "kernel"], "teacher", True),
        (["tap_distance", "kernel"], "own", False),
        (["perceptual_distance", "ssim"], "teacher", False),
    ],
)
def test_a_student_is_not_evaluated_by_its_teacher_alone(names, extractor, alone):
    assert only_the_teacher_evaluates(names, extractor) is alone


def test_a_module_may_lack_a_check_but_not_its_measure(tmp_path, monkeypatch):
    for name, text in (("whole", "measure = len"), ("empty", ""), ("broken", "import nowhere_at_all")):
        (tmp_path / "outside").mkdir(exist_ok=True)
        (tmp_path / "outside" / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    (metric,) = resolve_metrics("outside.whole").values()
    assert metric.measure is len and metric.check(None) is None
    for name, message in (
        ("empty", "the module outside.empty has no measure"),
        ("broken", "cannot import outside.broken: No module named 'nowhere_at_all'"),
        ("absent", "cannot import outside.absent: No module named 'outside.absent'; is its folder on PYTHONPATH"),
    ):
        with pytest.raises(UserError, match=f"--metrics: {message}"):
            resolve_metrics(f"outside.{name}")
