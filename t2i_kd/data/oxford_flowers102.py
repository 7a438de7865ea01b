"""`--dataset=oxford_flowers102`: Oxford-Flower-102 with Reed's ten human captions a picture.

`--data_dir` is a folder that holds

    cvpr2016_flowers/  cvpr2016_flowers.tar.gz, "flowers" in the README of github.com/reedscot/cvpr2016, unpacked by
                       hand: text_c10/, trainvalclasses.txt, testclasses.txt (see `t2i_kd.data.reed_captions`; the
                       two lists are also in flowers_icml.tar.gz of github.com/reedscot/icml2016, as flowers_icml/)
    102flowers.tgz     the pictures (345 MB, https://www.robots.ox.ac.uk/~vgg/data/flowers/102/), or what it unpacks
                       to, jpg/image_00001.jpg and so on

Where there is neither, oxford_flowers102 of TensorFlow Datasets is downloaded to `tfds/` (needs TensorFlow,
tensorflow-datasets and scipy); the pictures are the same.

Splits: `train`, 82 classes, and `test`, the other 20; 8,189 pictures in all. The official split by picture is not used.
"""

from t2i_kd.data import reed_captions

# The names that the data set's authors publish on a page, in the order of their numbers.
_NAMES = """
pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger lily, moon orchid,
bird of paradise, monkshood, globe thistle, snapdragon, colt's foot, king protea, spear thistle, yellow iris,
globe-flower, purple coneflower, peruvian lily, balloon flower, giant white arum lily, fire lily, pincushion
flower, fritillary, red ginger, grape hyacinth, corn poppy, prince of wales feathers, stemless gentian, artichoke,
sweet william, carnation, garden phlox, love in the mist, mexican aster, alpine sea holly, ruby-lipped cattleya,
cape flower, great masterwort, siam tulip, lenten rose, barbeton daisy, daffodil, sword lily, poinsettia, bolero
deep blue, wallflower, marigold, buttercup, oxeye daisy, common dandelion, petunia, wild pansy, primula,
sunflower, pelargonium, bishop of llandaff, gaura, geranium, orange dahlia, pink-yellow dahlia?, cautleya spicata,
japanese anemone, black-eyed susan, silverbush, californian poppy, osteospermum, spring crocus, bearded iris,
windflower, tree poppy, gazania, azalea, water lily, rose, thorn apple, morning glory, passion flower, lotus, toad
lily, anthurium, frangipani, clematis, hibiscus, columbine, desert-rose, tree mallow, magnolia, cyclamen,
watercress, canna lily, hippeastrum, bee balm, ball moss, foxglove, bougainvillea, camellia, mallow, mexican
petunia, bromelia, blanket flower, trumpet creeper, blackberry lily
"""
LABEL_NAMES = tuple(" ".join(_NAMES.split()).split(", "))

FLOWERS = reed_captions.ReedSet(
    name="oxford_flowers102",
    archive="cvpr2016_flowers.tar.gz",
    captions_folder="cvpr2016_flowers",
    lists_folder="flowers_icml",
    pictures_archive="102flowers.tgz",
    pictures_folder="jpg",
    pictures_url="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/",
    tfds_name="oxford_flowers102",
    file_name_feature="file_name",
    label_names=LABEL_NAMES,
)

NEEDS = reed_captions.needs(FLOWERS)


def load(split, resolution, data_dir, max_bad_examples=0, decode=True, cache_dir=None):
    """The flowers of `train` or `test`; see `reed_captions.load` for what is raised."""
    return reed_captions.load(FLOWERS, split, resolution, data_dir, max_bad_examples, decode, cache_dir)
