"""What a metric is given of a student that reads images: sources in place of captions, targets as reference."""

import functools
from dataclasses import dataclass

import numpy as np

from t2i_kd.data.captioned_images import CaptionedImages, Chosen
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.data.image_pairs import ImagePairs
from t2i_kd.errors import UserError
from t2i_kd.metrics.cache import digest_of_images
from t2i_kd.metrics.context import EvaluationContext

# What suits students that read images: of any data set, and of pairs alone.
OF_SETS = ("frechet", "kernel", "manifold", "teacher_distance")
OF_PAIRS = ("fsim", "perceptual_distance", "ssim")


@dataclass(frozen=True)
class TranslationContext(EvaluationContext):
    """An `EvaluationContext` of a student that reads images.

    Its splits hold the target pictures. The i-th held-out source goes with the i-th target where the set has pairs.

    Attributes:
        direction: which side is read and which is made, `AtoB` or `BtoA`.
    """

    direction: str = "AtoB"

    def sources(self, name):
        """The pictures that are read of the split `train` or `test`."""
        return self._both_sides(name)[0]

    def _both_sides(self, name):
        """(sources, targets) of a split; captioned images are sources without targets."""
        read, _ = self.sides
        kinds = (ImagePairs, CaptionedImages)
        loaded = self.shared(
            ("both sides", name, read),
            lambda: load_dataset(self.dataset, name, read, self.data_dir, self.max_bad_examples, kinds=kinds),
        )
        sides = (loaded.images, ()) if isinstance(loaded, CaptionedImages) else loaded.turned(self.direction)
        return *sides, loaded

    def split(self, name):
        """The targets of a split, as pictures of one class."""
        _, targets, loaded = self._both_sides(name)
        if not len(targets):
            raise UserError(f"--dataset: {loaded.name} has no target pictures; teacher_distance needs none")
        names = tuple((f"picture {index}",) for index in range(len(targets)))
        return CaptionedImages(loaded.name, targets, names, np.zeros(len(targets), np.int32), ("target",))

    def check_metric(self, name):
        """Raises `UserError` for a metric of this package that is for captions, or for pairs where there are none."""
        if name in OF_PAIRS and not getattr(self._both_sides("test")[-1], "paired", False):
            raise UserError(f"--metrics: {name} compares pairs, and {self.dataset_name} has none")
        if "." not in name and name not in OF_SETS + OF_PAIRS:
            known = ", ".join((*OF_SETS, *OF_PAIRS))
            raise UserError(f"--metrics: {name} is for students that read captions; for those of images: {known}")

    @functools.cached_property
    def pairs(self):
        """(index of a source, its name) of up to `num_captions` held-out sources, evenly spread."""
        count = len(self.sources("test"))
        chosen = np.linspace(0, count - 1, min(count, self.num_captions)).astype(int)
        return [(int(index), f"source {index}") for index in chosen]

    @property
    def items(self):
        """The sources of `pairs`, a reader."""
        return Chosen(self.sources("test"), [index for index, _ in self.pairs])

    def counts(self):
        """As an `EvaluationContext` has it: targets, sources that there are, and sources that are asked for."""
        sources = "held-out source pictures"
        return [
            ("--dataset", "held-out target pictures", len(self.split("test"))),
            ("--dataset", sources, len(self.sources("test"))),
            ("--num_captions", sources, len(self.pairs)),
        ]

    def protocol(self):
        """What every protocol says: the student and its resolution, sources and targets, and the seed."""
        sources, targets, loaded = self._both_sides("test")
        return {
            "resolution": self.student.resolution,
            "split": loaded.name,
            "direction": self.direction,
            "sources": len(self.pairs),
            "targets": len(targets),
            "seed": self.seed,
            "model_sha256": self.model_sha256,
            "sources_sha256": self.shared(("digest of sources", self.sides), lambda: digest_of_images(sources)),
        }
