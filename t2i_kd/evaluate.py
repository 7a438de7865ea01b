"""Evaluates students: `python -m t2i_kd.evaluate --model=PATH --dataset=NAME --metrics=a,b --out=report.json`."""

import dataclasses

from absl import flags

from t2i_kd import commands, recipe_flags
from t2i_kd.data.catalogue import DATASETS
from t2i_kd.metrics.catalogue import EXTRACTORS, METRICS
from t2i_kd.options import TeacherOptions

DESCRIPTION = "Measures trained or exported models on the test split of a data set."
TEACHER_FLAGS = ("teacher", "teacher_weights", "teacher_pooling", "teacher_preprocessing")
# Flags that `EvaluationContext` has as fields of the same name.
OPTIONS = (
    "data_dir",
    "max_bad_examples",
    "num_captions",
    "seed",
    "extractor",
    "inception_weights",
    "extractor_handle",
    "retrieval_handle",
)


def define_flags(arguments):
    """Defines this command's flags."""
    return {
        "Evaluating": commands.defining(_define),
        "The extractor": commands.defining(_define_extractor_flags),
        "The teacher, for tap_distance and perceptual_distance": commands.defining(_define_teacher_flags),
    }


def _define():
    flags.DEFINE_multi_string(
        "model",
        [],
        "The model: a version folder, a .tflite, an .onnx or a run directory. Given several times, the others are "
        f"compared with the first. {commands.named_models()}",
    )
    flags.DEFINE_string(
        "dataset",
        "",
        f"The data set whose test split is used: {', '.join(DATASETS)}, or a module such as my_package.my_data. Empty "
        "takes the one that the first model was trained on, with its --data_dir.",
    )
    flags.DEFINE_string("data_dir", "", "The folder or .zip of the data set, where it needs one.")
    flags.DEFINE_integer(
        "max_bad_examples", 0, "How many broken images or unusable captions may be left out before it stops.", 0
    )
    flags.DEFINE_string(
        "metrics",
        "",
        f"What is measured, with commas between: {', '.join(METRICS)}, or a module such as my_package.my_metric.",
    )
    flags.DEFINE_integer(
        "num_captions", 300, "How many captions or source pictures the student generates images of.", 1
    )
    flags.DEFINE_integer(
        "seed", 0, "The seed of the choice of captions, of the noise, and of trained evaluators.", 0, 2**31 - 1
    )
    flags.DEFINE_integer("bootstrap", 200, "How many resamples the 95 % intervals come from. 0 gives none.", 0)
    flags.DEFINE_string(
        "cache_dir",
        "~/.cache/t2i_kd",
        "The folder that keeps trained evaluators, features of reference images, and what was found of their files.",
    )
    flags.DEFINE_string("out", "", "The JSON report to write. Empty only prints.")
    flags.DEFINE_string("page", "", "The HTML page to write, with the best, the worst and some random images.")
    commands.define_hub_handle()


def _define_extractor_flags():
    flags.DEFINE_enum(
        "extractor",
        EXTRACTORS[0],
        EXTRACTORS,
        "Whose features are compared: inception (InceptionV3), teacher (which SDN learns from, so that this alone says "
        "little), hub (--extractor_handle), or own (a small classifier trained on the training split, or without "
        "classes a network that learns how its pictures are turned).",
    )
    flags.DEFINE_string(
        "inception_weights",
        "imagenet",
        "InceptionV3's weights: imagenet (Keras downloads them) or a .weights.h5 of keras.applications.InceptionV3.",
    )
    flags.DEFINE_string(
        "extractor_handle", "", "The TF-Hub handle or folder of an image feature vector, for --extractor=hub."
    )
    flags.DEFINE_string(
        "retrieval_handle",
        "",
        "The TF-Hub handle or folder of the text encoder that fits the extractor's, for r_precision.",
    )


def _define_teacher_flags():
    for item in dataclasses.fields(TeacherOptions):
        if item.name in TEACHER_FLAGS:
            text = f"{item.metadata['help']} The default is the teacher of the run, else {item.default}."
            recipe_flags.define_option(item, text, None)


def main():
    """Runs the command; see `t2i_kd.evaluation.evaluate`."""
    commands.load_backend()
    from t2i_kd.evaluation import chosen_teacher, evaluate

    values = flags.FLAGS
    given = {name: values[name].value for name in TEACHER_FLAGS if values[name].value is not None}
    evaluate(
        values.model,
        values.dataset,
        values.metrics,
        teacher=chosen_teacher(values.model[0], **given) if values.model and given else None,
        out=values.out,
        page=values.page,
        bootstrap=values.bootstrap,
        report=commands.say,
        cache_dir=values.cache_dir or None,
        **{name: values[name].value for name in OPTIONS},
    )
    for path in filter(None, (values.out, values.page)):
        print(path)


if __name__ == "__main__":
    commands.run(main, define_flags, DESCRIPTION)
