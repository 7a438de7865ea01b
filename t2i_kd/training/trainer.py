"""The gradient step that every system trains with, on TensorFlow and on JAX."""

import contextlib

import keras

from t2i_kd.training.distribution import mean_over_replicas, replica_logs
from t2i_kd.training.loop import make_optimizer
from t2i_kd.training.optimizer import gradient_norm


class Trainer(keras.Model):
    """A model whose `train_step` moves the trainable variables down the gradient of `loss_terms`.

    A system derives from it, holds its networks as attributes (frozen ones with `trainable = False`) and says in
    `loss_terms` what is minimised.

    Attributes:
        divides_batch: whether the loss is a mean over the examples of a batch, so that several devices may each take a
            part of it. False where a loss compares a batch's examples with each other: then each takes all of it.
        has_one_loss: whether `loss_terms` is one function of weights and batch at every step, so that its values for
            held-out images can be compared over time.
    """

    divides_batch = True
    has_one_loss = True

    def loss_terms(self, batch):
        """The loss of a batch.

        Args:
            batch: dict of tensors, as `t2i_kd.data.batches.Batches` makes them.

        Returns:
            (loss, terms): a float32 scalar to minimise, and named float32 scalars to log.
        """
        raise NotImplementedError

    @property
    def kept_variables(self):
        """The variables that checkpoints keep beside the optimizer's; a frozen teacher's are not among them."""
        return self.trainable_variables

    @property
    def generator_variables(self):
        """What the loss of the network that is kept moves."""
        return self.trainable_variables

    @property
    def metrics(self):
        """None: every step's own terms are the logs, no running means."""
        return []

    def _maybe_symbolic_build(self, *arguments, **options):
        """Nothing: a trainer is built. Keras would trip over several workers' batches that are dicts."""

    def make_optimizer(self, stage, steps, training):
        """The optimizer of a stage; see `loop.make_optimizer`."""
        return make_optimizer(stage, steps, training)

    @contextlib.contextmanager
    def averaged(self):
        """Within it, the trained variables hold their moving averages, where the optimizer keeps any."""
        if not self.optimizer.use_ema:
            yield
            return
        with restored(self.trainable_variables):
            self.keep_averages()
            yield

    def keep_averages(self):
        """Gives the trained variables the values of their moving averages."""
        self.optimizer.finalize_variable_values(self.trainable_variables)

    def train_step(self, *arguments):
        """One step: loss, gradient, (clipped) update.

        Returns:
            {"loss": ..., **terms, "gradient_norm": see `optimizer.gradient_norm`} of the weights before it.
        """
        if keras.backend.backend() == "jax":
            return self._jax_step(*arguments)
        return self._tensorflow_step(*arguments)

    def _tensorflow_step(self, batch):
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss, terms = self.loss_terms(batch)
        norm = self._tensorflow_update(self.optimizer, tape, loss, self.trainable_variables)
        return replica_logs({"loss": loss, **terms, "gradient_norm": norm})

    @staticmethod
    def _tensorflow_update(optimizer, tape, loss, variables):
        """Moves variables down the gradient of the whole batch's loss. Returns the gradient's norm."""
        gradients = mean_over_replicas(tape.gradient(loss, variables))
        # Keras warns of variables that a loss does not reach, which a stage's taps may well leave out.
        reached = [pair for pair in zip(gradients, variables, strict=True) if pair[0] is not None]
        optimizer.apply(*(zip(*reached, strict=True) if reached else (gradients, variables)))
        return gradient_norm(gradients)

    def _jax_step(self, state, batch):
        import jax

        trainable, frozen, optimizer_state, metrics_state = state

        def stateless_loss(values):
            mapping = [
                *zip(self.trainable_variables, values, strict=True),
                *zip(self.non_trainable_variables, frozen, strict=True),
            ]
            with keras.StatelessScope(state_mapping=mapping) as scope:
                loss, terms = self.loss_terms(batch)
            return loss, (terms, [scope.get_current_value(each) for each in self.non_trainable_variables])

        (loss, (terms, frozen)), gradients = jax.value_and_grad(stateless_loss, has_aux=True)(trainable)
        trainable, optimizer_state = self.optimizer.stateless_apply(optimizer_state, gradients, trainable)
        return {"loss": loss, **terms, "gradient_norm": gradient_norm(gradients)}, (
            trainable,
            frozen,
            optimizer_state,
            metrics_state,
        )


@contextlib.contextmanager
def restored(variables):
    """Gives variables the values back, at its end, that they had at its beginning."""
    values = [keras.ops.copy(variable.value) for variable in variables]
    try:
        yield
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
