"""Trains SRPKD: CycleGAN, pix2pix, or distillation alone, with what a teacher adds to each."""

import functools
import types
from pathlib import Path

import keras
import numpy as np
from keras import ops

from t2i_kd.conditions.image import SOURCE, ImageCondition
from t2i_kd.data.captioned_images import CaptionedImages
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.data.image_pairs import ImagePairs
from t2i_kd.data.subset import trains_on_a_part
from t2i_kd.data.translation_batches import TranslationBatches
from t2i_kd.errors import UserError
from t2i_kd.imaging import captioned_grid, encode_png, write_file_atomically
from t2i_kd.options import TeacherOptions, refuse_unread
from t2i_kd.runners import core_inputs
from t2i_kd.srpkd.generators import (
    Teacher,
    direction_of,
    load_generator,
    pinned,
    start_from_teacher,
)
from t2i_kd.srpkd.networks import (
    build_discriminator,
    build_generator,
    check_discriminator,
    default_tap,
    multiply_adds,
)
from t2i_kd.srpkd.objective import (
    WINDOW,
    absolute_error,
    gram_loss,
    relation_loss,
    squared_error,
    structural_dissimilarity,
    total_variation,
)
from t2i_kd.student import IMAGE, INVERSE_FILE, Student, noise_width, save_network
from t2i_kd.teachers.catalogue import load_teacher
from t2i_kd.training.adversarial import AdversarialTrainer
from t2i_kd.training.distribution import assign_alike
from t2i_kd.training.gan_losses import fake_loss, generator_loss, real_loss
from t2i_kd.training.inputs import network_digest
from t2i_kd.training.measuring import DISTANCE_TO_TEACHER, Measurements
from t2i_kd.training.system import System, evenly
from t2i_kd.training.trainer import Trainer

CYCLE_GAN, PIX2PIX, DISTIL = "cycle_gan", "pix2pix", "distil"
# Of students that read captions; see `t2i_kd.srpkd.compression`.
COMPRESS, COMPRESS_GAN = "compress", "compress_gan"
# Of these objectives a discriminator's loss reaches every layer of the generator; of others, what compares images does.
HOSTS = (CYCLE_GAN, PIX2PIX, COMPRESS_GAN)
OF_IMAGES = ("output", "ssim", "gram", "feature")
# The host's options that one objective alone reads.
READ_BY = {CYCLE_GAN: ("cycle_weight", "identity_weight", "pool_size"), PIX2PIX: ("l1_weight",)}
# Random numbers of a sample: two for each of two pools, and one for the rows of relation matrices.
POOL_NUMBERS = 2
UNIFORMS = 2 * POOL_NUMBERS + 1
SHEET_SOURCES = 8
KEPT_SOURCES = 64
MEASURED = 64


class ImagePool(keras.layers.Layer):
    """Generated images of earlier steps, for a discriminator that should not forget them.

    Until it is full an image is kept and returned; then, with probability 1/2, one of the kept ones is returned and the
    new one takes its place, otherwise the new one is returned. Source: Shrivastava et al. (CVPR 2017), as in CycleGAN's
    code. Its images are variables, which checkpoints keep.

    Args:
        size: how many it keeps; 0: none.
        side: of the images in pixels.
        name: of the pool.
    """

    def __init__(self, size, side, name):
        super().__init__(name=name, trainable=False)
        self.size = size
        options = {"initializer": "zeros", "trainable": False, "dtype": "float32"}
        self.images = self.add_weight(shape=(size, side, side, 3), name="images", **options) if size else None
        self.count = self.add_weight(shape=(), name="count", **options) if size else None
        self.built = True

    def exchange(self, images, uniforms, batch_size):
        """The images that a discriminator gets in place of those that were just generated, one after the other.

        Args:
            images: float [batch, side, side, 3].
            uniforms: float [batch, 2] in [0, 1): whether, and which.
            batch_size: the batch, which a graph does not know.

        Returns:
            Float32 [batch, side, side, 3], without a gradient.
        """
        images = ops.stop_gradient(ops.cast(images, "float32"))
        if not self.size:
            return images
        kept, count = ops.convert_to_tensor(self.images), ops.convert_to_tensor(self.count)
        returned = []
        for index in range(batch_size):
            image, (chance, place) = images[index], (uniforms[index, 0], uniforms[index, 1])
            full = count >= self.size
            slot = ops.where(full, ops.minimum(ops.floor(place * self.size), self.size - 1), count)
            slot = ops.cast(slot, "int32")
            swapped, earlier = ops.logical_and(full, chance < 0.5), ops.take(kept, slot, axis=0)
            returned.append(ops.where(swapped, earlier, image))
            stored = ops.where(ops.logical_or(ops.logical_not(full), swapped), image, earlier)
            kept = ops.scatter_update(kept, ops.reshape(slot, (1, 1)), stored[None])
            count = ops.minimum(count + 1, float(self.size))
        assign_alike(self.images, kept)
        assign_alike(self.count, count)
        return ops.stack(returned)


