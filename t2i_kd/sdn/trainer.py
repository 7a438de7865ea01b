"""Trains SDN: a student that mirrors VGG19, through the stages of a recipe."""

import dataclasses
import functools

import keras
from keras import ops

from t2i_kd.errors import UserError
from t2i_kd.metrics.tap_errors import ERRORS, SCALINGS, tap_errors, tap_scales
from t2i_kd.options import refuse_unread
from t2i_kd.sdn import SDNStage
from t2i_kd.sdn.adversarial import ADVERSARIAL, SDNAdversarialTrainer
from t2i_kd.sdn.image_codes import ImageCodes, check_codes, codes_teacher, image_codes
from t2i_kd.sdn.objective import OBJECTIVES
from t2i_kd.teachers.catalogue import load_teacher, teacher_shapes
from t2i_kd.teachers.tap_weights import resolve_tap_weights
from t2i_kd.teachers.vgg19 import tap_shapes
from t2i_kd.teachers.vgg19_weights import WIDTHS
from t2i_kd.training.adversarial import augmentation_numbers, check_gan, check_stage_weights
from t2i_kd.training.feature_cache import features_worth_caching
from t2i_kd.training.inputs import network_digest
from t2i_kd.training.mirrored_generator import from_options
from t2i_kd.training.projected import (
    ProjectedDiscriminators,
    check_projection,
    projection_at,
    readable_side,
)
from t2i_kd.training.seed_diversity import check_seed_diversity, seed_diversity_of
from t2i_kd.training.text_to_image import TextToImageSystem, text_network
from t2i_kd.training.trainer import Trainer

# What the fields of SDN's own stages may say.
KNOWN = {"error": tuple(ERRORS), "scaling": SCALINGS}


class SDNTrainer(Trainer):
    """The step of one SDN stage.

    Args:
        network: the student's `keras.Model`.
        teacher: a frozen teacher.
        stage: `Stage` with objective `mirrored` or `perceptual`.
        scales: {tap: s_l} of the taps that are compared; see `tap_errors`.
        steps: of the stage; an annealed error follows them.
    """

    def __init__(self, network, teacher, stage, scales, steps):
        super().__init__(name=f"sdn_{stage.name}")
        self.network, self.stage, self.scales = network, stage, scales
        self.weights_of_taps = resolve_tap_weights(stage.tap_weights, teacher.output)
        self.generated_scales = scales
        if stage.objective == "mirrored" and stage.scaling == "normalised":
            # The student's own tensors are in normalised units; see t2i_kd/sdn/objective.py.
            self.generated_scales = {name: scales[name] if name == "image" else 1.0 for name in scales}
        self.teacher = keras.Model(teacher.input, {name: teacher.output[name] for name in scales})
        self.teacher.trainable = False
        self.steps, self.step = steps, None
        if stage.error == "annealed":
            self.has_one_loss = False
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
        if "features" in batch:
            reference = {**batch["features"], "image": image}
        else:
            reference = self.teacher(image, training=False)
        generated = self.network({name: batch[name] for name in self.network.input}, training=True)
        if self.stage.objective == "perceptual":
            generated = self.teacher(generated["image"], training=False)
        progress = 0.0
        if self.step is not None:
            progress = self.step / self.steps
            self.step.assign(self.step + 1)
        terms = tap_errors(reference, generated, self.stage.error, self.scales, self.generated_scales, progress)
        return sum(self.weights_of_taps[name] * term for name, term in terms.items()), terms


