"""The mirrored generator: VGG19 turned upside down, each tensor named after the teacher tensor that it mirrors.

It is SDN's, and one of KD-DLGAN's hosts.

Source: Yuan & Peng (ACM MM 2018) and the authors' code. The initializers `he` and `looks_linear`,
`image_output="centred"`, `width`, `noise_dim` and `head_rank` are our options.
"""

import itertools
import math

import keras
from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.imaging import HALF_RANGE
from t2i_kd.teachers.vgg19 import BLOCKS, TAPS, channels, check_resolution

DENSE_UNITS = 4096


@keras.saving.register_keras_serializable(package="t2i_kd")
class LooksLinear(keras.initializers.Initializer):
    """Kernels through which a deep ReLU network is, before training, a linear map that keeps every angle's worth.

    Channels come in pairs (z, -z): with a random v, an inner layer's kernel is [[v, -v], [-v, v]], the first layer's
    [v, -v], the last linear layer's [v; -v]. As relu(z) - relu(-z) = z, the layers compose to a product of the v,
    and different texts stay as different as they were; under `he` their correlation tends to 1 with depth. v is
    drawn from N(0, 1 / n), n the inputs that a unit of a pair's first half sees, zero padding not counted.

    Source: Balduzzi et al., "The Shattered Gradients Problem" (ICML 2017), section 4; the correction for zero padding
    is ours.

    Args:
        paired_input, paired_output: whether the layer's inputs and outputs are such pairs.
        side: height and width of the map that a 3x3 convolution works on.
        places: a dense layer's output is read as this many places of paired channels.
        seed: of v.
    """

    def __init__(self, paired_input=True, paired_output=True, side=0, places=1, seed=0):
        self.paired_input, self.paired_output, self.side, self.places = paired_input, paired_output, side, places
        self.seed = seed

    def __call__(self, shape, dtype=None):
        *window, inputs, outputs = shape
        v_inputs = inputs // 2 if self.paired_input else inputs
        v_outputs = outputs // self.places // (2 if self.paired_output else 1)
        seen = v_inputs * ((3 - 2 / self.side) ** 2 if window else 1)
        v = keras.random.normal(
            (*window, v_inputs, self.places, v_outputs), stddev=seen**-0.5, dtype=dtype or "float32", seed=self.seed
        )
        if self.paired_input:
            v = ops.concatenate([v, -v], axis=-3)
        if self.paired_output:
            v = ops.concatenate([v, -v], axis=-1)
        return ops.reshape(v, shape)

    def get_config(self):
        return {
            "paired_input": self.paired_input,
            "paired_output": self.paired_output,
            "side": self.side,
            "places": self.places,
            "seed": self.seed,
        }


def kernel_initializers(name, seed):
    """A function that makes a fresh kernel initializer for each layer of the generator.

    `paper`: N(0, 0.1) for dense and N(0, 0.02) for convolution kernels. `he`: N(0, 2 / fan_in), which keeps the mean
    square of activations through ReLU layers (He et al. 2015), and N(0, 1 / fan_in) for the image's linear
    convolution. `looks_linear`: see `LooksLinear`.
    """
    seeds = itertools.count(seed * 1000)

    def make(kind, side=0, places=1):
        if name == "paper":
            return keras.initializers.RandomNormal(0.0, 0.02 if side else 0.1, seed=next(seeds))
        if name == "looks_linear":
            return LooksLinear(kind != "first", kind != "last", side, places, next(seeds))
        gain = 1.0 if kind == "last" else 2.0
        return keras.initializers.VarianceScaling(gain, "fan_in", "untruncated_normal", seed=next(seeds))

    return make


