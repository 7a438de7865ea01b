"""Makes `vgg19_slim`: VGG19's topology at a quarter of its width, taught by the full VGG19. Source: ours."""

from dataclasses import dataclass

from t2i_kd.options import DataOptions, TeacherOptions, TrainingOptions, option
from t2i_kd.recipe import Recipe, Stage


@dataclass(frozen=True)
class SlimOptions:
    """The slim network"""

    width: float = option(0.25, "The factor on VGG19's channel counts.", most=16)


@dataclass(frozen=True)
class SlimRecipe(Recipe):
    """An experiment that makes a slim teacher."""

    system: str = "teacher_slim"
    data: DataOptions = DataOptions()
    teacher: TeacherOptions = TeacherOptions()
    slim: SlimOptions = SlimOptions()
    training: TrainingOptions = TrainingOptions()
    stages: tuple[Stage, ...] = ()


RECIPE = SlimRecipe
SYSTEM = "t2i_kd.teacher_slim.trainer.TeacherSlim"
