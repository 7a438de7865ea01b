"""`--dataset=oxford_flowers102`: Oxford-Flower-102 with Reed's ten human captions a picture.

`--data_dir` is a folder that holds

    cvpr2016_flowers/  cvpr2016_flowers.tar.gz, "flowers" in the README of github.com/reedscot/cvpr2016, unpacked by
                       hand: text_c10/, trainvalclasses.txt, testclasses.txt (see `t2i_kd.data.reed_captions`; the
                       two lists are also in flowers_icml.tar.gz of github.com/reedscot/icml2016, as flowers_icml/)
    tfds/              oxford_flowers102 of TensorFlow Datasets, downloaded there on first use (350 MB; needs scipy), or
                       prepared elsewhere with `tfds build` and copied

On a host without TensorFlow the copied folder is read all the same.

Splits: `train`, 82 classes, and `test`, the other 20; 8,189 pictures in all. The official split by picture, which TFDS
gives, is not used.
"""

from t2i_kd.data import reed_captions

FLOWERS = reed_captions.ReedSet(
    name="oxford_flowers102",
    archive="cvpr2016_flowers.tar.gz",
    captions_folder="cvpr2016_flowers",
    lists_folder="flowers_icml",
    tfds_name="oxford_flowers102",
    file_name_feature="file_name",
)


def load(split, resolution, data_dir, max_bad_examples=0):
    """The flowers of `train` or `test`; see `reed_captions.load` for what is raised."""
    return reed_captions.load(FLOWERS, split, resolution, data_dir, max_bad_examples)
