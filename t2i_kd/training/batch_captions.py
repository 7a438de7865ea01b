"""Which captions of a batch are another image's: wrong ones to a discriminator, others to a contrastive loss."""

import dataclasses
from typing import Any

from keras import ops

from t2i_kd.training.distribution import gathered, own_rows


def next_rows(values):
    """Each row's successor in the batch of all replicas, the last one's is the first: the texts of wrong captions.

    Args:
        values: tensor [batch, ...], without a gradient.
    """
    return own_rows(ops.roll(gathered(values), -1, axis=0), values)


@dataclasses.dataclass
class BatchCaptions:
    """The captions of a batch.

    A caption j is another one than i's where the student reads it otherwise, and none of what is said of image i is j:
    of an image with several captions, and of all images of a class that have the same ones, none is wrong.

    Args:
        read: what the student reads of each caption, tensor [batch, dim].
        numbers: int32 [batch], equal for equal captions.
        own: int32 [batch, most], the numbers of all captions of the image; -1 fills shorter rows.
    """

    read: Any
    numbers: Any
    own: Any

    @classmethod
    def of(cls, batch, name):
        """Those of a batch with the rows of `t2i_kd.data.batches.caption_numbers`; `name`: of what is read."""
        return cls(batch[name], batch["caption_number"], batch["own_captions"])

    def next_differs(self):
        """1 where the next row's caption is another one, 0 elsewhere: float32 [batch]."""
        other = _another(self.read, next_rows(self.read), self.own, next_rows(self.numbers))
        return ops.cast(other, "float32")

    def differ(self):
        """Whether caption j, of the batch of all replicas, is another one than row i's: bool [batch, all]."""
        read, numbers = gathered(self.read)[None], gathered(self.numbers)[None]
        return _another(self.read[:, None], read, self.own[:, None], numbers)


def _another(read, other, own, number):
    return ops.logical_and(
        ops.any(ops.not_equal(read, other), axis=-1), ops.all(ops.not_equal(own, number[..., None]), axis=-1)
    )