class TaughtGenerator(keras.layers.Layer):
    """A generator that is trained, and what it learns from its teacher.

    Args:
        network: the generator.
        teacher: the `keras.Model` that teaches it, or None. It is no part of this layer's variables.
        recipe: `SrpkdRecipe`.
        taps: ((teacher's layer, student's layer), ...).
        features: a `keras.Model` from images to maps, or None.
        name: `forward` or `backward`; it begins the names of its tensors.
    """

    def __init__(self, network, teacher, recipe, taps, features, name):
        # Images in 0-255 are no whole numbers in half precision.
        super().__init__(name=name, autocast=False)
        self.network, self.options, self.taps = network, recipe.distillation, taps
        others = types.SimpleNamespace(teacher=None, features=features)
        self.student = with_layers(network, [student for _, student in taps])
        self.adaptors = []
        if teacher is not None:
            others.teacher = with_layers(teacher, [tap for tap, _ in taps])
            for index, (tap, student) in enumerate(taps if self.options.tap_mse_weight else ()):
                layer = keras.layers.Conv2D(_layer_map(teacher, tap).shape[-1], 1, name=f"{name}_adaptor{index}")
                layer.build((None, None, None, _layer_map(network, student).shape[-1]))
                self.adaptors.append(layer)
        # Keras tracks what is a layer or a list of them.
        self.others = others
        self.built = True

    def call(self, source):
        """The image of a source, in training. Args: source: float [batch, side, side, 3] in 0-255."""
        return self.network({SOURCE: source}, training=True)[IMAGE]

    def taught(self, inputs, targets=None):
        """What the losses need: {"NAME/image", "NAME/tap0", ...}, with the teacher's where there is one.

        Args:
            inputs: {name: tensor [batch, ...]} of the generator and of the teacher, such as {"source": float [batch,
                side, side, 3] in 0-255}.
            targets: as many further inputs, a CycleGAN's targets, of which the same pass makes "NAME/same"; not of a
                network with batch norm. None: none.
        """
        if targets is None:
            found, outputs = self.student(inputs, training=True), {}
        else:
            both = {name: ops.concatenate([values, targets[name]]) for name, values in inputs.items()}
            halves = {name: ops.split(values, 2) for name, values in self.student(both, training=True).items()}
            found = {name: own for name, (own, _) in halves.items()}
            outputs = {f"{self.name}/same": halves[IMAGE][1]}
        outputs[f"{self.name}/{IMAGE}"] = found[IMAGE]
        if self.others.teacher is None:
            return outputs
        theirs = self.others.teacher(inputs, training=False)
        # What is outside 0-255 is not shown.
        outputs[f"{self.name}/teacher"] = ops.stop_gradient(ops.clip(ops.cast(theirs[IMAGE], "float32"), 0, 255))
        for index, (tap, student) in enumerate(self.taps):
            outputs[f"{self.name}/tap{index}"] = found[student]
            outputs[f"{self.name}/teacher_tap{index}"] = ops.stop_gradient(theirs[tap])
            if self.adaptors:
                outputs[f"{self.name}/adapted{index}"] = self.adaptors[index](found[student])
        return outputs

    def terms(self, outputs, uniforms):
        """(weighted sum, unweighted terms by name) of the distillation; (0, {}) without a teacher.

        Args:
            outputs: of `taught`.
            uniforms: float [batch, >= 1] in [0, 1); the first one shifts the rows that are compared.
        """
        if self.others.teacher is None:
            return 0.0, {}
        options = self.options
        image, wanted = outputs[f"{self.name}/{IMAGE}"], outputs[f"{self.name}/teacher"]
        losses = {
            "output": lambda: absolute_error(image, wanted),
            "relation": lambda: self._relation(outputs, uniforms),
            "tap_mse": lambda: self._over_taps(squared_error, outputs, "adapted"),
            "ssim": lambda: structural_dissimilarity(image, wanted),
            "gram": lambda: self._over_features(gram_loss, image, wanted),
            "feature": lambda: self._over_features(lambda one, other: ops.mean(ops.abs(one - other)), image, wanted),
            "tv": lambda: total_variation(image),
        }
        weights = {name: getattr(options, f"{name}_weight") for name in losses}
        found = {name: loss() for name, loss in losses.items() if weights[name]}
        total = sum(weights[name] * loss for name, loss in found.items())
        ending = "" if self.name == "forward" else f"_{self.name}"
        return total, {f"{name}{ending}": loss for name, loss in found.items()}

    def _relation(self, outputs, uniforms):
        def compared(ours, theirs):
            places, rows = ours.shape[1] * ours.shape[2], None
            if 0 < self.options.relation_rows < places:
                share = places / self.options.relation_rows
                shifted = ops.arange(self.options.relation_rows, dtype="float32") + uniforms[0, 0]
                rows = ops.minimum(ops.cast(ops.floor(shifted * share), "int32"), places - 1)
            return relation_loss(ours, theirs, self.options.relation_norm, rows)

        return self._over_taps(compared, outputs, "tap")

    def _over_taps(self, loss, outputs, ours):
        """The mean of a loss over the taps."""
        pairs = [
            (outputs[f"{self.name}/{ours}{index}"], outputs[f"{self.name}/teacher_tap{index}"])
            for index in range(len(self.taps))
        ]
        return sum(loss(*pair) for pair in pairs) / len(pairs)

    def _over_features(self, loss, image, wanted):
        """The sum of a loss over the feature network's maps of two images."""
        ours, theirs = self.others.features(image), self.others.features(wanted)
        names = self.options.feature_taps.split(",")
        return sum(loss(ops.cast(ours[name], "float32"), ops.cast(theirs[name], "float32")) for name in names)


