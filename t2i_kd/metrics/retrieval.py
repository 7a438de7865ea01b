"""R-precision: does a generated picture find its own caption among 99 others, or as many as there are?

Source: Xu et al., "AttnGAN" (CVPR 2018), section 4, with other evaluators than its DAMSM.
"""

import re
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from t2i_kd.data.batches import caption_pairs
from t2i_kd.data.class_balance import class_balanced_indices, classes_of
from t2i_kd.errors import UserError
from t2i_kd.metrics.blocks import row_blocks
from t2i_kd.metrics.cache import digest, digest_of_training
from t2i_kd.metrics.finite import require_finite
from t2i_kd.metrics.progress import TrainingBar
from t2i_kd.metrics.resampling import Measurement, mean_of
from t2i_kd.options import TextOptions
from t2i_kd.text.front_end import build_front_end
from t2i_kd.text.joint_embedding import build_joint_embedding, ds_sje_loss
from t2i_kd.training.trainer import Trainer

OTHERS = 99
FEWEST_OTHERS = 9
STEPS = 1500
BATCH = 64
LEARNING_RATE = 2e-3
AT_ONCE = 256
TEXT = TextOptions(text_encoder="gru", text_dim=128, word_dim=64)
DS_SJE = "DS-SJE, a GRU trained on the real training split"


def first_among(image_vectors, text_vectors, candidates):
    """1 where a picture's own caption scores higher than every other candidate, else 0; a score is f_i . t_j.

    Args:
        image_vectors: f, float [n, dim].
        text_vectors: t, float [texts, dim].
        candidates: int [n, c], rows of `text_vectors`; the first of each is the picture's own caption.

    Returns:
        float64 [n].

    Raises:
        ValueError: for other shapes, NaN or infinity.
    """
    images, texts = np.asarray(image_vectors, np.float64), np.asarray(text_vectors, np.float64)
    if images.shape[1:] != texts.shape[1:] or len(candidates) != len(images):
        raise ValueError(f"pictures {images.shape}, texts {texts.shape}, candidates {np.shape(candidates)}")
    if not (np.isfinite(images).all() and np.isfinite(texts).all()):
        raise ValueError("vectors hold NaN or infinity")
    found = np.empty(len(images))
    for i, (image, row) in enumerate(zip(images, candidates, strict=True)):
        scores = texts[row] @ image
        found[i] = scores[0] > scores[1:].max()
    return found


def other_texts(captions, attributes=()):
    """Which captions of a split are of other pictures.

    A text is none where it reads as one of the picture's own but for letters' case and punctuation, nor where it is of
    a picture with the same attributes, as far as those are known.

    Args:
        captions: for each picture of the split its captions.
        attributes: for each picture {name: value}; or empty.

    Returns:
        (texts, others): the split's distinct captions in their order, and a function from a picture's index to the rows
        of those of other pictures.
    """
    texts = sorted({caption for own in captions for caption in own})
    words = [" ".join(re.findall(r"\w+", text.casefold())) for text in texts]
    rows, alike, same = {text: row for row, text in enumerate(texts)}, {}, {}
    for row, each in enumerate(words):
        alike.setdefault(each, []).append(row)
    for picture, found in enumerate(attributes):
        same.setdefault(tuple(sorted(found.items())), []).append(picture)

    def others(picture):
        pictures = same[tuple(sorted(attributes[picture].items()))] if attributes else [picture]
        own = {rows[caption] for each in pictures for caption in captions[each]}
        own |= {other for row in own for other in alike[words[row]]}
        free = np.ones(len(texts), bool)
        free[list(own)] = False
        return np.flatnonzero(free)

    return texts, others


