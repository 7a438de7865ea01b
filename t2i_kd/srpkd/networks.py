"""SRPKD's networks: the generators and discriminators of CycleGAN and pix2pix, and how much they compute.

Source: the released code of CycleGAN and pix2pix (Zhu et al., ICCV 2017; Isola et al., CVPR 2017), whose layers,
biases, padding and initial weights these follow; the style network is Johnson et al.'s (ECCV 2016) as ml5.js has it.
Every generator reads and gives images in 0-255 and converts inside. Each layer whose map can be compared has a name of
its own, the same at every width.
"""

import math

import keras
from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.imaging import HALF_RANGE

NORMS = ("instance", "instance_affine", "batch")
UPSAMPLINGS = ("transposed", "nearest")
# The reference code's epsilon of both norms; ml5.js has another.
EPSILON = 1e-5
STYLE_EPSILON = 1e-3
STYLE_SCALE = 150.0
# What float32's rounding can make of a channel that is the same everywhere: its deviation relative to its mean, and the
# variance of what is next to zero.
ROUNDING = 1e-4
SMALLEST_VARIANCE = 1e-12
# Discriminators' and U-Nets' channels grow to this multiple of the first layer's.
LARGEST_GROWTH = 8
# The outermost level of a U-Net whose features training drops.
FIRST_DROPPED = 4
DEFAULT_DEPTHS = {"resnet": 9, "style": 5}


@keras.saving.register_keras_serializable(package="t2i_kd")
class InstanceNormalization(keras.layers.Layer):
    """(x - m) / sqrt(v + epsilon) of each image's each channel, m and v its mean and variance over the places.

    Computed in float32 whatever the policy. Source: Ulyanov et al. (2016). Ours: the factor v / (v + (1e-4 m)^2 +
    1e-12), which is 1 but where all that differs is rounding. Of an image of one colour reflecting layers see one
    colour everywhere; each norm would enlarge the rounding 316 times, and no two runtimes would agree on the picture.

    Args:
        epsilon: added to the variance.
        affine: learn a scale and a shift a channel; CycleGAN's code does not.
    """

    # For `exporting.litert`: a variance has more orders of magnitude than 8 bits.
    needs_float_activations = True

    def __init__(self, epsilon=EPSILON, affine=False, **options):
        super().__init__(**options)
        self.epsilon, self.affine = epsilon, affine

    def build(self, input_shape):
        if self.affine:
            self.gamma = self.add_weight(shape=(input_shape[-1],), initializer="ones", name="gamma")
            self.beta = self.add_weight(shape=(input_shape[-1],), initializer="zeros", name="beta")
        self.built = True

    def call(self, inputs):
        """[batch, height, width, channels] to the same shape."""
        features = ops.cast(inputs, "float32")
        mean = ops.mean(features, axis=(1, 2), keepdims=True)
        centred = features - mean
        variance = ops.mean(ops.square(centred), axis=(1, 2), keepdims=True)
        noise = ops.square(ROUNDING * mean) + SMALLEST_VARIANCE
        # Quotients and products alone: tf2onnx gets the shapes of a comparison wrong here. One number a channel first,
        # so that a whole map is multiplied once.
        normalised = centred * (variance / (variance + noise) / ops.sqrt(variance + self.epsilon))
        if self.affine:
            normalised = normalised * ops.cast(self.gamma, "float32") + ops.cast(self.beta, "float32")
        return ops.cast(normalised, self.compute_dtype)

    def get_config(self):
        return {**super().get_config(), "epsilon": self.epsilon, "affine": self.affine}


@keras.saving.register_keras_serializable(package="t2i_kd")
class ReflectionPadding(keras.layers.Layer):
    """Pads height and width by mirrored pixels, the border's own not repeated. Args: margin: pixels on each side."""

    def __init__(self, margin, **options):
        super().__init__(**options)
        self.margin = margin

    def call(self, inputs):
        """[batch, height, width, channels] to the same with 2 `margin` rows and columns more."""
        both = (self.margin, self.margin)
        return ops.pad(inputs, ((0, 0), both, both, (0, 0)), mode="reflect")

    def get_config(self):
        return {**super().get_config(), "margin": self.margin}


