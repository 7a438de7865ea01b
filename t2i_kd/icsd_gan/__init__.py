"""ICSD-GAN: a generator of several stages whose coarse stages are taught by the most refined one.

Source: Mao et al., "Interstage cross-sample similarity distillation" (Sci China Inf Sci 2021), of which the abstract
alone is known to us; the rest is our reconstruction.
"""

from dataclasses import dataclass

from t2i_kd.options import (
    LARGEST_WIDTH,
    DataOptions,
    GanOptions,
    ProjectionOptions,
    StudentOptions,
    TeacherOptions,
    TextOptions,
    TrainingOptions,
    option,
)
from t2i_kd.recipe import ContrastiveStage, Recipe


@dataclass(frozen=True)
class IcsdOptions:
    """ICSD-GAN's generator and distillation"""

    image_stages: int = option(3, "The stages of the generator; each earlier one has half the side.", most=16)
    generator_channels: int = option(
        32, "The channels of the first stage's map, halved at each later stage.", most=LARGEST_WIDTH
    )
    condition_dim: int = option(128, "The width of the augmented condition.", most=LARGEST_WIDTH)
    kl_weight: float = option(2.0, "The weight of the conditioning augmentation's KL divergence.")
    icsd_weight: float = option(1.0, "Lambda, the weight of the cross-sample similarity distillation. 0 leaves it out.")
    icsd_warmup: float = option(0.0, "The share of a stage in which lambda grows linearly from 0.")
    discriminator: str = option(
        "plain",
        "What each stage's discriminator reads: the image (plain), or the teacher's taps of it (teacher).",
        ("plain", "teacher"),
    )
    icsd_features: str = option(
        "generator", "Whose features are compared across the samples.", ("generator", "discriminator")
    )
    icsd_teacher: str = option(
        "refined",
        "Whom a stage learns from: refined (every one from the most refined stage) or adjacent (from the next one).",
        ("refined", "adjacent"),
    )


@dataclass(frozen=True)
class IcsdRecipe(Recipe):
    """An ICSD-GAN experiment."""

    system: str = "icsd_gan"
    data: DataOptions = DataOptions()
    text: TextOptions = TextOptions()
    teacher: TeacherOptions = TeacherOptions()
    student: StudentOptions = StudentOptions()
    icsd: IcsdOptions = IcsdOptions()
    gan: GanOptions = GanOptions()
    projection: ProjectionOptions = ProjectionOptions()
    training: TrainingOptions = TrainingOptions()
    stages: tuple[ContrastiveStage, ...] = ()

    def follows_length(self, stage):
        return "--icsd_warmup" if self.icsd.icsd_warmup else super().follows_length(stage)


RECIPE = IcsdRecipe
SYSTEM = "t2i_kd.icsd_gan.trainer.ICSDGAN"
