"""The option groups that several systems share; a system's recipe asks for those that it reads.

Every field is a flag of the same name, with its default and its help. A group of one system alone lies in that system's
own folder.
"""

import math
from dataclasses import dataclass, field, fields

from t2i_kd.errors import UserError

# The largest whole number of an option; of sides in pixels; and of widths: channels, units, numbers of a vector.
LARGEST_NUMBER, LARGEST_SIDE, LARGEST_WIDTH = 2**31 - 1, 4096, 2**14


def option(default, help_text, choices=None, free=False, most=LARGEST_NUMBER):
    """A field that is a flag: its default, its help in whole sentences, and the values that it may take, if few.

    `most` is the largest value of a number. `free` is an option that a run may change on its way: it decides no weight,
    or only through what is read from files, whose digests the run keeps (see `t2i_kd.training.inputs`).
    """
    return field(default=default, metadata={"help": help_text, "choices": choices, "free": free, "most": most})


@dataclass(frozen=True)
class DataOptions:
    """The training images"""

    dataset: str = option(
        "captioned_shapes",
        "The data set: captioned_shapes, image_folder, cub200, oxford_flowers102, noto_emoji, shards (of any of them, "
        "written by python -m t2i_kd.prepare), for srpkd also paired_folder, unpaired_folder and cycle_gan/horse2zebra "
        "or another of CycleGAN's own, or a module of your own on Python's path, as in my_package.my_data.",
    )
    data_dir: str = option("", "The folder or .zip of the data set, where it needs one.", free=True)
    resolution: int = option(
        32, "The side of the images in pixels. A teacher may ask for a multiple of 32.", most=LARGEST_SIDE
    )
    flip: bool = option(False, "Mirror a random half of the training images left to right.")
    data_fraction: float = option(
        1.0,
        "The share of the training images that is trained on, drawn by the seed; the run lists them. Held-out images "
        "are not touched.",
    )
    max_examples: int = option(
        0, "How many training images are trained on, drawn by the seed, in place of a share of them. 0 takes all."
    )
    balance_classes: bool = option(
        False,
        "Draw as many of each class as of any other, as far as it has them, where --data_fraction or --max_examples "
        "asks for a part.",
    )
    max_bad_examples: int = option(
        0, "How many broken images or unusable captions may be left out; more of them stop the command.", free=True
    )
    cache_dir: str = option(
        "auto",
        "The folder that keeps the checksums of images that were decoded once, so that a later start reads only those "
        "that have changed. auto stands for ~/.cache/t2i_kd; empty keeps none.",
        free=True,
    )


@dataclass(frozen=True)
class TextOptions:
    """The text encoder"""

    text_encoder: str = option(
        "gru",
        "How a caption becomes a vector: gru (learned, over words), char_cnn_rnn (learned, over characters), "
        "precomputed (vectors from files) or hub (a TF-Hub sentence encoder).",
        ("gru", "char_cnn_rnn", "precomputed", "hub"),
    )
    text_dim: int = option(1024, "The width of the text vector. The paper's is 1024.", most=LARGEST_WIDTH)
    text_length: int = option(
        0,
        "How many tokens of a caption are kept. 0 stands for as many words as the longest training caption has, 32 to "
        "128 (gru), or 201 characters (char_cnn_rnn).",
        free=True,
        most=2000,
    )
    word_dim: int = option(64, "The width of a word's vector, for gru.", most=LARGEST_WIDTH)
    text_weights: str = option("", "The .weights.h5 of a pretrained text encoder to start from.", free=True)
    embeddings_dir: str = option("", "The folder of Reed's embedding pickles, for precomputed.", free=True)
    hub_handle: str = option("", "The TF-Hub handle, or a local folder, for hub.", free=True)


@dataclass(frozen=True)
class TeacherOptions:
    """The teacher"""

    teacher: str = option(
        "vgg19",
        "The pretrained network that teaches: vgg19, vgg19_slim, efficientnet_lite0, any network of "
        "keras.applications by its name, run:DIR (the student of a run that reads images), conse or conse:NETWORK (an "
        "ImageNet classifier joined to a sentence encoder), clip or clip:PRESET (KerasHub's), a module of your own on "
        "Python's path, or none.",
        free=True,
    )
    teacher_weights: str = option(
        "imagenet",
        "The teacher's weights: imagenet (Keras downloads them; those of vgg19_slim and efficientnet_lite0 come with "
        "the package) or a file: a .weights.h5 of the same keras.applications network, a .npz that the teacher_slim "
        "system wrote, or one of EfficientNet-Lite0's arrays.",
        free=True,
    )
    teacher_weights_sha256: str = option(
        "", "The SHA-256 that the file of the teacher's weights must have; empty: any.", free=True
    )
    teacher_cache_mb: int = option(
        1024,
        "How many megabytes may hold the teacher's features of the training images. Where they would need more, or an "
        "image comes less than twice in a stage, they are computed at every step. 0 computes them always.",
        free=True,
    )
    teacher_pooling: str = option(
        "average", "The pooling of vgg19 and vgg19_slim. The paper's is average.", ("average", "max")
    )
    teacher_preprocessing: str = option(
        "caffe",
        "What vgg19 and vgg19_slim are fed: caffe (BGR minus the ImageNet mean) or none (BGR in 0-255, as SDN's "
        "authors feed).",
        ("caffe", "none"),
    )