def _layer_map(network, name):
    return network.get_layer(name).output


def with_layers(network, names):
    """A network that also gives the maps of some of its layers, by their names; it shares its weights."""
    return keras.Model(
        network.input, {IMAGE: network.output[IMAGE], **{name: _layer_map(network, name) for name in names}}
    )


class DistilTrainer(Trainer):
    """The step of `objective=distil`: the sum of the distillation's terms, without discriminator and ground truth.

    Args:
        generator: `TaughtGenerator`.
        frozen: the networks that it learns from.
        divides_batch: see `Trainer`.
    """

    def __init__(self, generator, frozen, divides_batch):
        super().__init__(name="srpkd_distil")
        self.generator, self.frozen, self.divides_batch = generator, frozen, divides_batch
        self.built = True

    @property
    def kept_variables(self):
        return self.generator.variables

    def loss_terms(self, batch):
        outputs = self.generator.taught(self.inputs(batch))
        return self.generator.terms(outputs, batch["uniforms"][:, -1:])

    def inputs(self, batch):
        """The generator's inputs: the batch's sources."""
        return {SOURCE: ops.cast(batch[SOURCE], "float32")}


class HostTrainer(AdversarialTrainer):
    """What the steps of CycleGAN and pix2pix share.

    The discriminators move before the generators, which then meet them as they are; the hosts' code does it the other
    way round.

    Args:
        generator: layer; its variables are the generators'.
        frozen: the networks that they learn from.
        discriminators: `keras.Model`s of `networks.build_discriminator`.
        recipe: `SrpkdRecipe`.
        divides_batch: see `Trainer`.
        name: of the trainer.
    """

    def __init__(self, generator, frozen, discriminators, recipe, divides_batch, name):
        super().__init__(generator, discriminators, recipe.host, recipe.training.ema, name=name)
        self.frozen, self.divides_batch = frozen, divides_batch
        self.batch_size = recipe.training.batch_size

    def _told_apart(self, discriminator, real, fake):
        """(mean l_real + mean l_fake) / 2 over the patches."""
        kind = self.gan.gan_loss
        if self.gan.discriminator_norm == "batch":
            # Its statistics are those of real or of generated images alone.
            right, wrong = (discriminator(each, training=True) for each in (real, fake))
        else:
            right, wrong = ops.split(discriminator(ops.concatenate([real, fake]), training=True), 2)
        return (ops.mean(real_loss(kind, right)) + ops.mean(fake_loss(kind, wrong))) / 2

    def _fooled(self, discriminator, fake):
        return ops.mean(generator_loss(self.gan.gan_loss, discriminator(fake, training=True)))


