"""What a run of every text-to-image system has: data, text, a student, a teacher, and stages one after the other."""

import functools
from pathlib import Path

import keras
import numpy as np
from keras import ops

from t2i_kd.data.batches import Batches, ClassBalancedBatches, caption_pairs
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.errors import UserError
from t2i_kd.imaging import captioned_grid, encode_png, write_file_atomically
from t2i_kd.noise import noise_from_seeds
from t2i_kd.student import (
    CAPTIONS_FILE,
    TEXT_WEIGHTS_FILE,
    WEIGHTS_FILE,
    build_student,
    freeze,
    image_outputs,
    noise_width,
    save_encoder_weights,
    save_network,
    whiten_text,
)
from t2i_kd.teachers.catalogue import load_teacher
from t2i_kd.teachers.tap_weights import resolve_tap_weights
from t2i_kd.text.front_end import build_front_end
from t2i_kd.text.joint_embedding import class_balanced_indices, classes_of
from t2i_kd.training.distribution import is_chief
from t2i_kd.training.joint_embedding import JOINT_EMBEDDING, JointEmbeddingTrainer, check_joint_embedding
from t2i_kd.training.loop import learning_rate, plan_stages, train_stage

WHITENING_CAPTIONS = 4096
SHEET_CAPTIONS = 16
KEPT_CAPTIONS = 256