def build_generator(
    resolution,
    text_dim,
    width=1.0,
    noise_dim=0,
    initializer="paper",
    image_output="paper",
    seed=0,
    head_rank=0,
    modulation=False,
):
    """SDN's student G: a text vector in, an image and 21 mirrored feature maps out.

    fc7 and fc6 are dense layers of 4096 x width units with ReLU, pool5 a dense layer with ReLU reshaped to
    resolution/32 squared x 512 width. Then, for blocks 5 to 1, nearest-neighbour upsampling by 2 followed by 3x3
    convolutions with ReLU; the last, to 3 channels, is linear and is the image. There is no normalisation.

    Args:
        resolution: side of the image, a multiple of 32.
        text_dim: width of the text vector (1024 in the paper).
        width: factor on all channel counts; 1 is the paper's.
        noise_dim: width of a noise vector that is appended to the text vector; 0, the paper's, for none.
        initializer: `paper`, `he` or `looks_linear`; see `kernel_initializers`.
        image_output: with o the last convolution, `paper`: image = o; `centred`: image = 127.5 (1 + o).
        seed: of the initial weights.
        head_rank: r; where it makes a layer smaller, the kernel of fc6 and of pool5's dense layer is a product U V of
            [inputs, r] and [r, outputs], a layer `NAME_factor` without bias before each; 0, the paper's, for none.
        modulation: let text and noise c scale and shift each block's upsampled map h on its way to the next
            convolution: h (1 + A c + a) + B c + b, channel by channel, all of A, a, B, b 0 at first. After DF-GAN (Tao
            et al., CVPR 2022); the paper's has none.

    Returns:
        A `keras.Model` from {"text": float32 [batch, text_dim], ["noise": float32 [batch, noise_dim]]} to
        {tap: tensor [batch, height, width, channels]} with the names and shapes of the teacher's `TAPS`; `image` is
        float32, nominally 0-255, not clipped. 143,789,123 parameters at resolution 224, width 1, text_dim 1024.

    Raises:
        UserError: when `resolution` is not a multiple of 32, `width` gives no whole channel counts, or `head_rank` is
            negative.
    """
    check_resolution(resolution)
    if head_rank < 0:
        raise UserError(f"--head_rank: {head_rank} is negative")
    kernels = kernel_initializers(initializer, seed)
    text = keras.Input((text_dim,), name="text")
    inputs = {"text": text}
    given = text
    if noise_dim:
        inputs["noise"] = keras.Input((noise_dim,), name="noise")
        given = keras.layers.Concatenate(name="text_and_noise")([text, inputs["noise"]])
    features = given

    def dense(units, name, kind="inner", places=1):
        return keras.layers.Dense(units, "relu", kernel_initializer=kernels(kind, places=places), name=name)

    def convolution(filters, name, side):
        return keras.layers.Conv2D(
            filters, 3, padding="same", activation="relu", kernel_initializer=kernels("inner", side), name=name
        )

    def modulated(features, name):
        filters = features.shape[-1]
        scale, shift = (
            keras.layers.Reshape((1, 1, filters), name=f"{name}_{what}_reshape")(
                keras.layers.Dense(filters, kernel_initializer="zeros", name=f"{name}_{what}")(given)
            )
            for what in ("scale", "shift")
        )
        scaled = keras.layers.Multiply(name=f"{name}_scaled")([features, scale])
        return keras.layers.Add(name=f"{name}_modulated")([features, scaled, shift])

    def factored(inputs, units, name, places=1):
        """Layers from `inputs` numbers to `units`, to be applied in turn."""
        if not head_rank or head_rank * (inputs + units) >= inputs * units:
            return [dense(units, name, places=places)]
        factor = keras.layers.Dense(
            head_rank, use_bias=False, kernel_initializer=kernels("last"), name=f"{name}_factor"
        )
        return [factor, dense(units, name, "first", places)]

    units = math.ceil(DENSE_UNITS * width)
    # The order in which layers are made decides their seeds: fc6 comes before fc7.
    fc6 = factored(units, units, "fc6")
    side = resolution // 32
    top = channels(5, width)
    fc7 = dense(units, "fc7", "first")
    for layer in (fc7, *fc6, *factored(units, side * side * top, "pool5_flat", side * side)):
        features = layer(features)
    features = keras.layers.Reshape((side, side, top), name="pool5")(features)
    taps = {"pool5": features}
    for block in range(5, 0, -1):
        count = BLOCKS[block - 1][0]
        name = f"conv{block}_{count}"
        side *= 2
        features = taps[name] = keras.layers.UpSampling2D(2, interpolation="nearest", name=name)(features)
        if modulation:
            features = modulated(features, name)
        for index in range(count - 1, 0, -1):
            name = f"conv{block}_{index}"
            features = taps[name] = convolution(channels(block, width), name, side)(features)
        if block > 1:
            name = f"pool{block - 1}"
            features = taps[name] = convolution(channels(block - 1, width), name, side)(features)
    # The image stays float32 under mixed precision: half precision has 8 bits at most, which is what it shows.
    last = keras.layers.Conv2D(
        3, 3, padding="same", kernel_initializer=kernels("last", side), name="image_linear", dtype="float32"
    )(features)
    scale, offset = (HALF_RANGE, HALF_RANGE) if image_output == "centred" else (1.0, 0.0)
    # A scale a channel: tf2onnx's optimiser stumbles over scalars.
    taps["image"] = keras.layers.Rescaling([scale] * 3, [offset] * 3, name="image", dtype="float32")(last)
    return keras.Model(inputs, {name: taps[name] for name in TAPS}, name="sdn_generator")


def from_options(options, resolution, text_dim, noise_dim, seed):
    """`build_generator` of a `MirroredOptions`."""
    return build_generator(
        resolution,
        text_dim,
        options.width,
        noise_dim,
        options.initializer,
        options.image_output,
        seed,
        options.head_rank,
        options.modulation,
    )
