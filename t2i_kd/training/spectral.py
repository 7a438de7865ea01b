"""Spectral normalisation of discriminators, outside the loss. Source: Miyato et al. (ICLR 2018)."""

import keras
from keras import ops

from t2i_kd.training.distribution import assign_alike

SMALLEST_NORM = 1e-12


class SpectrallyNormalised(keras.layers.Layer):
    """A layer made of others whose kernels have spectral norm 1 after `normalise`, which comes before each step.

    Who derives from it passes every such layer through `kept_normal` while it builds, and ends with `add_vectors`.

    Args:
        name: of the layer; `kept_normal` layers have names of their own.
    """

    def __init__(self, name):
        super().__init__(name=name)
        self.normalised, self.vectors = [], []

    def kept_normal(self, layer):
        """The layer, whose kernel will be normalised."""
        self.normalised.append(layer)
        return layer

    def add_vectors(self):
        """Makes the power iterations' vectors, one for each kernel; the layer is built then."""
        start = keras.initializers.RandomNormal(seed=0)
        self.vectors = [
            self.add_weight(
                shape=(layer.kernel.shape[-1],),
                initializer=start,
                trainable=False,
                name=f"{layer.name}_u",
                dtype="float32",
                aggregation="only_first_replica",
            )
            for layer in self.normalised
        ]
        self.built = True

    def normalise(self):
        """Divides every kernel W, a matrix [inputs, outputs], by its largest singular value, as one step of the power
        iteration knows it.

            v = W u / |W u|,   u' = W^T v / |W^T v|,   W' = W / (v^T W u')

        u, kept from step to step, converges to W's first right singular vector while W moves slowly. The division is
        outside the loss: its gradient is that of W' (Keras's `SpectralNormalization` on TensorFlow does the same).
        """
        for layer, vector in zip(self.normalised, self.vectors, strict=True):
            kernel = ops.convert_to_tensor(layer.kernel)
            matrix = ops.reshape(kernel, (-1, kernel.shape[-1]))
            left = unit(ops.matmul(matrix, vector))
            along = ops.matmul(left, matrix)
            right = unit(along)
            size = ops.sum(along * right)
            assign_alike(vector, right)
            assign_alike(layer.kernel, kernel / ops.maximum(size, SMALLEST_NORM))


def unit(vector):
    """A vector divided by its length."""
    return vector / ops.maximum(ops.sqrt(ops.sum(ops.square(vector))), SMALLEST_NORM)
