"""Adam, as fast as the backend can: Kingma & Ba (2015), with Keras's epsilon; and the size of a gradient."""

import keras
from keras import ops


class TensorFlowAdam(keras.optimizers.Adam):
    """Keras's Adam with TensorFlow's fused kernel: one pass over a variable, its moments and its gradient.

    Keras's own takes ten passes, which for a dense layer of 17 million weights is a third of a training step. It is
    given the gradients' means over the replicas (`distribution.mean_over_replicas`), so that clipping sees the whole
    batch's gradient.
    """

    def _clip_gradients(self, grads):
        import tensorflow as tf

        return tf.clip_by_global_norm(grads, self.global_clipnorm)[0] if self.global_clipnorm else grads

    def _all_reduce_sum_gradients(self, grads_and_vars):
        # Keras would sum over the replicas what is their mean already.
        return grads_and_vars

    def update_step(self, gradient, variable, learning_rate):
        import tensorflow as tf

        index = self._get_variable_index(variable)
        step = tf.cast(self.iterations.value, tf.float32) + 1
        tf.raw_ops.ResourceApplyAdam(
            var=variable.handle,
            m=self._momentums[index].value.handle,
            v=self._velocities[index].value.handle,
            beta1_power=self.beta_1**step,
            beta2_power=self.beta_2**step,
            lr=tf.cast(learning_rate, tf.float32),
            beta1=self.beta_1,
            beta2=self.beta_2,
            epsilon=self.epsilon,
            grad=gradient,
        )


def adam(learning_rate, clipnorm=0.0, ema=0.0, beta_1=0.9, beta_2=0.999, name="adam"):
    """Adam on this backend.

    Args:
        learning_rate: a number or a schedule.
        clipnorm: largest global norm of a step's gradient; 0: no clipping.
        ema: decay of the weights' moving average; 0: none.
        beta_1, beta_2: decays of the moments.
        name: of its variables in checkpoints. Keras numbers the names of a process; a resumed one has made fewer.
    """
    kind = TensorFlowAdam if keras.backend.backend() == "tensorflow" else keras.optimizers.Adam
    return kind(
        learning_rate,
        beta_1=beta_1,
        beta_2=beta_2,
        global_clipnorm=clipnorm or None,
        use_ema=ema > 0,
        ema_momentum=ema or 0.99,
        name=name,
    )


def gradient_norm(gradients):
    """sqrt(sum over all values of g^2) of a step's gradients, before any clipping: a float32 scalar.

    Args:
        gradients: list of tensors of any shape; None, of a variable that a loss does not reach, counts as 0.
    """
    squares = [ops.sum(ops.square(ops.cast(each, "float32"))) for each in gradients if each is not None]
    return ops.sqrt(sum(squares, ops.zeros(())))