class _Layers:
    """Makes the layers of one network: their initial weights, norms and biases are the network's."""

    def __init__(self, norm, epsilon=EPSILON):
        self.norm, self.epsilon = norm, epsilon
        # What a batch norm shifts needs no bias; the instance norm of CycleGAN has no shift.
        self.use_bias = norm != "batch"

    def convolution(self, features, channels, window, name, strides=1, padding="valid", use_bias=None, **options):
        layer = keras.layers.Conv2D(
            channels,
            window,
            strides,
            padding,
            use_bias=self.use_bias if use_bias is None else use_bias,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            name=name,
            **options,
        )
        return layer(features)

    def transposed(self, features, channels, window, name, padding="valid", use_bias=None, **options):
        layer = keras.layers.Conv2DTranspose(
            channels,
            window,
            2,
            padding,
            use_bias=self.use_bias if use_bias is None else use_bias,
            kernel_initializer=keras.initializers.RandomNormal(stddev=0.02),
            name=name,
            **options,
        )
        return layer(features)

    def doubled(self, features, channels, name, upsampling, padding):
        """The map at twice its side: by 3x3 kernels, a norm and a ReLU.

        Args:
            features, channels, name: the map, how many it then has, and what its layers' names begin with.
            upsampling: of `UPSAMPLINGS`. `nearest`: each place four times, then a convolution, whose windows overlap
                alike everywhere, unlike those of a transposed one.
            padding: of a transposed convolution: `same`, or `valid`, then cropped as PyTorch's output is.
        """
        if upsampling == "nearest":
            features = keras.layers.UpSampling2D(2, name=f"{name}_nearest")(features)
            features = self.convolution(features, channels, 3, name, padding="same")
        else:
            features = self.transposed(features, channels, 3, name, padding)
            if padding == "valid":
                features = keras.layers.Cropping2D(((1, 0), (1, 0)), name=f"{name}_crop")(features)
        return keras.layers.ReLU(name=f"{name}_relu")(self.normalised(features, name))

    def normalised(self, features, name):
        if self.norm != "batch":
            affine = self.norm == "instance_affine"
            return InstanceNormalization(self.epsilon, affine, name=f"{name}_norm")(features)
        layer = keras.layers.BatchNormalization(
            epsilon=self.epsilon,
            momentum=0.9,
            gamma_initializer=keras.initializers.RandomNormal(1.0, 0.02),
            name=f"{name}_norm",
        )
        return layer(features)


def _centred(image):
    # A scale a channel: tf2onnx's optimiser stumbles over scalars.
    return keras.layers.Rescaling([1 / HALF_RANGE] * 3, [-1.0] * 3, name="centred", dtype="float32")(image)


def _shown(image, scale=HALF_RANGE):
    """The tanh of the last layer's map as an image, `scale` tanh + 127.5, in float32 also under mixed precision."""
    image = keras.layers.Activation("tanh", name="tanh", dtype="float32")(image)
    return keras.layers.Rescaling([scale] * 3, [HALF_RANGE] * 3, name="image", dtype="float32")(image)


def build_generator(kind, resolution, channels=64, depth=0, norm="instance", dropout=0.0, upsampling="transposed"):
    """A generator of images from images.

    Args:
        kind: `resnet`, `unet` or `style`; see `build_resnet`, `build_unet` and `build_style`.
        resolution: side of the images in pixels.
        channels: of the first layer, the field's ngf.
        depth: residual blocks of `resnet` (9) and `style` (5), or halvings of `unet` (down to one pixel); 0: the usual.
        norm: of `NORMS`: `instance`, CycleGAN's, has neither scale nor shift; that of `style` always has both.
        dropout: the share of features that training drops.
        upsampling: of `UPSAMPLINGS`: `transposed` convolutions, the reference code's, or `nearest` neighbours before a
            convolution, which leave no mesh of two pixels (Odena et al., "Deconvolution and checkerboard artifacts",
            Distill 2016); not of `unet`.

    Returns:
        A `keras.Model` from {"source": float32 [batch, resolution, resolution, 3] in 0-255} to {"image": float32 of the
        same shape, nominally 0-255}.

    Raises:
        UserError: naming the flag that does not fit.
    """
    if channels < 1:
        raise UserError(f"--generator_channels: {channels} is not positive")
    if depth < 0:
        raise UserError(f"--generator_depth: {depth} is negative")
    if kind == "unet":
        if upsampling != "transposed":
            raise UserError(f"--generator_upsampling: --generator=unet has no {upsampling}, only transposed")
        return build_unet(resolution, channels, depth, norm, dropout)
    depth = depth or DEFAULT_DEPTHS[kind]
    if kind == "resnet":
        return build_resnet(resolution, channels, depth, norm, dropout, upsampling)
    for flag, value, usual in (("generator_norm", norm, "instance"), ("generator_dropout", dropout, 0.0)):
        if value != usual:
            raise UserError(f"--{flag}: --generator=style has no {value}, only {usual}")
    return build_style(resolution, channels, depth, upsampling)


