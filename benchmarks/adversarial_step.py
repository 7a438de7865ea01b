"""What a whole step of ICSD-GAN costs beside its networks' forward and backward passes, each measured alone.

    python -m benchmarks.adversarial_step [--flagfile=pipelines/icsd_shapes.flags] [--turns=30]

The parts, by turns with the whole step on the same batch: the generator's pass and its gradient, the discriminators'
loss and its gradient, and the generator's loss through the discriminators and its gradient to the pictures. What the
step has beyond them are two optimizers and the moving average.
"""

import statistics
import time

from absl import flags

import t2i_kd.recipe
from t2i_kd import commands


def parts_of(trainer):
    """{part: function of a batch}, compiled, each with the gradient that the step takes of it."""
    import tensorflow as tf

    generated = None

    def generate(batch):
        with tf.GradientTape() as tape:
            outputs = trainer.generate(batch)
        return tape.gradient(outputs, trainer.generator_variables)

    def discriminator(batch):
        with tf.GradientTape() as tape:
            loss, _ = trainer.discriminator_terms(batch, generated)
        return tape.gradient(loss, trainer.discriminator_variables)

    def persuade(batch):
        with tf.GradientTape() as tape:
            tape.watch(generated)
            loss, _ = trainer.generator_terms(batch, generated)
        return tape.gradient(loss, generated)

    def prepare(batch):
        nonlocal generated
        generated = {name: tf.constant(values) for name, values in trainer.generate(batch).items()}

    compiled = {
        "generator": tf.function(generate),
        "discriminators": tf.function(discriminator),
        "generator's loss": tf.function(persuade),
        "whole step": tf.function(trainer.train_step),
    }
    return prepare, compiled


def main():
    """Measures and prints medians."""
    import tensorflow as tf

    from t2i_kd.icsd_gan.trainer import ICSDGAN

    values = flags.FLAGS
    recipe = t2i_kd.recipe.from_flags(values)
    system = ICSDGAN(recipe)
    (plan,) = [plan for plan in system.plans if plan.stage.objective == "icsd"]
    trainer = system.trainer(plan)
    trainer.compile(optimizer=trainer.make_optimizer(plan.stage, plan.steps, recipe.training))
    trainer.optimizer.build(trainer.trainable_variables)
    batch = {name: tf.constant(each) for name, each in system.batches(plan, 0, 1)[0].items()}
    prepare, parts = parts_of(trainer)
    prepare(batch)
    times = {name: [] for name in parts}
    for turn in range(values.turns + 3):
        for name, part in parts.items():
            began = time.perf_counter()
            part(batch)
            if turn >= 3:
                times[name].append(time.perf_counter() - began)
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, median in medians.items():
        print(f"{name}: {1000 * median:.1f} ms")
    whole = medians.pop("whole step")
    print(f"whole step / sum of the parts: {whole / sum(medians.values()):.2f}")


if __name__ == "__main__":
    t2i_kd.recipe.define_flags()
    flags.DEFINE_integer("turns", 30, "of which the median is taken", 3)
    for ignored in ("run_dir", "export_dir"):
        flags.DEFINE_string(ignored, "", "not used: a flagfile may name it")
    commands.run(main)
