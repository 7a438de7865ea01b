"""`--dataset=cub200`: CUB-200-2011 with Reed's ten human captions a picture.

`--data_dir` is a folder that holds

    cvpr2016_cub/      cvpr2016_cub.tar.gz, "birds" in the README of github.com/reedscot/cvpr2016, unpacked by hand:
                       text_c10/, trainvalclasses.txt, testclasses.txt (see `t2i_kd.data.reed_captions`)
    CUB_200_2011.tgz   the pictures (1.1 GB, https://data.caltech.edu/records/65de6-vp158), or what it unpacks to,
                       CUB_200_2011/images/CLASS/NAME.jpg

Where there is neither, caltech_birds2011 of TensorFlow Datasets is downloaded to `tfds/` (needs TensorFlow,
tensorflow-datasets and opencv-python); the pictures are the same.

Splits: `train`, 150 classes and 8,855 pictures, and `test`, the other 50 classes and 2,933 pictures.
"""

from t2i_kd.data import reed_captions

BIRDS = reed_captions.ReedSet(
    name="cub200",
    archive="cvpr2016_cub.tar.gz",
    captions_folder="cvpr2016_cub",
    lists_folder="cub_icml",
    pictures_archive="CUB_200_2011.tgz",
    pictures_folder="CUB_200_2011/images",
    pictures_url="https://data.caltech.edu/records/65de6-vp158",
    tfds_name="caltech_birds2011",
    file_name_feature="image/filename",
)

NEEDS = reed_captions.needs(BIRDS)


def load(split, resolution, data_dir, max_bad_examples=0, decode=True, cache_dir=None):
    """The birds of `train` or `test`; see `reed_captions.load` for what is raised."""
    return reed_captions.load(BIRDS, split, resolution, data_dir, max_bad_examples, decode, cache_dir)