def check_stage(stage, recipe):
    """Raises `UserError` for what can be known to be wrong with one of SDN's own stages before anything is loaded."""
    for field, known in KNOWN.items():
        if getattr(stage, field) not in known:
            raise UserError(f"--stage {stage.name}: {field} is {getattr(stage, field)!r}, none of {', '.join(known)}")
    shapes = teacher_shapes(recipe.teacher, recipe.data.resolution)
    teacher = recipe.teacher.teacher
    if teacher == "none" and set(dict(stage.tap_weights)) != {"image"}:
        raise UserError(f"--stage {stage.name}: without a teacher only tap_weights=image:1 can be compared")
    taps = resolve_tap_weights(stage.tap_weights, shapes)
    if stage.objective == ADVERSARIAL:
        check_adversarial(stage, recipe)
    if stage.objective == "mirrored":
        check_mirrored(stage, recipe, {tap: shapes[tap] for tap in taps})


def check_adversarial(stage, recipe):
    """Raises `UserError` for an adversarial stage that cannot be trained.

    Args:
        stage: with objective `adversarial`.
        recipe: `Recipe`.
    """
    check_gan(recipe.gan, recipe.training.batch_size)
    named = f"--stage {stage.name}: " if stage.discriminator_side else "--"
    check_projection(projection_of(stage, recipe), recipe.gan, recipe.teacher, recipe.data.resolution, named)
    if stage.error == "annealed":
        raise UserError(f"--stage {stage.name}: error=annealed is not for an adversarial stage")
    for field in ("tap_weights", "error", "scaling") if not stage.distance_weight else ():
        if getattr(stage, field) != getattr(SDNStage, field):
            raise UserError(f"--stage {stage.name}: {field} is read only with a distance_weight above 0")


def projection_of(stage, recipe):
    """The `ProjectionOptions` of an adversarial stage: the recipe's, with the stage's `discriminator_side` if any."""
    side = stage.discriminator_side or recipe.projection.discriminator_side
    return dataclasses.replace(recipe.projection, discriminator_side=side)


def check_mirrored(stage, recipe, shapes):
    """Raises `UserError` unless the student has a tensor of every tap's name and shape.

    Args:
        stage: with objective `mirrored`.
        recipe: `Recipe`.
        shapes: {tap: (height, width, channels)} of the teacher's taps that the stage compares.
    """
    teacher, width = recipe.teacher.teacher, recipe.sdn.width
    if width != WIDTHS.get(teacher, width) and set(shapes) != {"image"}:
        raise UserError(
            f"--width: {width} does not match the teacher's {WIDTHS[teacher]} ({teacher}), "
            f"and stage {stage.name} compares the student's tensors with the teacher's"
        )
    own = tap_shapes(recipe.data.resolution, width)
    for tap, shape in shapes.items():
        if own.get(tap) != shape:
            has = f"its own of that name is {own[tap]}" if tap in own else "it has none of that name"
            raise UserError(
                f"--stage {stage.name}: mirrored compares the student's tensors with the teacher's, and the student "
                f"does not mirror {tap} {shape} of {teacher}: {has}; objective=perceptual takes any teacher"
            )