@dataclass(frozen=True)
class DualEncoderOptions:
    """The teacher's two towers"""

    sentence_encoder: str = option(
        "minilm",
        "The sentence encoder of conse: minilm (the extra conse brings it), an .onnx file of another BERT-like one, a "
        "TF-Hub handle, or the folder of a saved encoder.",
    )
    sentence_vocabulary: str = option(
        "", "The WordPiece vocabulary of an ONNX sentence encoder, such as BERT's vocab.txt: a token a line."
    )
    class_names: str = option(
        "", "The names of the classes of conse:NETWORK in their order, one a line; ImageNet's for its weights."
    )
    teacher_side: int = option(
        0,
        "The side at which the teacher sees images, in pixels. 0 stands for 128 (conse), or the network's own "
        "(conse:NETWORK, clip).",
        most=LARGEST_SIDE,
    )
    teacher_resize: str = option(
        "bicubic",
        "How images are resized to the teacher's side: bicubic as for CLIP's own training, bilinear, or nearest as in "
        "KD-DLGAN's code.",
        ("bicubic", "bilinear", "nearest"),
    )
    teacher_normalisation: str = option(
        "own",
        "What clip is fed: own (normalised as its preset says) or none (images in -1 to 1, as in KD-DLGAN's code, not "
        "in CLIP's training).",
        ("own", "none"),
    )

    def __post_init__(self):
        if self.teacher_side < 0:
            raise UserError(f"--teacher_side: {self.teacher_side} is negative")


@dataclass(frozen=True)
class StudentOptions:
    """The student's inputs"""

    noise_dim: int = option(
        0,
        "The width of the noise beside the text vector. 0, the paper's for SDN, makes the student deterministic. SDN's "
        "images differ by their noise only with --noise_correlation or after a stage of objective=adversarial: its "
        "distances alone ask for one image a caption.",
        most=LARGEST_WIDTH,
    )
    whiten_text: bool = option(
        False, "Start with an affine map after the text encoder that makes the training captions' vectors white."
    )
    init_from: str = option(
        "",
        "A finished student to start from, a run directory or an exported version of the same layers. Word vectors go "
        "by their words, so that the vocabulary may be another. Empty starts from random weights.",
        free=True,
    )

    def __post_init__(self):
        if self.noise_dim < 0:
            raise UserError(f"--noise_dim: {self.noise_dim} is negative")


@dataclass(frozen=True)
class NoiseOptions:
    """Noise that follows the images"""

    noise_correlation: float = option(
        0.0,
        "How closely the noise of a training image follows the image, from 0 (not at all) to below 1: its correlation "
        "with the principal components of what the teacher sees of the image and the caption does not say. Above 0 "
        "also the distances of Stage I and II ask for as many images a caption as there are; see docs/pictures.md.",
    )
    noise_teacher: str = option(
        "",
        "The pretrained network that --noise_correlation takes the components of, with the weights that come with it; "
        "as --teacher. Empty takes the teacher itself.",
    )

    def __post_init__(self):
        if not 0 <= self.noise_correlation < 1:
            raise UserError(f"--noise_correlation: {self.noise_correlation} is not in 0 to 1, 1 excluded")


@dataclass(frozen=True)
class MirroredOptions:
    """The mirrored generator"""

    width: float = option(
        1.0,
        "The factor on the generator's channel counts. A stage of objective=mirrored that compares more than the image "
        "needs the teacher's: 1 for vgg19, 0.25 for vgg19_slim; the others take any.",
        most=16,
    )
    head_rank: int = option(
        0,
        "The rank of the dense layers between fc7 and the first map, which hold most weights. 0, the paper's, is full "
        "rank.",
        most=LARGEST_WIDTH,
    )
    initializer: str = option(
        "paper",
        "The initial weights: paper (N(0, 0.02) for convolutions, N(0, 0.1) for dense layers), he (keeps the variance "
        "through ReLUs) or looks_linear (also keeps different texts different).",
        ("paper", "he", "looks_linear"),
    )
    modulation: bool = option(
        False,
        "Let text and noise scale and shift every block's map, not only start the first one. The paper's generator "
        "does not.",
    )
    image_output: str = option(
        "paper",
        "The image: paper (the last convolution, in 0-255) or centred (127.5 (1 + that convolution)).",
        ("paper", "centred"),
    )


