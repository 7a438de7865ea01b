"""What a metric is given: a student to evaluate, the held-out data, and what was computed for the students before."""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from t2i_kd.data.captioned_images import Chosen
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.errors import UserError
from t2i_kd.metrics import sampling
from t2i_kd.metrics.blocks import row_blocks
from t2i_kd.metrics.cache import ArrayCache, digest, digest_of_images, scratch_array
from t2i_kd.metrics.extractors import features_name, load_extractor, preview
from t2i_kd.metrics.tap_errors import TapObjective
from t2i_kd.options import TeacherOptions
from t2i_kd.teachers.catalogue import check_seen_side, load_teacher


@dataclass(frozen=True)
class EvaluationContext:
    """One student to evaluate. A metric is a function from it to a `resampling.Measurement`.

    Attributes:
        student: `.generate(captions, seeds)` -> uint8 [n, resolution, resolution, 3], `.resolution` and, where it
            differs, `.data_resolution`; see `Runner`.
        dataset: name of the data set, as in `--dataset`, or a data set object that `load_dataset` takes.
        data_dir: folder or zip of the data set, where it needs one.
        max_bad_examples: broken pictures and bad captions to leave out before stopping.
        num_captions: how many captions the student draws.
        seed: of the choice of captions, of the noise, and of what a metric trains.
        teacher: the network that compares pictures (`tap_distance`, `perceptual_distance`).
        tap_objective: what the student learned to minimise in this teacher's taps; None where it did not.
        extractor: whose activations are compared. `inception`: InceptionV3's last pool. `teacher`: the teacher's
            pool4, averaged over the picture; SDN learns from VGG19, so this alone says little of it. `hub`: a TF-Hub
            image feature vector. `own`: a small classifier trained on the real training split, or without classes a
            network that tells how its pictures are turned.
        inception_weights: for `extractor=inception`; see `extractors.load_inception`.
        extractor_handle: for `extractor=hub`, a TF-Hub handle or folder.
        retrieval_handle: of a TF-Hub sentence encoder, for `r_precision`; see there.
        cache_dir: folder that keeps trained evaluators, features of reference pictures, and what was found of pictures'
            files; None: nothing is kept.
        model_sha256: of the file that holds or lists the student's weights.
        teaching: a function that gives the generator that taught the first model, an object that generates as the
            student does, or None.
        cache: what all students of one `evaluate` share: data, networks, trained evaluators.
    """

    student: Any
    dataset: Any
    data_dir: str = ""
    max_bad_examples: int = 0
    num_captions: int = 300
    seed: int = 0
    teacher: TeacherOptions = field(default_factory=TeacherOptions)
    tap_objective: TapObjective | None = None
    extractor: str = "own"
    inception_weights: str = "imagenet"
    extractor_handle: str = ""
    retrieval_handle: str = ""
    cache_dir: str | None = None
    model_sha256: str = ""
    teaching: Callable | None = None
    cache: dict = field(default_factory=dict)

    @property
    def dataset_name(self):
        """The data set's name, for messages."""
        return getattr(self.dataset, "name", self.dataset)

    @property
    def sides(self):
        """The side of the reference pictures as they are read, and as they are compared with the student's."""
        return getattr(self.student, "data_resolution", self.student.resolution), self.student.resolution

    def split(self, name):
        """The split `train` or `test` at the student's resolution, loaded once.

        For the image of an earlier stage the pictures that the student learned from are averaged down, as in training.
        """
        read, compared = self.sides
        dataset = self.shared(
            ("split", name, read, read),
            lambda: load_dataset(
                self.dataset, name, read, self.data_dir, self.max_bad_examples, cache_dir=self.cache_dir
            ),
        )
        return self.shared(("split", name, read, compared), lambda: sampling.reduced(dataset, read // compared))

    @property
    def loaded_teacher(self):
        """The network of `teacher` at the student's resolution, loaded once."""
        teacher, resolution = self.teacher, self.student.resolution

        def load():
            check_seen_side(teacher, resolution)
            return load_teacher(teacher, resolution)

        return self.shared(("teacher", teacher, resolution), load)

    @property
    def extractor_network(self):
        """The `Extractor` of `extractor`, loaded once."""
        # A teacher and a classifier of our own are made for one side of the pictures.
        key = ("extractor", self.extractor, self.teacher, self.sides)
        return self.shared(key, lambda: load_extractor(self))

    def check_counts(self, metric, fewest):
        """Raises `UserError` where there are fewer pictures of a kind than a metric needs."""
        for flag, pictures, count in self.counts():
            if count < fewest:
                raise UserError(f"{flag}: {metric} needs at least {fewest} {pictures}, not {count}")

    def counts(self):
        """[(flag, what pictures they are, how many)]: those to generate, and those of the test split."""
        return [("--num_captions", "pictures", self.num_captions), ("--dataset", "pictures", len(self.split("test")))]

    def check_different(self, metric):
        """Raises `UserError` where a metric of sets would be given the same generated picture several times.

        That is where more captions are asked for than there are test pictures, and the student takes no noise.
        """
        count = len(self.split("test"))
        if len(self.pairs) <= count:
            return
        one, other = self.student.generate(2 * self.items[:1], [self.seed, self.seed + 1])
        if (np.asarray(one) == np.asarray(other)).all():
            raise UserError(
                f"--num_captions: {metric} compares different pictures, the student makes one of a caption, and there "
                f"are {count} test pictures; give at most {count}"
            )

    def check_extractor(self, probabilities=False):
        """How many numbers the extractor gives of a picture. Trains nothing.

        Args:
            probabilities: whether its class probabilities are needed.

        Raises:
            UserError: naming the flag, where the network cannot be had, or is no classifier.
        """
        width, classifies = self.shared(("preview", self.extractor, self.teacher, self.sides), lambda: preview(self))
        if probabilities and not classifies:
            hint = "InceptionV3's weights with its classifier, or --extractor=own on a data set with classes"
            raise UserError(f"--extractor: {self.extractor} gives no class probabilities here; give {hint}")
        return width

    @property
    def own_classifier(self):
        """The `ImageClassifier` of the real training split, trained once and kept in `cache_dir`."""
        from t2i_kd.metrics.image_classifier import train_image_classifier

        train, key = self.split("train"), ("own_classifier", self.sides)
        return self.shared(
            key, lambda: train_image_classifier(train, self.seed, cache=self.arrays, key=self.digest_of("train"))
        )

    @property
    def own_network(self):
        """The network of `extractor=own`: `own_classifier`, or of a set without classes one that needs no labels."""
        from t2i_kd.metrics.image_classifier import has_classes, train_without_labels

        train, key = self.split("train"), ("own_without_labels", self.sides)
        if has_classes(train):
            return self.own_classifier
        return self.shared(
            key, lambda: train_without_labels(train, self.seed, cache=self.arrays, key=self.digest_of("train"))
        )

    @property
    def arrays(self):
        """The `ArrayCache` of `cache_dir`."""
        return ArrayCache(self.cache_dir)

    def digest_of(self, split):
        """The digest of a split's pictures at the student's resolution."""
        key = ("digest", split, self.sides)
        return self.shared(key, lambda: digest_of_images(self.split(split).images))

    @functools.cached_property
    def pairs(self):
        """`num_captions` (picture index, caption) pairs of the test split, its pictures taken in turn."""
        test = self.split("test")
        return sampling.draw_pairs(test.captions, [[i] for i in range(len(test))], self.num_captions, self.seed)

    @property
    def items(self):
        """What the student is asked with, for each of `pairs`: its caption."""
        return [caption for _, caption in self.pairs]

    @property
    def teaching_student(self):
        """The generator that taught the first model, or None; made once."""
        return self.shared("teaching_student", lambda: self.teaching() if self.teaching else None)

    @functools.cached_property
    def generated(self):
        """The student's pictures of `items`, drawn once for all metrics: uint8 on disk."""
        return sampling.generate(self.student, self.items, self.seed)

    def reference_of_pairs(self):
        """The real picture of each of `pairs`, a reader."""
        return Chosen(self.split("test").images, [picture for picture, _ in self.pairs])

    def features_of(self, images):
        """The extractor's features of uint8 pictures: float32 [n, dim], on disk."""
        return self._forward(images)["features"]

    def activations(self, kind):
        """The extractor's features of the `generated` pictures, of the `reference` ones, which are the whole test
        split, or, as an anchor for distances, of as many of the `train` split as are generated, evenly spread.

        Returns:
            float32 [n, dim], mapped from the disk; those of the `reference` and `train` ones are kept in `cache_dir`.
        """
        return self._activations(kind)["features"]

    def reference_halves(self):
        """The activations of one half of the `reference` pictures and of the other, drawn with `seed`.

        Of what a metric says of them, two sets of one distribution, a student that is perfect could not do better.

        Returns:
            (heading for the metric's `baselines`, float32 [n // 2, dim], float32 [n - n // 2, dim]), on disk.
        """
        reference = self.activations("reference")
        order = np.random.default_rng([self.seed, len(reference)]).permutation(len(reference))
        halves = []
        for chosen in (np.sort(order[: len(reference) // 2]), np.sort(order[len(reference) // 2 :])):
            half = scratch_array((len(chosen), reference.shape[1]), np.float32)
            for rows in row_blocks(half):
                half[rows] = reference[chosen[rows]]
            halves.append(half)
        return f"{len(halves[0])} real test pictures against the other {len(halves[1])}", *halves

    def probabilities(self, kind):
        """The extractor's class probabilities: float32 [n, classes]; `kind` as for `activations`.

        Raises:
            UserError: naming the flag, where the extractor is no classifier.
        """
        self.check_extractor(probabilities=True)
        return self._activations(kind)["probabilities"]

    @functools.cached_property
    def _of_generated(self):
        return self._forward(self.generated)

    def _activations(self, kind):
        if kind == "generated":
            return self._of_generated
        extractor, split = self.extractor_network, {"reference": "test", "train": "train"}[kind]
        names = ["features", "probabilities"] if extractor.has_probabilities else ["features"]
        size = len(self.split(split))
        count = size if kind == "reference" else min(size, len(self.pairs))

        def compute():
            chosen = np.linspace(0, size - 1, count).astype(int)
            found = self._forward(Chosen(self.split(split).images, chosen))
            return [np.asarray(found[name]) for name in names]

        def load():
            key = digest(extractor.fingerprint, str(extractor.protocol), self.digest_of(split), count)
            return dict(zip(names, self.arrays.arrays(f"{kind}-{extractor.name}", key, compute), strict=True))

        return self.shared((kind, extractor.fingerprint, self.sides, count), load)

    def _forward(self, images):
        found, start = {}, 0
        for batch in self.extractor_network.batches(images):
            for name, values in batch.items():
                if name not in found:
                    found[name] = scratch_array((len(images), values.shape[1]), np.float32)
                found[name][start : start + len(values)] = values
            start += len(values)
        return found

    @property
    def features_name(self):
        """Whose activations of pictures of what size a value is about, as `extractors.features_name` has it."""
        extractor = self.extractor_network
        return features_name(extractor.name, extractor.side, self.student.resolution)

    @property
    def teacher_called(self):
        """The teacher as a part of names: `run:DIR` is `run_` and the folder's own name."""
        kind, _, path = self.teacher.teacher.partition(":")
        return f"{kind}_{Path(path).name}" if path else kind

    @property
    def teacher_name(self):
        """The teacher and, where one can be chosen, its pooling, for the names of values."""
        called = self.teacher_called
        return f"{called}_{self.teacher.teacher_pooling}" if called.startswith("vgg19") else called

    def extractor_protocol(self):
        """What the protocol of a metric says that compares the extractor's features."""
        extractor = self.extractor_network
        names = {"extractor": extractor.name, **extractor.protocol}
        return self.protocol() | names | {"extractor_sha256": extractor.fingerprint}

    def teacher_protocol(self):
        """What the protocol of a metric says that compares the teacher's features."""
        fields = ("teacher", "teacher_weights", "teacher_pooling", "teacher_preprocessing")
        weights = self.loaded_teacher.get_weights()
        key = ("teacher_sha256", self.teacher, self.student.resolution)
        found = self.shared(key, lambda: digest(*(np.asarray(each) for each in weights)))
        return self.protocol() | {name: getattr(self.teacher, name) for name in fields} | {"extractor_sha256": found}

    def protocol(self):
        """What every protocol says: the student and its resolution, the reference pictures, and the seed."""
        return {
            "resolution": self.student.resolution,
            "split": self.split("test").name,
            "captions": len(self.pairs),
            "seed": self.seed,
            "model_sha256": self.model_sha256,
            "reference_sha256": self.digest_of("test"),
        }

    def shared(self, key, make):
        """What `make()` returned for the first student that asked for `key`."""
        if key not in self.cache:
            self.cache[key] = make()
        return self.cache[key]
