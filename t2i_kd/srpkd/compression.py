"""Makes a text-to-image student of any system narrower: its generator in small, taught by itself on captions and noise.

Ours. SRPKD's terms compare the two generators' images and the maps of layers of equal names; no picture of the data set
is read but to measure.
"""

import dataclasses
import functools

import keras
from keras import ops

from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.data.batches import Batches, caption_pairs
from t2i_kd.data.captioned_images import split_lines
from t2i_kd.errors import UserError
from t2i_kd.options import refuse_unread
from t2i_kd.srpkd.channels import narrowed
from t2i_kd.srpkd.generators import Teacher
from t2i_kd.srpkd.networks import check_discriminator
from t2i_kd.srpkd.trainer import (
    COMPRESS,
    COMPRESS_GAN,
    SRPKD,
    DistilTrainer,
    HostTrainer,
    TaughtGenerator,
)
from t2i_kd.student import load_student, noise_width
from t2i_kd.teachers import run
from t2i_kd.training.precision import FLOAT32
from t2i_kd.training.system import KEPT_ITEMS, System, evenly
from t2i_kd.training.text_to_image import (
    GENERATOR,
    TEXT_LAYERS,
    build_student,
    generator_inputs,
    text_network,
    text_rows,
)

OBJECTIVES = (COMPRESS, COMPRESS_GAN)
# A map of more channels than an image has.
IMAGE_CHANNELS = 3


class CompressionTrainer(DistilTrainer):
    """The step of `objective=compress`: the sum of the distillation's terms for captions and noise.

    Args:
        student: the whole student; its generator is the one that is trained.
        text: `keras.Model` from text features to the text vector that both generators read, frozen.
        generator, frozen, divides_batch: as `DistilTrainer` has them.
    """

    def __init__(self, student, text, generator, frozen, divides_batch):
        super().__init__(generator, frozen, divides_batch)
        self.student, self.text = student, text

    @property
    def kept_variables(self):
        return self.student.variables + [each for layer in self.generator.adaptors for each in layer.variables]

    def inputs(self, batch):
        return read(self.text, self.generator.network, batch)


class CompressionGANTrainer(HostTrainer):
    """The step of `objective=compress_gan`: L_G = w g(D(S(t, z))) and the distillation's terms.

    The discriminator tells the student's images from the teacher's of the same captions and noise.

    Args:
        text: as `CompressionTrainer` has it.
        others: as `HostTrainer` has them.
    """

    def __init__(self, text, *others, **options):
        super().__init__(*others, **options)
        self.text = text

    def generate(self, batch):
        """Both generators' images of the batch's captions and noise."""
        return self.generator.taught(read(self.text, self.generator.network, batch))

    def discriminator_terms(self, batch, generated):
        """Half the sum of the losses on the teacher's and on the student's images."""
        return self._told_apart(self.discriminators[0], generated["forward/teacher"], generated["forward/image"]), {}

    def generator_terms(self, batch, generated):
        """L_G; its parts, unweighted, are terms of their own."""
        fooled = self._fooled(self.discriminators[0], generated["forward/image"])
        taught, terms = self.generator.terms(generated, batch["uniforms"][:, -1:])
        return self.gan.gan_weight * fooled + taught, {"gan": fooled, **terms}


def read(text, generator, batch):
    """What a generator reads of a batch: {"text": vector of the captions, without a gradient, and "noise", if any}."""
    given = generator_inputs(text, generator, batch, training=False)
    return given | {"text": ops.stop_gradient(given["text"])}


