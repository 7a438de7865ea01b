"""SRPKD: small image-to-image generators that keep how a big one relates the places of its maps.

Source: Li, Jiang & Aarabi, "Semantic Relation Preserving Knowledge Distillation for Image-to-Image Translation" (arXiv
2104.15082), known to us at second hand; its hosts are CycleGAN and pix2pix. See docs/srpkd.md for what is whose.
"""

import math
from dataclasses import dataclass

from t2i_kd.errors import UserError
from t2i_kd.options import LARGEST_SIDE, LARGEST_WIDTH, DataOptions, TrainingOptions, option
from t2i_kd.recipe import Recipe, Stage


@dataclass(frozen=True)
class TranslationOptions:
    """The two sides"""

    direction: str = option(
        "AtoB", "Which side is read and which is made, of data sets of two sides.", ("AtoB", "BtoA")
    )
    load_size: int = option(
        0,
        "The side in pixels at which training pictures are loaded; a random square of --resolution is cut out of each. "
        "0 stands for --resolution.",
        most=LARGEST_SIDE,
    )


@dataclass(frozen=True)
class GeneratorTeacherOptions:
    """The teacher"""

    teacher: str = option(
        "none",
        "The generator that teaches: run:DIR (a run of this system, or for objective=compress of any system whose "
        "student reads captions), the version folder of an exported model of "
        "images, a .npz of one of the published families that docs/srpkd.md names, a module of your own on Python's "
        "path, or none.",
    )
    teacher_weights_sha256: str = option("", "The SHA-256 that the teacher's file must have; empty: any.")


@dataclass(frozen=True)
class GeneratorOptions:
    """The student"""

    generator: str = option(
        "resnet",
        "The kind of generator: resnet (CycleGAN's), unet (pix2pix') or style (Johnson et al.'s).",
        ("resnet", "unet", "style"),
    )
    generator_channels: int = option(
        64, "The channels of the generator's first layer, the field's ngf.", most=LARGEST_WIDTH
    )
    generator_depth: int = option(
        0,
        "The residual blocks of resnet and style, or the halvings of unet. 0 stands for 9, 5, and halvings down to one "
        "pixel, which is unet_256 at 256 px.",
        most=64,
    )
    generator_norm: str = option(
        "instance",
        "The generator's normalisation: instance (CycleGAN's, without scale and shift), instance_affine, or batch "
        "(pix2pix').",
        ("instance", "instance_affine", "batch"),
    )
    generator_dropout: float = option(0.0, "The share of features that dropout drops in training. pix2pix has 0.5.")
    generator_upsampling: str = option(
        "transposed",
        "How resnet and style enlarge their maps: by transposed convolutions, the reference code's, or by nearest "
        "neighbours before a convolution (nearest), which leave no mesh of two pixels.",
        ("transposed", "nearest"),
    )
    student_init: str = option(
        "random",
        "How the student starts: with random weights, or with those of the teacher's channels that have the largest "
        "norms (teacher).",
        ("random", "teacher"),
    )

    def __post_init__(self):
        if not 0 <= self.generator_dropout < 1:
            raise UserError(f"--generator_dropout: {self.generator_dropout} is not a share, 0 to 1, 1 excluded")


@dataclass(frozen=True)
class DistillationOptions:
    """The distillation"""

    output_weight: float = option(0.0, "The weight of the mean absolute error to the teacher's image.")
    relation_weight: float = option(0.0, "The weight of the error to the teacher's relations between places.")
    relation_norm: str = option("l1", "The error of relations: absolute or squared.", ("l1", "l2"))
    relation_rows: int = option(
        0, "How many rows of the relation matrices are compared, drawn anew at each step. 0 compares all."
    )
    teacher_taps: str = option(
        "", "The teacher's layers whose maps are compared, with commas between. Empty: the end of its encoder."
    )
    student_taps: str = option("", "The student's layers, one for each of the teacher's. Empty: as the teacher's.")
    distil_generators: str = option(
        "one", "Which generators of a CycleGAN are taught: one (that of --direction) or both.", ("one", "both")
    )
    tap_mse_weight: float = option(
        0.0, "The weight of the squared error to the teacher's maps through 1x1 convolutions (GAN Compression)."
    )
    ssim_weight: float = option(0.0, "The weight of 1 - SSIM to the teacher's image (OMGD).")
    gram_weight: float = option(0.0, "The weight of the error of --feature_network's Gram matrices (OMGD).")
    feature_weight: float = option(0.0, "The weight of the absolute error of --feature_network's maps (OMGD).")
    tv_weight: float = option(0.0, "The weight of the image's total variation (OMGD).")
    feature_network: str = option(
        "vgg19_slim", "The network whose maps of both images are compared, with the weights that come with it."
    )
    feature_taps: str = option("pool1,pool2,pool3,pool4", "Its taps, with commas between.")

    def __post_init__(self):
        for name in (*self.weights(), "relation_rows"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"--{name}: {getattr(self, name)} is negative or not finite")

    @classmethod
    def weights(cls):
        """The names of the options that are weights."""
        return [name for name in cls.__dataclass_fields__ if name.endswith("_weight")]


