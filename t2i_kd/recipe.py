"""What an experiment is: frozen dataclasses that flags fill and that `run_dir/recipe.json` keeps.

Every field below is a flag of the same name. Stages are data: `--stage` is given once a stage, in their order, as
`NAME: key=value key=value ...` with the fields of `Stage` as keys.
"""

import dataclasses
import json
import math
import re
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path

from absl import flags

from t2i_kd.errors import UserError

RECIPE_FILE = "recipe.json"


def option(default, help_text, choices=None):
    """A recipe field: its default, its flag's help and, where it has them, the values that it may take."""
    return field(default=default, metadata={"help": help_text, "choices": choices})


@dataclass(frozen=True)
class DataRecipe:
    dataset: str = option("captioned_shapes", "data set; see t2i_kd/data")
    data_dir: str = option("", "folder or .zip of the data set, where it needs one")
    resolution: int = option(32, "side of the pictures in pixels, a multiple of 32")
    flip: bool = option(False, "mirror a random half of the training images left to right")
    max_bad_examples: int = option(0, "broken images or empty captions to skip before stopping")


@dataclass(frozen=True)
class TextRecipe:
    text_encoder: str = option("gru", "how a caption becomes a vector", ("gru", "char_cnn_rnn", "precomputed", "hub"))
    text_dim: int = option(1024, "width of the text vector (1024 in the paper)")
    text_length: int = option(0, "tokens kept of a caption; 0: 32 words (gru) or 201 characters (char_cnn_rnn)")
    word_dim: int = option(64, "width of a word's vector (gru)")
    text_weights: str = option("", "a pretrained text encoder's .weights.h5")
    embeddings_dir: str = option("", "folder of Reed's embedding pickles (precomputed)")
    hub_handle: str = option("", "TF-Hub handle or local folder (hub)")


@dataclass(frozen=True)
class TeacherRecipe:
    teacher: str = option(
        "vgg19",
        "the pretrained network that teaches: vgg19, vgg19_slim, none, a network of keras.applications such as "
        "MobileNetV2, run:DIR (the student of a run that reads images), or a module on the path with a function "
        "load(options, resolution)",
    )
    teacher_weights: str = option(
        "imagenet",
        "imagenet (Keras downloads them; vgg19_slim's come with the package) or a file: a .weights.h5 of the same "
        "network of keras.applications or, for vgg19_slim, a .npz that the teacher_slim system wrote",
    )
    teacher_weights_sha256: str = option("", "SHA-256 that the teacher's weights file must have; empty: any")
    teacher_cache_mb: int = option(
        1024,
        "most megabytes for keeping the teacher's features of the training images; where that is too little, or an "
        "image comes less than twice in a stage, they are computed at every step; 0: always",
    )
    teacher_pooling: str = option("average", "pooling of VGG19; the paper's is average", ("average", "max"))
    teacher_preprocessing: str = option(
        "caffe",
        "what VGG19 reads; caffe: BGR minus the ImageNet mean; none: BGR in 0-255, as SDN's authors feed",
        ("caffe", "none"),
    )


@dataclass(frozen=True)
class StudentRecipe:
    width: float = option(1.0, "factor on the student's channel counts; must match the teacher's")
    noise_dim: int = option(0, "width of the noise beside the text vector; 0, the paper's, makes it deterministic")
    head_rank: int = option(
        0, "rank of the dense layers between fc7 and the first map, which hold most weights; 0, the paper's: full"
    )
    initializer: str = option(
        "paper",
        "paper: N(0, 0.02) convolutions, N(0, 0.1) dense; he: keeps the variance through ReLUs; looks_linear: also "
        "keeps different texts different",
        ("paper", "he", "looks_linear"),
    )
    whiten_text: bool = option(
        False, "start with an affine map after the text encoder that makes the training captions' vectors white"
    )
    image_output: str = option(
        "paper",
        "paper: the last convolution is the image in 0-255; centred: the image is 127.5 (1 + that convolution)",
        ("paper", "centred"),
    )


@dataclass(frozen=True)
class TrainingRecipe:
    batch_size: int = option(12, "captions in a step (12 in the paper)")
    seed: int = option(0, "of initial weights, order, flips, captions and noise")
    ema: float = option(0.0, "decay of the weights' moving average, which then is what is kept; 0: none")
    dtype_policy: str = option("float32", "arithmetic of networks", ("float32", "mixed_bfloat16"))
    jit_compile: bool = option(False, "compile the training step with XLA")
    clipnorm: float = option(0.0, "largest global norm of a step's gradient; 0: no clipping")
    checkpoint_every: int = option(500, "steps from one checkpoint to the next")
    sample_every: int = option(500, "steps from one sample sheet to the next")
    log_every: int = option(20, "steps from one line of metrics.jsonl to the next")

    def __post_init__(self):
        for name in ("batch_size", "checkpoint_every", "sample_every", "log_every"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name}: {getattr(self, name)} is not positive")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"--seed: {self.seed} is not in 0 to 2^32 - 1")
        if not 0 <= self.ema < 1:
            raise UserError(f"--ema: {self.ema} is not in 0 to 1, 1 excluded")
        if not 0 <= self.clipnorm < math.inf:
            raise UserError(f"--clipnorm: {self.clipnorm} is not a norm")


