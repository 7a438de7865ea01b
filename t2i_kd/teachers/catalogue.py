"""The one registry of teachers: frozen networks from an image to named taps, with the weights that were asked for.

`--teacher` is `vgg19`, `vgg19_slim`, `efficientnet_lite0`, `none`, the name of a network of `keras.applications`,
`run:DIR` for the student of a run that reads images, or a module on the path with a function
`load(options, resolution) -> keras.Model`.

Some have two towers, one for images and one for texts, in one space: `conse`, `conse:NETWORK`, `clip`, `clip:PRESET`,
and a module with a function `load_dual_encoder(options, towers, resolution) -> DualEncoder`.
"""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import keras

from t2i_kd import plugins
from t2i_kd.checksums import sha256_of
from t2i_kd.dtype_policy import dtype_policy
from t2i_kd.errors import UserError
from t2i_kd.teachers import clip, conse, efficientnet_lite0, run
from t2i_kd.teachers.applications import APPLICATIONS, build_application
from t2i_kd.teachers.dual_encoder import DualEncoder
from t2i_kd.teachers.vgg19 import SLIM_WEIGHTS, tap_shapes
from t2i_kd.teachers.vgg19_weights import WIDTHS, load_vgg19

# The options that only VGG19 and its slim twin have, with the values that leave any other teacher as it is.
VGG19_OPTIONS = {"teacher_pooling": "average", "teacher_preprocessing": "caffe"}


# The files of the weights that come with the package.
SHIPPED = {"vgg19_slim": SLIM_WEIGHTS, "efficientnet_lite0": efficientnet_lite0.WEIGHTS}


@dataclass(frozen=True)
class Kind:
    """How the teachers of one kind are made.

    Attributes:
        load: (options, resolution) -> `keras.Model` from images to {tap: map}, with its weights.
        shapes: (options, resolution) -> {tap: (height, width, channels)}; None: it takes the loaded model to know.
        towers: (options, towers, resolution) -> `DualEncoder`; None: it has no text tower.
    """

    load: Callable
    shapes: Callable | None = None
    towers: Callable | None = None


def load_teacher(options, resolution):
    """A frozen teacher with pretrained weights.

    Args:
        options: `TeacherOptions`. `teacher_weights=imagenet` stands for the weights that Keras publishes or, for
            `vgg19_slim` and `efficientnet_lite0`, that this package ships; otherwise a file: a `.weights.h5` of the
            same network of `keras.applications`, for `vgg19_slim` a `.npz` that the `teacher_slim` system wrote, for
            `efficientnet_lite0` see `load_efficientnet_lite0`.
        resolution: side of the images in pixels.

    Returns:
        A `keras.Model`, not trainable, from float32 RGB [batch, resolution, resolution, 3] in 0-255 to {tap: map}, the
        taps from the pixels to the most abstract. Of `teacher=none` the only tap is `image`, the image itself.

    Raises:
        UserError: when the teacher is not known, or its weights cannot be had, have another checksum than
            `teacher_weights_sha256`, or do not fit.
    """
    kind = _kind(options)
    _check_weights(options)
    model = kind.load(options, resolution)
    model.trainable = False
    keep_strided_depthwise_single(model)
    return model


def keep_strided_depthwise_single(network):
    """Gives a network's strided depthwise convolutions float32 where it computes in bfloat16.

    On CPUs TensorFlow's gradient of such a layer in bfloat16 takes 12 to 65 times as long as in float32: more than
    bfloat16 gains in all others. Args: network: `keras.Model`, which is changed.
    """
    for layer in network.layers:
        if isinstance(layer, keras.Model):
            keep_strided_depthwise_single(layer)
        elif layer.compute_dtype == "bfloat16" and _is_strided_depthwise(layer):
            layer.dtype_policy = "float32"


def _is_strided_depthwise(layer):
    return isinstance(layer, keras.layers.DepthwiseConv2D) and max(layer.strides) > 1


def load_dual_encoder(options, towers, resolution):
    """A frozen teacher's two towers.

    Args:
        options: `TeacherOptions`; see `load_teacher` for the weights, and `conse` and `clip` for theirs.
        towers: `DualEncoderOptions`.
        resolution: side of the images in pixels.

    Returns:
        A `DualEncoder`, its images of that side, in float32: its vectors, some of which are kept, and the losses of
        them do not depend on the precision that the student trains in.

    Raises:
        UserError: when the teacher is not known or has no text tower, or its parts cannot be had.
    """
    check_dual_encoder(options)
    _check_weights(options)
    with dtype_policy("float32"):
        return _kind(options).towers(options, towers, resolution)


def check_dual_encoder(options):
    """Raises `UserError` for a teacher that is not known or has no text tower."""
    if _kind(options).towers is None:
        raise UserError(
            f"--teacher: {options.teacher} has no text tower; conse, conse:NETWORK, clip, clip:PRESET and modules such "
            "as my_package.my_teacher with a load_dual_encoder have"
        )


def teacher_shapes(options, resolution):
    """{tap: (height, width, channels)} of a teacher, without its weights where it can be known without them.

    Raises:
        UserError: as `load_teacher` does.
    """
    kind = _kind(options)
    if kind.shapes:
        return dict(kind.shapes(options, resolution))
    return _shapes(load_teacher(options, resolution))


