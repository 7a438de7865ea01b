"""SDN: Symmetrical Distillation Networks. A frozen VGG19 teaches a generator that is its mirror image.

Source: Yuan & Peng, "Text-to-image Synthesis via Symmetrical Distillation Networks" (ACM MM 2018).
"""

from dataclasses import dataclass

from t2i_kd.options import (
    DataOptions,
    GanOptions,
    ProjectionOptions,
    StudentOptions,
    TeacherOptions,
    TextOptions,
    TrainingOptions,
    option,
)
from t2i_kd.recipe import Recipe, TextToImageStage


@dataclass(frozen=True)
class SDNOptions:
    """SDN's generator"""

    width: float = option(
        1.0,
        "The factor on the generator's channel counts. A stage of objective=mirrored that compares more than the image "
        "needs the teacher's: 1 for vgg19, 0.25 for vgg19_slim; the others take any.",
    )
    head_rank: int = option(
        0,
        "The rank of the dense layers between fc7 and the first map, which hold most weights. 0, the paper's, is full "
        "rank.",
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
class SDNStage(TextToImageStage):
    """A stage with `objective` mirrored, perceptual, adversarial or ds_sje.

    Attributes:
        error, scaling: how taps are compared; see `t2i_kd.metrics.tap_errors`.
        distance_weight: of Stage II's distance in an adversarial stage; 0: none.
    """

    error: str = "l1"
    scaling: str = "raw"
    distance_weight: float = 0.0


@dataclass(frozen=True)
class SDNRecipe(Recipe):
    """An SDN experiment. Unset options are the paper's."""

    system: str = "sdn"
    data: DataOptions = DataOptions()
    text: TextOptions = TextOptions()
    teacher: TeacherOptions = TeacherOptions()
    student: StudentOptions = StudentOptions()
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