def default_tap(kind, resolution, depth=0):
    """The map that is compared where a recipe names none.

    It is the end of the encoder, `encoder`. A U-Net's encoder ends where next to nothing is left to relate, so there it
    is the map of a sixteenth of the side, or the last of at least two pixels (ours).
    """
    if kind != "unet":
        return "encoder"
    depth = depth or int(math.log2(resolution))
    return f"down{max(1, min(4, depth - 1, int(math.log2(resolution)) - 1))}"


def build_resnet(resolution, channels, blocks, norm="instance", dropout=0.0, upsampling="transposed"):
    """The residual generator: `resnet_9blocks` and `resnet_6blocks` of CycleGAN's code.

    Reflect 3, 7x7 to c; 3x3 by strides of 2 to 2c and 4c, whose ReLU is `encoder`; blocks x + N(K N(K x)+), reflected,
    `block1` to `blockN`; transposed 3x3 to 2c and c; reflect 3, 7x7 to 3; 127.5 (1 + tanh). Transposed convolutions lie
    as PyTorch's with padding 1 and output padding 1.

    Args:
        resolution: side in pixels, a multiple of 4 of at least 8.
        channels: c, the field's ngf.
        blocks: residual blocks.
        norm: of `NORMS`.
        dropout: share dropped within each block.
        upsampling: of `UPSAMPLINGS`; see `build_generator`.

    Returns:
        See `build_generator`.

    Raises:
        UserError: naming --resolution.
    """
    _check_side(resolution, 4, 8)
    make = _Layers(norm)
    source = keras.Input((resolution, resolution, 3), name="source")
    features = ReflectionPadding(3, name="stem_pad")(_centred(source))
    features = make.normalised(make.convolution(features, channels, 7, "stem"), "stem")
    features = keras.layers.ReLU(name="stem_relu")(features)
    for level in (1, 2):
        features = keras.layers.ZeroPadding2D(((1, 0), (1, 0)), name=f"down{level}_pad")(features)
        features = make.convolution(features, channels << level, 3, f"down{level}", strides=2)
        features = make.normalised(features, f"down{level}")
        features = keras.layers.ReLU(name="encoder" if level == 2 else f"down{level}_relu")(features)
    for index in range(1, blocks + 1):
        features = _residual(make, features, f"block{index}", dropout)
    for level in (1, 2):
        features = make.doubled(features, (4 * channels) >> level, f"up{level}", upsampling, "valid")
    features = ReflectionPadding(3, name="rgb_pad")(features)
    image = make.convolution(features, 3, 7, "rgb", use_bias=True, dtype="float32")
    return keras.Model({"source": source}, {"image": _shown(image)}, name="resnet")


def _residual(make, features, name, dropout):
    width, change = features.shape[-1], features
    for part in ("a", "b"):
        change = ReflectionPadding(1, name=f"{name}{part}_pad")(change)
        change = make.normalised(make.convolution(change, width, 3, f"{name}{part}"), f"{name}{part}")
        if part == "a":
            change = keras.layers.ReLU(name=f"{name}a_relu")(change)
            if dropout:
                change = keras.layers.Dropout(dropout, name=f"{name}_dropout")(change)
    return keras.layers.Add(name=name)([features, change])