class Compression(SRPKD):
    """A run that compresses the text-to-image student of another: captions, that student, and a narrower one.

    The student reads captions as its teacher does: with the same vocabulary, and a copy of the teacher's text encoder
    that stays as it is. Both generators then read one vector, which is computed once, and a text encoder is small
    beside its generator.
    """

    uniforms = 1

    @staticmethod
    def fastest_policy():
        return FLOAT32, f"--dtype_policy=auto: float32, the only one of objective={COMPRESS}"

    def check_recipe(self):
        super().check_recipe()
        recipe = self.recipe
        refuse_unread(recipe.translation, "a student that reads images")
        refuse_unread(dataclasses.replace(recipe.generator, student_init="random"), "a student that reads images")
        if recipe.distillation.distil_generators == "both":
            raise UserError("--distil_generators=both: a student that reads captions has one generator")
        if recipe.data.flip:
            raise UserError(f"--flip: objective={COMPRESS} learns from the teacher's images, which it does not mirror")
        if recipe.training.dtype_policy != FLOAT32:
            raise UserError(f"--dtype_policy: objective={COMPRESS} trains in float32")
        if not any(stage.objective == COMPRESS_GAN for stage in recipe.stages):
            refuse_unread(recipe.host, f"a stage with objective={COMPRESS_GAN}")

    def check_stage(self, stage):
        if stage.objective not in OBJECTIVES:
            raise UserError(
                f"--stage {stage.name}: objective={stage.objective} is for students that read images, and another "
                f"stage has objective={COMPRESS}"
            )
        if not self.recipe.teacher.teacher.startswith(run.PREFIX):
            raise UserError(f"--teacher: objective={stage.objective} needs {run.PREFIX}DIR, a run with its layers")
        if stage.objective == COMPRESS_GAN:
            check_discriminator(self.recipe.data.resolution, self.recipe.host.discriminator_layers)

    def load_split(self, split, decode=True):
        return System.load_split(self, split, decode)

    def sides(self, dataset):
        """(the first caption of every image, the images) of a split."""
        return [captions[0] for captions in dataset.captions], dataset.images

    @functools.cached_property
    def taught_by(self):
        """The teacher as a `Student`."""
        path = run.network_file(self.recipe.teacher.teacher)
        student = load_student(path.parent)
        if student.condition.kind != CaptionCondition.kind:
            raise UserError(f"--teacher: {path} reads {student.condition.kind}s; objective={COMPRESS} is for captions")
        if GENERATOR not in [layer.name for layer in student.network.layers]:
            raise UserError(f"--teacher: {path} has no layer {GENERATOR!r} that could be made narrower")
        if student.resolution != self.recipe.data.resolution:
            raise UserError(
                f"--teacher: {path} gives images of {student.resolution} px, not of "
                f"--resolution={self.recipe.data.resolution}"
            )
        student.network.trainable = False
        return student

    @functools.cached_property
    def teacher(self):
        """The `Teacher`, loaded when it is first needed."""
        return Teacher(self.taught_by.network)

    def teaching_student(self):
        return self.taught_by

    @functools.cached_property
    def condition(self):
        return self.taught_by.condition.covering(self.dataset).covering(self.held_out)

    def build_network(self):
        theirs, options = self.teacher.network, self.recipe
        generator = narrowed(
            self.generator_of(theirs), options.compression.channel_share, options.generator.student_init == "teacher"
        )
        layers = {layer.name: layer for layer in theirs.layers if layer.name in TEXT_LAYERS}
        encoder = layers["text_encoder"]
        encoder = type(encoder).from_config(encoder.get_config())
        network = build_student(self.taught_by.condition, encoder, generator, "text_whitening" in layers)
        for name, layer in layers.items():
            network.get_layer(name).set_weights(layer.get_weights())
            network.get_layer(name).trainable = False
        return network

    @staticmethod
    def generator_of(network):
        """The part of a student's or a teacher's network whose layers are compared: its generator."""
        return network.get_layer(GENERATOR)

    @property
    def usual_tap(self):
        """The last map of a quarter of the image's side, or of the largest side below that (ours)."""
        maps = {}
        theirs = self.generator_of(self.teacher.network)
        for layer in self.generator_of(self.network).layers:
            shape = getattr(theirs.get_layer(layer.name).output, "shape", ())
            if len(shape) == 4 and shape[1] <= self.recipe.data.resolution // 4 and shape[-1] > IMAGE_CHANNELS:
                maps[shape[1]] = layer.name
        if not maps:
            raise UserError("--teacher_taps: missing; the teacher has no map of a quarter of the image's side")
        return maps[max(maps)]

    def own_trainer(self, plan):
        recipe, theirs = self.recipe, self.teacher.network
        keras.utils.set_random_seed(recipe.training.seed + 2 + recipe.stages.index(plan.stage))
        generator, teacher = self.generator_of(self.network), self.generator_of(theirs)
        taught = TaughtGenerator(generator, teacher, recipe, self.taps, self.features, "forward")
        text, frozen = text_network(theirs), [each for each in (theirs, self.features) if each]
        if plan.stage.objective == COMPRESS:
            return CompressionTrainer(self.network, text, taught, frozen, self._divides(False))
        discriminators = [self._discriminator("discriminator")]
        return CompressionGANTrainer(
            text, taught, frozen, discriminators, recipe, self._divides(False), name="srpkd_compress_gan"
        )

    def _divides(self, keeps_images):
        layers = self.generator_of(self.network).layers
        return super()._divides(
            keeps_images or any(isinstance(each, keras.layers.BatchNormalization) for each in layers)
        )

    @functools.cached_property
    def text_features(self):
        """The text inputs for every (image, caption) pair: {name: array [pairs, ...]}, see `text_rows`."""
        return text_rows(self.condition, self.dataset.all_captions)

    @property
    def examples(self):
        return len(caption_pairs(self.dataset))

    def batches(self, plan, first_step, last_step):
        training, noise = self.recipe.training, noise_width(self.network)
        return Batches(
            self.dataset,
            self.text_features,
            training.batch_size,
            training.seed,
            first_step,
            last_step,
            noise_dim=noise,
            uniforms=self.uniforms,
        )

    def sheet_columns(self, items):
        """Nothing: captions stand under the images."""
        return {}

    def kept_items(self):
        return evenly(self.dataset.all_captions, KEPT_ITEMS)

    def network_digests(self):
        read_as = self.condition.front_end.digest(self.dataset.all_captions)
        return super().network_digests() | {"teacher_text": read_as}

    def describe_data(self):
        return [
            f"student with its text encoder: {self.network.count_params():,} parameters",
            *split_lines(self.dataset),
            *split_lines(self.held_out),
        ]


def system_of(recipe, **options):
    """The system of an SRPKD recipe: `Compression` where a stage has one of its objectives. See `System`."""
    compresses = any(stage.objective in OBJECTIVES for stage in recipe.stages)
    return (Compression if compresses else SRPKD)(recipe, **options)
