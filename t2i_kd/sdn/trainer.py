"""Trains SDN: a student that mirrors VGG19, through the stages of a recipe."""

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
from t2i_kd.sdn.objective import ERRORS, OBJECTIVES, SCALINGS, resolve_tap_weights, tap_errors
from t2i_kd.sdn.upsampling import pays, with_direct_upsampling
from t2i_kd.student import (
    CAPTIONS_FILE,
    TEXT_WEIGHTS_FILE,
    WEIGHTS_FILE,
    build_student,
    freeze,
    save_encoder_weights,
    save_network,
    whiten_text,
)
from t2i_kd.teachers.catalogue import WIDTHS, load_teacher
from t2i_kd.teachers.views import views_that_pay
from t2i_kd.text.front_end import TOKEN_KINDS, build_front_end
from t2i_kd.text.joint_embedding import (
    build_joint_embedding,
    class_balanced_indices,
    classes_of,
    ds_sje_loss,
    retrieval_accuracy,
)
from t2i_kd.training.distribution import is_chief, predict
from t2i_kd.training.loop import learning_rate, plan_stages, train_stage
from t2i_kd.training.trainer import Trainer

# Images that a normalised stage measures the taps' sizes on.
SCALE_IMAGES = 128
WHITENING_CAPTIONS = 4096
SHEET_CAPTIONS = 16
KEPT_CAPTIONS = 256
JOINT_EMBEDDING = "ds_sje"
# What a stage's fields may say.
KNOWN = {"objective": (*OBJECTIVES, JOINT_EMBEDDING), "error": tuple(ERRORS), "scaling": SCALINGS}


class SDNTrainer(Trainer):
    """The step of one SDN stage.

    Args:
        network: the student's `keras.Model`.
        teacher: a frozen teacher.
        stage: `Stage` with objective `mirrored` or `perceptual`.
        scales: {tap: s_l} of the taps that are compared; see `tap_errors`.
        steps: of the stage; an annealed error follows them.
        direct: upsample and convolve in one, see `t2i_kd.sdn.upsampling`.
    """

    def __init__(self, network, teacher, stage, scales, steps, direct=False):
        super().__init__(name=f"sdn_{stage.name}")
        self.network, self.stage, self.scales = network, stage, scales
        self.drawing = with_direct_upsampling(network) if direct else network
        self.weights_of_taps = resolve_tap_weights(stage.tap_weights)
        self.made_scales = scales
        if stage.objective == "mirrored" and stage.scaling == "normalised":
            # The student's own tensors are in normalised units; see t2i_kd/sdn/objective.py.
            self.made_scales = {name: scales[name] if name == "image" else 1.0 for name in scales}
        self.teacher = keras.Model(teacher.input, {name: teacher.output[name] for name in scales})
        self.teacher.trainable = False
        self.steps, self.step = steps, None
        if stage.error == "annealed":
            self.step = self.add_weight(
                shape=(),
                initializer="zeros",
                trainable=False,
                name="step",
                aggregation="only_first_replica",
            )
        self.built = True

    @property
    def kept_variables(self):
        return self.network.variables + ([] if self.step is None else [self.step])

    def loss_terms(self, batch):
        """sum_l w_l d_l over the stage's taps; each d_l is a term of its own, under its tap's name."""
        image = ops.cast(batch["image"], "float32")
        real = {**batch["views"], "image": image} if "views" in batch else self.teacher(image, training=False)
        made = self.drawing({name: batch[name] for name in self.network.input}, training=True)
        if self.stage.objective == "perceptual":
            made = self.teacher(made["image"], training=False)
        progress = 0.0
        if self.step is not None:
            progress = self.step / self.steps
            self.step.assign(self.step + 1)
        terms = tap_errors(real, made, self.stage.error, self.scales, self.made_scales, progress)
        return sum(self.weights_of_taps[name] * term for name, term in terms.items()), terms


class JointEmbeddingTrainer(Trainer):
    """The step of a DS-SJE stage: the text encoder learns from the teacher's view of real images; no picture is made.

    Args:
        encoder: the student's text encoder.
        teacher: a frozen teacher.
        tap: the teacher's tap that is averaged over its places and projected.
    """

    divides_batch = False  # each caption is compared with every image of the batch

    def __init__(self, encoder, teacher, tap):
        super().__init__(name="ds_sje")
        self.embedding = build_joint_embedding(encoder, teacher.output[tap].shape[1:])
        self.teacher = keras.Model(teacher.input, teacher.output[tap])
        self.teacher.trainable = False
        self.built = True

    def loss_terms(self, batch):
        """The symmetric structured hinge, and how often a caption finds its image in the batch."""
        tap = self.teacher(ops.cast(batch["image"], "float32"), training=False)
        inputs = {name: tap if name == "tap" else batch[name] for name in self.embedding.input}
        made = self.embedding(inputs, training=True)
        retrieval = retrieval_accuracy(made["image"], made["text"])
        return ds_sje_loss(made["image"], made["text"]), {"retrieval_accuracy": retrieval}


