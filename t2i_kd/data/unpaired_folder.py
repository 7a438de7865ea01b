"""`--dataset=unpaired_folder`: pictures of two sides, A and B, that do not belong together.

`--data_dir` is a folder or a .zip in the layout of CycleGAN's code: `trainA`, `trainB`, `testA`, `testB`, and perhaps
`valA` and `valB`, each with its pictures. `test` is `val` where there is none. A split may lack one side, for systems
that read only the other. Pictures are cut to their centred square and resized; see `t2i_kd.data.decoding`.
"""

from t2i_kd.data.decoding import decode as decode_picture
from t2i_kd.data.image_pairs import FOLDERS, Folders, Side, collect_sides
from t2i_kd.errors import UserError

NEEDS = "a folder or .zip with trainA, trainB, testA and testB"


def load(split, resolution, data_dir, max_bad_examples=0, decode=True, cache_dir=None):
    """The pictures of a split as `ImagePairs`; `decode` as of `t2i_kd.data.examples.collect`,
    `cache_dir` as of `open_source`.

    Raises:
        UserError: naming --data_dir, for a split that is not there; or for more bad pictures than `max_bad_examples`.
    """
    folders = Folders(
        data_dir, [f"{name}{side}" for names in FOLDERS.values() for name in names for side in "AB"], cache_dir
    )
    for name in FOLDERS[split] + (FOLDERS["validation"] if split == "test" else ()):
        sides = [
            [Side(each, folders.file(each), decode_picture) for each in folders.pictures(f"{name}{side}")]
            for side in "AB"
        ]
        if any(sides):
            return collect_sides(f"unpaired_folder/{name}", *sides, resolution, max_bad_examples, decode)
    raise UserError(f"--data_dir: {data_dir} has no pictures for {split}; --dataset=unpaired_folder needs {NEEDS}")
