"""Upsampling and the convolution after it as one transposed convolution, for training on a CPU.

Nearest-neighbour upsampling by 2 repeats each place four times, so that the nine products of a 3x3 convolution behind
it are only four different ones a place: with P = [[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]] and K[a, b] =
sum_ij P[a, i] P[b, j] k[i, j], it equals the transposed convolution with the 4x4 kernel K and stride 2, zero padding
included. 2.25 times fewer multiplications, forward and backward, equal up to rounding. Source: Shi et al., "Is the
deconvolution layer the same as a convolutional layer?" (2016).
"""

import keras
import numpy as np
from keras import ops

ONE_AXIS = np.array([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], "float32")
# [16, 9]: from the 3x3 kernel's places to the 4x4 kernel's.
SPREAD = np.einsum("ai,bj->abij", ONE_AXIS, ONE_AXIS).reshape(16, 9)
# Beyond these, making the 4x4 kernel costs what it saves: measured at a batch of 8, see docs/speed.md.
SMALLEST_SIDE = 8
MOST_CHANNELS = 256


class UpsampledConvolution(keras.layers.Layer):
    """The 3x3 convolution of the twice upsampled input, with the weights of a `keras.layers.Conv2D` that it shares."""

    def __init__(self, convolution):
        super().__init__(name=f"{convolution.name}_upsampled", dtype=convolution.dtype_policy)
        self.convolution = convolution
        self.built = True

    def call(self, inputs):
        """Float [batch, height, width, channels] -> [batch, 2 height, 2 width, filters]."""
        kernel = ops.convert_to_tensor(self.convolution.kernel)
        *_, channels, filters = kernel.shape
        spread = ops.matmul(ops.convert_to_tensor(SPREAD, kernel.dtype), ops.reshape(kernel, (9, channels * filters)))
        spread = ops.transpose(ops.reshape(spread, (4, 4, channels, filters)), (0, 1, 3, 2))
        made = ops.conv_transpose(inputs, spread, 2, "same", data_format="channels_last")
        return self.convolution.activation(made + self.convolution.bias)


def pays(jit_compile):
    """Whether `with_direct_upsampling` is faster here: in TensorFlow's own graph on a CPU, in float32."""
    if keras.backend.backend() != "tensorflow" or jit_compile or keras.config.dtype_policy().name != "float32":
        return False
    import tensorflow as tf

    return not tf.config.list_physical_devices("GPU")


def with_direct_upsampling(network):
    """The same network, its layers and weights shared, with `UpsampledConvolution` where that saves work.

    Args:
        network: a generator, or a student that contains one.
    """
    low = {}

    def layer_of(layer):
        return with_direct_upsampling(layer) if isinstance(layer, keras.Model) else layer

    def call(layer, inputs, *arguments, **options):
        if isinstance(layer, keras.layers.Conv2D) and id(inputs) in low:
            source, _ = low[id(inputs)]
            if source.shape[1] >= SMALLEST_SIDE and max(source.shape[-1], layer.filters) <= MOST_CHANNELS:
                return UpsampledConvolution(layer)(source)
        made = layer(inputs, *arguments, **options)
        if isinstance(layer, keras.layers.UpSampling2D):
            low[id(made)] = inputs, made  # kept, so that its id stays its own
        return made

    if not any(isinstance(layer, keras.Model | keras.layers.UpSampling2D) for layer in network.layers):
        return network
    return keras.models.clone_model(network, clone_function=layer_of, call_function=call)
