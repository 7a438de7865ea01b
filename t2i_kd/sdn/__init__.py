"""SDN: Symmetrical Distillation Networks. A frozen VGG19 teaches a generator that is its mirror image.

Source: Yuan & Peng, "Text-to-image Synthesis via Symmetrical Distillation Networks" (ACM MM 2018).
"""

from dataclasses import dataclass

from t2i_kd.options import (
    DataOptions,
    GanOptions,
    MirroredOptions,
    NoiseOptions,
    ProjectionOptions,
    StudentOptions,
    TeacherOptions,
    TextOptions,
    TrainingOptions,
)
from t2i_kd.recipe import ContrastiveStage, Recipe, SeedDiversityStage


@dataclass(frozen=True)
class SDNOptions(MirroredOptions):
    """SDN's generator"""


@dataclass(frozen=True)
class SDNStage(SeedDiversityStage, ContrastiveStage):
    """A stage with `objective` mirrored, perceptual, adversarial or ds_sje.

    Attributes:
        error, scaling: how taps are compared; see `t2i_kd.metrics.tap_errors`.
        distance_weight: of Stage II's distance in an adversarial stage; 0: none.
        discriminator_side: in place of --discriminator_side, in an adversarial stage; 0: that.
    """

    error: str = "l1"
    scaling: str = "raw"
    distance_weight: float = 0.0
    discriminator_side: int = 0


@dataclass(frozen=True)
class SDNRecipe(Recipe):
    """An SDN experiment. Unset options are the paper's."""

    system: str = "sdn"
    data: DataOptions = DataOptions()
    text: TextOptions = TextOptions()
    teacher: TeacherOptions = TeacherOptions()
    student: StudentOptions = StudentOptions()
    noise: NoiseOptions = NoiseOptions()
    sdn: SDNOptions = SDNOptions()
    projection: ProjectionOptions = ProjectionOptions()
    gan: GanOptions = GanOptions()
    training: TrainingOptions = TrainingOptions()
    stages: tuple[SDNStage, ...] = ()

    def follows_length(self, stage):
        return "error=annealed" if stage.error == "annealed" else super().follows_length(stage)

    @property
    def tap_objective(self):
        """That of the last stage that compares the taps of two images."""
        from t2i_kd.metrics.tap_errors import TapObjective

        stages = [stage for stage in self.stages if stage.objective == "perceptual"]
        return TapObjective(stages[-1].error, stages[-1].scaling, stages[-1].tap_weights) if stages else None


RECIPE = SDNRecipe
SYSTEM = "t2i_kd.sdn.trainer.SDN"