@dataclass(frozen=True)
class GanRecipe:
    gan_loss: str = option("hinge", "what tells real from made: hinge or binary cross-entropy", ("hinge", "bce"))
    discriminator_channels: int = option(32, "channels of the discriminators' first layer; doubled at each halving")
    discriminator_learning_rate: float = option(0.0, "0: as the stage's, which is the generator's; same schedule")
    discriminator_steps: int = option(
        1, "updates of the discriminators for each of the generator; each has its own equal part of the batch"
    )
    beta_1: float = option(0.0, "of Adam, for all networks of a GAN")
    beta_2: float = option(0.9, "of Adam, for all networks of a GAN")
    gradient_penalty: str = option(
        "none",
        "r1: of real images; ma_gp: of real images with their captions (DF-GAN's)",
        ("none", "r1", "ma_gp"),
    )
    penalty_weight: float = option(0.0, "weight of the gradient penalty; 0: the method's usual one (r1 1, ma_gp 2)")
    penalty_every: int = option(1, "steps from one gradient penalty to the next, each with this many times its weight")
    augmentation: str = option(
        "", "differentiable augmentation of what discriminators see: some of color,translation,cutout"
    )


@dataclass(frozen=True)
class IcsdRecipe:
    image_stages: int = option(3, "stages of the generator; each earlier one has half the side (icsd_gan)")
    generator_channels: int = option(32, "channels of the first stage's map; halved at each later stage (icsd_gan)")
    condition_dim: int = option(128, "width of the augmented condition (icsd_gan)")
    kl_weight: float = option(2.0, "weight of the conditioning augmentation's KL divergence (icsd_gan)")
    icsd_weight: float = option(1.0, "lambda, of the cross-sample similarity distillation; 0: none (icsd_gan)")
    icsd_warmup: float = option(0.0, "share of a stage in which lambda grows linearly from 0 (icsd_gan)")
    icsd_features: str = option(
        "generator", "whose features are compared across the samples (icsd_gan)", ("generator", "discriminator")
    )
    icsd_teacher: str = option(
        "refined", "every stage learns from the most refined or from the next one (icsd_gan)", ("refined", "adjacent")
    )


@dataclass(frozen=True)
class Stage:
    """One stage of training: what is compared, for how long, and how fast."""

    name: str
    objective: str
    steps: int = 0
    epochs: float = 0.0
    learning_rate: float = 1e-4
    schedule: str = "constant"
    warmup_steps: int = 0
    error: str = "l1"
    scaling: str = "raw"
    tap_weights: tuple[tuple[str, float], ...] = ()
    frozen: tuple[str, ...] = ()

    def __post_init__(self):
        if not re.fullmatch(r"\w[\w.-]*", self.name):
            raise UserError(f"--stage: {self.name!r} is no name for a folder: letters, digits, '_', '-', '.'")
        if (self.steps > 0) == (self.epochs > 0):
            raise UserError(f"--stage {self.name}: give either steps or epochs, more than 0")


@dataclass(frozen=True)
class Recipe:
    """A whole experiment: what `--flagfile=pipelines/NAME.flags` says and `run_dir/recipe.json` keeps."""

    system: str = option("sdn", "what is trained")
    data: DataRecipe = DataRecipe()
    text: TextRecipe = TextRecipe()
    teacher: TeacherRecipe = TeacherRecipe()
    student: StudentRecipe = StudentRecipe()
    training: TrainingRecipe = TrainingRecipe()
    gan: GanRecipe = GanRecipe()
    icsd: IcsdRecipe = IcsdRecipe()
    stages: tuple[Stage, ...] = ()

    def to_json(self):
        """The recipe as the text of `recipe.json`."""
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text, source="recipe.json"):
        """The recipe that `to_json` wrote. Raises `UserError` that names the unknown or wrong field."""
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{source}: not JSON: {error}") from None
        return _from_dict(cls, values, source)

    @classmethod
    def load(cls, path):
        """The recipe of a file. Raises `UserError` when it cannot be read."""
        try:
            text = Path(path).read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{path}: {error}") from None
        return cls.from_json(text, str(path))


GROUPS = {name: kind for name, kind in typing.get_type_hints(Recipe).items() if dataclasses.is_dataclass(kind)}


