"""Trains ICSD-GAN: a generator of several stages, a discriminator each, and coarse stages taught by the refined one."""

from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.icsd_gan.networks import Discriminator, build_generator, image_name, sides
from t2i_kd.icsd_gan.objective import discriminator_loss, icsd_loss, kl_divergence
from t2i_kd.training.adversarial import AdversarialTrainer, check_gan
from t2i_kd.training.augmentation import augment, numbers_of, parse_policy
from t2i_kd.training.distribution import gathered
from t2i_kd.training.gan_losses import fake_loss, generator_loss, real_loss
from t2i_kd.training.text_to_image import TextToImageSystem

OBJECTIVE = "icsd"


class ICSDTrainer(AdversarialTrainer):
    """The step of ICSD-GAN.

    The discriminators minimise sum_i L_D,i (see `objective.discriminator_loss`) and the gradient penalty, the generator

        L_G = sum_i (g(D_i(x_i)) + g(D_i(x_i, t))) + w_KL KL + lambda L_ICSD.

    A wrong caption is the next one of the batch; where it is the same text, it does not count.

    Args:
        network: the student, with the outputs of `networks.build_generator`.
        input_name: of its text input.
        recipe: `Recipe`.
        steps: of the stage; lambda grows over the first `icsd_warmup` of them.
    """

    def __init__(self, network, input_name, recipe, steps):
        found = sides(recipe.data.resolution, recipe.icsd.image_stages)
        channels = recipe.gan.discriminator_channels
        discriminators = [Discriminator(side, recipe.text.text_dim, channels) for side in found]
        super().__init__(network, discriminators, recipe.gan, recipe.training.ema, name="icsd_gan")
        self.icsd, self.input_name, self.sides = recipe.icsd, input_name, found
        self.images = [image_name(side, recipe.data.resolution) for side in found]
        self.kinds = parse_policy(recipe.gan.augmentation)
        self.warmup = max(1.0, recipe.icsd.icsd_warmup * steps)

    def generate(self, batch):
        """The student's outputs for a batch's texts and noise."""
        return self.generator({name: batch[name] for name in self.generator.input}, training=True)

    def _real(self, batch, side):
        images = ops.cast(batch["image"], "float32")
        factor = images.shape[1] // side
        return images if factor == 1 else ops.average_pool(images, factor, factor)

    def _augmented(self, images, batch, real):
        """Images as the discriminators get them; real and generated ones are augmented by numbers of their own."""
        if not self.kinds:
            return images
        count = numbers_of(self.kinds)
        uniforms = batch["uniforms"][:, :count] if real else batch["uniforms"][:, count:]
        return augment(images, self.kinds, uniforms)

    def _differs(self, batch):
        """1 where the next caption of the batch is another text, 0 elsewhere: float32 [batch]."""
        given = batch[self.input_name]
        other = ops.any(ops.not_equal(given, ops.roll(given, -1, axis=0)), axis=tuple(range(1, len(given.shape))))
        return ops.cast(other, "float32")

    def discriminator_terms(self, batch, generated):
        """The sum of the stages' losses; each stage's, and its penalty, is a term of its own."""
        terms, differs = {}, self._differs(batch)
        for name, side, discriminator in zip(self.images, self.sides, self.discriminators, strict=True):
            real = self._augmented(self._real(batch, side), batch, real=True)
            fake = self._augmented(generated[name], batch, real=False)
            terms[f"discriminator_{side}"] = self._discriminator_loss(
                discriminator, real, fake, generated["text"], differs
            )
            if self.gan.gradient_penalty != "none":
                terms[f"penalty_{side}"] = self.penalty(
                    lambda images, texts, discriminator=discriminator: sum(discriminator(images, texts)),
                    real,
                    ops.stop_gradient(generated["text"]),
                )
        return sum(terms.values()), terms

    def _discriminator_loss(self, discriminator, real, fake, text, differs):
        kind, text = self.gan.gan_loss, ops.stop_gradient(text)
        real, fake = discriminator.trunk(real), discriminator.trunk(fake)
        wrong = fake_loss(kind, discriminator.conditional([real, ops.roll(text, -1, axis=0)]))
        return discriminator_loss(
            real={
                "unconditional": ops.mean(real_loss(kind, discriminator.unconditional(real))),
                "conditional": ops.mean(real_loss(kind, discriminator.conditional([real, text]))),
            },
            generated={
                "unconditional": ops.mean(fake_loss(kind, discriminator.unconditional(fake))),
                "conditional": ops.mean(fake_loss(kind, discriminator.conditional([fake, text]))),
                "wrong": ops.sum(differs * wrong) / ops.maximum(ops.sum(differs), 1.0),
            },
        )

    def generator_terms(self, batch, generated):
        """L_G; the stages' adversarial losses, `kl` and `icsd`, both unweighted, are terms of their own."""
        kind, text = self.gan.gan_loss, ops.stop_gradient(generated["text"])
        terms, features = {}, []
        for name, side, discriminator in zip(self.images, self.sides, self.discriminators, strict=True):
            fake = discriminator.trunk(self._augmented(generated[name], batch, real=False))
            scores = (discriminator.unconditional(fake), discriminator.conditional([fake, text]))
            terms[f"generator_{side}"] = sum(ops.mean(generator_loss(kind, score)) for score in scores)
            features.append(ops.mean(fake, axis=(1, 2)))
        loss = sum(terms.values())
        if self.icsd.icsd_features == "generator":
            features = [generated[f"features_{side}"] for side in self.sides]
        terms["kl"] = kl_divergence(generated["mean"], generated["log_sigma"])
        terms["icsd"] = icsd_loss([gathered(each) for each in features], self.icsd.icsd_teacher)
        return loss + self.icsd.kl_weight * terms["kl"] + self._weight() * terms["icsd"], terms

    def _weight(self):
        """Lambda at this step."""
        done = ops.cast(self.optimizer.generator.iterations, "float32")
        return self.icsd.icsd_weight * ops.minimum(1.0, (done + 1) / self.warmup)


