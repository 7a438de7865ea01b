"""SDN's third stage: the mirrored student against discriminators that see through its teacher.

    L_G = sum_l g(s_l(G(t, z), t)) + w_d L_II + w_s L_S + w_c L_C,

with s_l the head of tap l, g the generator's loss, L_II Stage II's distance with the stage's error, scaling and tap
weights, w_d its `distance_weight`, L_S the hinge of `t2i_kd.training.seed_diversity`, w_s its
`seed_diversity_weight`, L_C the heads' contrastive loss of generated images and captions, w_c its `caption_weight`.
The heads learn L_C of real images, at the same weight. Source: ours; the discriminators and L_C are those of
`t2i_kd.training.projected`.
"""

import keras
from keras import ops

from t2i_kd.metrics.tap_errors import tap_errors
from t2i_kd.training.adversarial import AdversarialTrainer, as_arrays
from t2i_kd.training.batch_captions import BatchCaptions
from t2i_kd.training.seed_diversity import second_images
from t2i_kd.training.text_to_image import GENERATOR, generator_inputs

ADVERSARIAL = "adversarial"


class SDNAdversarialTrainer(AdversarialTrainer):
    """The step of SDN's third stage.

    Args:
        network: the student's `keras.Model`.
        text_network: `keras.Model` from the student's text inputs to the text vector that its generator reads.
        discriminators: `ProjectedDiscriminators`.
        teacher: a frozen teacher, for the distance.
        stage: `SDNStage` with objective `adversarial`.
        scales: {tap: s_l} of the taps that the distance compares; see `tap_errors`.
        weights: {tap: weight} of them.
        gan: `GanOptions`.
        ema: decay of the moving average.
        seed_diversity: `SeedDiversity`; None where the stage's `seed_diversity_weight` is 0.
    """

    def __init__(
        self, network, text_network, discriminators, teacher, stage, scales, weights, gan, ema, seed_diversity=None
    ):
        super().__init__(network, discriminators.heads, gan, ema, name=f"sdn_{stage.name}")
        self.text_network, self.projected, self.stage = text_network, discriminators, stage
        self.scales, self.weights_of_taps, self.seed_diversity = scales, weights, seed_diversity
        self.distance = None
        if stage.distance_weight:
            self.distance = keras.Model(teacher.input, {tap: teacher.output[tap] for tap in scales})
            self.distance.trainable = False

    def prepare_discriminators(self):
        self.projected.normalise()

    def generate(self, batch):
        """The generated image, its projected features, and the text vector, which has no gradient.

        With a `seed_diversity` also `second`; see `second_images`.
        """
        generator = self.generator.get_layer(GENERATOR)
        given = generator_inputs(self.text_network, generator, batch)
        image = generator(given, training=True)["image"]
        projected = self.projected.features(self.augmented(image, batch, real=False))
        features = {f"projected_{tap}": values for tap, values in projected.items()}
        generated = {"image": image, "text": ops.stop_gradient(given["text"]), **features}
        if self.seed_diversity is not None:
            generated |= second_images(generator, given)
        return generated

    def _features(self, generated):
        return {tap: generated[f"projected_{tap}"] for tap in self.projected.projection.output}

    def _real(self, batch):
        image = self.augmented(ops.cast(batch["image"], "float32"), batch, real=True)
        return self.projected.features(image)

    def scores(self, batch):
        generated = self.generate(batch)
        found = (self._real(batch), self._features(generated))
        return [as_arrays(self.projected.scores(self.projected.view(each), generated["text"])) for each in found]

    def discriminator_terms(self, batch, generated):
        """The heads' losses, the shares that each takes for real, and their contrastive loss, unweighted."""
        real, generated_view = self.projected.views(self._real(batch), self._features(generated))
        text, captions = generated["text"], self._captions(batch)
        loss, terms = self.projected.discriminator_loss(
            self.gan.gan_loss, real, generated_view, text, captions.next_differs()
        )
        if self.stage.caption_weight:
            terms["caption_of_real"] = self.projected.caption_loss(real, text, captions)
            loss = loss + self.stage.caption_weight * terms["caption_of_real"]
        return loss, terms

    def _captions(self, batch):
        (name,) = self.text_network.input
        return BatchCaptions.of(batch, name)

    def generator_terms(self, batch, generated):
        """L_G; the heads' losses, and the others, unweighted, are terms of their own, so is the hinge's rho."""
        view, text = self.projected.view(self._features(generated)), generated["text"]
        loss, terms = self.projected.generator_loss(self.gan.gan_loss, view, text)
        if self.stage.caption_weight:
            terms["caption_of_generated"] = self.projected.caption_loss(view, text, self._captions(batch))
            loss = loss + self.stage.caption_weight * terms["caption_of_generated"]
        if self.distance is not None:
            reference = self.distance(ops.cast(batch["image"], "float32"), training=False)
            errors = tap_errors(
                reference, self.distance(generated["image"], training=False), self.stage.error, self.scales
            )
            terms["distance"] = sum(self.weights_of_taps[tap] * error for tap, error in errors.items())
            loss = loss + self.stage.distance_weight * terms["distance"]
        if self.seed_diversity is not None:
            apart, own = self.seed_diversity.weighted(generated)
            loss, terms = loss + apart, terms | own
        return loss, terms