def draw_candidates(captions, pairs, seed, others=OTHERS, attributes=()):
    """For each pair its own caption and `others` different texts of other pictures, see `other_texts`.

    Args:
        captions: for each picture of the split its captions.
        pairs: (picture, caption).
        seed: the only source of chance.
        attributes: see `other_texts`.

    Returns:
        (texts, int [pairs, 1 + others]): the split's distinct captions, and rows of it, each pair's own first.

    Raises:
        ValueError: where a picture has fewer texts of others.
    """
    texts, of_others = other_texts(captions, attributes)
    rows = {text: row for row, text in enumerate(texts)}
    rng = np.random.default_rng([seed, 99])
    candidates = np.empty((len(pairs), 1 + others), np.int64)
    for i, (picture, caption) in enumerate(pairs):
        candidates[i] = [rows[caption], *rng.choice(of_others(picture), others, replace=False)]
    return texts, candidates


def other_captions(context):
    """How many captions of other pictures each is compared with: 99, or as many as there are."""
    test = context.split("test")
    # What `draw_candidates` would find, of the pictures that are asked for.
    _, others = other_texts(test.captions, test.attributes)
    return min(OTHERS, *(len(others(picture)) for picture, _ in context.pairs))


def check(context):
    """Raises `UserError`, see `catalogue.Metric`: too few captions, or networks that cannot be had or do not fit."""
    others = other_captions(context)
    if others < FEWEST_OTHERS:
        raise UserError(f"--dataset: r_precision needs {FEWEST_OTHERS} captions of other pictures, there are {others}")
    width = context.check_extractor()
    if context.retrieval_handle:
        _hub_pair(context, width)


def measure(context):
    """The share of generated pictures whose own caption is first among 100, or as many as there are (`_ofN`).

    The picture's vector comes from the extractor's activations, the text's from a DS-SJE encoder, which is trained on
    both of the real training split (compatibility f . t, f a learned linear map); or, with `retrieval_handle` and
    `extractor=hub`, both vectors come from a TF-Hub pair with a common space, compared by their cosine.

    Args:
        context: an `EvaluationContext`.

    Returns:
        A `Measurement`.

    Raises:
        UserError: naming the flag, where there are too few captions or the two networks do not fit.
    """
    check(context)
    others = other_captions(context)
    test = context.split("test")
    texts, candidates = draw_candidates(test.captions, context.pairs, context.seed, others, test.attributes)
    extractor = context.extractor_network
    if context.retrieval_handle:
        evaluator, kind = _hub_pair(context, context.check_extractor()), "hub"
    else:
        key = ("retrieval", extractor.fingerprint, context.sides)
        evaluator, kind = context.shared(key, lambda: _train_evaluator(context)), "ds_sje"
    vectors = require_finite("--metrics: r_precision", "the captions' vectors", evaluator.texts(texts))
    pictures = [picture for picture, _ in context.pairs]
    name = f"r_precision_{kind}_{context.features_name}_n{len(pictures)}_of{1 + others}"

    def hits(activations):
        images = require_finite("--metrics: r_precision", "the pictures' vectors", evaluator.images(activations))
        return first_among(images, vectors, candidates)

    reference = hits(context.activations("reference")[pictures])
    samples = {name: hits(context.activations("generated"))}
    text_evaluator = {"text encoder": context.retrieval_handle or DS_SJE}
    return Measurement(
        protocol=context.extractor_protocol() | text_evaluator,
        statistic=mean_of(samples),
        generated=len(pictures),
        samples=samples,
        pairs=context.pairs,
        pictures=context.generated,
        baselines={"real pictures": {name: float(reference.mean())}, "chance": {name: 1 / (1 + others)}},
    )


@dataclass(frozen=True)
class _HubPair:
    module: Any

    def texts(self, captions):
        import tensorflow as tf

        return _unit(self.module(tf.constant(captions)).numpy())

    def images(self, activations):
        return _unit(np.asarray(activations))


def _unit(vectors):
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _hub_pair(context, width):
    if context.extractor != "hub":
        raise UserError("--retrieval_handle: needs --extractor=hub with the same pair's picture encoder")
    from t2i_kd.text.hub import load_module

    module = load_module(context.retrieval_handle, "retrieval_handle")
    if module.dim != width:
        raise UserError(
            f"--retrieval_handle: {context.retrieval_handle} gives vectors of {module.dim}, the extractor of {width}"
        )
    return _HubPair(module)


