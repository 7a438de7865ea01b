"""Batches for image-to-image training: which pictures, crops and flips come follows from (seed, step) alone."""

import keras
import numpy as np

from t2i_kd.data.batches import pairs_at
from t2i_kd.data.captioned_images import many

# Independent random streams of one seed; those of `batches` are 0 to 4.
_SOURCES, _TARGETS, _CROPS, _FLIPS, _UNIFORMS = range(10, 15)


class TranslationBatches(keras.utils.PyDataset):
    """The batches of steps `first_step` to `last_step` (exclusive), for `keras.Model.fit` on any backend.

    A batch is a dict: `source` and, where there are targets, `image`, uint8 [batch, side, side, 3]; and `uniforms`
    float32 [batch, uniforms] in [0, 1) where the trainer wants random numbers of its own. Each side is walked through
    in an order of its own, shuffled anew for each epoch of it; both halves of a pair have one order, one crop and one
    flip.

    Args:
        sources, targets: pictures by index, uint8 RGB of one side that is at least `side`; targets may be empty.
        paired: whether source i belongs to target i.
        side: of the crops in pixels.
        batch_size, seed: of the recipe.
        first_step, last_step: global steps, counted over all stages.
        flip: mirror a random half of the pictures.
        uniforms: 0 for none.
    """

    def __init__(self, sources, targets, paired, side, batch_size, seed, first_step, last_step, flip=False, uniforms=0):
        super().__init__()
        self.sources, self.targets, self.paired, self.side = sources, targets, paired, side
        self.batch_size, self.seed = batch_size, seed
        self.first_step, self.last_step = first_step, last_step
        self.flip, self.uniforms = flip, uniforms

    def __len__(self):
        return self.last_step - self.first_step

    def __getitem__(self, index):
        step = self.first_step + index
        batch = {"source": self._pictures(self.sources, step, _SOURCES)}
        if len(self.targets):
            batch["image"] = self._pictures(self.targets, step, _SOURCES if self.paired else _TARGETS)
        if self.uniforms:
            rng = np.random.default_rng([self.seed, _UNIFORMS, step])
            batch["uniforms"] = rng.random((self.batch_size, self.uniforms), np.float32)
        return batch

    def _pictures(self, pictures, step, stream):
        chosen = pairs_at(step, self.batch_size, len(pictures), self.seed, stream)
        crops = np.random.default_rng([self.seed, _CROPS, stream, step]).random((self.batch_size, 2))
        flips = np.random.default_rng([self.seed, _FLIPS, stream, step]).random(self.batch_size) < 0.5
        return np.stack(
            [
                self._cut(picture, crop, self.flip and flipped)
                for picture, crop, flipped in zip(many(pictures, chosen), crops, flips, strict=True)
            ]
        )

    def _cut(self, picture, crop, flipped):
        top, left = (np.asarray(crop) * (len(picture) - self.side + 1)).astype(int)
        cut = picture[top : top + self.side, left : left + self.side]
        return cut[:, ::-1] if flipped else cut
