"""The step of a GAN: discriminators and generator, each with its own optimizer, and the generator's moving average."""

import contextlib
import dataclasses

import keras
from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.options import refuse_unread
from t2i_kd.training.augmentation import augment, numbers_of, parse_policy
from t2i_kd.training.distribution import replica_logs
from t2i_kd.training.gan_losses import gradient_penalty
from t2i_kd.training.loop import learning_rate
from t2i_kd.training.optimizer import adam, gradient_norm
from t2i_kd.training.trainer import Trainer, restored

# How the paths of batch normalisation's moving statistics end.
STATISTICS = ("moving_mean", "moving_variance")


class AdversarialTrainer(Trainer):
    """A trainer of a generator against discriminators.

    One step: one forward pass of the generator; the discriminators move down their loss on them; the generator moves
    down its own, on the scores of the discriminators as they are now, through the same pass. With `discriminator_steps`
    k > 1 the batch is cut into k equal parts, and the discriminators move on each of the first k - 1 before.

    A system derives from it and says in `generate`, `discriminator_terms` and `generator_terms` what is minimised.

    Args:
        generator: the network whose trainable variables are the generator's; its other variables, such as
            the statistics of batch normalisation, are averaged too.
        discriminators: list of layers.
        gan: `GanOptions`.
        ema: decay of the moving average of the generator's variables, which is what is drawn with and kept; 0: none.
        name: of the trainer.
    """

    has_one_loss = False

    def __init__(self, generator, discriminators, gan, ema, name):
        super().__init__(name=name)
        self.generator, self.discriminators, self.gan, self.ema = generator, list(discriminators), gan, ema
        self.kinds = parse_policy(gan.augmentation)
        self.averages = [
            self.add_weight(
                shape=each.shape, dtype=each.dtype, trainable=False, name=f"average_{index}", aggregation="mean"
            )
            for index, each in enumerate(self.averaged_variables)
        ]
        for average, variable in zip(self.averages, self.averaged_variables, strict=True):
            # A copy: JAX gives the buffers of a step away, and no two variables may share one.
            average.assign(ops.copy(variable.value))
        self.built = True

    def generate(self, batch):
        """The generator's forward pass for a batch: {name: tensor}, at least one of them its images."""
        raise NotImplementedError

    def discriminator_terms(self, batch, generated):
        """(loss, terms) of the discriminators, `generated` without a gradient."""
        raise NotImplementedError

    def generator_terms(self, batch, generated):
        """(loss, terms) of the generator, a function of `generated` and the discriminators alone."""
        raise NotImplementedError

    def augmented(self, images, batch, real):
        """Images as the discriminators get them; real and generated ones are augmented by numbers of their own.

        Args:
            images: float32 [batch, side, side, 3] in 0-255.
            batch: its `uniforms`, of `augmentation_numbers`, say how.
            real: whether the images are the real ones.
        """
        if not self.kinds:
            return images
        count = numbers_of(self.kinds)
        uniforms = batch["uniforms"][:, :count] if real else batch["uniforms"][:, count:]
        return augment(images, self.kinds, uniforms)

    def prepare_discriminators(self):
        """What is done to the discriminators' variables before each of their steps: nothing."""

    def scores(self, batch):
        """How the discriminators take a batch's images, and the generator's for its captions, augmented as in a step.

        Args:
            batch: as a step has it.

        Returns:
            Two dicts {head: float array of scores}, of the batch's images and of the generated ones.
        """
        raise NotImplementedError

    @property
    def generator_variables(self):
        """What the generator's loss moves."""
        return self.generator.trainable_variables

    @property
    def discriminator_variables(self):
        """What the discriminators' loss moves."""
        return [variable for each in self.discriminators for variable in each.trainable_variables]

    @property
    def averaged_variables(self):
        """What the moving average holds: the trained variables and the batch normalisation's statistics."""
        if not self.ema:
            return []
        others = self.generator.non_trainable_variables
        return self.generator_variables + [each for each in others if each.path.endswith(STATISTICS)]

    @property
    def kept_variables(self):
        discriminators = [variable for each in self.discriminators for variable in each.variables]
        return self.generator.variables + discriminators + self.averages

    def make_optimizer(self, stage, steps, training):
        """Two Adams, of the generator and of the discriminators, as one optimizer.

        Each counts its own updates, of which the discriminators have `discriminator_steps` a step: their schedule is as
        many times as long, so that both rates begin, warm up and fall together.
        """

        def optimizer(rate, updates, name):
            own = dataclasses.replace(stage, learning_rate=rate, warmup_steps=updates * stage.warmup_steps)
            schedule = learning_rate(own, updates * steps)
            return adam(schedule, training.clipnorm, beta_1=self.gan.beta_1, beta_2=self.gan.beta_2, name=name)

        rate, updates = self.gan.discriminator_learning_rate or stage.learning_rate, self.gan.discriminator_steps
        return Optimizers(
            (optimizer(stage.learning_rate, 1, "generator_adam"), self.generator_variables),
            (optimizer(rate, updates, "discriminator_adam"), self.discriminator_variables),
        )

    @contextlib.contextmanager
    def averaged(self):
        """Within it, the generator's variables hold their moving averages, where there are any."""
        if not self.ema:
            yield
            return
        with restored(self.averaged_variables):
            self.keep_averages()
            yield

    def keep_averages(self):
        """Gives the generator's variables the values of their moving averages."""
        for variable, average in zip(self.averaged_variables, self.averages, strict=True):
            variable.assign(ops.copy(average.value))

    def update_averages(self, done):
        """Moves the averages towards the variables: a += (1 - d) (v - a), d = min(ema, (1 + t) / (10 + t)).

        The bound makes the first steps forget the initial weights. Args: done: t, the steps before this one.
        """
        done = ops.cast(done, "float32")
        rate = 1 - ops.minimum(self.ema, (1 + done) / (10 + done))
        for average, variable in zip(self.averages, self.averaged_variables, strict=True):
            average.assign(average + rate * (variable - average))

    def penalty(self, score, images, texts):
        """The discriminators' gradient penalty; see `gan_losses.gradient_penalty`.

        With `penalty_every` k > 1 it is k times as large at every k-th step and 0 at the others: cheaper, with the same
        mean. Source: "lazy regularisation" of StyleGAN2 (Karras et al., CVPR 2020).
        """
        gan = self.gan

        def now():
            return gan.penalty_every * gradient_penalty(gan.gradient_penalty, score, images, texts, gan.penalty_weight)

        if gan.penalty_every == 1:
            return now()
        done = self.optimizer.discriminator.iterations
        return ops.cond(ops.equal(ops.mod(done, gan.penalty_every), 0), now, lambda: ops.zeros(()))

    def _parts(self, batch):
        count = self.gan.discriminator_steps
        pieces = [ops.split(values, count, axis=0) for values in keras.tree.flatten(batch)]
        return [keras.tree.pack_sequence_as(batch, [each[index] for each in pieces]) for index in range(count)]

    def _tensorflow_step(self, batch):
        import tensorflow as tf

        *earlier, last = self._parts(batch)
        for part in earlier:
            self._tensorflow_discriminator_step(part, self.generate(part))
        done = ops.copy(self.optimizer.generator.iterations)
        with tf.GradientTape() as tape:
            generated = self.generate(last)
            with tape.stop_recording():
                discriminator_loss, discriminator_terms = self._tensorflow_discriminator_step(last, generated)
            loss, terms = self.generator_terms(last, generated)
        norm = self._tensorflow_update(self.optimizer.generator, tape, loss, self.generator_variables)
        self.update_averages(done)
        return replica_logs(_logs(loss, terms, norm, discriminator_loss, discriminator_terms))

    def _tensorflow_discriminator_step(self, batch, generated):
        import tensorflow as tf

        self.prepare_discriminators()
        with tf.GradientTape() as tape:
            loss, terms = self.discriminator_terms(batch, {k: tf.stop_gradient(v) for k, v in generated.items()})
        norm = self._tensorflow_update(self.optimizer.discriminator, tape, loss, self.discriminator_variables)
        return loss, terms | {"discriminator_gradient_norm": norm}

    def _jax_step(self, state, batch):
        import jax

        trainable, frozen, optimizer_state, metrics_state = state
        values = dict(zip(self._keys(self.trainable_variables), trainable, strict=True))
        keys = {
            "generator": self._keys(self.generator_variables),
            "discriminator": self._keys(self.discriminator_variables),
        }
        counts = len(self.optimizer.generator.variables)
        states = {"generator": optimizer_state[:counts], "discriminator": optimizer_state[counts:]}

        def run(function, given, frozen):
            now = values | given
            mapping = [(each, now[id(each)]) for each in self.trainable_variables]
            mapping += zip(self.non_trainable_variables, frozen, strict=True)
            # Losses may ask the optimizers for the step.
            for which, state in states.items():
                mapping += zip(getattr(self.optimizer, which).variables, state, strict=True)
            with keras.StatelessScope(state_mapping=mapping) as scope:
                result = function()
            return result, [scope.get_current_value(each) for each in self.non_trainable_variables]

        def apply(which, gradients):
            optimizer = getattr(self.optimizer, which)
            old, slopes = ([each[key] for key in keys[which]] for each in (values, gradients))
            new, states[which] = optimizer.stateless_apply(states[which], slopes, old)
            values.update(zip(keys[which], new, strict=True))
            return gradient_norm(slopes)

        def chosen(which):
            return {key: values[key] for key in keys[which]}

        def prepared():
            self.prepare_discriminators()
            return [ops.convert_to_tensor(variable) for variable in self.discriminator_variables]

        def discriminator_step(part, generated, frozen):
            new, frozen = run(prepared, {}, frozen)
            values.update(zip(keys["discriminator"], new, strict=True))

            def loss(given):
                (value, terms), after = run(lambda: self.discriminator_terms(part, generated), given, frozen)
                return value, (terms, after)

            (value, (terms, frozen)), gradients = jax.value_and_grad(loss, has_aux=True)(chosen("discriminator"))
            norm = apply("discriminator", gradients)
            return value, terms | {"discriminator_gradient_norm": norm}, frozen

        *earlier, last = self._parts(batch)
        for part in earlier:
            generated, frozen = run(lambda part=part: self.generate(part), {}, frozen)
            *_, frozen = discriminator_step(part, generated, frozen)
        done = states["generator"][0]
        generated, pull_back, frozen = jax.vjp(
            lambda given: run(lambda: self.generate(last), given, frozen), chosen("generator"), has_aux=True
        )
        discriminator_loss, discriminator_terms, frozen = discriminator_step(last, generated, frozen)

        def loss_of(generated):
            (value, terms), after = run(lambda: self.generator_terms(last, generated), {}, frozen)
            return value, (terms, after)

        (loss, (terms, frozen)), slopes = jax.value_and_grad(loss_of, has_aux=True)(generated)
        norm = apply("generator", pull_back(slopes)[0])
        _, frozen = run(lambda: self.update_averages(done), {}, frozen)
        trainable = [values[key] for key in self._keys(self.trainable_variables)]
        logs = _logs(loss, terms, norm, discriminator_loss, discriminator_terms)
        return logs, (trainable, frozen, states["generator"] + states["discriminator"], metrics_state)

    @staticmethod
    def _keys(variables):
        return [id(variable) for variable in variables]


