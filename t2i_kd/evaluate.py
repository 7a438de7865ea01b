"""Evaluates students: `python -m t2i_kd.evaluate --model=PATH --dataset=NAME --metrics=a,b --out=report.json`."""

import dataclasses
import functools
import os

from absl import flags

from t2i_kd import commands
from t2i_kd.data.catalogue import DATASETS
from t2i_kd.metrics.catalogue import EXTRACTORS, METRICS
from t2i_kd.recipe import TeacherRecipe

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


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_multi_string(
        "model",
        [],
        "a version folder, a .tflite, an .onnx or a run directory; given several times, the others are compared with "
        "the first",
    )
    flags.DEFINE_string("dataset", "", f"data set whose test split is asked for: {', '.join(DATASETS)}")
    flags.DEFINE_string("data_dir", "", "folder or .zip of the data set, where it needs one")
    flags.DEFINE_integer("max_bad_examples", 0, "broken images or empty captions to skip before stopping", 0)
    flags.DEFINE_string(
        "metrics",
        "",
        f"names with commas between them: {', '.join(METRICS)}, or of a module on the path, my_package.my_metric",
    )
    flags.DEFINE_integer("num_captions", 300, "captions that the student draws", 1)
    flags.DEFINE_integer("seed", 0, "of the choice of captions, of noise, and of trained evaluators", 0, 2**31 - 1)
    flags.DEFINE_integer("bootstrap", 200, "resamples for the 95 % intervals; 0: none", 0)
    flags.DEFINE_string("cache_dir", "~/.cache/t2i_kd", "keeps trained evaluators and features of reference pictures")
    flags.DEFINE_string("out", "", "the JSON report to write; empty: only print")
    flags.DEFINE_string("page", "", "the HTML page to write, with the best, the worst and some random pictures")
    _define_extractor_flags()
    _define_teacher_flags()


def _define_extractor_flags():
    flags.DEFINE_enum(
        "extractor",
        EXTRACTORS[0],
        EXTRACTORS,
        "whose activations are compared: inception (InceptionV3), teacher (SDN learns from VGG19, so this alone says "
        "little), hub (--extractor_handle), own (a small classifier trained on the training split)",
    )
    flags.DEFINE_string(
        "inception_weights",
        "imagenet",
        "imagenet (Keras downloads them) or a .weights.h5 of keras.applications.InceptionV3",
    )
    flags.DEFINE_string("extractor_handle", "", "extractor=hub: TF-Hub handle or folder of an image feature vector")
    flags.DEFINE_string(
        "retrieval_handle", "", "r_precision: TF-Hub handle or folder of the text encoder that fits the extractor's"
    )


def _define_teacher_flags():
    for item in dataclasses.fields(TeacherRecipe):
        if item.name not in TEACHER_FLAGS:
            continue
        default = f"default: the run's own teacher, else {item.default}"
        help_text = f"{item.metadata['help']} (tap_distance, perceptual_distance; {default})"
        if item.metadata["choices"]:
            flags.DEFINE_enum(item.name, None, item.metadata["choices"], help_text)
        else:
            flags.DEFINE_string(item.name, None, help_text)


def main():
    """Runs the command; see `t2i_kd.evaluation.evaluate`."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
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
        report=functools.partial(print, flush=True),
        cache_dir=values.cache_dir or None,
        **{name: values[name].value for name in OPTIONS},
    )
    for path in filter(None, (values.out, values.page)):
        print(path)


if __name__ == "__main__":
    define_flags()
    commands.run(main)
