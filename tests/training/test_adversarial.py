"""The adversarial step against a hand calculation: a generator x -> w x, a discriminator s = v y."""

import json

import keras
import numpy as np
import pytest
from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.options import GanOptions, TrainingOptions
from t2i_kd.recipe import Stage
from t2i_kd.training.adversarial import AdversarialTrainer, check_gan
from t2i_kd.training.loop import plan_stages, train_stage

RATE, JUDGE_RATE, BETA_1, BETA_2, EPSILON = 0.1, 0.05, 0.5, 0.9, 1e-7
STAGE = Stage("gan", "line", steps=6, learning_rate=RATE)


class LineGan(AdversarialTrainer):
    """L_D = mean(s(w x)) - mean(s(y)) + v^2 / 2, L_G = -mean(s(w x))."""

    def __init__(self, ema=0.0, **gan):
        keras.utils.set_random_seed(1)
        dense = keras.layers.Dense(1, use_bias=False, name="w")
        norm = keras.layers.BatchNormalization(momentum=0.5, center=False, scale=False, name="norm")
        image = keras.Input((1,))
        generated = {"image": dense(image), "normal": norm(image)}
        discriminator = keras.layers.Dense(1, use_bias=False, name="v")
        discriminator.build((None, 1))
        recipe = GanOptions(beta_1=BETA_1, beta_2=BETA_2, discriminator_learning_rate=JUDGE_RATE, **gan)
        dense.set_weights([np.array([[0.5]])])
        discriminator.set_weights([np.array([[-0.25]])])
        super().__init__(keras.Model(image, generated, name="g"), [discriminator], recipe, ema, name="line_gan")

    def generate(self, batch):
        return self.generator(batch["x"], training=True)

    def discriminator_terms(self, batch, generated):
        discriminator = self.discriminators[0]
        loss = (
            ops.mean(discriminator(generated["image"]))
            - ops.mean(discriminator(batch["y"]))
            + ops.sum(ops.square(discriminator.kernel)) / 2
        )
        return loss, {"discriminator": loss}

    def generator_terms(self, batch, generated):
        loss = -ops.mean(self.discriminators[0](generated["image"]))
        return loss, {"line": loss}

    @property
    def values(self):
        return float(self.generator.get_layer("w").kernel[0, 0]), float(self.discriminators[0].kernel[0, 0])


def batch(step):
    rng = np.random.default_rng(step)
    return {name: rng.standard_normal((4, 1)).astype("float32") + mean for name, mean in (("x", 1), ("y", 2))}


class Batches(keras.utils.PyDataset):
    def __init__(self, first, last):
        super().__init__()
        self.first, self.last = first, last

    def __len__(self):
        return self.last - self.first

    def __getitem__(self, index):
        return batch(self.first + index)


class Adam:
    """Kingma & Ba, in Keras's form: the step is rate sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps)."""

    def __init__(self, rate):
        self.rate, self.m, self.v, self.t = rate, 0.0, 0.0, 0

    def step(self, gradient):
        self.t += 1
        self.m = BETA_1 * self.m + (1 - BETA_1) * gradient
        self.v = BETA_2 * self.v + (1 - BETA_2) * gradient**2
        rate = self.rate * np.sqrt(1 - BETA_2**self.t) / (1 - BETA_1**self.t)
        return -rate * self.m / (np.sqrt(self.v) + EPSILON)


def by_hand(steps, parts=1):
    """(w, v, both losses, both gradients' norms) of each step, by hand in float64."""
    w, v, adam_w, adam_v, found = 0.5, -0.25, Adam(RATE), Adam(JUDGE_RATE), []
    for step in range(steps):
        pieces = [np.split(values.astype("float64"), parts) for values in batch(step).values()]
        for x, y in zip(*pieces, strict=True):
            discriminator_loss = v * w * x.mean() - v * y.mean() + v**2 / 2
            down = w * x.mean() - y.mean() + v
            v += adam_v.step(down)
        loss, slope = -v * w * x.mean(), -v * x.mean()
        w += adam_w.step(slope)
        found.append((w, v, loss, discriminator_loss, abs(slope), abs(down)))
    return found


def train(trainer, tmp_path, steps=6, ema=0.0):
    seen = []
    training = TrainingOptions(batch_size=4, ema=ema, checkpoint_every=100, sample_every=1, log_every=1)
    (plan,) = plan_stages([STAGE], 1)
    train_stage(plan, trainer, Batches, training, tmp_path, lambda *_: seen.append(trainer.values))
    return seen


@pytest.mark.parametrize("parts", [1, 2])
def test_steps_are_those_of_the_hand_calculation(tmp_path, parts):
    trainer = LineGan(discriminator_steps=parts)
    seen = train(trainer, tmp_path)
    expected = by_hand(6, parts)
    np.testing.assert_allclose(seen, [each[:2] for each in expected], rtol=1e-4)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    names = ("loss", "discriminator_loss", "gradient_norm", "discriminator_gradient_norm")
    logged = [[line[name] for name in names] for line in map(json.loads, lines)]
    np.testing.assert_allclose(logged, [each[2:] for each in expected], rtol=1e-3, atol=1e-6)


