"""How often a generated image shows its caption's class, as a classifier of real training images sees it.

    python -m benchmarks.caption_class --model=runs/flowers64 --data_dir=FLOWERS.zip --teacher=vgg19_slim

It names real held-out images and images that the student generates for the held-out images' first captions. The
classifier is multinomial logistic regression on standardised features, the means over their places of a teacher's
taps; give a network that did not teach the student. `--teacher=own` trains our small convolutional network instead.

Of `--dataset=noto_emoji` two things are named, the skin tones and the emoji whatever its tones, by classifiers of the
emoji that are held out in some tone.
"""

import dataclasses

import numpy as np
from absl import flags

from benchmarks import command
from benchmarks.reports import markdown
from t2i_kd.data import noto_emoji
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.data.subset import picked
from t2i_kd.errors import UserError
from t2i_kd.loading import load_artifact
from t2i_kd.metrics.classifier_training import attribute_values
from t2i_kd.metrics.extractors import teacher_extractor
from t2i_kd.metrics.image_classifier import train_image_classifier
from t2i_kd.metrics.linear_probe import fitted_probe
from t2i_kd.options import TeacherOptions
from t2i_kd.teachers.catalogue import load_teacher

# The taps whose means are the features, by teacher.
TAPS = {"vgg19_slim": ("pool3", "pool4", "pool5"), "efficientnet_lite0": ("block3", "block4", "block5")}
OWN = "own"
EMOJI = "noto_emoji"
TOP = 5


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_multi_string("model", [], "A run, version folder or file; may be repeated.")
    flags.DEFINE_string("dataset", "image_folder", f"The data set, with classes, or {EMOJI}.")
    flags.DEFINE_string("data_dir", "", "Its folder, .zip or .tgz.")
    flags.DEFINE_enum("teacher", "vgg19_slim", [*sorted(TAPS), OWN], "The network whose features are read, or own.")
    flags.DEFINE_integer("seed", 0, "The first seed of the noise.")


def targets(name, dataset):
    """{what is named: a class for each image} of a data set."""
    if name != EMOJI:
        return {"class": np.asarray(dataset.labels)}
    emoji, tones = zip(*map(noto_emoji.parts_of, dataset.file_names), strict=True)
    return {"skin_tones": np.array(tones), "emoji": np.array(emoji)}


def probes(teacher, train, known, side):
    """{what is named: (its classes, function from images to their scores [n, classes])}, by a teacher's features."""
    network = load_teacher(TeacherOptions(teacher=teacher), side)
    extractor = teacher_extractor(teacher, {}, network, TAPS[teacher])
    features = extractor.features(train.images)
    fitted = {name: fitted_probe(features, classes, strength=0.1, iterations=300) for name, classes in known.items()}
    return {
        name: (probe.classes_, lambda images, probe=probe: class_scores(probe, extractor.features(images)))
        for name, probe in fitted.items()
    }


def class_scores(probe, features):
    """A score for each class, float [n, classes]; of two classes the probe gives the second one's alone."""
    scores = probe.decision_function(features)
    return scores if scores.ndim == 2 else np.stack([-scores, scores], axis=1)


def own_classifier(train, known):
    """As `probes`, by a network that is trained here."""
    rows = [dict(zip(known, map(str, values), strict=True)) for values in zip(*known.values(), strict=True)]
    train = dataclasses.replace(train, attributes=tuple(rows))
    network = train_image_classifier(train)
    return {
        name: (np.array(values).astype(known[name].dtype), lambda images, name=name: network.logits(images, name))
        for name, values in attribute_values(train).items()
    }


def shares(classes, scores, wanted):
    """(share whose class has the highest score, share with it among the five highest)."""
    right = classes[np.argsort(-scores, axis=1)] == np.asarray(wanted)[:, None]
    return right[:, 0].mean(), right[:, :TOP].any(1).mean()


def main():
    """Runs the command: for each thing that is named a line for real images, and one for each model."""
    options = flags.FLAGS
    if not options.model:
        raise UserError("--model: say which model's images are looked at")
    models = {path: load_artifact(path) for path in options.model}
    (side,) = {model.resolution for model in models.values()}
    train, test = (load_dataset(options.dataset, split, side, options.data_dir) for split in ("train", "test"))
    wanted = targets(options.dataset, test)
    if options.dataset == EMOJI:
        train = picked(train, np.flatnonzero(np.isin(targets(EMOJI, train)["emoji"], wanted["emoji"])))
    known = targets(options.dataset, train)
    named = own_classifier(train, known) if options.teacher == OWN else probes(options.teacher, train, known, side)
    captions = [captions[0] for captions in test.captions]
    seeds = range(options.seed, options.seed + len(captions))
    images = {path: model.generate(captions, seeds) for path, model in models.items()}
    for name, (classes, scores) in named.items():
        table = []
        for source, seen in {"real held-out images": test.images, **images}.items():
            first, five = shares(classes, scores(seen), wanted[name])
            table.append({"images": source, "top-1": f"{first:.3f}", "top-5": f"{five:.3f}"})
        print(
            f"{name}: {len(captions)} captions, {len(classes)} classes, {len(train)} training images, {options.teacher}"
        )
        print(markdown(table))


if __name__ == "__main__":
    command.run(main, define_flags, __doc__)