def build_unet(resolution, channels, halvings=0, norm="batch", dropout=0.0):
    """The U-Net generator: `unet_256` (8 halvings) and `unet_128` (7) of pix2pix' code.

    4x4 convolutions by strides of 2 with LeakyReLU(0.2) before them, `down1` to `downN` their maps (after the norm, of
    which the first and the last have none), widths c, 2c, 4c, 8c, 8c, ...; transposed 4x4 convolutions back, each
    joined with the map of its side; 127.5 (1 + tanh).

    Args:
        resolution: side in pixels, a multiple of 2^halvings.
        channels: c, the field's ngf.
        halvings: 0: down to one pixel.
        norm: of `NORMS`.
        dropout: share dropped at the decoder's levels of 8c after the innermost one: three of `unet_256`.

    Returns:
        See `build_generator`.

    Raises:
        UserError: naming --resolution.
    """
    halvings = halvings or int(math.log2(max(resolution, 1)))
    _check_side(resolution, 1 << halvings, 8)
    if dropout and halvings - 2 < FIRST_DROPPED:
        raise UserError(
            f"--generator_dropout: a U-Net of {halvings} halvings drops nothing; it takes {FIRST_DROPPED + 2} or more"
        )
    make = _Layers(norm)
    source = keras.Input((resolution, resolution, 3), name="source")
    features, maps = _centred(source), []
    for level in range(1, halvings + 1):
        last = level == halvings
        if level > 1:
            features = keras.layers.LeakyReLU(0.2, name=f"down{level}_relu")(features)
        name = f"down{level}" if level in (1, halvings) else f"down{level}_conv"
        width = channels * min(1 << (level - 1), LARGEST_GROWTH)
        features = make.convolution(features, width, 4, name, strides=2, padding="same")
        if level > 1 and not last:
            layer = make.normalised(features, f"down{level}_conv")
            features = keras.layers.Identity(name=f"down{level}")(layer)
        maps.append(features)
    features = maps.pop()
    for level in range(halvings - 1, 0, -1):
        features = keras.layers.ReLU(name=f"up{level}_relu")(features)
        width = channels * min(1 << (level - 1), LARGEST_GROWTH)
        features = make.normalised(make.transposed(features, width, 4, f"up{level}", "same"), f"up{level}")
        if dropout and FIRST_DROPPED <= level <= halvings - 2:
            features = keras.layers.Dropout(dropout, name=f"up{level}_dropout")(features)
        features = keras.layers.Concatenate(name=f"up{level}_join")([maps.pop(), features])
    features = keras.layers.ReLU(name="rgb_relu")(features)
    image = make.transposed(features, 3, 4, "rgb", "same", use_bias=True, dtype="float32")
    return keras.Model({"source": source}, {"image": _shown(image)}, name="unet")


def build_style(resolution, channels, blocks, upsampling="transposed"):
    """The style network of ml5.js: Johnson et al.'s, with instance norm, SAME padding and no biases.

    9x9 to c; 3x3 by strides of 2 to 2c and 4c, whose ReLU is `encoder`; blocks `block1` to `blockN`; transposed 3x3 to
    2c and c; 9x9 to 3; 150 tanh + 127.5. Every convolution is followed by an affine instance norm (epsilon 1e-3). The
    image read is not centred; the image given is not clipped.

    Args:
        resolution: side in pixels, a multiple of 4 of at least 8.
        channels: c; 32 in ml5.js.
        blocks: residual blocks; 5 in ml5.js.
        upsampling: of `UPSAMPLINGS`; see `build_generator`.

    Returns:
        See `build_generator`.

    Raises:
        UserError: naming --resolution.
    """
    _check_side(resolution, 4, 8)
    make = _Layers("instance_affine", STYLE_EPSILON)
    make.use_bias = False
    source = keras.Input((resolution, resolution, 3), name="source")

    def convolved(features, width, window, name, strides=1):
        return make.normalised(make.convolution(features, width, window, name, strides, "same"), name)

    features = keras.layers.ReLU(name="stem_relu")(convolved(source, channels, 9, "stem"))
    for level in (1, 2):
        features = convolved(features, channels << level, 3, f"down{level}", 2)
        features = keras.layers.ReLU(name="encoder" if level == 2 else f"down{level}_relu")(features)
    for index in range(1, blocks + 1):
        change = keras.layers.ReLU(name=f"block{index}a_relu")(convolved(features, 4 * channels, 3, f"block{index}a"))
        change = convolved(change, 4 * channels, 3, f"block{index}b")
        features = keras.layers.Add(name=f"block{index}")([features, change])
    for level in (1, 2):
        features = make.doubled(features, (4 * channels) >> level, f"up{level}", upsampling, "same")
    image = convolved(features, 3, 9, "rgb")
    return keras.Model({"source": source}, {"image": _shown(image, STYLE_SCALE)}, name="style")


