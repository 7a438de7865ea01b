"""What a run of every system has: data, a condition, a network, a teacher, and stages one after the other."""

import contextlib
import dataclasses
import functools
import math
import random
import time
from pathlib import Path

import keras
import numpy as np

from t2i_kd.data.captioned_images import split_lines
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.data.subset import check_subset, training_subset
from t2i_kd.dtype_policy import dtype_policy
from t2i_kd.errors import UserError
from t2i_kd.imaging import captioned_grid, encode_png, write_file_atomically
from t2i_kd.runners import core_inputs
from t2i_kd.student import BEST_FILE, WEIGHTS_FILE, image_outputs, noise_width, save_network
from t2i_kd.teachers.catalogue import load_teacher, pinned
from t2i_kd.training import checkpoints
from t2i_kd.training.distribution import is_chief
from t2i_kd.training.inputs import Inputs, captions_digest, example_digests, network_digest
from t2i_kd.training.loop import learning_rate, plan_stages, train_stage
from t2i_kd.training.precision import AUTO, fastest_policy

SHEET_ITEMS = 16
# Steps that a speed is measured in, after one that compiles.
MEASURED_STEPS = 3
KEPT_ITEMS = 256


class System:
    """All that a run holds. Nothing is loaded by the constructor; each part is when it is first asked for.

    A system derives from it, names its `objectives`, and says what its condition, its network, its batches and its
    trainers are. Making the network seeds Keras's, NumPy's and Python's random generators with the recipe's seed.

    Args:
        recipe: the `Recipe` of the system's own class.
        dataset: a data set object, see `t2i_kd.data.catalogue.load_dataset`; None: the one that the recipe names. Its
            name and digest stand in the run's recipe.

    Raises:
        UserError: for what can be known to be wrong before anything is loaded.
    """

    objectives = ()
    # Random numbers in [0, 1) that the system's trainers want for each sample of a step.
    uniforms = 0
    # Whether its run ends with a student that generates images, and can be exported.
    makes_student = True
    # From the options of a teacher to those that say which network it is.
    pinned_teacher = staticmethod(pinned)
    # (dtype policy, a line that says why) of `--dtype_policy=auto`.
    fastest_policy = staticmethod(fastest_policy)

    def __init__(self, recipe, dataset=None):
        self._source = recipe.data.dataset if dataset is None else dataset
        data = recipe.data
        if dataset is not None:
            # The run belongs to these examples and no others.
            data = dataclasses.replace(data, dataset=f"{dataset.name}@{getattr(dataset, 'digest', '')}")
        training, self._measured = recipe.training, []
        if training.dtype_policy == AUTO:
            policy, line = self.fastest_policy()
            training, self._measured = dataclasses.replace(training, dtype_policy=policy), [line]
        teacher = self.pinned_teacher(recipe.teacher)
        self.recipe = dataclasses.replace(recipe, data=data, teacher=teacher, training=training)
        self.check_recipe()

    # The objectives that read a stage's tap_weights; None: not known, all may.
    reads_taps = None

    def check_recipe(self):
        """Raises `UserError` for what can be known to be wrong before anything is loaded."""
        check_subset(self.recipe.data)
        if not self.recipe.stages:
            raise UserError("--stage: a recipe needs at least one stage")
        for stage in self.recipe.stages:
            if stage.objective not in self.objectives:
                known = ", ".join(self.objectives)
                raise UserError(f"--stage {stage.name}: objective is {stage.objective!r}, none of {known}")
            if (
                getattr(stage, "tap_weights", ())
                and self.reads_taps is not None
                and stage.objective not in self.reads_taps
            ):
                raise UserError(f"--stage {stage.name}: objective={stage.objective} reads no tap_weights")
            self.check_stage(stage)

    def check_stage(self, stage):
        """`check_recipe` for one stage."""

    @functools.cached_property
    def dataset(self):
        """The training split, or the part of it that the recipe asks for."""
        return self.part_of(self.load_split("train"))

    def part_of(self, split):
        """`training_subset` of a loaded training split."""
        return training_subset(split, self.recipe.data, self.recipe.training.seed)

    @functools.cached_property
    def held_out(self):
        """The test split; its images are decoded when they are asked for."""
        return self.load_split("test", decode=False)

    def load_split(self, split, decode=True):
        """A split of the recipe's data set."""
        data = self.recipe.data
        return load_dataset(
            self._source,
            split,
            data.resolution,
            data.data_dir,
            data.max_bad_examples,
            decode,
            cache_dir=data.cache_dir,
        )

    @property
    def condition(self):
        """The student's `Condition`."""
        raise NotImplementedError

    def build_network(self):
        """A new network with initial weights."""
        raise NotImplementedError

    @property
    def examples(self):
        """How many examples an epoch has."""
        return len(self.dataset)

    def own_trainer(self, plan):
        """The `Trainer` of a `StagePlan`."""
        raise NotImplementedError

    def batches(self, plan, first_step, last_step):
        """The training batches, a `keras.utils.PyDataset`, of a range of global steps of one stage's `StagePlan`."""
        raise NotImplementedError

    def sheet_items(self):
        """The held-out items of the sample sheets."""
        raise NotImplementedError

    def kept_items(self):
        """The typical training items that a run keeps for its export."""
        raise NotImplementedError

    @functools.cached_property
    def network(self):
        """The network that is trained."""
        with self.policy():
            keras.utils.set_random_seed(self.recipe.training.seed)
            return self.build_network()

    @functools.cached_property
    def teacher(self):
        """The recipe's teacher, loaded when it is first needed."""
        with self.policy():
            return load_teacher(self.recipe.teacher, self.recipe.data.resolution)

    @functools.cached_property
    def plans(self):
        """The `StagePlan`s."""
        plans = plan_stages(self.recipe.stages, self.examples / self.recipe.training.batch_size)
        for plan in plans:
            learning_rate(plan.stage, plan.steps)
            self.check_plan(plan)
        return plans

    def check_plan(self, plan):
        """Raises `UserError` for what is wrong with a stage, once data and network are known."""

    @contextlib.contextmanager
    def policy(self):
        """Within it, the recipe's dtype policy is Keras's."""
        with dtype_policy(self.recipe.training.dtype_policy):
            yield

    def prepare(self):
        """Loads everything, so that whatever is wrong is said before a run directory is made."""
        for part in ("dataset", "held_out", "condition", "network", "plans", "teacher"):
            getattr(self, part)

    def inputs(self):
        """`Inputs`: digests of all that the run reads, by which it is the same run."""
        train, held_out = (each if isinstance(each, list) else [each] for each in (self.dataset, self.held_out))
        return Inputs(example_digests(train), captions_digest(held_out), self.network_digests())

    def network_digests(self):
        """{what: SHA-256} of the pretrained networks that the run reads."""
        return {"teacher": network_digest(self.teacher)}

    def descriptions(self):
        """The parts of `--dry_run`: functions that give lines, each raising `UserError` where something is missing."""
        parts = (self.describe_network, self.describe_data, self.describe_plans, self.describe_teacher)
        return [*parts, self.describe_precision, self.describe_warnings]

    def describe_network(self):
        """The network's size."""
        return [f"student: {self.network.count_params():,} parameters"]

    def describe_data(self):
        """Both splits: sizes, classes, where they come from."""
        return [line for each in (self.dataset, self.held_out) for line in split_lines(each)]

    def warnings(self):
        """Lines about what is allowed and seldom meant; said where a run starts and in `--dry_run`."""
        return []

    def describe_warnings(self):
        """`warnings`, each marked as one."""
        return [f"warning: {line}" for line in self.warnings()]

    def describe_start(self):
        """What is said where a run starts: its data, and warnings."""
        return [*self.describe_data(), *self.describe_precision(), *self.describe_warnings()]

    def describe_precision(self):
        """What `--dtype_policy=auto` found, where it was asked."""
        return self._measured

    def describe_plans(self):
        """The stages' lengths."""
        return [f"stage {plan.stage.name}: {plan.stage.objective}, {plan.steps:,} steps" for plan in self.plans]

    def describe_cost(self):
        """How large the student's files become, and how fast each stage trains here, measured in a few steps."""
        count = self.network.count_params()
        sizes = {"student.keras and ONNX": 4, "LiteRT float16": 2, "LiteRT int8": 1}
        told = ", ".join(f"{name} {count * size / 1e6:.1f} MB" for name, size in sizes.items())
        lines = [f"files, about: {told}"] if self.makes_student else []
        for plan in self.plans:
            rate = self.measured_rate(plan)
            minutes = round(plan.steps * self.recipe.training.batch_size / rate / 60)
            told = "less than a minute" if not minutes else f"some {minutes:,} minute{'s' if minutes > 1 else ''}"
            lines.append(f"stage {plan.stage.name}: {rate:.3g} images a second here, {told} in all")
        return lines

    def measured_rate(self, plan):
        """Training images a second of a stage on this machine, in its first steps but the first, which compiles."""
        short = dataclasses.replace(plan, last_step=plan.first_step + min(plan.steps, 1 + MEASURED_STEPS))
        clock = _Clock()
        with self.policy():
            self.before_stage(short)
            trainer, training = self.own_trainer(short), self.recipe.training
            compiled = training.jit_compile or keras.backend.backend() == "jax"
            trainer.compile(optimizer=trainer.make_optimizer(plan.stage, plan.steps, training), jit_compile=compiled)
            trainer.optimizer.build(trainer.trainable_variables)
            batches = self.batches(short, short.first_step, short.last_step)
            trainer.fit(batches, steps_per_epoch=len(batches), shuffle=False, verbose=0, callbacks=[clock])
        return training.batch_size * max(1, len(clock.times) - 1) / max(clock.times[-1] - clock.times[0], 1e-9)

    def teaching_student(self):
        """The teacher as a `Student`, where it makes images of the items that the student is asked with; else None."""
        return None

    def describe_teacher(self):
        """Nothing; raises `UserError` where the teacher cannot be had."""
        _ = self.teacher
        return []

    def generate(self, items, first_seed=0):
        """{output: float32 images [items, side, side, 3]} of the network as it is now, seeds from `first_seed` on."""
        seeds = np.arange(first_seed, first_seed + len(items))
        inputs = core_inputs(self.condition, noise_width(self.network), items, seeds)
        generated = self.network(inputs, training=False)
        return {name: keras.ops.convert_to_numpy(generated[name]) for name in image_outputs(self.network)}

    def draw_samples(self, run_dir, stage, step, events):
        """Writes the sheet of fixed held-out items to `samples/` and TensorBoard, one for each image output.

        Returns:
            The path of the finished image's, a `pathlib.Path`; None where a system makes none.
        """
        items = self.sheet_items()
        folder = Path(run_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        for output, images in self.generate(items).items():
            sheet = captioned_grid(images, [self.condition.label(item) for item in items])
            png = encode_png(np.asarray(sheet))
            ending = output.removeprefix("image")
            write_file_atomically(folder / f"{stage.name}-{step:08d}{ending}.png", png)
            events.picture(step, f"samples{ending}", *sheet.size, png)
        return folder / f"{stage.name}-{step:08d}.png"

    # A function (trainer, step) -> {name: float} of what a run measures of itself while it trains; None: nothing.
    measure = None

    def train(self, run_dir, deadline=math.inf):
        """Trains every stage that is not finished and writes the student into `run_dir`; the chief alone writes.

        Args:
            run_dir: the folder of the run.
            deadline: the time of `time.monotonic` at which the training ends early, with a checkpoint; the student is
                then that of the last step, with averaged weights where the recipe averages.

        Returns:
            Whether every stage is finished.
        """
        run_dir = Path(run_dir)
        with self.policy():
            if is_chief():
                self.save_condition(run_dir)
            for plan in self.plans:
                self.before_stage(plan)
                if is_chief():
                    # It cannot become longer any more.
                    for earlier in self.plans[: self.plans.index(plan)]:
                        checkpoints.drop_old(run_dir / "checkpoints" / earlier.stage.name, kept=0)
                trainer = self.own_trainer(plan)
                finished = train_stage(
                    plan,
                    trainer,
                    functools.partial(self.batches, plan),
                    self.recipe.training,
                    run_dir,
                    functools.partial(self.draw_samples, run_dir),
                    self.measure,
                    functools.partial(self.save_best, plan, run_dir),
                    deadline,
                )
                if not finished:
                    with trainer.averaged():
                        self.finish_early(run_dir)
                    return False
                if is_chief():
                    self.save_stage(plan, run_dir)
            if is_chief():
                self.finish(run_dir)
        return True

    def before_stage(self, plan):
        """What is to be done before a stage's trainer is made."""

    def save_condition(self, run_dir):
        """Writes what the student is asked with, and the items that its export is proven on."""
        self.condition.save(run_dir)
        self.condition.save_items(self.kept_items(), run_dir)

    def save_stage(self, plan, run_dir):
        """Writes the network as a finished stage leaves it."""
        save_network(self.network, run_dir / "checkpoints" / plan.stage.name / WEIGHTS_FILE)

    def save_best(self, plan, run_dir):
        """Writes the network as it is at the best step of a stage so far."""
        save_network(self.network, run_dir / "checkpoints" / plan.stage.name / BEST_FILE)

    def finish_early(self, run_dir):
        """Writes what there is when the time is over."""
        self.finish(run_dir)

    def finish(self, run_dir):
        """Writes what the run was for."""
        save_network(self.network, run_dir / WEIGHTS_FILE)


class _Clock(keras.callbacks.Callback):
    """The times at which the steps of a `fit` ended."""

    def __init__(self):
        super().__init__()
        self.times = []

    def on_train_begin(self, logs=None):
        self.times = [time.monotonic()]

    def on_train_batch_end(self, batch, logs=None):
        # Of several steps the first, which compiles, does not count.
        self.times = (
            [time.monotonic()] if batch == 0 and self.params.get("steps", 1) > 1 else [*self.times, time.monotonic()]
        )


@contextlib.contextmanager
def random_state_restored():
    """Gives Python's and NumPy's global random generators their states back at its end."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def evenly(items, count):
    """`count` of the items, or all where there are fewer, evenly spaced."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)]
