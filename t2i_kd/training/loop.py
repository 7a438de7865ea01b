"""The stage loop: trains what a stage says, keeps checkpoints, and resumes where a killed run stopped."""

import contextlib
import math
import time
from dataclasses import dataclass
from pathlib import Path

import keras
from absl import logging

from t2i_kd import stopping
from t2i_kd.errors import UserError
from t2i_kd.training import checkpoints
from t2i_kd.training.distribution import check_batch_size, distribute_batches, is_chief
from t2i_kd.training.logs import EventLog, ProgressLog, cut_metrics, read_metrics
from t2i_kd.training.measuring import criterion
from t2i_kd.training.optimizer import adam

SCHEDULES = ("constant", "cosine", "linear")


@dataclass(frozen=True)
class StagePlan:
    """A stage with its place in the run: `first_step` and `last_step` count over all stages."""

    stage: object
    first_step: int
    last_step: int

    @property
    def steps(self):
        return self.last_step - self.first_step


def plan_stages(stages, steps_per_epoch):
    """The stages one after the other, epochs turned into steps (at least one)."""
    plans, first = [], 0
    for stage in stages:
        steps = stage.steps or max(1, round(stage.epochs * steps_per_epoch))
        plans.append(StagePlan(stage, first, first + steps))
        first += steps
    return plans


class LinearDecay(keras.optimizers.schedules.LearningRateSchedule):
    """The rate for the first half of the steps, then in a line down to 0: CycleGAN's 100 epochs and 100 more.

    Args:
        rate: of the first half.
        steps: of both halves.
    """

    def __init__(self, rate, steps):
        self.rate, self.steps = rate, steps

    def __call__(self, step):
        left = 2 * (1 - keras.ops.cast(step, "float32") / self.steps)
        return self.rate * keras.ops.clip(left, 0.0, 1.0)

    def get_config(self):
        return {"rate": self.rate, "steps": self.steps}


def learning_rate(stage, steps):
    """The stage's learning rate: constant, a linear warm-up followed by a cosine down to 0, or `LinearDecay`.

    Raises:
        UserError: for a schedule that is none of `SCHEDULES`, a rate that is not positive and finite, or a warm-up that
            is negative or longer than the stage.
    """
    if not 0 < stage.learning_rate < math.inf:
        raise UserError(f"--stage {stage.name}: learning_rate is {stage.learning_rate}, not positive and finite")
    if stage.schedule not in SCHEDULES:
        raise UserError(f"--stage {stage.name}: schedule is {stage.schedule!r}, none of {', '.join(SCHEDULES)}")
    if not 0 <= stage.warmup_steps < steps:
        raise UserError(f"--stage {stage.name}: warmup_steps is {stage.warmup_steps}, the stage has {steps} steps")
    if stage.schedule != "cosine":
        if stage.warmup_steps:
            raise UserError(f"--stage {stage.name}: warmup_steps needs schedule=cosine")
        return stage.learning_rate if stage.schedule == "constant" else LinearDecay(stage.learning_rate, steps)
    return keras.optimizers.schedules.CosineDecay(
        0.0 if stage.warmup_steps else stage.learning_rate,
        steps - stage.warmup_steps,
        warmup_target=stage.learning_rate if stage.warmup_steps else None,
        warmup_steps=stage.warmup_steps,
    )


def make_optimizer(stage, steps, training):
    """Adam as the stage and the recipe's training options say."""
    return adam(learning_rate(stage, steps), training.clipnorm, training.ema)


class _Checkpoints(keras.callbacks.Callback):
    def __init__(self, folder, done, last, every, groups):
        super().__init__()
        self.folder, self.step, self.last, self.every, self.groups = folder, done, last, every, groups

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        # The last step's too: at the end of `fit`, Keras puts the averages in the weights' place.
        if self.step % self.every == 0 or self.step == self.last:
            self.write()

    def write(self):
        """Writes the checkpoint of the step that has just ended."""
        _ = self.model  # brings JAX's state back into the variables
        checkpoints.write(checkpoints.step_path(self.folder, self.step), self.groups)
        checkpoints.drop_old(self.folder)


class _TimeLimit(keras.callbacks.Callback):
    """Ends the training at the first step after the deadline or a signal that asks for it, with a checkpoint of it.

    At the deadline there is a sample sheet of the step, too.
    """

    def __init__(self, deadline, checkpoint, samples):
        super().__init__()
        self.deadline, self.checkpoint, self.samples = deadline, checkpoint, samples

    def on_train_batch_end(self, batch, logs=None):
        late = time.monotonic() >= self.deadline
        if late or stopping.asked():
            # Whoever sends a signal may not wait for a sheet.
            if late:
                self.samples.show()
            self.checkpoint.write()
            self.model.stop_training = True


class _Measuring(keras.callbacks.Callback):
    def __init__(self, plan, done, every, measure, keep_best, progress):
        super().__init__()
        self.plan, self.step, self.every = plan, plan.first_step + done, every
        self.measure, self.keep_best, self.progress = measure, keep_best, progress
        self.best = min(map(_score, read_metrics(progress.metrics_path, plan.stage.name)), default=math.inf)

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step % self.every == 0 or self.step == self.plan.last_step:
            with self.model.averaged():
                values = self.measure(self.model, self.step)
                self.progress.measure(values)
                if _score(values) < self.best:
                    self.best = _score(values)
                    self.keep_best()


def _score(values):
    name = criterion(values)
    return math.inf if name is None else values[name]


