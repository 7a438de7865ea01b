"""ICSD-GAN's networks: a generator of several stages, each with an image of twice the side, and their discriminators.

Source: our reconstruction after StackGAN-v2 (Zhang et al., TPAMI 2018), whose code these layers follow: conditioning
augmentation, gated linear units, batch normalisation, joining of text and map, two residual blocks a stage. Ours: the
number of stages and the base size are free, the condition's noise comes from outside, and discriminators have no batch
normalisation.
"""

import math

import keras
from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.imaging import HALF_RANGE

SMALLEST_MAP = 4
RESIDUAL_BLOCKS = 2
DISCRIMINATOR_TEXT = 128
LARGEST_LOG_SIGMA = 1.0
# Channels of a discriminator grow to this multiple of the first layer's.
LARGEST_GROWTH = 8


def sides(resolution, image_stages):
    """The sides of the stages' images, the smallest first.

    Raises:
        UserError: unless they are powers of two from 8 up.
    """
    if image_stages < 1:
        raise UserError(f"--image_stages: {image_stages} is not positive")
    found = [resolution >> shift for shift in range(image_stages - 1, -1, -1)]
    if found[0] < 8 or found[0] & (found[0] - 1) or found[0] << (image_stages - 1) != resolution:
        raise UserError(
            f"--resolution: {resolution} cannot be reached in --image_stages={image_stages} from a power of two of at "
            "least 8, each stage doubling the side"
        )
    return found


def image_name(side, resolution):
    """The output's name of a stage's image."""
    return "image" if side == resolution else f"image_{side}"


def build_generator(resolution, image_stages, text_dim, noise_dim, condition_dim, channels):
    """The generator of n stages.

    Conditioning augmentation (StackGAN): h = LeakyReLU(Dense(2 d)), its halves mu and log sigma, the latter at most 1
    (ours: a text unlike any seen before would drown in its own noise), c = mu + sigma e. The first stage goes from
    [z, c] through a dense layer to 4 x 4 and doubles up to the first side; every later stage joins c to the map before
    it, has two residual blocks and doubles it. Each stage's image is a 3x3 convolution of its map, 127.5 (1 + tanh).

    Args:
        resolution: side of the last image; earlier ones have half the side of the next.
        image_stages: n.
        text_dim: width of the text vector.
        noise_dim: width of z.
        condition_dim: d, of c.
        channels: of the first stage's map; half at each later stage.

    Returns:
        A `keras.Model` from {"text": float32 [batch, text_dim], "noise": float32 [batch, noise_dim + d]}, the noise
        being z and then e, to {"image": float32 [batch, resolution, resolution, 3] in 0-255, "image_SIDE" for earlier
        stages, "features_SIDE" [batch, channels]: each stage's map, averaged over its places, "text": the text vector,
        "mean" and "log_sigma" [batch, d]}.

    Raises:
        UserError: naming the flag that does not fit.
    """
    found = sides(resolution, image_stages)
    if channels < 1 or channels % (1 << (image_stages - 1)):
        raise UserError(f"--generator_channels: {channels} cannot be halved for {image_stages} stages")
    if condition_dim < 1:
        raise UserError(f"--condition_dim: {condition_dim} is not positive")
    text = keras.Input((text_dim,), name="text")
    noise = keras.Input((noise_dim + condition_dim,), name="noise")
    both = keras.layers.Dense(2 * condition_dim, name="condition")(text)
    both = keras.layers.LeakyReLU(0.2, name="condition_relu")(both)
    mean, log_sigma = both[:, :condition_dim], ops.minimum(both[:, condition_dim:], LARGEST_LOG_SIGMA)
    outputs = {"text": keras.layers.Identity(name="sentence")(text), "mean": mean, "log_sigma": log_sigma}
    condition = mean + ops.exp(log_sigma) * noise[:, noise_dim:]
    start = condition
    if noise_dim:
        start = keras.layers.Concatenate(name="noise_and_condition")([noise[:, :noise_dim], condition])
    for index, side in enumerate(found):
        name = f"stage_{side}"
        if index == 0:
            features = _first_map(start, side, channels, name)
        else:
            features = _refined_map(features, condition, channels >> index, name)
        outputs[f"features_{side}"] = keras.layers.GlobalAveragePooling2D(name=f"{name}_average")(features)
        outputs[image_name(side, resolution)] = _image(features, name)
    return keras.Model({"text": text, "noise": noise}, outputs, name="icsd_generator")


def _image(features, name):
    # In float32 under mixed precision: half precision has 8 bits at most, which is what it shows.
    layer = keras.layers.Conv2D(3, 3, padding="same", activation="tanh", name=f"{name}_rgb", dtype="float32")
    # A scale a channel: tf2onnx's optimiser stumbles over scalars.
    scale = [HALF_RANGE] * 3
    return keras.layers.Rescaling(scale, scale, name=f"{name}_image", dtype="float32")(layer(features))


def _normalised(features, name):
    return keras.layers.BatchNormalization(epsilon=1e-5, momentum=0.9, name=f"{name}_bn")(features)


