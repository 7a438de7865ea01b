"""What a metric is given: one student to judge, the held-out data, and what was made for the students before it."""

import functools
from dataclasses import dataclass, field
from typing import Any

from t2i_kd.data.catalogue import load_dataset
from t2i_kd.metrics import held_out
from t2i_kd.recipe import TeacherRecipe
from t2i_kd.teachers.catalogue import load_teacher


@dataclass(frozen=True)
class EvaluationContext:
    """One student under judgement.

    A metric is a function `EvaluationContext -> dict`. The dict holds `protocol` (what was done, so that nobody
    compares two numbers that were made differently), `values` (a number for each line of the printed table), and
    where the metric has them `intervals` (a [low, high] for some of these lines) and `beside` (further columns:
    {heading: {line: number}}).

    Attributes:
        student: `.generate(captions, seeds)` -> uint8 [n, resolution, resolution, 3], and `.resolution`.
        dataset: name of the data set, as in `--dataset`.
        data_dir: folder or zip of the data set, where it needs one.
        max_bad_examples: broken pictures and bad captions to leave out before stopping.
        num_captions: how many captions the student draws.
        seed: of the choice of captions, of the noise, and of what a metric trains.
        teacher: the network that compares pictures (`tap_distance`).
        extractor: `inception` or `teacher`, the network whose activations are compared (`frechet`, `kernel`).
        inception_weights: for `extractor=inception`; see `activations.load_inception`.
        cache: what all students of one `evaluate` share: data, trained judges.
    """

    student: Any
    dataset: str
    data_dir: str = ""
    max_bad_examples: int = 0
    num_captions: int = 300
    seed: int = 0
    teacher: TeacherRecipe = field(default_factory=TeacherRecipe)
    extractor: str = "inception"
    inception_weights: str = "imagenet"
    cache: dict = field(default_factory=dict)

    def split(self, name):
        """The split `train` or `test` at the student's resolution, loaded once."""
        resolution = self.student.resolution
        return self.shared(
            ("split", name, resolution),
            lambda: load_dataset(self.dataset, name, resolution, self.data_dir, self.max_bad_examples),
        )

    @property
    def loaded_teacher(self):
        """The network of `teacher` at the student's resolution, loaded once."""
        resolution = self.student.resolution
        return self.shared(("teacher", self.teacher, resolution), lambda: load_teacher(self.teacher, resolution))

    @functools.cached_property
    def pairs(self):
        """`num_captions` (picture index, caption) pairs of the test split, its pictures taken in turn."""
        test = self.split("test")
        return held_out.draw_pairs(test.captions, [[i] for i in range(len(test))], self.num_captions, self.seed)

    @functools.cached_property
    def made(self):
        """The student's pictures of the captions of `pairs`, drawn once for all metrics."""
        return held_out.generate(self.student, [caption for _, caption in self.pairs], self.seed)

    def shared(self, key, make):
        """What `make()` returned for the first student that asked for `key`."""
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]
