"""Trains ICSD-GAN: a generator of several stages, a discriminator each, and coarse stages taught by the refined one."""

import functools

from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.icsd_gan.networks import Discriminator, build_generator, image_name, sides
from t2i_kd.icsd_gan.objective import discriminator_loss, icsd_loss, kl_divergence
from t2i_kd.options import refuse_unread
from t2i_kd.training.adversarial import (
    AdversarialTrainer,
    as_arrays,
    augmentation_numbers,
    check_gan,
    check_stage_weights,
)
from t2i_kd.training.batch_captions import BatchCaptions, next_rows
from t2i_kd.training.distribution import gathered
from t2i_kd.training.gan_losses import fake_loss, generator_loss, real_loss
from t2i_kd.training.projected import ProjectedDiscriminators, check_projection, projection_at
from t2i_kd.training.text_to_image import JOINT_EMBEDDING, TextToImageSystem

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
        discriminators: layers; None: a `Discriminator` for every stage.
    """

    # Of the contrastive loss of images and captions, which discriminators on the image do not have.
    caption_weight = 0.0

    def __init__(self, network, input_name, recipe, steps, discriminators=None):
        found = sides_of(recipe)
        if discriminators is None:
            channels = recipe.gan.discriminator_channels
            discriminators = [Discriminator(side, recipe.text.text_dim, channels) for side in found]
        super().__init__(network, discriminators, recipe.gan, recipe.training.ema, name="icsd_gan")
        self.icsd, self.input_name, self.sides = recipe.icsd, input_name, found
        self.images = [image_name(side, recipe.data.resolution) for side in found]
        self.warmup = max(1.0, recipe.icsd.icsd_warmup * steps)

    def generate(self, batch):
        """The student's outputs for a batch's texts and noise."""
        return self.generator({name: batch[name] for name in self.generator.input}, training=True)

    def _real(self, batch, side):
        images = ops.cast(batch["image"], "float32")
        factor = images.shape[1] // side
        return images if factor == 1 else ops.average_pool(images, factor, factor)

    def discriminator_terms(self, batch, generated):
        """The sum of the stages' losses; each stage's, and its penalty, is a term of its own."""
        terms, differs = {}, BatchCaptions.of(batch, self.input_name).next_differs()
        for name, side, discriminator in zip(self.images, self.sides, self.discriminators, strict=True):
            real = self.augmented(self._real(batch, side), batch, real=True)
            fake = self.augmented(generated[name], batch, real=False)
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
        return discriminator_loss(
            real={
                "unconditional": real_loss(kind, discriminator.unconditional(real)),
                "conditional": real_loss(kind, discriminator.conditional([real, text])),
            },
            generated={
                "unconditional": fake_loss(kind, discriminator.unconditional(fake)),
                "conditional": fake_loss(kind, discriminator.conditional([fake, text])),
                "wrong": fake_loss(kind, discriminator.conditional([real, next_rows(text)])),
            },
            differs=differs,
        )

    def generator_terms(self, batch, generated):
        """L_G; the stages' adversarial losses, `kl` and `icsd`, both unweighted, are terms of their own."""
        losses, features, contrastive = self.scores_of_generated(batch, generated, ops.stop_gradient(generated["text"]))
        terms = {f"generator_{side}": loss for side, loss in zip(self.sides, losses, strict=True)} | contrastive
        loss = sum(losses) + self.caption_weight * sum(contrastive.values())
        if self.icsd.icsd_features == "generator":
            features = [generated[f"features_{side}"] for side in self.sides]
        terms["kl"] = kl_divergence(generated["mean"], generated["log_sigma"])
        terms["icsd"] = icsd_loss([gathered(each) for each in features], self.icsd.icsd_teacher)
        return loss + self.icsd.kl_weight * terms["kl"] + self._weight() * terms["icsd"], terms

    def scores_of_generated(self, batch, generated, text):
        """What the discriminators say of the generated images.

        Returns:
            (each stage's adversarial loss, each discriminator's features [batch, dim], {term: contrastive loss of
            images and captions, unweighted}).
        """
        losses, features, kind = [], [], self.gan.gan_loss
        for name, discriminator in zip(self.images, self.discriminators, strict=True):
            fake = discriminator.trunk(self.augmented(generated[name], batch, real=False))
            scores = (discriminator.unconditional(fake), discriminator.conditional([fake, text]))
            losses.append(sum(ops.mean(generator_loss(kind, score)) for score in scores))
            features.append(ops.mean(fake, axis=(1, 2)))
        return losses, features, {}

    def scores(self, batch):
        generated, found = self.generate(batch), ({}, {})
        text = generated["text"]
        for name, side, discriminator in zip(self.images, self.sides, self.discriminators, strict=True):
            images = (
                self.augmented(self._real(batch, side), batch, real=True),
                self.augmented(generated[name], batch, real=False),
            )
            for scores, image in zip(found, images, strict=True):
                scores[f"{side}"], scores[f"{side}_caption"] = discriminator(image, text)
        return [as_arrays(scores) for scores in found]

    def _weight(self):
        """Lambda at this step."""
        done = ops.cast(self.optimizer.generator.iterations, "float32")
        return self.icsd.icsd_weight * ops.minimum(1.0, (done + 1) / self.warmup)


