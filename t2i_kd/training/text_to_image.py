"""What a run of every text-to-image system has beside `System`: captions, a text encoder, and the DS-SJE stage."""

import fnmatch
import functools
import math
import re
from collections import Counter

import keras
import numpy as np

from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.data.batches import Batches, ClassBalancedBatches, caption_numbers, caption_pairs
from t2i_kd.data.captioned_images import split_lines
from t2i_kd.data.class_balance import class_balanced_indices, classes_of
from t2i_kd.errors import UserError
from t2i_kd.student import IMAGE, noise_width, save_whole
from t2i_kd.teachers.catalogue import load_teacher
from t2i_kd.teachers.tap_weights import resolve_tap_weights
from t2i_kd.text.front_end import build_front_end, check_sources
from t2i_kd.text.whitening import whitening_map
from t2i_kd.training.adversarial import AdversarialTrainer
from t2i_kd.training.distribution import predict
from t2i_kd.training.health import Health, head_health
from t2i_kd.training.initial_weights import start_from, weights_digest
from t2i_kd.training.inputs import file_digest, network_digest
from t2i_kd.training.joint_embedding import JOINT_EMBEDDING, JointEmbeddingTrainer, check_joint_embedding
from t2i_kd.training.measuring import CAPTIONS_OVER_SEEDS, HELD_OUT_LOSS, ITEMS, SEEDS, Measurements
from t2i_kd.training.projected import discriminators_teacher, seen_side
from t2i_kd.training.system import KEPT_ITEMS, SHEET_ITEMS, System, evenly
from t2i_kd.training.trainer import restored

WHITENING_CAPTIONS = 4096
# The text inputs of all captions are kept where they take no more than this, else made for each batch.
TEXT_BYTES = 2**28
# Words that the student does not know are named up to so many.
NAMED_WORDS = 10
# What a mirrored picture makes untrue, in the languages of most captions.
SIDES = re.compile(
    r"\b(left|right|leftmost|rightmost|leftwards?|rightwards?|lefthand|righthand|(counter|anti)?clockwise|links|rechts|"
    r"linke[nrsm]?|rechte[nrsm]?|gauche|droite|izquierd[ao]|derech[ao]|sinistr[ao]|destr[ao]|esquerd[ao]|direit[ao])\b|[左右]",
    re.IGNORECASE,
)
# Images at a time, and those of each kind that a GAN's health is seen by.
HEALTH_BATCH = 64
# What a DS-SJE stage leaves beside the vocabulary, for another run's --text_weights.
TEXT_WEIGHTS_FILE = "text_encoder.weights.h5"
# A student's layers: those between a caption and the generator, and the generator.
TEXT_LAYERS = ("text_encoder", "text_whitening")
GENERATOR = "generator"