class _Samples(keras.callbacks.Callback):
    def __init__(self, plan, done, every, draw):
        super().__init__()
        self.plan, self.step, self.every, self.draw = plan, plan.first_step + done, every, draw
        self.drawn = None

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        first = self.step == self.plan.first_step + 1
        if first or self.step % self.every == 0 or self.step == self.plan.last_step:
            self.show()

    def show(self):
        """Draws the sheet of the step that has just ended, where it is not drawn yet."""
        if self.drawn != self.step:
            self.drawn = self.step
            with self.model.averaged():
                self.draw(self.plan.stage, self.step)


@contextlib.contextmanager
def _followed(plan, done, training, run_dir, folder, groups, draw_samples, measure, keep_best, deadline):
    """The callbacks that log, checkpoint and draw a stage: only the chief's, it alone writes files."""
    if not is_chief():
        yield []
        return
    name, first, last = plan.stage.name, plan.first_step, plan.last_step
    cut_metrics(Path(run_dir) / "metrics.jsonl", first + done)
    events = EventLog(Path(run_dir) / "tensorboard", first + done)
    progress = ProgressLog(name, run_dir, events, first, last, done, training.batch_size, training.log_every, deadline)
    checkpoint = _Checkpoints(folder, done, plan.steps, training.checkpoint_every, groups)
    samples = _Samples(
        plan, done, training.sample_every, lambda *where: progress.show_sheet(draw_samples(*where, events))
    )
    # A step's checkpoint comes after everything else of the step: whoever resumes from it finds its sheet and its logs.
    callbacks = [progress, samples, checkpoint]
    if measure is not None and training.measure_every:
        # Before the progress log, which writes what is measured.
        callbacks.insert(0, _Measuring(plan, done, training.measure_every, measure, keep_best, progress))
    callbacks.append(_TimeLimit(deadline, checkpoint, samples))
    try:
        yield callbacks
    finally:
        progress.close()
        events.close()


def train_stage(
    plan,
    trainer,
    make_batches,
    training,
    run_dir,
    draw_samples,
    measure=None,
    keep_best=lambda: None,
    deadline=math.inf,
):
    """Trains one stage to its end or to a deadline, from its newest checkpoint where there is one.

    The order of a resume: (1) the trainer is built, its weights are the previous stage's; (2) if the stage is over, the
    weights of its `final.npz` are read; (3) else the optimizer is made and built; (4) the newest step's checkpoint
    gives weights and optimizer; (5) logs beyond that step are dropped; (6) batches go on from the next step, each a
    function of (seed, step). The last step's checkpoint stays beside `final.npz`, so that the stage can become longer,
    until the next stage begins.

    Args:
        plan: `StagePlan`.
        trainer: `Trainer`, built.
        make_batches: function (first_step, last_step) -> `keras.utils.PyDataset`.
        training: `TrainingOptions`.
        run_dir: the run directory.
        draw_samples: function (stage, step, events) that makes a sample sheet and returns its path; None: it made none.
        measure: function (trainer, step) -> {name: float} for the logs, every `measure_every` steps; None: none.
        keep_best: called where what is measured is better than ever in the stage, by `measuring.criterion`, while the
            weights are the averages.
        deadline: the time of `time.monotonic` after whose first step the training ends, with a checkpoint of it.

    Returns:
        Whether the stage is finished. Where it is not, the weights are those of its last step, without averaging.

    Raises:
        UserError: when the batches do not divide among the replicas, nothing would be trained, or the loss is not
            finite.
    """
    stage = plan.stage
    check_batch_size(training.batch_size)
    if not trainer.generator_variables:
        raise UserError(f"--stage {stage.name}: nothing is left to train")
    folder = Path(run_dir) / "checkpoints" / stage.name
    weights = {"trained": trainer.kept_variables}
    if is_over(plan, run_dir):
        checkpoints.read(folder / checkpoints.FINAL, weights)
        return True
    # On JAX a step is either compiled or run operation by operation, many times slower.
    compiled = training.jit_compile or keras.backend.backend() == "jax"
    trainer.compile(optimizer=trainer.make_optimizer(stage, plan.steps, training), jit_compile=compiled)
    # Keras may fall back.
    if trainer.jit_compile != compiled:
        logging.warning("stage %s: Keras makes jit_compile %s, not %s", stage.name, trainer.jit_compile, compiled)
    trainer.optimizer.build(trainer.trainable_variables)
    groups = {**weights, "optimizer": trainer.optimizer.variables}
    done, path = checkpoints.newest(folder)
    if path:
        checkpoints.read(path, groups)
    followed = _followed(plan, done, training, run_dir, folder, groups, draw_samples, measure, keep_best, deadline)
    with followed as callbacks:
        if done < plan.steps:
            batches = make_batches(plan.first_step + done, plan.last_step)
            trainer.fit(
                distribute_batches(batches, trainer.divides_batch),
                steps_per_epoch=len(batches),
                epochs=1,
                shuffle=False,
                verbose=0,
                callbacks=callbacks,
            )
            if trainer.stop_training and checkpoints.newest(folder)[0] < plan.steps:
                return False
    if training.ema:
        trainer.keep_averages()
    if is_chief():
        checkpoints.write(folder / checkpoints.FINAL, weights)
        checkpoints.drop_old(folder, kept=1)
    return True


def is_over(plan, run_dir):
    """Whether a stage has all its steps: it is finished, and was not made longer since."""
    folder = Path(run_dir) / "checkpoints" / plan.stage.name
    done, path = checkpoints.newest(folder)
    return (folder / checkpoints.FINAL).exists() and (path is None or done >= plan.steps)
