"""VGG19 as a teacher: an image in, 22 named feature maps out.

Source: Yuan & Peng, "Text-to-image Synthesis via Symmetrical Distillation Networks" (ACM MM 2018), and the
authors' code: features after ReLU, 2x2 average pooling in place of max pooling, SAME padding.
"""

from pathlib import Path

import keras
import numpy as np
from keras import ops

from t2i_kd.errors import UserError

# (convolutions, channels at width 1) of VGG19's five blocks.
BLOCKS = ((2, 64), (2, 128), (4, 256), (4, 512), (4, 512))
CONVOLUTIONS = tuple(
    f"conv{block}_{index}" for block, (count, _) in enumerate(BLOCKS, 1) for index in range(1, count + 1)
)
POOLINGS = ("average", "max")
PREPROCESSINGS = ("caffe", "none")
# The ImageNet means that VGG19's weights expect to be subtracted, blue, green, red.
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)
SLIM_WIDTH = 0.25
SLIM_WEIGHTS = Path(__file__).parent / "weights" / "vgg19_slim.npz"


def channels(block, width):
    """Channels of VGG19's `block` (1-5) at a width factor.

    Raises:
        UserError: when `width` does not give whole numbers of channels.
    """
    scaled = BLOCKS[block - 1][1] * width
    if scaled < 1 or scaled != int(scaled):
        raise UserError(f"--width: {width} does not give whole channel counts (64 x width must be a whole number)")
    return int(scaled)


def check_resolution(resolution):
    """Raises `UserError` for a side of images that five halvings do not divide."""
    if resolution % 32 or resolution <= 0:
        raise UserError(f"--resolution: {resolution} is not a positive multiple of 32")


def tap_shapes(resolution, width=1.0):
    """{tap: (height, width, channels)} of VGG19's 22 taps, from the pixels to the most abstract map.

    Args:
        resolution: side of the image in pixels, a multiple of 32.
        width: factor on every channel count.

    Raises:
        UserError: when `resolution` is not a multiple of 32, or `width` does not give whole numbers of channels.
    """
    check_resolution(resolution)
    shapes, side = {"image": (resolution, resolution, 3)}, resolution
    for block, (count, _) in enumerate(BLOCKS, 1):
        filters = channels(block, width)
        shapes |= {f"conv{block}_{index}": (side, side, filters) for index in range(1, count + 1)}
        side //= 2
        shapes[f"pool{block}"] = (side, side, filters)
    return shapes


# The names, in that order.
TAPS = tuple(tap_shapes(32))


@keras.saving.register_keras_serializable(package="t2i_kd")
class VGGPreprocessing(keras.layers.Layer):
    """RGB in 0-255 to what VGG19 reads: BGR, minus the ImageNet mean (`caffe`) or as it is (`none`).

    `caffe` is what the ImageNet weights were trained with; `none` is what SDN's authors feed.
    """

    def __init__(self, mode="caffe", **kwargs):
        super().__init__(**kwargs)
        if mode not in PREPROCESSINGS:
            raise UserError(f"--teacher_preprocessing: {mode!r} is none of {', '.join(PREPROCESSINGS)}")
        self.mode = mode

    def call(self, image):
        bgr = ops.flip(image, axis=-1)
        if self.mode == "none":
            return bgr
        return bgr - ops.convert_to_tensor(IMAGENET_MEAN_BGR, dtype=bgr.dtype)

    def get_config(self):
        return {**super().get_config(), "mode": self.mode}


def build_vgg19(resolution, width=1.0, pooling="average", preprocessing="caffe", batch_normalization=False):
    """VGG19's convolutions with every tap as an output.

    Args:
        resolution: side of the image in pixels, a multiple of 32.
        width: factor on every channel count; 1 is VGG19, 0.25 is `vgg19_slim`.
        pooling: `average` (SDN's) or `max` (VGG19's own).
        preprocessing: `caffe` or `none`; see `VGGPreprocessing`.
        batch_normalization: normalise before each ReLU; only for training a slim teacher, see
            `fold_batch_normalization`.

    Returns:
        A `keras.Model` from float32 RGB images [batch, resolution, resolution, 3] in 0-255 to
        {tap: float tensor [batch, height, width, channels]}, the taps in the order of `TAPS`. Weights are random.
    """
    check_resolution(resolution)
    pools = {"average": keras.layers.AveragePooling2D, "max": keras.layers.MaxPooling2D}
    if pooling not in pools:
        raise UserError(f"--teacher_pooling: {pooling!r} is none of {', '.join(POOLINGS)}")
    image = keras.Input((resolution, resolution, 3), name="image")
    taps = {"image": image}
    features = VGGPreprocessing(preprocessing, name="preprocessing")(image)
    for block, (count, _) in enumerate(BLOCKS, 1):
        filters = channels(block, width)
        for index in range(1, count + 1):
            name = f"conv{block}_{index}"
            if batch_normalization:
                features = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, name=name)(features)
                features = keras.layers.BatchNormalization(name=f"{name}_bn")(features)
                features = keras.layers.ReLU(name=f"{name}_relu")(features)
            else:
                features = keras.layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(features)
            taps[name] = features
        features = pools[pooling](2, strides=2, padding="same", name=f"pool{block}")(features)
        taps[f"pool{block}"] = features
    return keras.Model(image, taps, name="vgg19" if width == 1 else "vgg19_slim")


def fold_batch_normalization(trained, resolution, pooling="average", preprocessing="caffe"):
    """The same network without normalisation layers: gamma (x - mean) / sqrt(var + eps) + beta goes into each kernel.

    Args:
        trained: a model that `build_vgg19(..., batch_normalization=True)` made.

    Returns:
        A model of `build_vgg19(..., batch_normalization=False)` whose outputs equal `trained`'s at inference.
    """
    width = trained.get_layer("conv1_1").filters / BLOCKS[0][1]
    folded = build_vgg19(resolution, width, pooling, preprocessing)
    for name in CONVOLUTIONS:
        (kernel,) = trained.get_layer(name).get_weights()
        norm = trained.get_layer(f"{name}_bn")
        gamma, beta, mean, variance = norm.get_weights()
        factor = gamma / np.sqrt(variance + norm.epsilon)
        folded.get_layer(name).set_weights([kernel * factor, beta - mean * factor])
    return folded
