"""What a run measures of itself while it trains: cheap, on a fixed part of the held-out images, for its curves.

A kernel distance and a diversity by the features of a network of this package that does not teach. They say whether a
run still gains; `t2i_kd.evaluate` measures with more images, anchors and intervals.
"""

import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.imaging import to_uint8
from t2i_kd.metrics.diversity import distance_over_seeds, mean_pair_distance
from t2i_kd.metrics.extractors import teacher_extractor
from t2i_kd.metrics.kernel_distance import kernel_distance
from t2i_kd.options import TeacherOptions
from t2i_kd.teachers.catalogue import load_teacher

ITEMS = 256
# Of these captions images with several seeds are compared.
CAPTIONS_OVER_SEEDS, SEEDS = 16, 4
HELD_OUT_LOSS, DISTANCE_TO_TEACHER, KERNEL_DISTANCE = "held_out_loss", "distance_to_teacher", "kernel_distance_"
# Networks that come with the package, and the tap whose mean over its places is the features.
EXTRACTORS = {"efficientnet_lite0": "block5", "vgg19_slim": "pool4"}


def bystander(teachers):
    """The network of `EXTRACTORS` that does not teach, or of two that teach the one that is named first."""
    return min(EXTRACTORS, key=lambda each: teachers.index(each) if each in teachers else -1)


class Measurements:
    """Measures generated images against held-out ones.

    Args:
        teachers: the names of the networks that teach; one that does not measures, and where both of ours teach, the
            one that is named first.
        resolution: side of the images in pixels.
        images: the held-out images, uint8 [n, resolution, resolution, 3], at least two.

    Raises:
        UserError: naming `--measure_every`, for fewer than two images.
    """

    def __init__(self, teachers, resolution, images):
        if len(images) < 2:
            raise UserError(
                f"--measure_every: {len(images)} held-out images are too few to measure with; 0 measures none"
            )
        name = bystander(teachers)
        network, tap = load_teacher(TeacherOptions(teacher=name), resolution), EXTRACTORS[name]
        self.name = f"{name}_{tap}"
        self.extractor = teacher_extractor(self.name, {}, network, (tap,))
        self.reference = self.extractor.features(images)
        self.spread = self._spread(self.reference)

    @staticmethod
    def _spread(features):
        return float(mean_pair_distance(features, np.ones((1, len(features))))[0])

    def of(self, images, over_seeds=None):
        """The values for generated images, float [n, resolution, resolution, 3], nominally 0-255.

        Args:
            images: of as many captions.
            over_seeds: those of a few captions, float [captions, seeds, resolution, resolution, 3]; None: none.

        Returns:
            {"kernel_distance_NAME": see `metrics.kernel_distance`, "diversity_NAME": the mean distance of two
            generated images' features as a share of that of two held-out ones, "seed_diversity_NAME": the same of two
            images of one caption}, the last only where there are such images.
        """
        features, spread = self.extractor.features(to_uint8(images)), max(self.spread, 1e-12)
        values = {
            f"{KERNEL_DISTANCE}{self.name}": float(kernel_distance(features, self.reference)[0]),
            f"diversity_{self.name}": self._spread(features) / spread,
        }
        if over_seeds is not None:
            captions, seeds, *image = over_seeds.shape
            drawn = self.extractor.features(to_uint8(over_seeds.reshape(-1, *image))).reshape(captions, seeds, -1)
            values[f"seed_diversity_{self.name}"] = float(distance_over_seeds(drawn).mean()) / spread
        return values


def criterion(values):
    """The name of the value by which a stage's best step is chosen, the lower the better; None where there is none.

    The loss of held-out images where the stage has one, else the distance to the teacher's images, else the kernel
    distance. Args: {name: value}, as measured.
    """
    kinds = (HELD_OUT_LOSS, DISTANCE_TO_TEACHER, KERNEL_DISTANCE)
    return next((name for kind in kinds for name in values if name.startswith(kind)), None)