class ICSDGAN(TextToImageSystem):
    """An ICSD-GAN run; see `TextToImageSystem`."""

    own_objectives = (OBJECTIVE,)

    def build_generator(self):
        recipe, icsd = self.recipe, self.recipe.icsd
        return build_generator(
            recipe.data.resolution,
            icsd.image_stages,
            recipe.text.text_dim,
            recipe.student.noise_dim,
            icsd.condition_dim,
            icsd.generator_channels,
        )

    def check_recipe(self):
        super().check_recipe()
        recipe = self.recipe
        sides(recipe.data.resolution, recipe.icsd.image_stages)
        check_gan(recipe.gan, recipe.training.batch_size)
        parse_policy(recipe.gan.augmentation)
        if recipe.training.batch_size // recipe.gan.discriminator_steps < 2:
            raise UserError(
                f"--batch_size: {recipe.training.batch_size} leaves fewer than 2 samples for a step of the generator; "
                "ICSD-GAN compares the samples of a batch and takes wrong captions from it"
            )
        for name in ("icsd_weight", "kl_weight"):
            if not 0 <= getattr(recipe.icsd, name) < float("inf"):
                raise UserError(f"--{name}: {getattr(recipe.icsd, name)} is negative or not finite")
        if not 0 <= recipe.icsd.icsd_warmup <= 1:
            raise UserError(f"--icsd_warmup: {recipe.icsd.icsd_warmup} is not a share, 0 to 1")

    @property
    def uniforms(self):
        """Random numbers of a step's augmentation for each sample: for its real and for its generated picture."""
        return 2 * numbers_of(parse_policy(self.recipe.gan.augmentation))

    def objective_trainer(self, plan):
        (input_name,) = self.condition.inputs
        return ICSDTrainer(self.network, input_name, self.recipe, plan.steps)