class Pix2PixTrainer(HostTrainer):
    """The step of pix2pix: L_G = w g(D(x, G(x))) + w_1 |G(x) - y| / 127.5 and the distillation's terms."""

    def generate(self, batch):
        """What the generator makes of the sources."""
        return self.generator.taught({SOURCE: ops.cast(batch[SOURCE], "float32")})

    def discriminator_terms(self, batch, generated):
        """Half the sum of the losses on (source, target) and (source, image)."""
        source, target = (ops.cast(batch[name], "float32") for name in (SOURCE, IMAGE))
        real, fake = (ops.concatenate([source, each], axis=-1) for each in (target, generated["forward/image"]))
        return self._told_apart(self.discriminators[0], real, fake), {}

    def generator_terms(self, batch, generated):
        """L_G; its parts, unweighted, are terms of their own."""
        source, target = (ops.cast(batch[name], "float32") for name in (SOURCE, IMAGE))
        image = generated["forward/image"]
        fooled = self._fooled(self.discriminators[0], ops.concatenate([source, image], axis=-1))
        error = absolute_error(image, target)
        taught, terms = self.generator.terms(generated, batch["uniforms"][:, -1:])
        loss = self.gan.gan_weight * fooled + self.gan.l1_weight * error + taught
        return loss, {"gan": fooled, "l1": error, **terms}


class Generators(keras.layers.Layer):
    """The two generators of a CycleGAN. Args: forward, backward: `TaughtGenerator`s."""

    def __init__(self, forward, backward):
        super().__init__(name="generators")
        self.forward, self.backward = forward, backward
        self.built = True


class CycleGANTrainer(HostTrainer):
    """The step of CycleGAN, with sources x, targets y and generators G and F.

        L_G = w [g(D_y(G(x))) + g(D_x(F(y)))] + w_c [|F(G(x)) - x| + |G(F(y)) - y|] / 127.5
              + w_i w_c [|G(y) - y| + |F(x) - x|] / 127.5 and the distillation's terms.

    Each discriminator sees generated images by way of an `ImagePool`.

    Args:
        pools: {"forward", "backward"}: `ImagePool`s.
        others: as `HostTrainer` has them, the generator a `Generators`, the discriminators of targets and sources.
    """

    def __init__(self, *others, pools, **options):
        super().__init__(*others, **options)
        self.pools = pools

    @property
    def kept_variables(self):
        return super().kept_variables + [variable for pool in self.pools.values() for variable in pool.variables]

    def generate(self, batch):
        """What both generators make of both sides, and of each other's images."""
        source, target = (ops.cast(batch[name], "float32") for name in (SOURCE, IMAGE))
        forward, backward = self.generator.forward, self.generator.backward
        sides, outputs = [{SOURCE: source}, {SOURCE: target}], {}
        for generator, own, other in ((forward, *sides), (backward, *reversed(sides))):
            outputs |= generator.taught(own, other if self.gan.identity_weight else None)
        outputs["cycled_source"] = backward(ops.cast(outputs["forward/image"], "float32"))
        outputs["cycled_target"] = forward(ops.cast(outputs["backward/image"], "float32"))
        return outputs

    def discriminator_terms(self, batch, generated):
        """The sum of both discriminators' losses, each a term of its own."""
        terms = {}
        for index, (name, real) in enumerate((("forward", IMAGE), ("backward", SOURCE))):
            numbers = batch["uniforms"][:, POOL_NUMBERS * index : POOL_NUMBERS * (index + 1)]
            fake = self.pools[name].exchange(generated[f"{name}/image"], numbers, self.batch_size)
            real = ops.cast(batch[real], "float32")
            terms[f"discriminator_{name}"] = self._told_apart(self.discriminators[index], real, fake)
        return sum(terms.values()), terms

    def generator_terms(self, batch, generated):
        """L_G; its parts, unweighted, are terms of their own."""
        source, target = (ops.cast(batch[name], "float32") for name in (SOURCE, IMAGE))
        images = [generated[f"{name}/image"] for name in ("forward", "backward")]
        terms = {"gan": sum(self._fooled(*pair) for pair in zip(self.discriminators, images, strict=True))}
        terms["cycle"] = absolute_error(generated["cycled_source"], source)
        terms["cycle"] += absolute_error(generated["cycled_target"], target)
        loss = self.gan.gan_weight * terms["gan"] + self.gan.cycle_weight * terms["cycle"]
        if self.gan.identity_weight:
            terms["identity"] = absolute_error(generated["forward/same"], target)
            terms["identity"] += absolute_error(generated["backward/same"], source)
            loss += self.gan.identity_weight * self.gan.cycle_weight * terms["identity"]
        for each in (self.generator.forward, self.generator.backward):
            taught, found = each.terms(generated, batch["uniforms"][:, -1:])
            loss, terms = loss + taught, terms | found
        return loss, terms


