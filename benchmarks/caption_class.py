"""How often a generated image shows its caption's class, as a linear probe of a pretrained network's features sees it.

    python -m benchmarks.caption_class --model=runs/flowers64 --data_dir=FLOWERS.zip --teacher=vgg19_slim

The probe is multinomial logistic regression on standardised features: the means over their places of a teacher's taps.
It is fitted to the real training images and names real held-out images and images that the student generates for the
held-out images' first captions. Give a network that did not teach the student.
"""

import numpy as np
from absl import flags

from benchmarks import command
from benchmarks.workers import markdown
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.errors import UserError
from t2i_kd.loading import load_artifact
from t2i_kd.metrics.extractors import teacher_extractor
from t2i_kd.metrics.linear_probe import fitted_probe
from t2i_kd.options import TeacherOptions
from t2i_kd.teachers.catalogue import load_teacher

# The taps whose means are the features, by teacher.
TAPS = {"vgg19_slim": ("pool3", "pool4", "pool5"), "efficientnet_lite0": ("block3", "block4", "block5")}
TOP = 5


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_multi_string("model", [], "A run, version folder or file; may be repeated.")
    flags.DEFINE_string("dataset", "image_folder", "The data set, with classes.")
    flags.DEFINE_string("data_dir", "", "Its folder or .zip.")
    flags.DEFINE_enum("teacher", "vgg19_slim", sorted(TAPS), "The network whose features the probe reads.")
    flags.DEFINE_integer("seed", 0, "The first seed of the noise.")


def shares(probe, features, labels):
    """(share whose class the probe ranks first, share with it among the first five)."""
    ranks = np.argsort(-probe.decision_function(features), axis=1)
    right = probe.classes_[ranks] == np.asarray(labels)[:, None]
    return right[:, 0].mean(), right[:, :TOP].any(1).mean()


def main():
    """Runs the command: a line for real images, one for each model."""
    options = flags.FLAGS
    if not options.model:
        raise UserError("--model: say which model's images are looked at")
    models = {path: load_artifact(path) for path in options.model}
    (side,) = {model.resolution for model in models.values()}
    train, test = (load_dataset(options.dataset, split, side, options.data_dir) for split in ("train", "test"))
    taps = TAPS[options.teacher]
    teacher = load_teacher(TeacherOptions(teacher=options.teacher), side)
    extractor = teacher_extractor(options.teacher, {}, teacher, taps)
    probe = fitted_probe(extractor.features(train.images), train.labels, strength=0.1, iterations=300)
    captions = [captions[0] for captions in test.captions]
    lines = [("real held-out images", shares(probe, extractor.features(test.images), test.labels))]
    for path, model in models.items():
        images = model.generate(captions, range(options.seed, options.seed + len(captions)))
        lines.append((path, shares(probe, extractor.features(images), test.labels)))
    table = [{"images": name, "top-1": f"{top:.3f}", "top-5": f"{five:.3f}"} for name, (top, five) in lines]
    print(f"{len(captions)} captions, {len(probe.classes_)} classes, a probe of {options.teacher}'s {', '.join(taps)}")
    print(markdown(table))


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