class TextToImageSystem(System):
    """A run whose student goes from captions to images.

    A system derives from it, names its `own_objectives`, builds its generator in `build_generator`, and says in
    `objective_trainer` how its objectives are trained. The stage `objective=ds_sje`, which trains the text encoder, is
    every system's.
    """

    own_objectives = ()
    # What makes the drawn noise follow the training images, see `Batches`; None: it does not.
    codes = None

    @property
    def objectives(self):
        """Its own objectives and DS-SJE."""
        return (*self.own_objectives, JOINT_EMBEDDING)

    def build_generator(self):
        """A `keras.Model` from {"text": float [batch, text_dim], ["noise": ...]} to the student's outputs."""
        raise NotImplementedError

    def objective_trainer(self, plan):
        """The `Trainer` of a `StagePlan` with one of the system's own objectives."""
        raise NotImplementedError

    def check_own_stage(self, stage):
        """`check_stage` for one of the system's own objectives."""

    def cached_features(self, plan):
        """The teacher's features of the training images for a stage, or None where they are computed at every step."""
        return None

    def check_stage(self, stage):
        if stage.objective == JOINT_EMBEDDING:
            check_joint_embedding(stage, self.recipe)
        else:
            self.check_own_stage(stage)

    @functools.cached_property
    def condition(self):
        front_end = build_front_end(self.recipe.text, self.dataset)
        return CaptionCondition(front_end.covering(self.held_out))

    @functools.cached_property
    def generator(self):
        """The generator that `network` holds."""
        with self.policy():
            return self.build_generator()

    def build_network(self):
        # The text encoder is made first: initial weights come from one stream of random numbers.
        encoder = self.condition.front_end.build_encoder(self.recipe.text)
        network = build_student(self.condition, encoder, self.generator, self.recipe.student.whiten_text)
        if self.recipe.student.init_from:
            self.known_words = start_from(network, self.condition, self.recipe.student.init_from)
            self._whitened = True
        return network

    @functools.cached_property
    def pairs(self):
        """Every (image, caption) pair; see `caption_pairs`."""
        return caption_pairs(self.dataset)

    @property
    def examples(self):
        return len(self.pairs)

    def check_plan(self, plan):
        freeze(self.network, plan.stage.frozen)
        if plan.stage.objective == JOINT_EMBEDDING:
            class_balanced_indices(classes_of(self.dataset.labels), self.recipe.training.batch_size, 0, 0)

    def network_digests(self):
        text, seen_through = self.recipe.text, discriminators_teacher(self.recipe)
        found = super().network_digests() | {"text": self.condition.front_end.digest(self.dataset.all_captions)}
        if text.text_weights:
            found["text_weights"] = file_digest(text.text_weights)
        if self.recipe.student.init_from:
            found["init_from"] = weights_digest(self.recipe.student.init_from)
        if seen_through:
            side = seen_side(self.recipe.projection, seen_through, self.recipe.data.resolution)
            found["discriminator_teacher"] = network_digest(load_teacher(seen_through, side))
        return found

    def check_recipe(self):
        super().check_recipe()
        if self.recipe.student.init_from and self.recipe.text.text_weights:
            raise UserError("--text_weights: the student of --init_from has a text encoder of its own; leave one out")

    def descriptions(self):
        return [*super().descriptions(), self.describe_text]

    def describe_text(self):
        """Nothing; raises `UserError` where the text encoder's files cannot be had."""
        check_sources(self.recipe.text)
        return []

    def describe_network(self):
        # Known even where the data are not there, which a learned text encoder's vocabulary comes from.
        return [f"generator: {self.generator.count_params():,} parameters"]

    def describe_data(self):
        train, test, encoder = self.dataset, self.held_out, self.network.get_layer("text_encoder")
        lines = []
        if self.known_words:
            known, every = self.known_words
            lines.append(f"started from {self.recipe.student.init_from}, which knows {known:,} of {every:,} words")
        return [
            *lines,
            f"student with its text encoder: {self.network.count_params():,} parameters",
            f"  text encoder: {encoder.count_params():,}",
            f"{train.name}: {len(train):,} images, {self.examples:,} (image, caption) pairs",
            *split_lines(train)[1:],
            *split_lines(test),
        ]

    def warnings(self):
        return [*super().warnings(), *self._unread_words(), *self._sides_that_change()]

    def _unread_words(self):
        """How many captions are cut, or have words that training lacks."""
        tokenizer, lines = self.condition.front_end.tokenizer, []
        for data in (self.dataset, self.held_out) if tokenizer else ():
            found = [(caption, *tokenizer.unread(caption)) for caption in dict.fromkeys(data.all_captions)]
            cut = [caption for caption, _, beyond in found if beyond]
            unknown = Counter(word for _, words, _ in found for word in dict.fromkeys(words))
            unit = "words" if tokenizer.kind == "words" else "characters"
            if cut:
                lines.append(
                    f"--text_length: {len(cut):,} of {len(found):,} captions of {data.name} are longer than "
                    f"{tokenizer.length} {unit}, and what follows is not read; the first: {cut[0][:100]!r}"
                )
            if unknown:
                named = ", ".join(repr(word) for word, _ in unknown.most_common(NAMED_WORDS))
                having = sum(bool(words) for _, words, _ in found)
                lines.append(
                    f"{having:,} of {len(found):,} captions of {data.name} hold {unit} that the student does not know, "
                    f"{len(unknown):,} in all: {named}"
                )
        return lines

    def _sides_that_change(self):
        """How many captions say left or right of pictures that are mirrored."""
        captions = self.dataset.all_captions if self.recipe.data.flip else []
        sided = [caption for caption in captions if SIDES.search(caption)]
        if not sided:
            return []
        return [
            f"--flip: {len(sided):,} of {len(captions):,} captions say left or right, and half of their pictures are "
            f"mirrored; the first: {sided[0][:100]!r}"
        ]

    def own_trainer(self, plan):
        """The trainer of a stage; the stage's frozen layers are frozen."""
        freeze(self.network, plan.stage.frozen)
        if plan.stage.objective == JOINT_EMBEDDING:
            (tap,) = resolve_tap_weights(plan.stage.tap_weights, list(self.teacher.output))
            encoder = self.network.get_layer("text_encoder")
            if not encoder.trainable_variables:
                raise UserError(f"--stage {plan.stage.name}: frozen leaves no text encoder to train")
            return JointEmbeddingTrainer(encoder, self.teacher, tap)
        return self.objective_trainer(plan)

    @functools.cached_property
    def text_features(self):
        """The student's text inputs for every (image, caption) pair: {name: array [pairs, ...]}, see `text_rows`."""
        return text_rows(self.condition, self.dataset.all_captions)

    @functools.cached_property
    def caption_numbers(self):
        """Which caption each pair has and its image's others, see `t2i_kd.data.batches.caption_numbers`."""
        return caption_numbers(self.dataset)

    def batches(self, plan, first_step, last_step):
        training, kind, features, codes = self.recipe.training, ClassBalancedBatches, None, None
        inputs = self.text_features
        if plan.stage.objective != JOINT_EMBEDDING:
            # Of the whole stage, so that a resumed one decides as it did before.
            kind, features, codes = Batches, self.cached_features(plan), self.codes
            inputs = inputs | self.caption_numbers
        return kind(
            self.dataset,
            inputs,
            training.batch_size,
            training.seed,
            first_step,
            last_step,
            flip=self.recipe.data.flip,
            noise_dim=noise_width(self.network),
            uniforms=self.uniforms,
            features=features,
            codes=codes,
        )

    def sheet_items(self):
        return evenly([captions[0] for captions in self.held_out.captions], SHEET_ITEMS)

    def draw_samples(self, run_dir, stage, step, events):
        # A DS-SJE stage trains the text encoder: what an untrained generator draws says nothing of it.
        if stage.objective == JOINT_EMBEDDING:
            return None
        return super().draw_samples(run_dir, stage, step, events)

    def kept_items(self):
        return evenly(self.dataset.all_captions, KEPT_ITEMS)

    @functools.cached_property
    def measurements(self):
        """What the run measures itself with."""
        data, chosen = self.held_out, self.measured_rows
        images = np.stack([data.images[row] for row in chosen]) if chosen else ()
        return Measurements(self.recipe.teachers, self.recipe.data.resolution, images)

    @property
    def measured_rows(self):
        """The held-out images that it is measured against, each by its first caption."""
        return evenly(range(len(self.held_out)), ITEMS)

    def measure(self, trainer, step):
        """The values of `Measurements.of`, and, of a GAN, of `head_health`, warned of where one leaves its range; else
        the loss of held-out images, where it is one function at every step and noise does not say which image is meant,
        which of held-out ones is not known.

        A DS-SJE stage moves no image, and has none.
        """
        if isinstance(trainer, JointEmbeddingTrainer):
            return {}
        captions = [self.held_out.captions[row][0] for row in self.measured_rows]
        starts = range(0, len(captions), HEALTH_BATCH)
        images = [self.generate(captions[start : start + HEALTH_BATCH], start)[IMAGE] for start in starts]
        over_seeds = None
        if noise_width(self.network):
            drawn = self.generate(np.repeat(evenly(captions, CAPTIONS_OVER_SEEDS), SEEDS).tolist())[IMAGE]
            over_seeds = drawn.reshape(-1, SEEDS, *drawn.shape[1:])
        values = self.measurements.of(np.concatenate(images), over_seeds)
        if isinstance(trainer, AdversarialTrainer):
            training, held_out = self.health_batches
            # Batch normalisation's statistics move in a forward pass.
            with restored(trainer.non_trainable_variables):
                scores, generated = trainer.scores(training)
                values |= head_health(scores, trainer.scores(held_out)[0], generated)
        elif trainer.has_one_loss and self.codes is None:
            values[HELD_OUT_LOSS] = self.held_out_loss(trainer)
        self.health.look(step, values)
        return values

    def held_out_loss(self, trainer):
        """The mean loss of held-out images, up to `ITEMS` of them, in batches of the recipe's size, always the same."""
        size = min(self.recipe.training.batch_size, len(self.held_out))
        count = max(1, min(ITEMS, len(self.held_out)) // size)
        batches = self._fixed_batches(self.held_out, self.held_out_features, size, count)
        with restored(trainer.non_trainable_variables):
            return float(np.mean([float(trainer.loss_terms(batch)[0]) for batch in batches]))

    @functools.cached_property
    def health(self):
        """What has left its range so far."""
        return Health()

    @functools.cached_property
    def health_batches(self):
        """A batch of training and one of held-out images, the same for the whole run."""
        sets = ((self.dataset, self.text_features), (self.held_out, self.held_out_features))
        return [self._fixed_batches(*each, HEALTH_BATCH, 1)[0] for each in sets]

    @functools.cached_property
    def held_out_features(self):
        """`text_features` of the held-out pairs."""
        return text_rows(self.condition, self.held_out.all_captions)

    def _fixed_batches(self, data, features, size, count):
        return Batches(
            data,
            features,
            size,
            self.recipe.training.seed,
            0,
            count,
            noise_dim=noise_width(self.network),
            uniforms=self.uniforms,
        )

    def before_stage(self, plan):
        # After every DS-SJE stage: it moves the vectors that are to become white.
        if plan.stage.objective == JOINT_EMBEDDING:
            self._whitened = False
        elif not self._whitened:
            self._whitened = True
            whiten_text(self.network, self.condition.arrays(evenly(self.dataset.all_captions, WHITENING_CAPTIONS)))

    _whitened = False
    # Of the vocabulary, those that the student of --init_from knows, and all; None without one.
    known_words = None

    def save_stage(self, plan, run_dir):
        if plan.stage.objective == JOINT_EMBEDDING:
            encoder = self.network.get_layer("text_encoder")
            save_whole(encoder.save_weights, run_dir / TEXT_WEIGHTS_FILE, ".weights.h5")
        super().save_stage(plan, run_dir)


class TextRows:
    """The text inputs of captions, made at each use: `rows[positions]` is the rows of the array that all would give.

    Args:
        condition: `CaptionCondition`.
        name: the input's.
        captions: list of str.
    """

    def __init__(self, condition, name, captions):
        self.condition, self.name, self.captions = condition, name, captions

    def __len__(self):
        return len(self.captions)

    def __getitem__(self, positions):
        return self.condition.arrays([self.captions[position] for position in positions])[self.name]


def text_rows(condition, captions):
    """The text inputs of captions: arrays, or `TextRows` of those that would take more than `TEXT_BYTES`.

    Args:
        condition: `CaptionCondition`.
        captions: list of str.

    Returns:
        {name: array [captions, ...] or `TextRows`}.
    """
    sizes = (math.prod(each.shape) * np.dtype(each.dtype).itemsize for each in condition.inputs.values())
    if len(captions) * sum(sizes) <= TEXT_BYTES:
        return condition.arrays(captions)
    return {name: TextRows(condition, name, captions) for name in condition.inputs}


def build_student(condition, encoder, generator, whiten=False):
    """The network of a text-to-image student, in the global dtype policy.

    Args:
        condition: `CaptionCondition`.
        encoder: `keras.Model`, {input: text features} -> text vector [batch, text_dim].
        generator: `keras.Model`, {"text": ..., ["noise": ...]} -> {"image": ..., ...}.
        whiten: put an affine layer `text_whitening` between them.

    Returns:
        `keras.Model`; see `Student.network`. Its layers `text_encoder` and `generator` are models themselves.
    """
    inputs = {name: keras.Input(each.shape, dtype=each.dtype, name=name) for name, each in condition.inputs.items()}
    encoder.name, generator.name = "text_encoder", GENERATOR
    text = encoder(dict(inputs))
    if whiten:
        text = keras.layers.Dense(text.shape[-1], name="text_whitening")(text)
    given = {"text": text}
    if noise_width(generator):
        given["noise"] = inputs["noise"] = keras.Input((noise_width(generator),), name="noise")
    return keras.Model(inputs, generator(given), name="student")


def text_network(network):
    """A `keras.Model` from a student's text inputs to the text vector that its generator reads; weights are shared.

    Raises:
        UserError: where the student has further layers, which would be left out.
    """
    known = (*TEXT_LAYERS, GENERATOR)
    layers = [each.name for each in network.layers if not isinstance(each, keras.layers.InputLayer)]
    if others := [name for name in layers if name not in known]:
        raise UserError(f"student: a stage would leave out its layers {', '.join(others)}; it knows {', '.join(known)}")
    inputs = {name: keras.Input(each.shape[1:], dtype=each.dtype, name=name) for name, each in network.input.items()}
    inputs.pop("noise", None)
    text = network.get_layer("text_encoder")(dict(inputs))
    if any(layer.name == "text_whitening" for layer in network.layers):
        text = network.get_layer("text_whitening")(text)
    return keras.Model(inputs, text, name="text_network")


def generator_inputs(encoder, generator, batch, training=True):
    """What a student's generator reads, its captions encoded once for all that reads them in a step.

    Args:
        encoder: a student's `text_network`.
        generator: its layer `generator`.
        batch: {name: tensor [batch, ...]}, what the student reads among it.
        training: whether the encoder is trained, for all that reads its vectors, discriminators, too.

    Returns:
        {"text": float [batch, text_dim], with its gradient, and "noise", where the generator reads it}.
    """
    text = encoder({name: batch[name] for name in encoder.input}, training=training)
    return {name: text if name == "text" else keras.ops.convert_to_tensor(batch[name]) for name in generator.input}


def freeze(network, patterns):
    """Makes all of a student's layers trainable but those whose names fit one of the patterns.

    Args:
        network: a student; the names are `text_encoder`, `text_whitening` and those of the generator's layers.
        patterns: names, or patterns such as `conv5_*`.

    Raises:
        UserError: for a pattern that fits no layer, or when nothing is left to train.
    """
    layers = [layer for layer in network.layers if layer.name.startswith("text_")]
    layers += network.get_layer(GENERATOR).layers
    for pattern in patterns:
        fitting = [layer for layer in layers if fnmatch.fnmatchcase(layer.name, pattern)]
        if not fitting:
            raise UserError(f"frozen: {pattern!r} fits none of the student's layers")
        if not any(layer.weights for layer in fitting):
            having = [layer.name for layer in layers if layer.weights and pattern.rstrip("*") in layer.name]
            hint = f"; {', '.join(having)} has them" if having else ""
            raise UserError(f"frozen: {pattern!r} fits layers without weights alone{hint}")
    for layer in layers:
        layer.trainable = not any(fnmatch.fnmatchcase(layer.name, pattern) for pattern in patterns)
    if not network.trainable_variables:
        raise UserError("frozen: nothing is left to train")


def whiten_text(network, features):
    """Sets a student's `text_whitening` layer, where it has one, so that these captions' vectors become white.

    Args:
        network: an untrained student.
        features: {input: text features of the training captions, [n, ...]}.
    """
    if any(layer.name == "text_whitening" for layer in network.layers):
        vectors = predict(network.get_layer("text_encoder"), features, 32)
        network.get_layer("text_whitening").set_weights(whitening_map(vectors))