def test_averages_hold_weights_and_statistics_and_are_what_is_kept(tmp_path):
    trainer = LineGan(ema=0.8)
    norm = trainer.generator.get_layer("norm")
    seen = train(trainer, tmp_path, ema=0.8)
    average, mean, moving, kept = 0.5, 0.0, 0.0, []
    for step, (w, *_) in enumerate(by_hand(6)):
        rate = 1 - min(0.8, (1 + step) / (10 + step))
        average += rate * (w - average)
        mean = 0.5 * mean + 0.5 * batch(step)["x"].mean()
        moving += rate * (mean - moving)
        kept.append(average)
    # Samples are drawn with the averages, and the trained weights come back afterwards.
    np.testing.assert_allclose([w for w, _ in seen], kept, rtol=1e-4)
    assert trainer.values[0] == pytest.approx(kept[-1], rel=1e-4)
    assert float(norm.moving_mean[0]) == pytest.approx(moving, rel=1e-4)


def test_a_resumed_run_is_the_same_to_the_bit(tmp_path):
    whole, parted = LineGan(ema=0.8), LineGan(ema=0.8)
    train(whole, tmp_path / "whole", ema=0.8)
    training = TrainingOptions(batch_size=4, ema=0.8, checkpoint_every=1, sample_every=100, log_every=1)
    (plan,) = plan_stages([STAGE], 1)

    def interrupted(stage, step, events):
        if step == 6:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        train_stage(plan, parted, Batches, training, tmp_path / "parted", interrupted)
    again = LineGan(ema=0.8)
    train_stage(plan, again, Batches, training, tmp_path / "parted", lambda *_: None)
    for one, other in zip(whole.kept_variables, again.kept_variables, strict=True):
        np.testing.assert_array_equal(one, other)


def test_both_optimizers_lie_in_the_checkpoints(tmp_path):
    trainer = LineGan()
    train(trainer, tmp_path)
    optimizer = trainer.optimizer
    assert int(optimizer.generator.iterations) == int(optimizer.discriminator.iterations) == 6
    paths = [variable.path for variable in optimizer.variables]
    assert len(paths) == len(set(paths)) == 8


@pytest.mark.parametrize(("schedule", "warmup"), [("cosine", 2), ("cosine", 0), ("linear", 0)])
def test_both_rates_follow_the_schedule_together_however_many_updates_a_step_has(schedule, warmup):
    stage = Stage("gan", "line", steps=6, learning_rate=RATE, schedule=schedule, warmup_steps=warmup)
    trainer, rates = LineGan(discriminator_steps=2), []
    trainer.compile(optimizer=trainer.make_optimizer(stage, 6, TrainingOptions()))
    trainer.optimizer.build(trainer.trainable_variables)
    for step in range(6):
        trainer.optimizer.generator.iterations.assign(step)
        trainer.optimizer.discriminator.iterations.assign(2 * step)
        assert float(trainer.optimizer.learning_rate) == float(trainer.optimizer.generator.learning_rate)
        rates.append([float(each.learning_rate) for each in (trainer.optimizer, trainer.optimizer.discriminator)])
    if schedule == "linear":
        expected = [min(1, 2 * (1 - step / 6)) for step in range(6)]
    else:
        expected = [(1 + np.cos(np.pi * (step - warmup) / (6 - warmup))) / 2 for step in range(6)]
        expected[:warmup] = [step / warmup for step in range(warmup)]
    np.testing.assert_allclose(rates, np.outer(expected, [RATE, JUDGE_RATE]), rtol=1e-5)


@pytest.mark.parametrize("every", [1, 3])
def test_a_lazy_penalty_has_the_same_mean(every):
    trainer = LineGan(gradient_penalty="r1", penalty_every=every)
    trainer.compile(optimizer=trainer.make_optimizer(STAGE, 6, TrainingOptions()))
    trainer.optimizer.build(trainer.trainable_variables)
    images, found = ops.ones((2, 4, 4, 3)), []
    for step in range(6):
        trainer.optimizer.discriminator.iterations.assign(step)
        found.append(float(trainer.penalty(lambda images, texts: ops.sum(images, axis=(1, 2, 3)), images, images)))
    once = 0.5 * 48 * 127.5**2
    np.testing.assert_allclose(found, [once * every if step % every == 0 else 0 for step in range(6)], rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"discriminator_steps": 3}, "discriminator_steps"),
        ({"discriminator_steps": 0}, "discriminator_steps"),
        ({"discriminator_channels": 0}, "discriminator_channels"),
        ({"penalty_every": 0}, "penalty_every"),
        ({"penalty_weight": -1.0}, "penalty_weight"),
        ({"discriminator_learning_rate": float("nan")}, "discriminator_learning_rate"),
        ({"beta_1": 1.0}, "beta_1"),
        ({"beta_2": -0.1}, "beta_2"),
    ],
)
def test_a_recipe_that_cannot_be_trained_is_named(values, named):
    with pytest.raises(UserError, match=f"--{named}"):
        check_gan(GanOptions(**values), 4)