class ProjectedICSDTrainer(ICSDTrainer):
    """The step of ICSD-GAN whose discriminators see each stage's image through the teacher.

    In place of each stage's two scores stand those of `t2i_kd.training.projected`, with the same weights for all
    stages. Both sides also minimise w_c times the heads' contrastive loss of images and captions, the heads that of
    real images, the generator that of its own. The features that `icsd_features=discriminator` compares are the heads'
    last maps, averaged over their places, side by side.

    Args:
        network, input_name, recipe, steps: as `ICSDTrainer` has them.
        projections: of every stage, `keras.Model`s of `build_projection`.
        caption_weight: w_c; see `t2i_kd.training.projected.contrastive_loss`.
    """

    def __init__(self, network, input_name, recipe, steps, projections, caption_weight=0.0):
        text_dim, channels = recipe.text.text_dim, recipe.gan.discriminator_channels
        stages = [
            ProjectedDiscriminators(projection, text_dim, channels, f"{side}_")
            for projection, side in zip(projections, sides_of(recipe), strict=True)
        ]
        heads = [head for stage in stages for head in stage.heads]
        super().__init__(network, input_name, recipe, steps, heads)
        self.stages, self.caption_weight = stages, caption_weight

    def prepare_discriminators(self):
        for stage in self.stages:
            stage.normalise()

    def generate(self, batch):
        """The student's outputs, and what the teacher sees in each of its images."""
        outputs = super().generate(batch)
        for stage, name in zip(self.stages, self.images, strict=True):
            seen = stage.features(self.augmented(outputs[name], batch, real=False))
            outputs |= {f"{name}/{tap}": values for tap, values in seen.items()}
        return outputs

    def _real_seen(self, stage, side, batch):
        return stage.features(self.augmented(self._real(batch, side), batch, real=True))

    def scores(self, batch):
        generated, real, fake = self.generate(batch), {}, {}
        text = generated["text"]
        for stage, name, side in zip(self.stages, self.images, self.sides, strict=True):
            real |= stage.scores(stage.view(self._real_seen(stage, side, batch)), text)
            fake |= stage.scores(stage.view(self._seen(stage, name, generated)), text)
        return [as_arrays(scores) for scores in (real, fake)]

    def discriminator_terms(self, batch, generated):
        """The sum of the stages' losses; each head's, and the shares that it takes for real, are terms of their own.

        So is each stage's contrastive loss of real images and captions, unweighted.
        """
        captions, text = BatchCaptions.of(batch, self.input_name), generated["text"]
        loss, terms, differs = 0.0, {}, captions.next_differs()
        for stage, name, side in zip(self.stages, self.images, self.sides, strict=True):
            real, fake = stage.views(self._real_seen(stage, side, batch), self._seen(stage, name, generated))
            own, found = stage.discriminator_loss(self.gan.gan_loss, real, fake, text, differs)
            loss, terms = loss + own, terms | found
            if self.caption_weight:
                terms[f"caption_of_real_{side}"] = stage.caption_loss(real, text, captions)
                loss = loss + self.caption_weight * terms[f"caption_of_real_{side}"]
        return loss, terms

    def scores_of_generated(self, batch, generated, text):
        losses, features, contrastive = [], [], {}
        captions = BatchCaptions.of(batch, self.input_name)
        for stage, name, side in zip(self.stages, self.images, self.sides, strict=True):
            view = stage.view(self._seen(stage, name, generated))
            if self.caption_weight:
                contrastive[f"caption_of_generated_{side}"] = stage.caption_loss(view, text, captions)
            losses.append(stage.generator_loss(self.gan.gan_loss, view, text)[0])
            features.append(ops.concatenate([seen["mean"] for seen in view], axis=-1))
        return losses, features, contrastive

    @staticmethod
    def _seen(stage, name, generated):
        return {tap: generated[f"{name}/{tap}"] for tap in stage.projection.output}


def sides_of(recipe):
    """The sides of a recipe's stages; see `networks.sides`."""
    return sides(recipe.data.resolution, recipe.icsd.image_stages)


class ICSDGAN(TextToImageSystem):
    """An ICSD-GAN run; see `TextToImageSystem`."""

    own_objectives, reads_taps = (OBJECTIVE,), (JOINT_EMBEDDING,)

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
        found = sides_of(recipe)
        check_gan(recipe.gan, recipe.training.batch_size)
        if recipe.icsd.discriminator == "teacher":
            for side in found:
                check_projection(recipe.projection, recipe.gan, recipe.teacher, side)
        else:
            refuse_unread(recipe.projection, "--discriminator=teacher")
        for stage in recipe.stages:
            check_stage_weights(stage, ("caption_weight",), OBJECTIVE)
            if stage.caption_weight and recipe.icsd.discriminator != "teacher":
                raise UserError(f"--stage {stage.name}: caption_weight needs --discriminator=teacher")
        for name in ("icsd_weight", "kl_weight"):
            if not 0 <= getattr(recipe.icsd, name) < float("inf"):
                raise UserError(f"--{name}: {getattr(recipe.icsd, name)} is negative or not finite")
        if not recipe.icsd.icsd_weight:
            refuse_unread(recipe.icsd, "--icsd_weight", ("icsd_warmup", "icsd_teacher", "icsd_features"))
        if not 0 <= recipe.icsd.icsd_warmup <= 1:
            raise UserError(f"--icsd_warmup: {recipe.icsd.icsd_warmup} is not a share, 0 to 1")

    @property
    def uniforms(self):
        return augmentation_numbers(self.recipe.gan)

    @functools.cached_property
    def projections(self):
        """The frozen networks in front of every stage's heads."""
        recipe = self.recipe
        return [
            projection_at(side, recipe.projection, recipe.teacher, self.dataset.images, recipe.training.seed)
            for side in sides_of(recipe)
        ]

    def objective_trainer(self, plan):
        (input_name,) = self.condition.inputs
        if self.recipe.icsd.discriminator == "plain":
            return ICSDTrainer(self.network, input_name, self.recipe, plan.steps)
        return ProjectedICSDTrainer(
            self.network, input_name, self.recipe, plan.steps, self.projections, plan.stage.caption_weight
        )