@dataclass(frozen=True)
class _JointEmbedding:
    network: keras.Model
    front_end: Any
    mean: np.ndarray
    deviation: np.ndarray

    def texts(self, captions):
        features = self.front_end.features(captions)
        return self._half("text", self.front_end.input_name, features)

    def images(self, activations):
        return self._half("image", "tap", activations, lambda batch: (batch - self.mean) / self.deviation)

    def _half(self, output, input_name, values, prepared=lambda batch: batch):
        half = keras.Model({input_name: self.network.input[input_name]}, self.network.output[output])
        batches = (prepared(values[start : start + AT_ONCE]) for start in range(0, len(values), AT_ONCE))
        return np.concatenate([ops.convert_to_numpy(half({input_name: batch}, training=False)) for batch in batches])


class _Evaluator(Trainer):
    def __init__(self, network):
        super().__init__(name="retrieval_evaluator")
        self.network = network
        self.built = True

    def loss_terms(self, batch):
        generated = self.network({name: batch[name] for name in self.network.input}, training=True)
        return ds_sje_loss(generated["image"], generated["text"]), {}


class _ClassBatches(keras.utils.PyDataset):
    """One picture of each of some classes with one of its captions; batch `i` is a function of (seed, i) alone."""

    def __init__(self, dataset, activations, scale, front_end, seed):
        super().__init__()
        self.classes, self.activations, self.seed = classes_of(dataset.labels), activations, seed
        self.mean, self.deviation = scale
        self.input_name, self.features = front_end.input_name, front_end.features(dataset.all_captions)
        self.first = np.searchsorted(caption_pairs(dataset)[:, 0], np.arange(len(dataset)))
        self.counts = np.array([len(captions) for captions in dataset.captions])
        self.batch = min(BATCH, len(np.unique(self.classes)))

    def __len__(self):
        return STEPS

    def __getitem__(self, step):
        chosen = class_balanced_indices(self.classes, self.batch, self.seed, step)
        captions = np.random.default_rng([self.seed, step]).integers(0, self.counts[chosen])
        taps = (self.activations[chosen] - self.mean) / self.deviation
        return {"tap": taps, self.input_name: self.features[self.first[chosen] + captions]}


def _scale(activations):
    """Mean and standard deviation of each number, float32 [dim], in blocks."""
    blocks = row_blocks(activations)
    mean = sum(activations[rows].sum(0, dtype=np.float64) for rows in blocks) / len(activations)
    squares = sum(np.square(activations[rows] - mean).sum(0) for rows in blocks)
    deviation = np.maximum(np.sqrt(squares / len(activations)), 1e-6)
    return mean.astype(np.float32), deviation.astype(np.float32)


def _train_evaluator(context):
    train, extractor = context.split("train"), context.extractor_network
    key = digest(extractor.fingerprint, str(extractor.protocol), context.digest_of("train"))
    (activations,) = context.arrays.arrays(
        f"train-{extractor.name}", key, lambda: [np.asarray(context.features_of(train.images))]
    )
    mean, deviation = _scale(activations)
    keras.utils.set_random_seed(context.seed)
    front_end = build_front_end(TEXT, train)
    network = build_joint_embedding(front_end.build_encoder(TEXT), activations.shape[1:])

    def fit():
        trainer = _Evaluator(network)
        schedule = keras.optimizers.schedules.CosineDecay(LEARNING_RATE, STEPS)
        trainer.compile(optimizer=keras.optimizers.Adam(schedule, global_clipnorm=1.0), jit_compile=False)
        batches = _ClassBatches(train, activations, (mean, deviation), front_end, context.seed)
        trainer.fit(batches, shuffle=False, verbose=0, callbacks=[TrainingBar("retrieval evaluator", STEPS)])
        return network.get_weights()

    everything = digest_of_training(network, key, context.seed, STEPS, str(train.captions), train.labels)
    network.set_weights(context.arrays.arrays("retrieval", everything, fit))
    return _JointEmbedding(network, front_end, mean, deviation)
