"""What tells, while a GAN trains, that it has gone wrong: discriminators that win, that overfit or that are dead, or a
collapse.
"""

import numpy as np
from absl import logging

# A head that takes all but so few images for what they are leaves the generator nothing to follow.
CERTAIN = 0.99
# Above it the discriminators know the training images by heart. Source: Karras et al., "Training Generative Adversarial
# Networks with Limited Data" (ADA; NeurIPS 2020), whose augmentation holds r_v there.
LARGEST_OVERFITTING = 0.6
# Scores that deviate by less say the same of every image; the hinge's margin is 1.
SMALLEST_SPREAD = 0.05
# With its two means nearer to each other than so many standard errors, r_v is a quotient of what samples differ by.
SMALLEST_SEPARATION = 4
# Generated images that are less than half as different from each other as real ones.
SMALLEST_DIVERSITY = 0.5


def head_health(training, held_out, generated):
    """How discriminators take images that they train on, held-out real ones and generated ones.

    For each head, with D its mean scores: `real_for_real` and `generated_for_real`, the shares of the training and of
    the generated images' scores that are positive; `score_spread`, the largest of the heads' standard deviations of
    all training and generated images' scores; and over all heads, D the sum of their means,

        overfitting = r_v = (D_training - D_held_out) / (D_training - D_generated),

    0 where held-out images are taken like training ones, 1 where they are taken like generated ones.

    Args:
        training, held_out, generated: {head: float array of scores}.

    Returns:
        {name: float}; `overfitting` is left out where training images do not score `SMALLEST_SEPARATION` standard
        errors above generated ones, or all images score alike.
    """
    spreads = [np.std(np.concatenate([np.ravel(training[head]), np.ravel(generated[head])])) for head in training]
    values = {"score_spread": float(max(spreads))}
    for head in training:
        values[f"real_for_real_{head}"] = float(np.mean(training[head] > 0))
        values[f"generated_for_real_{head}"] = float(np.mean(generated[head] > 0))
    known, unknown, made = (
        sum(np.reshape(scores, (len(scores), -1)).mean(1) for scores in each.values())
        for each in (training, held_out, generated)
    )
    apart, error = known.mean() - made.mean(), np.sqrt(known.var() / len(known) + made.var() / len(made))
    if apart > SMALLEST_SEPARATION * error and values["score_spread"] >= SMALLEST_SPREAD:
        values["overfitting"] = float((known.mean() - unknown.mean()) / apart)
    return values


class Health:
    """Warns when a value leaves its range, once until it is back."""

    def __init__(self):
        self.ill = set()

    def look(self, step, values):
        """Logs a warning with the step for what has left its range.

        Args:
            step: of the run.
            values: of `head_health` and `Measurements.of`.
        """
        real = {name: value for name, value in values.items() if name.startswith("real_for_real_")}
        told = [min(value, 1 - values[name.replace("real_for", "generated_for", 1)]) for name, value in real.items()]
        self._tell(
            "certain",
            bool(told) and min(told) >= CERTAIN,
            "step %d: every head tells real and generated images apart without fail; the generator has nothing to "
            "follow. A lower --discriminator_learning_rate or more --augmentation helps",
            step,
        )
        spread = values.get("score_spread", 1.0)
        self._tell(
            "dead",
            spread < SMALLEST_SPREAD,
            "step %d: the discriminators say the same of every image (their scores deviate by %.3f), and the generator "
            "has nothing to follow; the weights of their other losses may be too large",
            step,
            spread,
        )
        overfitting = values.get("overfitting", 0.0)
        self._tell(
            "overfitting",
            overfitting > LARGEST_OVERFITTING,
            "step %d: the discriminators know their training images by heart (overfitting %.2f, above %.2f); more "
            "images, --flip or --augmentation help",
            step,
            overfitting,
            LARGEST_OVERFITTING,
        )
        for name, value in values.items():
            if name.startswith("diversity_"):
                self._tell(
                    name,
                    value < SMALLEST_DIVERSITY,
                    "step %d: generated images are %.2f times as different from each other as held-out ones; the "
                    "generator may be collapsing",
                    step,
                    value,
                )

    def _tell(self, what, ill, message, *values):
        if ill and what not in self.ill:
            logging.warning(message, *values)
        (self.ill.add if ill else self.ill.discard)(what)