def _logs(loss, terms, norm, discriminator_loss, discriminator_terms):
    """A step's logs: the generator's, then the discriminators'."""
    own = {"loss": loss, **terms, "gradient_norm": norm}
    return own | {"discriminator_loss": discriminator_loss, **discriminator_terms}


def as_arrays(scores):
    """{head: float tensor} as NumPy arrays."""
    return {head: ops.convert_to_numpy(values) for head, values in scores.items()}


def augmentation_numbers(gan):
    """Random numbers of a step's augmentation for each sample: for its real and for its generated image."""
    return 2 * numbers_of(parse_policy(gan.augmentation))


class Optimizers(keras.optimizers.Optimizer):
    """The optimizers of a GAN as the one that Keras' `compile` wants; each moves its own variables.

    Args:
        generator, discriminator: pairs (optimizer, its variables).
    """

    def __init__(self, generator, discriminator):
        super().__init__(learning_rate=0.0, name="adversarial")
        self.generator, self.discriminator = generator[0], discriminator[0]
        self._parts = (generator, discriminator)

    def build(self, variables):
        """Builds both; `variables`, all that Keras knows of, are theirs."""
        for optimizer, own in self._parts:
            optimizer.build(own)
        self.built = True

    @property
    def learning_rate(self):
        """The generator's, of its next update: what is logged."""
        return self.generator.learning_rate

    @property
    def variables(self):
        return [*self.generator.variables, *self.discriminator.variables]


