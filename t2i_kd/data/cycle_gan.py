"""`--dataset=cycle_gan/horse2zebra` and its like: CycleGAN's own data sets, which TensorFlow Datasets downloads.

`--data_dir` is the folder that TensorFlow Datasets keeps its sets in, such as `~/tensorflow_datasets`; a set that is
not prepared there is downloaded. The two sides do not belong together, those of `maps` and `facades` neither. A split's
encoded pictures are held in memory.
"""

import functools
from dataclasses import dataclass

from t2i_kd.data import prepared_tfds
from t2i_kd.data.decoding import decode as decode_picture
from t2i_kd.data.image_pairs import Side, collect_sides
from t2i_kd.errors import UserError

NAMES = (
    *("apple2orange", "summer2winter_yosemite", "horse2zebra", "monet2photo", "cezanne2photo", "ukiyoe2photo"),
    *("vangogh2photo", "maps", "facades", "iphone2dslr_flower"),
)
SPLITS = ("train", "test")
URL = "https://efrosgans.eecs.berkeley.edu/cyclegan/datasets"


@dataclass(frozen=True)
class CycleGANSet:
    """One of the sets, a reader as a data set's module is. Args: name: one of `NAMES`."""

    name: str

    NEEDS = "the folder of TensorFlow Datasets, in which it keeps the set or may download it to"

    def load(self, split, resolution, data_dir, max_bad_examples=0, decode=True):
        """The pictures of `train` or `test` as `ImagePairs`; `decode` as of `t2i_kd.data.examples.collect`.

        Raises:
            UserError: naming --dataset for another split; naming --data_dir and what to put where, for a set that is
                not there and cannot be downloaded; or for more bad pictures than `max_bad_examples`.
        """
        name = f"cycle_gan/{self.name}"
        if split not in SPLITS:
            raise UserError(f"--dataset: {name} has no {split} split, only {' and '.join(SPLITS)}")
        hint = (
            f"download {URL}/{self.name}.zip and give --dataset=unpaired_folder --data_dir={self.name}.zip in its place"
        )
        sides = [
            [
                Side(f"{split}{side}/{index}", functools.partial(bytes, picture), decode_picture)
                for index, picture in enumerate(prepared_tfds.split_pictures(name, data_dir, f"{split}{side}", hint))
            ]
            for side in "AB"
        ]
        return collect_sides(f"{name}/{split}", *sides, resolution, max_bad_examples, decode)


# What `--dataset` says -> the set.
SETS = {f"cycle_gan/{name}": CycleGANSet(name) for name in NAMES}