class SDN(TextToImageSystem):
    """An SDN run; see `TextToImageSystem`."""

    own_objectives = (*OBJECTIVES, ADVERSARIAL)

    def check_recipe(self):
        super().check_recipe()
        for stage in self.recipe.stages:
            check_seed_diversity(stage, self.recipe.student.noise_dim, ADVERSARIAL)
            check_stage_weights(stage, ("distance_weight", "caption_weight", "discriminator_side"), ADVERSARIAL)
        if not any(stage.objective == ADVERSARIAL for stage in self.recipe.stages):
            for group in (self.recipe.gan, self.recipe.projection):
                refuse_unread(group, f"a stage with objective={ADVERSARIAL}")
        check_codes(self.recipe)

    def network_digests(self):
        found, recipe = super().network_digests(), self.recipe
        if recipe.noise.noise_teacher:
            coded = codes_teacher(recipe)
            network = load_teacher(coded, readable_side(coded, recipe.data.resolution))
            found["noise_teacher"] = network_digest(network)
        return found

    @functools.cached_property
    def codes(self):
        """`ImageCodes` of the training images; None where the noise does not follow them."""
        recipe, noise = self.recipe, self.recipe.noise
        if not noise.noise_correlation:
            return None
        values = image_codes(
            self.dataset, recipe.student.noise_dim, codes_teacher(recipe), recipe.data.flip, recipe.training.seed
        )
        return ImageCodes(values, noise.noise_correlation)

    def warnings(self):
        found = super().warnings()
        student, objectives = self.recipe.student, [stage.objective for stage in self.recipe.stages]
        if student.noise_dim and not self.recipe.noise.noise_correlation and ADVERSARIAL not in objectives:
            found.append(
                f"--noise_dim={student.noise_dim}: without --noise_correlation or a stage of objective={ADVERSARIAL} "
                "nothing asks for images that differ, and those of two seeds hardly do"
            )
        return found

    def check_own_stage(self, stage):
        check_stage(stage, self.recipe)

    def build_generator(self):
        recipe = self.recipe
        side, seed = recipe.data.resolution, recipe.training.seed
        return from_options(recipe.sdn, side, recipe.text.text_dim, recipe.student.noise_dim, seed)

    @functools.cached_property
    def measured_scales(self):
        """{tap: its typical size} among the teacher's activations of the training images; see `tap_scales`."""
        wanted = {
            tap: None for plan in self.plans if plan.stage.objective in self.own_objectives for tap in self.taps(plan)
        }
        outputs = {tap: output for tap, output in self.teacher.output.items() if tap in wanted}
        return tap_scales(keras.Model(self.teacher.input, outputs), self.dataset.images)

    def taps(self, plan):
        """{tap: weight} of the teacher's taps that a stage compares."""
        return resolve_tap_weights(plan.stage.tap_weights, self.teacher.output)

    @property
    def uniforms(self):
        adversarial = any(stage.objective == ADVERSARIAL for stage in self.recipe.stages)
        return augmentation_numbers(self.recipe.gan) if adversarial else 0

    @functools.cached_property
    def projections(self):
        """{`ProjectionOptions`: the network in front of the heads of the stages that have them}, as they come."""
        return {}

    def projection(self, stage):
        """The frozen network in front of an adversarial stage's heads."""
        recipe, images = self.recipe, self.dataset.images
        options, seed = projection_of(stage, recipe), recipe.training.seed
        if options not in self.projections:
            made = projection_at(recipe.data.resolution, options, recipe.teacher, images, seed)
            self.projections[options] = made
        return self.projections[options]

    def adversarial_trainer(self, plan):
        """The trainer of an adversarial stage."""
        recipe, weights = self.recipe, self.taps(plan) if plan.stage.distance_weight else {}
        normalised = plan.stage.scaling == "normalised"
        scales = {name: self.measured_scales[name] if normalised else 1.0 for name in weights}
        projection = self.projection(plan.stage)
        heads = ProjectedDiscriminators(projection, recipe.text.text_dim, recipe.gan.discriminator_channels)
        return SDNAdversarialTrainer(
            self.network,
            text_network(self.network),
            heads,
            self.teacher,
            plan.stage,
            scales,
            weights,
            recipe.gan,
            recipe.training.ema,
            seed_diversity_of(plan.stage, projection, self.dataset.images),
        )

    def objective_trainer(self, plan):
        if plan.stage.objective == ADVERSARIAL:
            return self.adversarial_trainer(plan)
        normalised = plan.stage.scaling == "normalised"
        scales = {name: self.measured_scales[name] if normalised else 1.0 for name in self.taps(plan)}
        return SDNTrainer(self.network, self.teacher, plan.stage, scales, plan.steps)

    def cached_features(self, plan):
        if plan.stage.objective == ADVERSARIAL:
            return None
        data, training = self.recipe.data, self.recipe.training
        limit, images = self.recipe.teacher.teacher_cache_mb, self.dataset.images
        return features_worth_caching(
            self.teacher, self.taps(plan), images, data.flip, training.batch_size, plan.steps, limit
        )