def check_stage_weights(stage, fields, objective):
    """Raises `UserError` for a stage's weight that is negative or not finite, or that its objective does not read.

    Args:
        stage: `Stage`.
        fields: the names of weights that are 0 where they are not asked for.
        objective: the one that reads them.
    """
    for field in fields:
        weight = getattr(stage, field)
        if not 0 <= weight < float("inf"):
            raise UserError(f"--stage {stage.name}: {field} is {weight}, negative or not finite")
        if weight and stage.objective != objective:
            raise UserError(f"--stage {stage.name}: {field} is only for objective={objective}")


def check_gan(gan, batch_size):
    """Raises `UserError` for a `GanOptions` that cannot be trained."""
    if gan.discriminator_channels < 1:
        raise UserError(f"--discriminator_channels: {gan.discriminator_channels} is not positive")
    if gan.discriminator_steps < 1 or batch_size % gan.discriminator_steps:
        raise UserError(
            f"--discriminator_steps: {gan.discriminator_steps} does not cut --batch_size={batch_size} into equal parts"
        )
    if gan.penalty_every < 1:
        raise UserError(f"--penalty_every: {gan.penalty_every} is not positive")
    for name in ("discriminator_learning_rate", "penalty_weight"):
        if not 0 <= getattr(gan, name) < float("inf"):
            raise UserError(f"--{name}: {getattr(gan, name)} is negative or not finite")
    for name in ("beta_1", "beta_2"):
        if not 0 <= getattr(gan, name) < 1:
            raise UserError(f"--{name}: {getattr(gan, name)} is not in 0 to 1, 1 excluded")
    parse_policy(gan.augmentation)
    if gan.gradient_penalty == "none":
        refuse_unread(gan, "--gradient_penalty", ("penalty_weight", "penalty_every"))
    if batch_size // gan.discriminator_steps < 2:
        raise UserError(
            f"--batch_size: {batch_size} leaves fewer than 2 samples for a step of the generator; wrong captions are "
            "those of the batch's other samples"
        )