def _check_side(resolution, multiple, smallest):
    if resolution < smallest or resolution % multiple:
        raise UserError(
            f"--resolution: {resolution} is not a multiple of {multiple} of at least {smallest}, as the generator needs"
        )


def build_discriminator(resolution, channels=64, layers=3, norm="instance", conditional=False, name="discriminator"):
    """The PatchGAN discriminator: a score for each place of a map, which sees a patch of the image.

    4x4 convolutions, `layers` of them by strides of 2 and two more without, LeakyReLU(0.2), widths c, 2c, 4c, 8c, ...;
    with 3 layers a score sees 70 x 70 pixels.

    Args:
        resolution: side of the images in pixels.
        channels: c, the field's ndf.
        layers: of strides of 2.
        norm: `instance` or `batch`; the first and the last layer have none.
        conditional: read the source beside the image, as pix2pix does.
        name: of the model; its layers' names begin with it.

    Returns:
        A `keras.Model` from float32 [batch, resolution, resolution, 3 or 6] in 0-255 to float32 scores [batch, places],
        high for real.

    Raises:
        UserError: naming --discriminator_layers, where no place is left.
    """
    check_discriminator(resolution, layers)
    make = _Layers(norm)
    width = 6 if conditional else 3
    image = keras.Input((resolution, resolution, width))
    features = keras.layers.Rescaling(1 / HALF_RANGE, -1.0, dtype="float32", name=f"{name}_centred")(image)
    for index in range(layers + 1):
        growth = channels * min(1 << index, LARGEST_GROWTH)
        features = keras.layers.ZeroPadding2D(1, name=f"{name}_pad{index}")(features)
        strides, use_bias = (1 if index == layers else 2), (True if index == 0 else None)
        features = make.convolution(features, growth, 4, f"{name}_conv{index}", strides, use_bias=use_bias)
        if index:
            features = make.normalised(features, f"{name}_conv{index}")
        features = keras.layers.LeakyReLU(0.2, name=f"{name}_relu{index}")(features)
    features = keras.layers.ZeroPadding2D(1, name=f"{name}_pad_score")(features)
    scores = make.convolution(features, 1, 4, f"{name}_score", use_bias=True, dtype="float32")
    scores = keras.layers.Reshape((-1,), name=f"{name}_places", dtype="float32")(scores)
    return keras.Model(image, scores, name=name)


def check_discriminator(resolution, layers):
    """Raises `UserError` naming --discriminator_layers, where no place is left to be scored."""
    if layers < 1 or resolution >> layers < 3:
        raise UserError(f"--discriminator_layers: {layers} leave no map of --resolution={resolution} to score")


def multiply_adds(network, transposed="input"):
    """The multiplications of a network's convolutions and dense layers for one image, each with its addition.

    A convolution with windows of k x k from C to D channels has k^2 C D for each place of its output, a transposed one
    for each place of its input, or of its output, as the literature of this field counts. Norms, activations, biases
    and resizing count nothing.

    Args:
        network: a `keras.Model` of fixed sides, models within it counted too.
        transposed: `input` or `output`.

    Returns:
        An int.
    """
    return sum(_multiply_adds(layer, transposed) for layer in network.layers)


def _multiply_adds(layer, transposed):
    if isinstance(layer, keras.Model):
        return multiply_adds(layer, transposed)
    if isinstance(layer, keras.layers.Dense):
        return math.prod(layer.input.shape[1:-1]) * math.prod(layer.kernel.shape)
    if isinstance(layer, keras.layers.Conv2DTranspose):
        # A row and a column more, which are cropped, are no places of the output.
        growth = math.prod(layer.strides) if transposed == "output" else 1
        return growth * math.prod(layer.input.shape[1:3]) * math.prod(layer.kernel.shape)
    if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D):
        return math.prod(layer.output.shape[1:3]) * math.prod(layer.kernel.shape)
    return 0