def check_seen_side(options, resolution):
    """Raises `UserError`, naming the teacher, where it is known without its weights that it cannot see such images.

    Args:
        options: `TeacherOptions`.
        resolution: side of the images, in pixels.
    """
    kind = _kind(options)
    if kind.shapes:
        try:
            kind.shapes(options, resolution)
        except UserError as error:
            told = f"--teacher: {options.teacher} cannot see images of {resolution} px: {error}"
            raise UserError(told) from None


def teacher_taps(options, resolution):
    """The names of a teacher's taps, from the pixels to the most abstract; see `teacher_shapes`."""
    return tuple(teacher_shapes(options, resolution))


def pinned(options):
    """The options with the SHA-256 of the network that `run:DIR` names, so that a recipe says which one taught it."""
    if not options.teacher.startswith(run.PREFIX) or options.teacher_weights_sha256:
        return options
    return dataclasses.replace(options, teacher_weights_sha256=run.run_sha256(options.teacher))


def _shapes(model):
    return {tap: tuple(output.shape[1:]) for tap, output in model.output.items()}


def _load_none(options, resolution):
    image = keras.Input((resolution, resolution, 3), name="image")
    return keras.Model(image, {"image": image}, name="none")


def _load_application(options, resolution):
    return build_application(options.teacher, resolution, options.teacher_weights)


@functools.cache
def _application_shapes(name, resolution):
    return _shapes(build_application(name, resolution))


def _load_module(options, resolution):
    name = options.teacher
    (load,) = plugins.members(plugins.import_module(name, "teacher"), "teacher", "load")
    model = load(options, resolution)
    if not isinstance(model, keras.Model) or not isinstance(getattr(model, "output", None), dict):
        raise UserError(f"--teacher: {name}.load gives no keras.Model from an image to a dict of taps")
    return model


def _load_module_towers(options, towers, resolution):
    name = options.teacher
    (load,) = plugins.members(plugins.import_module(name, "teacher"), "teacher", "load_dual_encoder")
    encoder = load(options, towers, resolution)
    if not isinstance(encoder, DualEncoder):
        raise UserError(f"--teacher: {name}.load_dual_encoder gives no DualEncoder")
    return encoder


def _conse_shapes(options, resolution):
    name = conse.network_of(options.teacher)
    return _application_shapes(name, resolution) if name else efficientnet_lite0.tap_shapes(resolution)


CONSE = Kind(conse.load_taps, _conse_shapes, conse.load_conse)
CLIP = Kind(clip.load_taps, lambda options, resolution: {"image": (resolution, resolution, 3)}, clip.load_clip)
NAMED = {
    "vgg19": Kind(load_vgg19, lambda options, resolution: tap_shapes(resolution, WIDTHS["vgg19"])),
    "vgg19_slim": Kind(load_vgg19, lambda options, resolution: tap_shapes(resolution, WIDTHS["vgg19_slim"])),
    "efficientnet_lite0": Kind(
        efficientnet_lite0.load_efficientnet_lite0,
        lambda options, resolution: efficientnet_lite0.tap_shapes(resolution),
    ),
    conse.NAME: CONSE,
    clip.NAME: CLIP,
    "none": Kind(_load_none, lambda options, resolution: {"image": (resolution, resolution, 3)}),
}
APPLICATION = Kind(_load_application, lambda options, resolution: _application_shapes(options.teacher, resolution))
RUN = Kind(run.load_run)
MODULE = Kind(_load_module, towers=_load_module_towers)


def _kind(options):
    name = options.teacher
    if name in NAMED:
        return NAMED[name]
    for option, usual in VGG19_OPTIONS.items():
        if getattr(options, option) != usual:
            raise UserError(f"--{option}: {name} has no such option, only {' and '.join(WIDTHS)} have")
    for prefix, kind in {run.PREFIX: RUN, conse.PREFIX: CONSE, clip.PREFIX: CLIP}.items():
        if name.startswith(prefix):
            return kind
    if name in APPLICATIONS:
        return APPLICATION
    if plugins.is_dotted(name):
        return MODULE
    raise UserError(
        f"--teacher: {name!r} is none of {', '.join(NAMED)}, a network of keras.applications "
        f"({', '.join(APPLICATIONS)}), {run.PREFIX}DIR, conse:NETWORK, clip:PRESET, or a module such as "
        "my_package.my_teacher"
    )


def _check_weights(options):
    """Raises `UserError` where the file of a teacher's weights is missing or has another checksum than it must."""
    path, wanted = options.teacher_weights, options.teacher_weights_sha256
    if path == "imagenet" and options.teacher in SHIPPED:
        path = SHIPPED[options.teacher]
    if options.teacher == "none" or options.teacher.startswith(run.PREFIX) or (path == "imagenet" and not wanted):
        return
    if path == "imagenet":
        raise UserError(
            "--teacher_weights_sha256: Keras checks what it downloads; give a file with --teacher_weights to check it"
        )
    if not Path(path).is_file():
        raise UserError(f"--teacher_weights: no file {path}")
    if wanted:
        found = sha256_of(path)
        if found != wanted.lower():
            raise UserError(f"--teacher_weights: {path} has SHA-256 {found}, not {wanted}")