class SRPKD(System):
    """An SRPKD run: pictures of two sides, or of one and a teacher, and a small generator between them."""

    objectives = (CYCLE_GAN, PIX2PIX, DISTIL, COMPRESS, COMPRESS_GAN)
    uniforms = UNIFORMS
    pinned_teacher = staticmethod(pinned)

    def check_recipe(self):
        super().check_recipe()
        recipe, distillation = self.recipe, self.recipe.distillation
        weights = [name for name in distillation.weights() if getattr(distillation, name)]
        if recipe.teacher.teacher == "none":
            if weights:
                raise UserError(f"--{weights[0]}: there is no --teacher to learn from")
            if recipe.generator.student_init == "teacher":
                raise UserError("--student_init=teacher: there is no --teacher to start from")
        elif not weights:
            raise UserError("--teacher: nothing is learned from it; give a weight such as --output_weight")
        if 0 < recipe.translation.load_size < recipe.data.resolution:
            raise UserError(
                f"--load_size: {recipe.translation.load_size} is smaller than --resolution={recipe.data.resolution}"
            )
        if recipe.stages and not any(stage.objective in HOSTS for stage in recipe.stages):
            # A network's layers behind those that are compared would stay as they began.
            named = [f"{name}_weight" for name in OF_IMAGES]
            if not any(getattr(distillation, name) for name in named):
                objective = recipe.stages[0].objective
                raise UserError(
                    f"--{named[0]}: objective={objective} compares no image, and what is behind the compared layers "
                    f"would learn nothing; give one of {', '.join(f'--{name}' for name in named)}"
                )
        if distillation.ssim_weight and recipe.data.resolution < WINDOW:
            raise UserError(f"--ssim_weight: images of {recipe.data.resolution} px are smaller than its window")

    def check_stage(self, stage):
        recipe, objectives = self.recipe, {each.objective for each in self.recipe.stages}
        refuse_unread(recipe.compression, f"objective={COMPRESS}")
        for objective, names in READ_BY.items():
            if objective not in objectives:
                refuse_unread(recipe.host, f"a stage with objective={objective}", names)
        if objectives == {DISTIL}:
            refuse_unread(recipe.host, f"a stage with objective={CYCLE_GAN} or {PIX2PIX}")
        if stage.objective == CYCLE_GAN and recipe.generator.generator_norm == "batch":
            raise UserError(
                f"--generator_norm=batch: a generator of objective={CYCLE_GAN} sees sources, targets and the other's "
                "images, whose statistics are not those of the sources alone; take instance"
            )
        if stage.objective == DISTIL and self.recipe.teacher.teacher == "none":
            raise UserError(f"--stage {stage.name}: objective=distil needs a --teacher")
        if self.recipe.distillation.distil_generators == "both" and stage.objective != CYCLE_GAN:
            raise UserError(f"--distil_generators=both: stage {stage.name} has one generator")
        if stage.objective != DISTIL:
            check_discriminator(self.recipe.data.resolution, self.recipe.host.discriminator_layers)

    def load_split(self, split, decode=True):
        data, loaded = self.recipe.data, self.recipe.translation.load_size
        side = loaded if loaded and split == "train" else data.resolution
        kinds = (ImagePairs, CaptionedImages)
        return load_dataset(
            self._source, split, side, data.data_dir, data.max_bad_examples, decode, kinds, data.cache_dir
        )

    def part_of(self, split):
        data = self.recipe.data
        if isinstance(split, CaptionedImages) or not trains_on_a_part(data):
            return super().part_of(split)
        flag = "max_examples" if data.max_examples else "data_fraction"
        raise UserError(f"--{flag}: a part is drawn of captioned images alone, {split.name} has two sides")

    def sides(self, dataset):
        """(sources, targets) of a split; captioned images are sources without targets."""
        if isinstance(dataset, CaptionedImages):
            return dataset.images, ()
        return dataset.turned(self.recipe.translation.direction)

    @property
    def condition(self):
        return ImageCondition(self.recipe.data.resolution)

    def build_network(self):
        network = self._build_generator()
        if self.recipe.generator.student_init == "teacher":
            start_from_teacher(network, self.teacher.network)
        return network

    def _build_generator(self):
        options = self.recipe.generator
        return build_generator(
            options.generator,
            self.recipe.data.resolution,
            options.generator_channels,
            options.generator_depth,
            options.generator_norm,
            options.generator_dropout,
            options.generator_upsampling,
        )

    @functools.cached_property
    def inverse(self):
        """The generator of the other direction, of a CycleGAN."""
        with self.policy():
            keras.utils.set_random_seed(self.recipe.training.seed + 1)
            network = self._build_generator()
            if self.recipe.generator.student_init == "teacher" and self.teacher.inverse is not None:
                start_from_teacher(network, self.teacher.inverse)
            return network

    @property
    def has_inverse(self):
        """Whether a stage trains the generator of the other direction."""
        return any(stage.objective == CYCLE_GAN for stage in self.recipe.stages)

    @functools.cached_property
    def teacher(self):
        """The recipe's `Teacher`, or None, loaded when it is first needed.

        Raises:
            UserError: naming --teacher, also where it makes images of the other side than this recipe.
        """
        name, direction = self.recipe.teacher.teacher, self.recipe.translation.direction
        teacher = load_generator(self.recipe.teacher, self.recipe.data.resolution)
        theirs = direction_of(name)
        if theirs in (None, direction):
            return teacher
        if teacher.inverse is None:
            raise UserError(f"--teacher: {name} was trained with --direction={theirs}, here it is {direction}")
        return Teacher(teacher.inverse, teacher.network)

    def teaching_student(self):
        return None if self.teacher is None else Student(self.teacher.network, self.condition)

    @functools.cached_property
    def features(self):
        """The network whose maps of both images are compared, or None."""
        options = self.recipe.distillation
        if not (options.gram_weight or options.feature_weight):
            return None
        with self.policy():
            return load_teacher(TeacherOptions(teacher=options.feature_network), self.recipe.data.resolution)

    def network_digests(self):
        teacher, found = self.teacher, {}
        if teacher is not None:
            found["teacher"] = network_digest(teacher.network)
            if teacher.inverse is not None:
                found["teacher_inverse"] = network_digest(teacher.inverse)
        if self.features is not None:
            found["feature_network"] = network_digest(self.features)
        return found

    @functools.cached_property
    def taps(self):
        """((teacher's layer, student's layer), ...) whose maps are compared; () where none are.

        Raises:
            UserError: naming the flag, for a layer that is not there, or for maps of different sides.
        """
        options = self.recipe.distillation
        if self.teacher is None or not (options.relation_weight or options.tap_mse_weight):
            return ()
        theirs = (options.teacher_taps or self.usual_tap).split(",")
        ours = (options.student_taps or options.teacher_taps or self.usual_tap).split(",")
        if len(theirs) != len(ours):
            raise UserError(f"--student_taps: {len(ours)} layers for {len(theirs)} of the teacher")
        for tap, own in zip(theirs, ours, strict=True):
            sides = [
                _map_side(self.generator_of(network), name, flag)
                for network, name, flag in (
                    (self.teacher.network, tap, "teacher_taps"),
                    (self.network, own, "student_taps"),
                )
            ]
            if sides[0] != sides[1]:
                raise UserError(
                    f"--student_taps: {own} has {sides[1][0]} x {sides[1][1]} places, the teacher's {tap} has "
                    f"{sides[0][0]} x {sides[0][1]}"
                )
        return tuple(zip(theirs, ours, strict=True))

    @property
    def usual_tap(self):
        """The layer that is compared where a recipe names none."""
        options = self.recipe.generator
        return default_tap(options.generator, self.recipe.data.resolution, options.generator_depth)

    @staticmethod
    def generator_of(network):
        """The part of a student's or a teacher's network whose layers are compared: all of it."""
        return network

    def check_plan(self, plan):
        """Both sides, pairs, the inverse teacher and the taps must be there where a stage needs them."""
        name, dataset = plan.stage.name, self.dataset
        for split in (dataset, self.held_out):
            sources, targets = self.sides(split)
            if not len(sources):
                raise UserError(f"--direction={self.recipe.translation.direction}: {split.name} has no source picture")
            if plan.stage.objective != DISTIL and not len(targets):
                raise UserError(
                    f"--stage {name}: objective={plan.stage.objective} needs pictures of both sides, and {split.name} "
                    "has those of one"
                )
        if plan.stage.objective == PIX2PIX and not dataset.paired:
            raise UserError(f"--stage {name}: objective=pix2pix needs pairs, and {dataset.name} has none")
        if self.recipe.distillation.distil_generators == "both" and self.teacher.inverse is None:
            raise UserError("--distil_generators=both: the teacher has no generator of the other direction")
        _ = self.taps
        if self.features is not None:
            for tap in self.recipe.distillation.feature_taps.split(","):
                if tap not in self.features.output:
                    raise UserError(f"--feature_taps: {tap!r} is none of {', '.join(self.features.output)}")

    def own_trainer(self, plan):
        recipe, objective = self.recipe, plan.stage.objective
        teacher, both = self.teacher, recipe.distillation.distil_generators == "both"
        # Initial weights of a stage follow from the seed and its place, whatever was built before.
        keras.utils.set_random_seed(recipe.training.seed + 2 + recipe.stages.index(plan.stage))
        forward = TaughtGenerator(
            self.network, teacher and teacher.network, recipe, self.taps, self.features, "forward"
        )
        frozen = [each for each in (teacher and teacher.network, both and teacher.inverse, self.features) if each]
        if objective == DISTIL:
            return DistilTrainer(forward, frozen, self._divides(False))
        if objective == PIX2PIX:
            discriminators = [self._discriminator("discriminator", conditional=True)]
            return Pix2PixTrainer(forward, frozen, discriminators, recipe, self._divides(False), name="srpkd_pix2pix")
        inverse = teacher.inverse if both else None
        backward = TaughtGenerator(self.inverse, inverse, recipe, self.taps, self.features, "backward")
        names = ("forward", "backward")
        return CycleGANTrainer(
            Generators(forward, backward),
            frozen,
            [self._discriminator(f"discriminator_{name}") for name in names],
            recipe,
            self._divides(recipe.host.pool_size > 0),
            name="srpkd_cycle_gan",
            pools={name: ImagePool(recipe.host.pool_size, recipe.data.resolution, f"pool_{name}") for name in names},
        )

    def _divides(self, keeps_images):
        """Whether several devices may divide a batch: not where its examples have a state or numbers in common."""
        recipe = self.recipe
        batch_norm = "batch" in (recipe.generator.generator_norm, recipe.host.discriminator_norm)
        return not (keeps_images or batch_norm or recipe.distillation.relation_rows)

    def _discriminator(self, name, conditional=False):
        host = self.recipe.host
        return build_discriminator(
            self.recipe.data.resolution,
            host.discriminator_channels,
            host.discriminator_layers,
            host.discriminator_norm,
            conditional,
            name,
        )

    def batches(self, plan, first_step, last_step):
        training, (sources, targets) = self.recipe.training, self.sides(self.dataset)
        return TranslationBatches(
            sources,
            () if plan.stage.objective == DISTIL else targets,
            getattr(self.dataset, "paired", False),
            self.recipe.data.resolution,
            training.batch_size,
            training.seed,
            first_step,
            last_step,
            self.recipe.data.flip,
            self.uniforms,
        )

    def sheet_items(self):
        return evenly(self.sides(self.held_out)[0], SHEET_SOURCES)

    def kept_items(self):
        return evenly(self.sides(self.dataset)[0], KEPT_SOURCES)

    def draw_samples(self, run_dir, stage, step, events):
        """Writes the sheet of held-out items, each with the student's image of it and the teacher's."""
        items = self.sheet_items()
        columns = self.sheet_columns(items) | {"student": self.generate(items)[IMAGE]}
        if self.teacher is not None:
            columns["teacher"] = self._taught_images(items)
        images = np.stack([columns[name][row] for row in range(len(items)) for name in columns])
        told = [": ".join(filter(None, (name, self.condition.label(item)))) for item in items for name in columns]
        sheet = captioned_grid(images, told, len(columns) * (2 if len(items) > 1 else 1))
        png, folder = encode_png(np.asarray(sheet)), Path(run_dir) / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{stage.name}-{step:08d}.png"
        write_file_atomically(path, png)
        events.picture(step, "samples", *sheet.size, png)
        return path

    def sheet_columns(self, items):
        """{heading: images} of what stands before the student's images on a sheet: the sources."""
        return {"source": self.condition.arrays(items)[SOURCE]}

    def _taught_images(self, items):
        """The teacher's images of items, seeds 0, 1, ...: float32 [items, side, side, 3] in 0-255."""
        network = self.teacher.network
        inputs = core_inputs(self.condition, noise_width(network), items, np.arange(len(items)))
        taught = network(inputs, training=False)[IMAGE]
        return np.clip(ops.convert_to_numpy(taught), 0, 255).astype("float32")

    @functools.cached_property
    def measured(self):
        """(held-out sources, `Measurements` by held-out targets or None, the teacher's images or None)."""
        sources, targets = (evenly(side, MEASURED) for side in self.sides(self.held_out))
        measurements = None
        if len(targets) > 1:
            measurements = Measurements(self.recipe.teachers, self.recipe.data.resolution, np.stack(targets))
        return sources, measurements, None if self.teacher is None else self._taught_images(sources)

    def measure(self, trainer, step):
        """{"distance_to_teacher": mean |student - teacher| in 0-255} and `Measurements.of`, on held-out pictures."""
        sources, measurements, taught = self.measured
        images, values = np.clip(self.generate(sources)[IMAGE], 0, 255), {}
        if taught is not None:
            values[DISTANCE_TO_TEACHER] = float(np.abs(images - taught).mean())
        return values | (measurements.of(images) if measurements else {})

    def finish(self, run_dir):
        super().finish(run_dir)
        if self.has_inverse:
            save_network(self.inverse, Path(run_dir) / INVERSE_FILE)

    def describe_network(self):
        return [f"student: {_size(self.generator_of(self.network))}"]

    def describe_data(self):
        lines = []
        for split in (self.dataset, self.held_out):
            sources, targets = self.sides(split)
            pairs = ", pairs" if getattr(split, "paired", False) else ""
            lines.append(f"{split.name}: {len(sources):,} sources, {len(targets):,} targets{pairs}")
        return lines

    def describe_teacher(self):
        if self.teacher is None:
            return []
        return [f"teacher: {_size(self.generator_of(self.teacher.network))}"]


def _map_side(network, name, flag):
    """(height, width) of a layer's map. Raises `UserError` that names the flag and the layers that there are."""
    maps = [layer.name for layer in network.layers if len(getattr(layer.output, "shape", ())) == 4]
    if name not in maps:
        known = ", ".join(maps[:40])
        raise UserError(f"--{flag}: there is no layer {name!r} that gives a map; there are {known}")
    return tuple(_layer_map(network, name).shape[1:3])


def _size(network):
    """A network's parameters and multiply-adds as a text."""
    parameters = sum(
        int(np.prod(each.shape))
        for each in network.trainable_weights + network.non_trainable_weights
        if not each.path.endswith(("moving_mean", "moving_variance"))
    )
    at_input, at_output = (multiply_adds(network, side) / 1e9 for side in ("input", "output"))
    return (
        f"{parameters:,} parameters, {at_input:.4g} G multiply-adds an image ({at_output:.4g} G where transposed "
        "convolutions are counted at their output)"
    )
