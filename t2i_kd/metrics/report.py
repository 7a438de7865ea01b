"""The report of an evaluation: each metric's results for each student, as a table at once and as a dict at the end."""

from t2i_kd.data.captioned_images import Chosen
from t2i_kd.metrics import resampling
from t2i_kd.metrics.catalogue import only_the_teacher_evaluates
from t2i_kd.metrics.page import Section
from t2i_kd.metrics.table import format_comparisons, format_table

TEACHER_NOTE = "every metric here compares features of the teacher, which the model is trained on; ask for others too"

# Metrics that compare sets of pictures.
COMPARE_SETS = {"frechet", "kernel", "manifold", "diversity"}
# Below it a distance of sets, and whether neighbours lie among so many, is chance.
FEWEST_REFERENCES = 100


def few_references(count):
    """What to bear in mind of sets of few held-out pictures."""
    return (
        f"there are {count} held-out pictures: with fewer than {FEWEST_REFERENCES}, frechet, kernel, manifold and "
        "diversity say little; hold out more, or look at the pictures"
    )


class Findings:
    """What has been measured so far.

    Args:
        names: of the metrics.
        models: their labels; students are compared with the first where there are several.
        bootstrap: resamples.
        say: called with text.
        with_page: keep the pictures of the first metric that rates them one by one.
    """

    def __init__(self, names, models, bootstrap, say, with_page):
        self.models, self.bootstrap, self.say, self.with_page = models, bootstrap, say, with_page
        self.results, self.rows = {name: {} for name in names}, {name: {} for name in names}
        self.comparisons, self.sections, self.rated = {}, [], []

    def add(self, name, candidate, measurement, context):
        """A metric's measurement of one candidate; of the last one, the metric's table is said at once."""
        rows = resampling.resampled(measurement, self.bootstrap, context.seed)
        self.rows[name][candidate.label] = rows
        self.results[name][candidate.label] = _result(measurement, rows)
        if self.with_page and measurement.samples and self.rated in ([], [name]):
            self.rated = [name]
            self.sections.append(_section(candidate.label, measurement, context.split("test")))
        if candidate.is_last:
            # What a later metric meets must not cost this one.
            self.say(format_table(name, self.results[name]))
            if len(self.models) > 1:
                self._compare(name, measurement.biased)

    def _compare(self, name, biased):
        (first, its_rows), *others = self.rows[name].items()
        self.comparisons[name] = {other: resampling.compare(its_rows, rows, biased) for other, rows in others}
        self.say(format_comparisons(first, self.comparisons[name]))

    def report(self, dataset, extractor, taught=True, references=None):
        """The whole report, see `evaluate`; its notes are said.

        Args:
            dataset: its name.
            extractor: whose features were compared.
            taught: whether the teacher among the evaluators taught one of the models.
            references: how many held-out pictures a metric of `COMPARE_SETS` had; None: there is no such metric.
        """
        notes = [TEACHER_NOTE] if taught and only_the_teacher_evaluates(self.results, extractor) else []
        if references is not None and references < FEWEST_REFERENCES:
            notes.append(few_references(references))
        for note in notes:
            self.say(f"note: {note}")
        return {
            "model": self.models,
            "dataset": dataset,
            "metrics": self.results,
            "comparisons": self.comparisons,
            "notes": notes,
        }


def _result(measurement, rows):
    intervals = {}
    if len(next(iter(rows.values()))) > 1:
        intervals = {line: resampling.interval(values, measurement.biased) for line, values in rows.items()}
    return {
        "protocol": measurement.protocol,
        "values": {line: float(values[0]) for line, values in rows.items()},
        "intervals": intervals | measurement.intervals,
        "baselines": measurement.baselines,
    }


def _section(label, measurement, test):
    line, values = next(iter(measurement.samples.items()))
    return Section(
        student=label,
        line=line,
        lower_is_better=measurement.lower_is_better,
        captions=[caption for _, caption in measurement.pairs],
        values=values,
        generated=measurement.pictures,
        reference=Chosen(test.images, [picture for picture, _ in measurement.pairs]),
    )