@dataclass(frozen=True)
class CompressionOptions:
    """A student that reads captions"""

    channel_share: float = option(
        0.5,
        "The share of the channels of each of its teacher's layers that a student of objective=compress has. It is the "
        "teacher's generator in small, of whatever system that is.",
    )

    def __post_init__(self):
        if not 0 < self.channel_share < 1:
            raise UserError(f"--channel_share: {self.channel_share} is not above 0 and below 1")


@dataclass(frozen=True)
class HostOptions:
    """The losses of CycleGAN and pix2pix, and their discriminators"""

    gan_loss: str = option(
        "lsgan",
        "The loss on the discriminators' scores: lsgan, bce (the vanilla GAN's) or hinge.",
        ("lsgan", "bce", "hinge"),
    )
    gan_weight: float = option(1.0, "The weight of the generators' loss on the discriminators' scores.")
    cycle_weight: float = option(10.0, "The weight of each cycle's mean absolute error, of objective=cycle_gan.")
    identity_weight: float = option(
        0.5, "The weight of the identity's mean absolute error, times --cycle_weight, of objective=cycle_gan."
    )
    l1_weight: float = option(100.0, "The weight of the mean absolute error to the target, of objective=pix2pix.")
    pool_size: int = option(
        50,
        "How many generated images are kept for the discriminators, of objective=cycle_gan. 0 keeps none.",
        most=10_000,
    )
    discriminator_channels: int = option(
        64, "The channels of the discriminators' first layer, the field's ndf.", most=LARGEST_WIDTH
    )
    discriminator_layers: int = option(
        3, "The discriminators' layers that halve the side. 3 score 70 x 70 pixels.", most=16
    )
    discriminator_norm: str = option(
        "instance", "The discriminators' normalisation. pix2pix has batch.", ("instance", "batch")
    )
    discriminator_learning_rate: float = option(
        0.0, "The discriminators' learning rate, with the stage's schedule. 0 takes the stage's."
    )
    beta_1: float = option(0.5, "Adam's decay of the first moment, for all networks of a GAN.")
    beta_2: float = option(0.999, "Adam's decay of the second moment, for all networks of a GAN.")

    # What `AdversarialTrainer` asks for beside these, and this system has none of.
    augmentation = ""
    discriminator_steps = 1

    def __post_init__(self):
        if self.discriminator_channels < 1:
            raise UserError(f"--discriminator_channels: {self.discriminator_channels} is not positive")
        names = ("gan_weight", "cycle_weight", "identity_weight", "l1_weight", "pool_size")
        for name in (*names, "discriminator_learning_rate"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"--{name}: {getattr(self, name)} is negative or not finite")
        for name in ("beta_1", "beta_2"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"--{name}: {getattr(self, name)} is not in 0 to 1, 1 excluded")


@dataclass(frozen=True)
class SrpkdRecipe(Recipe):
    """An SRPKD experiment."""

    system: str = "srpkd"
    data: DataOptions = DataOptions()
    translation: TranslationOptions = TranslationOptions()
    teacher: GeneratorTeacherOptions = GeneratorTeacherOptions()
    generator: GeneratorOptions = GeneratorOptions()
    distillation: DistillationOptions = DistillationOptions()
    compression: CompressionOptions = CompressionOptions()
    host: HostOptions = HostOptions()
    training: TrainingOptions = TrainingOptions()
    stages: tuple[Stage, ...] = ()

    @property
    def teachers(self):
        """The teacher, and the network whose maps of both images are compared."""
        distillation = self.distillation
        compared = distillation.gram_weight or distillation.feature_weight
        return [self.teacher.teacher, *([distillation.feature_network] if compared else [])]


RECIPE = SrpkdRecipe
SYSTEM = "t2i_kd.srpkd.compression.system_of"