class TextToImageSystem:
    """All that a run holds: data, student, teacher and the plan of its stages.

    A system derives from it, names its `objectives` and says in `own_trainer` how they are trained. The stage
    `objective=ds_sje`, which trains the text encoder, is every system's.

    Args:
        recipe: `Recipe`.

    Raises:
        UserError: naming the flag or file that is wrong.
    """

    objectives = ()
    # Random numbers in [0, 1) that the system's trainers want for each sample of a step.
    uniforms = 0

    def __init__(self, recipe):
        self.recipe = recipe
        self.check_recipe()
        keras.config.set_dtype_policy(recipe.training.dtype_policy)
        keras.utils.set_random_seed(recipe.training.seed)
        self.dataset = self._load("train")
        self.held_out = self._load("test")
        self.front_end = build_front_end(recipe.text, self.dataset).covering(self.held_out)
        self.network = build_student(recipe, self.front_end)
        steps_per_epoch = len(caption_pairs(self.dataset)) / recipe.training.batch_size
        self.plans = plan_stages(recipe.stages, steps_per_epoch)
        for plan in self.plans:
            learning_rate(plan.stage, plan.steps)
            freeze(self.network, plan.stage.frozen)
            if plan.stage.objective == JOINT_EMBEDDING:
                class_balanced_indices(classes_of(self.dataset.labels), recipe.training.batch_size, 0, 0)

    def check_recipe(self):
        """Raises `UserError` for what can be known to be wrong before anything is loaded."""
        recipe = self.recipe
        if recipe.student.noise_dim < 0:
            raise UserError(f"--noise_dim: {recipe.student.noise_dim} is negative")
        if not recipe.stages:
            raise UserError("--stage: a recipe needs at least one stage")
        known = (*self.objectives, JOINT_EMBEDDING)
        for stage in recipe.stages:
            if stage.objective not in known:
                raise UserError(f"--stage {stage.name}: objective is {stage.objective!r}, none of {', '.join(known)}")
            if stage.objective == JOINT_EMBEDDING:
                check_joint_embedding(stage, recipe)
            else:
                self.check_stage(stage)

    def check_stage(self, stage):
        """`check_recipe` for one of the system's own stages."""

    def own_trainer(self, plan):
        """The `Trainer` of a `StagePlan` with one of the system's own objectives."""
        raise NotImplementedError

    def cached_features(self, plan):
        """The teacher's `CachedFeatures` of the training images for a stage, or None: computed at every step."""
        return None

    def _load(self, split):
        data = self.recipe.data
        return load_dataset(data.dataset, split, data.resolution, data.data_dir, data.max_bad_examples)

    def describe(self):
        """The lines of `--dry_run`: parameters, data and stages."""
        encoder, generator = (self.network.get_layer(name) for name in ("text_encoder", "generator"))
        pairs = len(caption_pairs(self.dataset))
        yield f"student: {self.network.count_params():,} parameters"
        yield f"  text encoder: {encoder.count_params():,}"
        yield f"  generator: {generator.count_params():,}"
        yield f"{self.dataset.name}: {len(self.dataset):,} images, {pairs:,} (image, caption) pairs"
        yield f"{self.held_out.name}: {len(self.held_out):,} images"
        for plan in self.plans:
            yield f"stage {plan.stage.name}: {plan.stage.objective}, {plan.steps:,} steps"

    @functools.cached_property
    def teacher(self):
        """The recipe's teacher, loaded when a stage first needs it."""
        return load_teacher(self.recipe.teacher, self.recipe.data.resolution)

    def load_teacher(self):
        """Loads the teacher now, so that wrong weights are told before a run directory is made."""
        return self.teacher

    def trainer(self, plan):
        """The `Trainer` of a `StagePlan`; the stage's frozen layers are frozen."""
        freeze(self.network, plan.stage.frozen)
        if plan.stage.objective == JOINT_EMBEDDING:
            (tap,) = resolve_tap_weights(plan.stage.tap_weights, self.teacher.output)
            return JointEmbeddingTrainer(self.network.get_layer("text_encoder"), self.teacher, tap)
        return self.own_trainer(plan)

    def batches(self, plan, first_step, last_step):
        """The training batches of a range of global steps, all of one stage's `StagePlan`."""
        training, kind, views = self.recipe.training, ClassBalancedBatches, None
        if plan.stage.objective != JOINT_EMBEDDING:
            # Of the whole stage, so that a resumed one decides as it did before.
            kind, views = Batches, self.cached_features(plan)
        return kind(
            self.dataset,
            self.front_end,
            training.batch_size,
            training.seed,
            first_step,
            last_step,
            self.recipe.data.flip,
            noise_width(self.network),
            self.uniforms,
            views,
        )

    def generate(self, captions):
        """{output: float32 images [captions, side, side, 3]} of the student as it is now, seeds 0, 1, ..."""
        inputs = {self.front_end.input_name: self.front_end.features(captions)}
        if noise_width(self.network):
            inputs["noise"] = noise_from_seeds(np.arange(len(captions)), noise_width(self.network))
        made = self.network(inputs, training=False)
        return {name: ops.convert_to_numpy(made[name]) for name in image_outputs(self.network)}

    def draw_samples(self, run_dir, stage, step, events):
        """Writes the sheet of fixed held-out captions to `samples/` and TensorBoard, one for each image output."""
        captions = evenly([captions[0] for captions in self.held_out.captions], SHEET_CAPTIONS)
        folder = Path(run_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        for output, images in self.generate(captions).items():
            sheet = captioned_grid(images, captions)
            png = encode_png(np.asarray(sheet))
            ending = output.removeprefix("image")
            write_file_atomically(folder / f"{stage.name}-{step:08d}{ending}.png", png)
            events.picture(step, f"samples{ending}", *sheet.size, png)

    def _whiten(self):
        captions = evenly(self.dataset.all_captions, WHITENING_CAPTIONS)
        whiten_text(self.network, self.front_end.features(captions))

    def train(self, run_dir):
        """Trains every stage that is not finished and writes the student into `run_dir`; the chief alone writes."""
        run_dir = Path(run_dir)
        if is_chief():
            self._save_text(run_dir)
        whitened = False
        for plan in self.plans:
            if plan.stage.objective != JOINT_EMBEDDING and not whitened:
                self._whiten()
                whitened = True
            train_stage(
                plan,
                self.trainer(plan),
                functools.partial(self.batches, plan),
                self.recipe.training,
                run_dir,
                functools.partial(self.draw_samples, run_dir),
            )
            if is_chief():
                self._save_stage(plan.stage, run_dir)
        if is_chief():
            save_network(self.network, run_dir / WEIGHTS_FILE)

    def _save_text(self, run_dir):
        self.front_end.save(run_dir)
        kept = evenly(self.dataset.all_captions, KEPT_CAPTIONS)
        write_file_atomically(run_dir / CAPTIONS_FILE, ("\n".join(kept) + "\n").encode("utf-8"))

    def _save_stage(self, stage, run_dir):
        if stage.objective == JOINT_EMBEDDING:
            save_encoder_weights(self.network, run_dir / TEXT_WEIGHTS_FILE)
        save_network(self.network, run_dir / "checkpoints" / stage.name / WEIGHTS_FILE)


def evenly(items, count):
    """`count` of the items, or all where there are fewer, evenly spaced."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(count, len(items))).astype(int)]
