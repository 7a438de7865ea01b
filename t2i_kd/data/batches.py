"""Batches for training: which picture, which caption and which flip comes at a step follows from (seed, step) alone."""

import functools

import keras
import numpy as np

from t2i_kd.data.captioned_images import many
from t2i_kd.data.class_balance import class_balanced_indices, classes_of

# Independent random streams of one seed.
_ORDER, _FLIP, _NOISE, _CAPTION, _UNIFORMS = range(5)


def caption_pairs(dataset):
    """Every (image, caption) pair of a set: int64 [pairs, 2], the image's index and the caption's index in it."""
    counts = np.array([len(captions) for captions in dataset.captions], np.int64)
    images = np.repeat(np.arange(len(counts)), counts)
    first = np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([images, np.arange(len(images)) - first], axis=1)


class ImageRows:
    """The rows of pairs, of a table of images: `rows[positions]` is `table[images[positions]]`."""

    def __init__(self, table, images):
        self.table, self.images = table, images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, positions):
        return self.table[self.images[positions]]


def caption_numbers(dataset):
    """What tells whether a caption is one of an image's own, in the order of `caption_pairs`.

    Returns:
        `caption_number`, int32 [pairs], equal for equal captions; `own_captions`, int32 `ImageRows` [pairs, most], the
        numbers of all captions of the pair's image; -1 fills the rows of images that have fewer.
    """
    numbers = {}
    found = np.array([numbers.setdefault(caption, len(numbers)) for caption in dataset.all_captions], np.int32)
    images, positions = caption_pairs(dataset).T
    own = np.full((len(dataset.captions), 1 + positions.max()), -1, np.int32)
    own[images, positions] = found
    return {"caption_number": found, "own_captions": ImageRows(own, images)}


def pairs_at(step, batch_size, pair_count, seed, stream=_ORDER):
    """The positions of a step's pairs: an endless walk through the pairs, shuffled anew for each epoch.

    Position p of the walk is entry p mod `pair_count` of the permutation that (seed, p div `pair_count`) draws, so
    that every pair comes once an epoch and any step can be computed without those before it. Walks of other `stream`s
    are independent.

    Returns:
        int64 [batch_size].
    """
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, offsets = np.divmod(positions, pair_count)
    chosen = np.empty(batch_size, np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        chosen[here] = _permutation(pair_count, seed, stream, int(epoch))[offsets[here]]
    return chosen


# An epoch's is needed at each of its steps, and drawing that of a million pairs takes as long as a step.
@functools.lru_cache(maxsize=4)
def _permutation(count, seed, stream, epoch):
    drawn = np.random.default_rng([seed, stream, epoch]).permutation(count)
    drawn.flags.writeable = False
    return drawn


class Batches(keras.utils.PyDataset):
    """The batches of steps `first_step` to `last_step` (exclusive), for `keras.Model.fit` on any backend.

    An example of a batch is a pair: a picture, and what a student makes a picture from. A batch is a dict: `image`
    uint8 [batch, resolution, resolution, 3]; each of `inputs` under its name; `noise` float32 [batch, noise_dim] from
    N(0, 1), or what `codes` makes of it, where the student takes noise; `uniforms` float32 [batch, uniforms] in [0, 1)
    where the trainer wants random numbers of its own; `features` where a network's features of the pictures are kept.

    Here the pairs are those of `caption_pairs`. Where picture i goes with source picture i, a class that derives from
    this one says so in its `pairs`, (i, i), and `inputs` has a row for each; nothing else here knows captions.

    Args:
        dataset: `CaptionedImages`.
        inputs: {name: array [pairs, ...]}, the student's inputs for every pair, in the order of `pairs`, or what makes
            those of some positions when it is indexed with them.
        batch_size, seed: of the recipe.
        first_step, last_step: global steps, counted over all stages.
        flip: mirror a random half of the images.
        noise_dim: 0 for none.
        uniforms: 0 for none.
        features: kept features of the set's images; `features.of(image indices, mirrored)`, a dict of arrays [batch,
            ...], is a step's. None: none.
        codes: of the set's images; `codes.noise(image indices, mirrored, drawn)` is a step's noise. None: as drawn.
    """

    def __init__(
        self,
        dataset,
        inputs,
        batch_size,
        seed,
        first_step,
        last_step,
        flip=False,
        noise_dim=0,
        uniforms=0,
        features=None,
        codes=None,
    ):
        super().__init__()
        self.dataset, self.inputs, self.batch_size, self.seed = dataset, inputs, batch_size, seed
        self.first_step, self.last_step = first_step, last_step
        self.flip, self.noise_dim, self.uniforms = flip, noise_dim, uniforms
        self.features, self.codes = features, codes

    @functools.cached_property
    def pairs(self):
        """int64 [pairs, 2]: an image's index, and the index of what goes with it."""
        return caption_pairs(self.dataset)

    def __len__(self):
        return self.last_step - self.first_step

    def chosen(self, step):
        """The positions in `pairs` of a step's examples."""
        return pairs_at(step, self.batch_size, len(self.pairs), self.seed)

    def __getitem__(self, index):
        return self.rows(index, 0, self.batch_size)

    def rows(self, index, first, last):
        """The rows `first` to `last` (exclusive) of a batch; no picture of the others is read."""
        step, part = self.first_step + index, slice(first, last)
        chosen = self.chosen(step)[part]
        images = np.stack(many(self.dataset.images, self.pairs[chosen, 0]))
        mirrored = np.zeros(len(chosen), bool)
        if self.flip:
            mirrored = (np.random.default_rng([self.seed, _FLIP, step]).random(self.batch_size) < 0.5)[part]
            images[mirrored] = images[mirrored, :, ::-1]
        batch = {"image": images, **{name: rows[chosen] for name, rows in self.inputs.items()}}
        if self.features:
            batch["features"] = self.features.of(self.pairs[chosen, 0], mirrored)
        if self.noise_dim:
            rng = np.random.default_rng([self.seed, _NOISE, step])
            drawn = rng.standard_normal((self.batch_size, self.noise_dim), np.float32)[part]
            batch["noise"] = self.codes.noise(self.pairs[chosen, 0], mirrored, drawn) if self.codes else drawn
        if self.uniforms:
            rng = np.random.default_rng([self.seed, _UNIFORMS, step])
            batch["uniforms"] = rng.random((self.batch_size, self.uniforms), np.float32)[part]
        return batch


class ClassBalancedBatches(Batches):
    """Batches of one image a class, each with one of its captions: what DS-SJE learns from.

    Of a set without labels every image is a class of its own.
    """

    @functools.cached_property
    def classes(self):
        return classes_of(self.dataset.labels)

    def chosen(self, step):
        images = class_balanced_indices(self.classes, self.batch_size, self.seed, step)
        first_pair = np.searchsorted(self.pairs[:, 0], images)
        counts = np.array([len(self.dataset.captions[i]) for i in images])
        return first_pair + np.random.default_rng([self.seed, _CAPTION, step]).integers(0, counts)
