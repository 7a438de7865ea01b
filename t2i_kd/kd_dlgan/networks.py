"""KD-DLGAN's host, BigGAN at 32 px: generator, discriminator, and the discriminator's head that learns from a teacher.

Source: Brock et al., "Large Scale GAN Training for High Fidelity Natural Image Synthesis" (ICLR 2019), and its code as
KD-DLGAN's authors use it: residual blocks, four times the base width in all maps of up to 32 pixels a side, N(0, 0.02)
initial weights, no attention. Ours: a text vector in place of the class's, so that captions condition; sides other than
32; spectral normalisation of the discriminator alone.
"""

import math

import keras
from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.imaging import HALF_RANGE
from t2i_kd.training.spectral import SpectrallyNormalised

FIRST_SIDE = 4
# The discriminator's last maps have this side.
LAST_SIDE = 8
WIDEST_UP_TO = 32
GROWTH = 4
EPSILON = 1e-5


def check_side(side):
    """Raises `UserError` for images whose side is no power of two from 16 up."""
    if side < 2 * LAST_SIDE or side & (side - 1):
        raise UserError(
            f"--resolution: {side} is no power of two from {2 * LAST_SIDE} up, which BigGAN's networks need"
        )


def width(channels, side):
    """The channels of maps of a side: 4 c up to 32 pixels, then half of it at each doubling, at least one."""
    return max(1, GROWTH * channels * WIDEST_UP_TO // max(side, WIDEST_UP_TO))


def small_normal():
    """BigGAN's initial weights; each layer's are drawn from Keras's seed."""
    return keras.initializers.RandomNormal(0.0, 0.02)


def build_generator(resolution, text_dim, noise_dim, channels):
    """BigGAN's generator.

    A dense layer goes from the noise z to 4 x 4 places. Each residual block doubles the side: batch normalisation,
    ReLU, upsampling (nearest), 3x3, batch normalisation, ReLU, 3x3, plus a 1x1 of its input, upsampled. Then batch
    normalisation, ReLU, and a 3x3 to 127.5 (1 + tanh). A block's normalisations are scaled and shifted, channel by
    channel, by affine functions of the text vector t: h (1 + A t + a) + B t + b.

    Args:
        resolution: side of the image, a power of two from 16 up.
        text_dim: width of t.
        noise_dim: width of z.
        channels: c; see `width`.

    Returns:
        A `keras.Model` from {"text": float32 [batch, text_dim], "noise": float32 [batch, noise_dim]} to {"image":
        float32 [batch, resolution, resolution, 3] in 0-255}.

    Raises:
        UserError: naming the flag that does not fit.
    """
    check_side(resolution)
    if channels < 1:
        raise UserError(f"--generator_channels: {channels} is not positive")
    text, noise = keras.Input((text_dim,), name="text"), keras.Input((noise_dim,), name="noise")
    first = width(channels, FIRST_SIDE)
    features = _dense(FIRST_SIDE**2 * first, "first")(noise)
    features = keras.layers.Reshape((FIRST_SIDE, FIRST_SIDE, first), name="first_map")(features)
    side = FIRST_SIDE
    while side < resolution:
        side *= 2
        features = _generator_block(features, text, width(channels, side), f"block_{side}")
    features = keras.layers.BatchNormalization(epsilon=EPSILON, momentum=0.9, name="last_bn")(features)
    features = keras.layers.ReLU(name="last_relu")(features)
    # In float32 under mixed precision: half precision has 8 bits at most, which is what it shows.
    layer = keras.layers.Conv2D(
        3, 3, padding="same", activation="tanh", kernel_initializer=small_normal(), name="rgb", dtype="float32"
    )
    # A scale a channel: tf2onnx's optimiser stumbles over scalars.
    scale = [HALF_RANGE] * 3
    image = keras.layers.Rescaling(scale, scale, name="image", dtype="float32")(layer(features))
    return keras.Model({"text": text, "noise": noise}, {"image": image}, name="biggan_generator")


def _dense(units, name):
    return keras.layers.Dense(units, kernel_initializer=small_normal(), name=name)


def _convolution(channels, window, name):
    return keras.layers.Conv2D(channels, window, padding="same", kernel_initializer=small_normal(), name=name)


def _conditional_normalisation(features, text, name):
    channels = features.shape[-1]
    normalised = keras.layers.BatchNormalization(
        epsilon=EPSILON, momentum=0.9, center=False, scale=False, name=f"{name}_bn"
    )(features)
    scale, shift = (
        keras.layers.Reshape((1, 1, channels), name=f"{name}_{what}_reshape")(_dense(channels, f"{name}_{what}")(text))
        for what in ("scale", "shift")
    )
    scaled = keras.layers.Multiply(name=f"{name}_scaled")([normalised, scale])
    shifted = keras.layers.Add(name=f"{name}_conditioned")([normalised, scaled, shift])
    return keras.layers.ReLU(name=f"{name}_relu")(shifted)


def _generator_block(features, text, channels, name):
    change = _conditional_normalisation(features, text, f"{name}_a")
    change = keras.layers.UpSampling2D(2, interpolation="nearest", name=f"{name}_nearest")(change)
    change = _convolution(channels, 3, f"{name}_a_conv")(change)
    change = _conditional_normalisation(change, text, f"{name}_b")
    change = _convolution(channels, 3, f"{name}_b_conv")(change)
    # A 1x1 convolution and repeating pixels may change places; this way it costs a quarter.
    kept = _convolution(channels, 1, f"{name}_shortcut")(features)
    kept = keras.layers.UpSampling2D(2, interpolation="nearest", name=f"{name}_shortcut_nearest")(kept)
    return keras.layers.Add(name=name)([change, kept])


class Discriminator(SpectrallyNormalised):
    """BigGAN's projection discriminator: is this image real, and does it show this text?

    Residual blocks (ReLU, 3x3, ReLU, 3x3, plus a 1x1 of the input; the first without its first ReLU) halve the side by
    averages down to 8, and two more follow there. h is the ReLU of the last map, summed over its places, and the score
    s = w h + <W t, h>, t the text vector. Every kernel is spectrally normalised.

    Args:
        side: of its images, a power of two from 16 up.
        text_dim: width of t.
        channels: c; see `width`.
    """

    def __init__(self, side, text_dim, channels):
        check_side(side)
        super().__init__(name="discriminator")
        image = keras.Input((side, side, 3), name="image")
        features = keras.layers.Rescaling(1 / HALF_RANGE, -1.0, dtype="float32")(image)
        halvings = int(math.log2(side // LAST_SIDE))
        for index in range(halvings + 2):
            channels_here = width(channels, side >> index)
            features = self._block(features, channels_here, index == 0, index < halvings, f"block{index + 1}")
        features = keras.layers.ReLU(dtype="float32")(features)
        self.width = features.shape[-1]
        self.trunk = keras.Model(image, ops.sum(features, axis=(1, 2)), name="discriminator_trunk")
        seen = keras.Input((self.width,))
        self.score = keras.Model(seen, self._dense(1, "score")(seen), name="discriminator_score_of")
        text = keras.Input((text_dim,))
        projected = self._dense(self.width, "text", use_bias=False)(text)
        self.text = keras.Model(text, projected, name="discriminator_projection")
        self.add_vectors()

    def _dense(self, units, name, use_bias=True):
        return self.kept_normal(
            keras.layers.Dense(
                units,
                use_bias=use_bias,
                kernel_initializer=small_normal(),
                dtype="float32",
                name=f"discriminator_{name}",
            )
        )

    def _convolution(self, features, channels, window, name):
        return self.kept_normal(_convolution(channels, window, f"discriminator_{name}"))(features)

    def _block(self, features, channels, is_first, halves, name):
        change = features if is_first else keras.layers.ReLU()(features)
        change = self._convolution(change, channels, 3, f"{name}_a")
        change = self._convolution(keras.layers.ReLU()(change), channels, 3, f"{name}_b")
        if is_first or halves or features.shape[-1] != channels:
            features = self._convolution(features, channels, 1, f"{name}_shortcut")
        both = keras.layers.Add()([change, features])
        return keras.layers.AveragePooling2D(2)(both) if halves else both

    def scores(self, seen, texts):
        """float32 scores [batch, 1], high for real images with their own text.

        Args:
            seen: h, float [batch, width], what `trunk` gives of float images [batch, side, side, 3] in 0-255.
            texts: t, float [batch, text_dim].
        """
        return self.score(seen) + ops.sum(self.text(texts) * seen, axis=-1, keepdims=True)


class FeatureHead(SpectrallyNormalised):
    """e: the discriminator's features to the space of a teacher's vectors, by two dense layers, nothing between them.

    Source: the authors' code. Both kernels are spectrally normalised.

    Args:
        inputs: width of the discriminator's features.
        units: of the first layer.
        dim: width of the teacher's vectors.
    """

    def __init__(self, inputs, units, dim):
        if units < 1:
            raise UserError(f"--head_units: {units} is not positive")
        super().__init__(name="feature_head")
        seen = features = keras.Input((inputs,))
        for name, count in (("hidden", units), ("vector", dim)):
            layer = keras.layers.Dense(
                count, kernel_initializer=small_normal(), dtype="float32", name=f"feature_head_{name}"
            )
            features = self.kept_normal(layer)(features)
        self.network = keras.Model(seen, features, name="feature_head_network")
        self.add_vectors()

    def call(self, features):
        """float32 [batch, dim] of float features [batch, inputs]."""
        return self.network(features)
