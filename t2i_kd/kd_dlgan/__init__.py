"""KD-DLGAN: a vision-language model keeps a discriminator from learning its few pictures by heart.

Source: Cui et al., "KD-DLGAN: Data Limited Image Generation via Knowledge Distillation" (CVPR 2023), and its code.
"""

from dataclasses import dataclass

from t2i_kd.options import (
    LARGEST_WIDTH,
    DataOptions,
    DualEncoderOptions,
    GanOptions,
    MirroredOptions,
    ProjectionOptions,
    StudentOptions,
    TeacherOptions,
    TextOptions,
    TrainingOptions,
    option,
)
from t2i_kd.recipe import Recipe, SeedDiversityStage


@dataclass(frozen=True)
class KDDLGANOptions:
    """KD-DLGAN's networks and distillation"""

    generator: str = option(
        "biggan",
        "The generator: biggan (residual blocks with caption-conditional batch normalisation, the paper's) or mirrored "
        "(SDN's).",
        ("biggan", "mirrored"),
    )
    generator_channels: int = option(
        64,
        "The base width of the biggan generator: its maps of up to 32 pixels a side have four times as many.",
        most=LARGEST_WIDTH,
    )
    discriminator: str = option(
        "plain",
        "What the discriminator reads: the image (plain, the paper's), or a teacher's taps of it (teacher).",
        ("plain", "teacher"),
    )
    head_units: int = option(
        1024,
        "The units between the discriminator's features and the vector that learns from the teacher's.",
        most=LARGEST_WIDTH,
    )
    agkd_weight: float = option(10.0, "The weight of the aggregated distillation, AGKD. 0 leaves it out.")
    crossed_probability: float = option(
        1.0, "With which probability a crossed term of AGKD counts. 1, the code's, always; the paper's is below it."
    )
    agkd_length: float = option(
        1.0, "The length of the teacher's vectors in AGKD. In the authors' code it is what CLIP gives them, some ten."
    )
    cgkd_weight: float = option(10.0, "The weight of the correlated distillation, CGKD. 0 leaves it out.")
    cgkd_variant: str = option(
        "code",
        "What CGKD compares: code (squared differences on real and generated images, summed) or paper (absolute ones "
        "on generated images).",
        ("code", "paper"),
    )
    diversity_weight: float = option(
        0.0,
        "The weight of the pairwise-diversity term on the generator, through the teacher. In the authors' code it has "
        "no gradient, as with 0 here.",
    )
    prompts: str = option(
        "classes",
        "The texts of which the teacher says how an image goes with each: classes (--prompt_template of every class's "
        "name), captions (the training captions, up to 256), or the texts themselves with ';' between.",
    )
    prompt_template: str = option("a {}", "The prompt of a class, {} standing for its name. The code's is 'a {}'.")
    teacher_sees: str = option(
        "augmented",
        "How the teacher sees images: augmented (as the discriminator does, the code's) or plain (before augmentation; "
        "its vectors of real images are then computed once and kept).",
        ("augmented", "plain"),
    )
    lecam_weight: float = option(0.0, "The weight of LeCam's penalty on the plain discriminator; 0.3 is usual.")
    lecam_start: int = option(1000, "The step of a stage at which LeCam's penalty and moving averages begin.")
    ema_start: int = option(0, "The step of a stage at which --ema begins to average. The paper's is 1000.")


@dataclass(frozen=True)
class KDDLGANRecipe(Recipe):
    """A KD-DLGAN experiment."""

    system: str = "kd_dlgan"
    data: DataOptions = DataOptions()
    text: TextOptions = TextOptions()
    teacher: TeacherOptions = TeacherOptions()
    towers: DualEncoderOptions = DualEncoderOptions()
    student: StudentOptions = StudentOptions()
    kd: KDDLGANOptions = KDDLGANOptions()
    mirrored: MirroredOptions = MirroredOptions()
    gan: GanOptions = GanOptions()
    projection: ProjectionOptions = ProjectionOptions()
    training: TrainingOptions = TrainingOptions()
    stages: tuple[SeedDiversityStage, ...] = ()

    @property
    def teachers(self):
        # The classifier inside `conse` teaches, too, and must not measure.
        inside = {"conse": "efficientnet_lite0"}
        return [each for name in super().teachers for each in (name, inside.get(name)) if each]


RECIPE = KDDLGANRecipe
SYSTEM = "t2i_kd.kd_dlgan.trainer.KDDLGAN"