def _gated(features, name):
    """A normalised gated linear unit: the first half of the channels times the sigmoid of the second."""
    # Split rather than sliced: TensorFlow's gradient of a slice of channels takes several times as long.
    features, gate = keras.ops.split(_normalised(features, name), 2, axis=-1)
    gate = keras.layers.Activation("sigmoid", name=f"{name}_gate")(gate)
    return keras.layers.Multiply(name=f"{name}_glu")([features, gate])


def _convolution(features, channels, name):
    return keras.layers.Conv2D(channels, 3, padding="same", use_bias=False, name=name)(features)


def _doubled(features, channels, name):
    features = keras.layers.UpSampling2D(2, interpolation="nearest", name=f"{name}_nearest")(features)
    return _gated(_convolution(features, 2 * channels, name), name)


def _first_map(start, side, channels, name):
    doublings = int(math.log2(side // SMALLEST_MAP))
    wide = 2 * (channels << doublings)
    units = SMALLEST_MAP * SMALLEST_MAP * wide
    features = keras.layers.Dense(units, use_bias=False, name=f"{name}_dense")(start)
    features = keras.layers.Reshape((SMALLEST_MAP, SMALLEST_MAP, wide), name=f"{name}_reshape")(features)
    features = _gated(features, f"{name}_dense")
    for index in range(doublings - 1, -1, -1):
        features = _doubled(features, channels << index, f"{name}_up{doublings - index}")
    return features


def _refined_map(features, condition, channels, name):
    before, width = features.shape[1], features.shape[-1]
    spread = keras.layers.Reshape((1, 1, condition.shape[-1]), name=f"{name}_condition")(condition)
    spread = keras.layers.UpSampling2D(before, interpolation="nearest", name=f"{name}_spread")(spread)
    joined = keras.layers.Concatenate(name=f"{name}_join")([features, spread])
    features = _gated(_convolution(joined, 2 * width, f"{name}_joint"), f"{name}_joint")
    for index in range(1, RESIDUAL_BLOCKS + 1):
        block = f"{name}_residual{index}"
        change = _gated(_convolution(features, 2 * width, f"{block}_a"), f"{block}_a")
        change = _normalised(_convolution(change, width, f"{block}_b"), f"{block}_b")
        features = keras.layers.Add(name=block)([features, change])
    return _doubled(features, channels, f"{name}_up")


class Discriminator(keras.layers.Layer):
    """One stage's discriminator: is this image real, and does it show this text?

    Strided 4x4 convolutions with LeakyReLU halve the picture down to 4 x 4. The unconditional head is a 4x4 convolution
    of that map; the conditional one joins the text, through a dense layer, to every place of it first.

    Args:
        side: of its pictures, a power of two of at least 8.
        text_dim: width of the text vector.
        channels: of the first convolution, doubled at each further one up to 8 times.
    """

    def __init__(self, side, text_dim, channels):
        super().__init__(name=f"discriminator_{side}")
        image = keras.Input((side, side, 3))
        features = keras.layers.Rescaling(1 / HALF_RANGE, -1.0, dtype="float32")(image)
        for index in range(int(math.log2(side // SMALLEST_MAP))):
            width = channels * min(1 << index, LARGEST_GROWTH)
            features = self._convolution(features, width, 4, f"down{index + 1}", strides=2)
        self.trunk = keras.Model(image, features, name=f"{self.name}_trunk")
        seen = keras.Input(features.shape[1:])
        self.unconditional = keras.Model(seen, self._score(seen, "unconditional"))
        seen, text = keras.Input(features.shape[1:]), keras.Input((text_dim,))
        spread = keras.layers.Dense(DISCRIMINATOR_TEXT, name=f"{self.name}_text")(text)
        spread = keras.layers.Reshape((1, 1, DISCRIMINATOR_TEXT))(spread)
        spread = keras.layers.UpSampling2D(SMALLEST_MAP)(spread)
        joined = keras.layers.Concatenate()([seen, spread])
        joined = self._convolution(joined, features.shape[-1], 3, "joint")
        self.conditional = keras.Model([seen, text], self._score(joined, "conditional"))
        self.built = True

    def _convolution(self, features, channels, window, name, strides=1):
        layer = keras.layers.Conv2D(channels, window, strides, "same", name=f"{self.name}_{name}")
        return keras.layers.LeakyReLU(0.2)(layer(features))

    def _score(self, features, name):
        layer = keras.layers.Conv2D(1, SMALLEST_MAP, name=f"{self.name}_{name}", dtype="float32")
        return keras.layers.Reshape((), dtype="float32")(layer(features))

    def call(self, images, texts):
        """Scores of pictures with texts.

        Args:
            images: float [batch, side, side, 3] in 0-255.
            texts: float [batch, text_dim].

        Returns:
            (unconditional, conditional): float32 scores [batch], high for real.
        """
        seen = self.trunk(images)
        return self.unconditional(seen), self.conditional([seen, texts])