@dataclass(frozen=True)
class TrainingOptions:
    """The training"""

    batch_size: int = option(12, "How many examples a step has. The paper's is 12.", most=2**16)
    seed: int = option(0, "The seed of initial weights, order, flips, captions and noise.", most=2**32 - 1)
    ema: float = option(
        0.0, "The decay of the weights' moving average, which then is what is kept. 0 keeps the weights themselves."
    )
    dtype_policy: str = option(
        "float32",
        "The arithmetic of the networks. auto measures at the start whether bfloat16 is faster here, and keeps what it "
        "found in the run.",
        ("float32", "mixed_bfloat16", "auto"),
    )
    jit_compile: bool = option(False, "Compile the training step with XLA.")
    clipnorm: float = option(0.0, "The largest global norm of a step's gradient. 0 clips nothing.")
    checkpoint_every: int = option(500, "How many steps lie between two checkpoints.", free=True)
    sample_every: int = option(500, "How many steps lie between two sample sheets.", free=True)
    log_every: int = option(
        20,
        "How many steps lie between two points of the curves that TensorBoard shows, which metrics.jsonl in the run "
        "directory has as lines: losses, learning rate, images a second. It changes neither what is learned nor how "
        "often progress is told.",
        free=True,
    )
    measure_every: int = option(
        0,
        "How many steps lie between two measurements on held-out images: a kernel distance, the diversity, and a "
        "GAN's health or the loss, for metrics.jsonl and TensorBoard. The best step's student is kept as the stage's "
        "best.keras. 0 measures nothing.",
        free=True,
    )

    def __post_init__(self):
        for name in ("batch_size", "checkpoint_every", "sample_every", "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}: {getattr(self, name)} is not positive")
        if self.measure_every < 0:
            raise UserError(f"--measure_every: {self.measure_every} is negative")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed: {self.seed} is not in 0 to 2^32 - 1")
        if not 0 <= self.ema < 1:
            raise UserError(f"--ema: {self.ema} is not in 0 to 1, 1 excluded")
        if not 0 <= self.clipnorm < math.inf:
            raise UserError(f"--clipnorm: {self.clipnorm} is not a norm")


@dataclass(frozen=True)
class GanOptions:
    """The discriminators"""

    gan_loss: str = option(
        "hinge", "The loss on the discriminators' scores: hinge, or bce for binary cross-entropy.", ("hinge", "bce")
    )
    discriminator_channels: int = option(
        32,
        "The channels of the discriminators' first layer; they double at each halving of the side.",
        most=LARGEST_WIDTH,
    )
    discriminator_learning_rate: float = option(
        0.0,
        "The discriminators' learning rate, with the stage's schedule. 0 takes the generator's, which is the stage's.",
    )
    discriminator_steps: int = option(
        1, "Updates of the discriminators for each of the generator; each has its own equal part of the batch."
    )
    beta_1: float = option(0.0, "Adam's decay of the first moment, for all networks of a GAN.")
    beta_2: float = option(0.9, "Adam's decay of the second moment, for all networks of a GAN.")
    gradient_penalty: str = option(
        "none",
        "The discriminators' gradient penalty: none, r1 (on real images), or ma_gp (on real images with their "
        "captions, DF-GAN's).",
        ("none", "r1", "ma_gp"),
    )
    penalty_weight: float = option(
        0.0, "The weight of the gradient penalty. 0 takes the method's usual one: 1 for r1, 2 for ma_gp."
    )
    penalty_every: int = option(
        1, "How many steps lie between two gradient penalties, each with this many times its weight."
    )
    augmentation: str = option(
        "",
        "The differentiable augmentation of the discriminators' inputs: some of color,translation,cutout, which are "
        "DiffAugment's, and reflect_translation, which is ours and fills what a shift leaves free with the image's "
        "reflection instead of grey.",
    )


@dataclass(frozen=True)
class ProjectionOptions:
    """Discriminators through the teacher"""

    discriminator_teacher: str = option(
        "",
        "The pretrained network that the discriminators see images through, with the weights that come with it; as "
        "--teacher. Empty takes the teacher itself.",
    )
    discriminator_taps: str = option(
        "",
        "The teacher's taps that the discriminators read, with commas between. Empty takes one a side, from the finest "
        "to the coarsest.",
    )
    discriminator_side: int = option(
        0,
        "The side in pixels that images are enlarged to before that network sees them, a multiple of --resolution. 0 "
        "takes the smallest side that it reads, from theirs on.",
    )
    discriminator_mixing: str = option(
        "channels",
        "The fixed random mixing of a tap's features: none, channels (within a tap), or scales (also from the coarser "
        "taps to the finer ones).",
        ("none", "channels", "scales"),
    )


def refuse_unread(options, reader, names=()):
    """Raises `UserError`, naming each flag, where nothing reads some options and they are not at their defaults.

    Args:
        options: a dataclass of options.
        reader: what would read them, for the message.
        names: of the fields; none: all.
    """
    chosen = [item for item in fields(options) if not names or item.name in names]
    unread = [f"--{item.name}" for item in chosen if getattr(options, item.name) != item.default]
    if unread:
        raise UserError(f"{', '.join(unread)}: only {reader} reads {'it' if len(unread) == 1 else 'them'}")