def tap_scales(teacher, images):
    """The typical size of each tap: s_l = sqrt(mean (phi_l(x) - m_l)^2), m_l the tap's mean per channel.

    With these, a student that only knows each channel's mean has a squared error of 1 in every tap. Source: ours.

    Args:
        teacher: a teacher.
        images: uint8 [n, resolution, resolution, 3].

    Returns:
        {tap: float}, at least 1e-6.
    """
    taps = predict(teacher, images.astype("float32"), 16)
    spread = {name: np.sqrt(np.mean(np.square(v - v.mean((0, 1, 2), dtype="float64")))) for name, v in taps.items()}
    return {name: max(float(value), 1e-6) for name, value in spread.items()}


def _check_joint_embedding(stage, recipe):
    if recipe.text.text_encoder not in TOKEN_KINDS:
        raise UserError(f"--stage {stage.name}: ds_sje needs a learned text encoder, not {recipe.text.text_encoder}")
    if recipe.teacher.teacher == "none" or len(resolve_tap_weights(stage.tap_weights)) != 1:
        raise UserError(f"--stage {stage.name}: ds_sje needs a teacher and one tap, as in tap_weights=pool5:1")


def check_recipe(recipe):
    """Raises `UserError` for what can be known to be wrong before anything is loaded."""
    if recipe.student.noise_dim < 0:
        raise UserError(f"--noise_dim: {recipe.student.noise_dim} is negative")
    if not recipe.stages:
        raise UserError("--stage: a recipe needs at least one stage")
    for stage in recipe.stages:
        for field, known in KNOWN.items():
            if getattr(stage, field) not in known:
                raise UserError(
                    f"--stage {stage.name}: {field} is {getattr(stage, field)!r}, none of {', '.join(known)}"
                )
        if stage.objective == JOINT_EMBEDDING:
            _check_joint_embedding(stage, recipe)
            continue
        taps = set(resolve_tap_weights(stage.tap_weights))
        teacher = recipe.teacher.teacher
        if teacher == "none" and taps != {"image"}:
            raise UserError(f"--stage {stage.name}: without a teacher only tap_weights=image:1 can be compared")
        if stage.objective == "mirrored" and taps != {"image"} and recipe.student.width != WIDTHS[teacher]:
            raise UserError(
                f"--width: {recipe.student.width} does not match the teacher's {WIDTHS[teacher]} ({teacher}), "
                f"and stage {stage.name} compares the student's tensors with the teacher's"
            )


class SDN:
    """All that an SDN run holds: data, student, teacher and the plan of its stages.

    Args:
        recipe: `Recipe`.
    """

    def __init__(self, recipe):
        check_recipe(recipe)
        self.recipe = recipe
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

    @functools.cached_property
    def measured_scales(self):
        chosen = evenly(range(len(self.dataset)), SCALE_IMAGES)
        return tap_scales(self.teacher, np.stack([self.dataset.images[i] for i in chosen]))

    def trainer(self, plan):
        """The `Trainer` of a `StagePlan`; the stage's frozen layers are frozen."""
        stage = plan.stage
        freeze(self.network, stage.frozen)
        taps = resolve_tap_weights(stage.tap_weights)
        if stage.objective == JOINT_EMBEDDING:
            return JointEmbeddingTrainer(self.network.get_layer("text_encoder"), self.teacher, next(iter(taps)))
        normalised = stage.scaling == "normalised"
        scales = {name: self.measured_scales[name] if normalised else 1.0 for name in taps}
        direct = pays(self.recipe.training.jit_compile)
        return SDNTrainer(self.network, self.teacher, stage, scales, plan.steps, direct)

    def batches(self, stage, first_step, last_step):
        """The training batches of a range of a stage's global steps."""
        training, flip = self.recipe.training, self.recipe.data.flip
        arguments = (self.dataset, self.front_end, training.batch_size, training.seed, first_step, last_step, flip)
        arguments += (self.recipe.student.noise_dim,)
        if stage.objective == JOINT_EMBEDDING:
            return ClassBalancedBatches(*arguments)
        # Of the whole stage, so that a resumed one decides as it did before.
        (steps,) = (plan.steps for plan in self.plans if plan.stage == stage)
        views = views_that_pay(
            self.teacher,
            resolve_tap_weights(stage.tap_weights),
            self.dataset.images,
            flip,
            training.batch_size,
            steps,
            self.recipe.teacher.teacher_cache_mb,
        )
        return Batches(*arguments, views)

    def generate(self, captions):
        """float32 images [captions, resolution, resolution, 3] of the student as it is now, seeds 0, 1, ..."""
        inputs = {self.front_end.input_name: self.front_end.features(captions)}
        if self.recipe.student.noise_dim:
            inputs["noise"] = noise_from_seeds(np.arange(len(captions)), self.recipe.student.noise_dim)
        return ops.convert_to_numpy(self.network(inputs, training=False)["image"])

    def draw_samples(self, run_dir, stage, step, events):
        """Writes the sheet of fixed held-out captions to `samples/` and TensorBoard."""
        captions = evenly([captions[0] for captions in self.held_out.captions], SHEET_CAPTIONS)
        sheet = captioned_grid(self.generate(captions), captions)
        png = encode_png(np.asarray(sheet))
        folder = Path(run_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        write_file_atomically(folder / f"{stage.name}-{step:08d}.png", png)
        events.picture(step, "samples", *sheet.size, png)

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
                functools.partial(self.batches, plan.stage),
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