def _from_dict(cls, values, source):
    if not isinstance(values, dict):
        raise UserError(f"{source}: {cls.__name__} is not an object")
    hints = typing.get_type_hints(cls)
    unknown = sorted(set(values) - set(hints))
    if unknown:
        raise UserError(f"{source}: unknown key {unknown[0]!r}")
    known = {}
    for name, value in values.items():
        kind = hints[name]
        if dataclasses.is_dataclass(kind):
            known[name] = _from_dict(kind, value, source)
        elif name == "stages" and isinstance(value, list):
            known[name] = tuple(_from_dict(Stage, stage, source) for stage in value)
        elif name == "tap_weights" and isinstance(value, list):
            known[name] = _tap_weights(value, source)
        elif name == "frozen" and isinstance(value, list):
            known[name] = tuple(str(pattern) for pattern in value)
        elif isinstance(value, typing.get_origin(kind) or kind) or (kind is float and isinstance(value, int)):
            known[name] = kind(value)
        else:
            raise UserError(f"{source}: {name} is not of type {kind.__name__}: {value!r}")
    try:
        recipe = cls(**known)
    except TypeError as error:
        raise UserError(f"{source}: {error}") from None
    _check_choices(recipe, source)
    return recipe


def _tap_weights(pairs, source):
    try:
        return tuple((str(tap), float(weight)) for tap, weight in pairs)
    except (TypeError, ValueError):
        raise UserError(f"{source}: tap_weights are not pairs of a tap and a number: {pairs!r}") from None


def _check_choices(values, source):
    for item in dataclasses.fields(values):
        choices = item.metadata.get("choices")
        value = getattr(values, item.name)
        if choices and value not in choices:
            raise UserError(f"{source}: {item.name} is {value!r}, none of {', '.join(choices)}")


def parse_stage(text):
    """A stage from the text of `--stage`.

    Args:
        text: `NAME: key=value key=value ...`; `tap_weights` is `TAP:WEIGHT,TAP:WEIGHT,...`, a pattern such as
            `conv5_*` standing for every tap that it fits; `frozen` is `LAYER,LAYER,...`, patterns of the student's
            layers that this stage leaves as they are.

    Raises:
        UserError: naming the stage and the key, where the text is not of that form.
    """
    name, colon, rest = text.partition(":")
    name = name.strip()
    if not colon or not name:
        raise UserError(f"--stage: {text!r} is not of the form 'NAME: key=value key=value'")
    hints = typing.get_type_hints(Stage)
    values = {"name": name}
    for pair in rest.split():
        key, equals, value = pair.partition("=")
        if not equals:
            raise UserError(f"--stage {name}: {pair!r} is not key=value")
        if key not in hints or key == "name":
            raise UserError(f"--stage {name}: unknown key {key!r}; known: {', '.join(list(hints)[1:])}")
        if key in values:
            raise UserError(f"--stage {name}: {key} is given twice")
        try:
            values[key] = PARSERS.get(key, hints[key])(value)
        except ValueError as error:
            raise UserError(f"--stage {name}: {key}={value!r}: {error}") from None
    if "objective" not in values:
        raise UserError(f"--stage {name}: objective is missing")
    return Stage(**values)


def _parse_tap_weights(text):
    weights = []
    for pair in text.split(","):
        tap, _, weight = pair.partition(":")
        weights.append((tap, float(weight)))
    return tuple(weights)


# How the text of a stage's key is read, where its type alone does not say.
PARSERS = {"tap_weights": _parse_tap_weights, "frozen": lambda text: tuple(text.split(","))}


def define_flags():
    """Defines a flag for each recipe field, with its default and help."""
    for kind in (Recipe, *GROUPS.values()):
        for item in dataclasses.fields(kind):
            if "help" not in item.metadata:
                continue
            text, choices = item.metadata["help"], item.metadata["choices"]
            if choices:
                flags.DEFINE_enum(item.name, item.default, choices, text)
            elif item.type is bool:
                flags.DEFINE_boolean(item.name, item.default, text)
            elif item.type is int:
                flags.DEFINE_integer(item.name, item.default, text)
            elif item.type is float:
                flags.DEFINE_float(item.name, item.default, text)
            else:
                flags.DEFINE_string(item.name, item.default, text)
    flags.DEFINE_multi_string("stage", [], "a stage, in order: 'NAME: key=value key=value ...'")


def from_flags(values):
    """The recipe that parsed flags describe.

    Args:
        values: `absl.flags.FLAGS`, or anything with the flags as attributes.

    Raises:
        UserError: for a stage that cannot be read, or two stages of one name.
    """
    groups = {
        name: kind(**{item.name: getattr(values, item.name) for item in dataclasses.fields(kind)})
        for name, kind in GROUPS.items()
    }
    stages = tuple(parse_stage(text) for text in values.stage)
    names = [stage.name for stage in stages]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"--stage: two stages are named {name!r}")
    return Recipe(system=values.system, stages=stages, **groups)


def first_difference(ours, theirs):
    """The first field in which two recipes differ, as `(name, ours, theirs)`; None where they are the same."""
    pairs = zip(_leaves(dataclasses.asdict(ours)), _leaves(dataclasses.asdict(theirs)), strict=False)
    for (name, mine), (other_name, other) in pairs:
        if (name, mine) != (other_name, other):
            return name, mine, other
    return None


def _leaves(values, prefix=""):
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value)
        else:
            yield prefix + name, value


def flag_values(recipe):
    """Every field of a recipe by its flag's name, the groups flattened."""
    return types.SimpleNamespace(**dict(_leaves(dataclasses.asdict(recipe))))
