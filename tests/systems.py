"""One tiny recipe for each system, and what the checks of all systems do with it."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from absl import flags
from PIL import Image

from t2i_kd import commands, recipe_flags, systems
from t2i_kd.data.arrays import from_arrays
from t2i_kd.data.image_pairs import from_image_pairs
from t2i_kd.teacher_slim.trainer import cached_pools
from tests.published_generators import resnet_arrays

SMALL = ("--resolution=32", "--batch_size=4", "--flip", "--checkpoint_every=4", "--sample_every=8", "--log_every=1")
CAPTIONS = ["picture 3 of red", "a grey picture", "no such words"]
PHOTOS = [np.full((40, 30, 3), shade, np.uint8) + np.arange(30, dtype=np.uint8)[:, None] for shade in (0, 90, 200)]
# What a recipe's file says to the command beside the recipe.
OTHERS = {"run_dir", "export_dir", "overwrite", "max_minutes"}
TEXT = ("--text_dim=16", "--word_dim=8", "--text_length=4", "--noise_dim=3", "--whiten_text", "--ema=0.9")


@dataclass(frozen=True)
class Room:
    """A system's tiny recipe, with every option that keeps a state or draws at random, and what to expect of it.

    Attributes:
        name: what `--system` says.
        options: its flags beside `SMALL`, its stages among them; {data_dir} in one stands for the folder of images.
        kills: {stage: (first, last)}: steps, counted over all stages, of which one is the last before a kill.
        foreign: (flag, stage key) of other systems.
        owners: the systems that have that flag, and those whose stages have that key.
        generates: whether its student generates images and can be exported.
        on_jax: what JAX and TensorFlow are compared with in place of the options of the same names.
        images: whether its student reads images, not captions.
        variant: what tells it from another recipe of the same system.
        jax_tolerance: of the losses of later steps, relative; a GAN's generator meets discriminators that have moved
            already, by gradients that may be next to nothing.
    """

    name: str
    options: tuple[str, ...]
    kills: dict
    foreign: tuple[str, str]
    owners: tuple[str, str]
    generates: bool = True
    on_jax: tuple[str, ...] = ()
    jax_tolerance: float = 1e-4
    images: bool = False
    variant: str = ""

    @property
    def title(self):
        """What it is called among the rooms."""
        return "_".join(filter(None, (self.name, self.variant)))

    @property
    def items(self):
        """Three items that its student is asked with."""
        return PHOTOS if self.images else CAPTIONS

    def generator(self, network):
        """The part of its student's network that makes images."""
        return network if self.images else network.get_layer("generator")

    def arrays(self):
        """A data set of twelve training examples in memory."""
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (12, 32, 32, 3), np.uint8)
        if self.images:
            return from_image_pairs(images, images[::-1], images[:4], images[4:8])
        captions, labels = [f"picture {index % 4} of red" for index in range(12)], [index % 4 for index in range(12)]
        return from_arrays(images, captions, images[:4], captions[:4], labels, labels[:4])

    def recipe(self, data_dir, *more):
        """Its recipe on a folder of images."""
        return recipe_of(*self.arguments(data_dir), *more)

    def arguments(self, data_dir):
        """The command line of its recipe on a folder of images."""
        options = (each.replace("{data_dir}", str(data_dir)) for each in self.options)
        return (f"--system={self.name}", "--dataset=image_folder", f"--data_dir={data_dir}", *SMALL, *options)


ROOMS = [
    Room(
        "sdn",
        (
            *TEXT,
            "--teacher=vgg19_slim",
            "--width=0.25",
            "--initializer=he",
            "--image_output=centred",
            "--clipnorm=5",
            "--stage=text: objective=ds_sje steps=6 learning_rate=1e-3 tap_weights=pool3:1",
            "--stage=one: objective=mirrored steps=14 error=annealed scaling=normalised schedule=cosine warmup_steps=3",
            "--stage=two: objective=perceptual steps=13 learning_rate=1e-3 tap_weights=image:3,conv3_*:1 "
            "frozen=text_*,fc*",
            "--discriminator_channels=4",
            "--discriminator_mixing=scales",
            "--augmentation=color,translation,cutout",
            "--stage=three: objective=adversarial steps=12 learning_rate=1e-3 error=squared scaling=normalised "
            "tap_weights=image:1,conv2_2:1 distance_weight=0.1 "
            "seed_diversity_weight=1 caption_weight=1 frozen=text_*",
        ),
        kills={"text": (2, 4), "one": (11, 13), "two": (21, 28), "three": (38, 42)},
        foreign=("--icsd_weight=9", "warmth=1"),
        owners=("but of --system=icsd_gan", ""),
    ),
    Room(
        "icsd_gan",
        (
            *TEXT,
            "--teacher=none",
            "--image_stages=2",
            "--generator_channels=8",
            "--condition_dim=4",
            "--discriminator_channels=4",
            "--gradient_penalty=r1",
            "--penalty_every=3",
            "--augmentation=color,translation,cutout",
            "--stage=gan: objective=icsd steps=30 learning_rate=1e-3 schedule=cosine warmup_steps=2 frozen=text_*",
        ),
        kills={"gan": (13, 17)},
        foreign=("--head_rank=4", "scaling=raw"),
        owners=("but of --system=sdn and --system=kd_dlgan", ", which only stages of sdn have"),
        # Shifts and cuts make areas of exact grey, where a new discriminator has a slope by rounding alone.
        on_jax=("--augmentation=color", "--gradient_penalty=ma_gp", "--penalty_every=2"),
        jax_tolerance=1e-3,
    ),
    Room(
        "kd_dlgan",
        (
            *TEXT,
            "--teacher=tests.dual_encoder",
            "--prompts=a red picture;a blue picture;a green one",
            "--generator_channels=2",
            "--discriminator_channels=2",
            "--head_units=5",
            "--crossed_probability=0.5",
            "--diversity_weight=0.1",
            "--lecam_weight=0.3",
            "--lecam_start=5",
            "--ema_start=3",
            "--discriminator_steps=2",
            "--augmentation=color,translation,cutout",
            "--stage=gan: objective=kd_dlgan steps=30 learning_rate=1e-3 frozen=text_*",
        ),
        kills={"gan": (13, 17)},
        foreign=("--icsd_weight=9", "scaling=raw"),
        owners=("but of --system=icsd_gan", ", which only stages of sdn have"),
        on_jax=("--augmentation=color", "--lecam_start=1"),
        jax_tolerance=1e-3,
    ),
    Room(
        "srpkd",
        (
            "--dataset=paired_folder",
            "--direction=BtoA",
            "--load_size=36",
            "--teacher={data_dir}/teacher.npz",
            "--generator_channels=4",
            "--generator_depth=1",
            "--generator_dropout=0.3",
            "--output_weight=10",
            "--relation_weight=3",
            "--relation_rows=20",
            "--tap_mse_weight=0.1",
            "--ema=0.9",
            "--stage=alone: objective=distil steps=30 learning_rate=1e-3 schedule=linear",
        ),
        kills={"alone": (13, 17)},
        foreign=("--noise_dim=4", "tap_weights=image:1"),
        owners=(
            "but of --system=sdn and --system=icsd_gan and --system=kd_dlgan",
            ", which only stages of sdn and icsd_gan and kd_dlgan have",
        ),
        on_jax=("--generator_dropout=0",),
        jax_tolerance=1e-3,
        images=True,
    ),
    Room(
        "teacher_slim",
        (
            "--teacher=vgg19_slim",
            "--width=0.0625",
            "--noflip",
            "--stage=distil: objective=regress_pools steps=30 learning_rate=2e-3",
        ),
        kills={"distil": (13, 17)},
        foreign=("--noise_dim=4", "tap_weights=image:1"),
        owners=(
            "but of --system=sdn and --system=icsd_gan and --system=kd_dlgan",
            ", which only stages of sdn and icsd_gan and kd_dlgan have",
        ),
        generates=False,
    ),
]


def variant(name, options, **changes):
    """Another recipe of one of `ROOMS`; what is not given is that one's."""
    (room,) = [room for room in ROOMS if room.name == name]
    return dataclasses.replace(room, options=options, **changes)


# ICSD-GAN's discriminators see through a teacher, which reads no image of 16 pixels: those are enlarged.
THROUGH_THE_TEACHER = variant(
    "icsd_gan",
    (
        *TEXT,
        "--teacher=vgg19_slim",
        "--image_stages=2",
        "--generator_channels=8",
        "--condition_dim=4",
        "--discriminator=teacher",
        "--discriminator_channels=4",
        "--discriminator_mixing=scales",
        "--augmentation=color,translation,cutout",
        "--icsd_features=discriminator",
        "--measure_every=9",
        "--stage=gan: objective=icsd steps=30 learning_rate=1e-3 frozen=text_*",
    ),
    on_jax=("--augmentation=color",),
    variant="teacher",
)

# KD-DLGAN's other host: the mirrored generator, discriminators through a teacher, its view of real images kept.
KD_THROUGH_A_TEACHER = variant(
    "kd_dlgan",
    (
        *TEXT,
        "--teacher=tests.dual_encoder",
        "--generator=mirrored",
        "--width=0.03125",
        "--initializer=he",
        "--discriminator=teacher",
        "--discriminator_teacher=vgg19_slim",
        "--discriminator_channels=4",
        "--head_units=5",
        "--teacher_sees=plain",
        "--prompts=captions",
        "--measure_every=9",
        "--augmentation=color,translation,cutout",
        "--stage=gan: objective=kd_dlgan steps=30 learning_rate=1e-3 frozen=text_*",
    ),
    on_jax=("--augmentation=color",),
    variant="teacher",
)

# SRPKD's hosts, with discriminators, and images of earlier steps.
HOSTS = variant(
    "srpkd",
    (
        "--dataset=paired_folder",
        "--teacher={data_dir}/teacher.npz",
        "--generator_channels=4",
        "--generator_depth=1",
        "--generator_dropout=0.3",
        "--output_weight=10",
        "--discriminator_channels=4",
        "--discriminator_layers=2",
        "--pool_size=6",
        "--ema=0.9",
        "--measure_every=9",
        "--stage=pairs: objective=pix2pix steps=14 learning_rate=1e-3",
        "--stage=cycle: objective=cycle_gan steps=18 learning_rate=1e-3 schedule=linear",
    ),
    kills={"pairs": (2, 9), "cycle": (20, 28)},
    jax_tolerance=1e-3,
    variant="hosts",
)
VARIANTS = (THROUGH_THE_TEACHER, KD_THROUGH_A_TEACHER, HOSTS)

# A system that the package does not know: the mean colour of a caption's images, in a package of its own.
STRANGER = Room(
    "strangers.room",
    (
        *TEXT,
        "--teacher=none",
        "--brightness=0.5",
        "--stage=one: objective=squares steps=30 learning_rate=1e-2 softness=2",
    ),
    kills={"one": (13, 17)},
    foreign=("--width=1", "error=l1"),
    owners=("but of --system=sdn and --system=kd_dlgan and --system=teacher_slim", ", which only stages of sdn have"),
)
STRANGERS_FILES = {
    "room.py": '''
from dataclasses import dataclass

from t2i_kd.options import DataOptions, StudentOptions, TeacherOptions, TextOptions, TrainingOptions, option
from t2i_kd.recipe import Recipe, TextToImageStage


@dataclass(frozen=True)
class ColourOptions:
    """The colours"""

    brightness: float = option(1.0, "The factor on every image.")


@dataclass(frozen=True)
class ColourStage(TextToImageStage):
    softness: float = 1.0


@dataclass(frozen=True)
class ColourRecipe(Recipe):
    system: str = "strangers.room"
    data: DataOptions = DataOptions()
    text: TextOptions = TextOptions()
    teacher: TeacherOptions = TeacherOptions()
    student: StudentOptions = StudentOptions()
    colour: ColourOptions = ColourOptions()
    training: TrainingOptions = TrainingOptions()
    stages: tuple[ColourStage, ...] = ()


RECIPE = ColourRecipe
SYSTEM = "strangers.trainer.Colours"
''',
    "trainer.py": """
import keras
from keras import ops

from t2i_kd.training.text_to_image import TextToImageSystem
from t2i_kd.training.trainer import Trainer


class ColourTrainer(Trainer):
    def __init__(self, network, softness):
        super().__init__(name="colours")
        self.network, self.softness = network, softness
        self.built = True

    def loss_terms(self, batch):
        generated = self.network({name: batch[name] for name in self.network.input}, training=True)["image"]
        squares = ops.mean(ops.square(generated - ops.cast(batch["image"], "float32"))) / self.softness
        return squares, {"squares": squares}


class Colours(TextToImageSystem):
    own_objectives = ("squares",)

    def build_generator(self):
        recipe = self.recipe
        text = keras.Input((recipe.text.text_dim,), name="text")
        noise = keras.Input((recipe.student.noise_dim,), name="noise")
        hidden = keras.layers.Dense(8, "tanh", name="hidden")(keras.layers.Concatenate()([text, noise]))
        colour = keras.layers.Dense(3, "sigmoid", name="colour")(hidden)
        image = keras.layers.Reshape((1, 1, 3))(colour)
        image = keras.layers.UpSampling2D(recipe.data.resolution)(image)
        image = keras.layers.Rescaling(255 * recipe.colour.brightness, dtype="float32")(image)
        return keras.Model({"text": text, "noise": noise}, {"image": image})

    def objective_trainer(self, plan):
        return ColourTrainer(self.network, plan.stage.softness)
""",
}


def write_stranger(folder):
    """Writes the stranger's package into a folder that is on Python's path."""
    package = Path(folder) / "strangers"
    package.mkdir()
    for name, text in STRANGERS_FILES.items():
        (package / name).write_text(text)


def write_images(folder):
    """Writes a data set of sixteen images of noise in four colours, a class each; the last of each is held out."""
    rng, lines = np.random.default_rng(0), []
    colours = {"red": (200, 30, 30), "green": (30, 180, 40), "blue": (20, 40, 210), "grey": (120, 120, 120)}
    for label, (name, colour) in enumerate(colours.items()):
        for index in range(4):
            noisy = np.clip(np.array(colour) + rng.normal(0, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"{name}{index}.png")
            captions = [f"picture {index} of {name}", f"a {name} picture"]
            line = {"file_name": f"{name}{index}.png", "captions": captions, "label": label, "class_name": name}
            lines.append(json.dumps(line | {"split": "test" if index == 3 else "train"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    write_pairs(folder)


def write_pairs(folder):
    """Writes eight training and four test pairs of noise, B the negative of A, and a teacher that reads images."""
    rng = np.random.default_rng(1)
    for split, count in (("train", 8), ("test", 4)):
        for index in range(count):
            noisy = np.clip(rng.normal(120, 50, (40, 36, 3)), 0, 255).astype(np.uint8)
            for side, image in (("A", noisy), ("B", 255 - noisy)):
                path = folder / side / split / f"{index}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(path)
    np.savez(folder / "teacher.npz", **resnet_arrays(6, 1))


def recipe_of(*arguments):
    """The recipe of a command line, its flagfiles read."""
    arguments = commands.expanded(["train", *arguments])
    name = commands.given(arguments, "system", systems.DEFAULT)
    values = flags.FlagValues()
    flags.DEFINE_string("system", systems.DEFAULT, "", flag_values=values)
    recipe_flags.define_flags(systems.find(name).recipe, values)
    assert values(arguments) == ["train"]
    return recipe_flags.from_flags(systems.find(name).recipe, values, name)


def recipe_and_others(*arguments):
    """The recipe of a command line, and what else it says: {flag: value}."""
    lines = [each.removeprefix("--") for each in commands.expanded(["train", *arguments])[1:]]
    others = {name: value for name, _, value in (each.partition("=") for each in lines) if name in OTHERS}
    return recipe_of(*(f"--{each}" for each in lines if each.partition("=")[0] not in OTHERS)), others


class Losses(keras.callbacks.Callback):
    """Keeps every step's terms."""

    def __init__(self):
        super().__init__()
        self.terms = []

    def on_train_batch_end(self, batch, logs=None):
        self.terms.append({name: float(value) for name, value in logs.items()})


def shortened(recipe, steps, learning_rate):
    """The recipe with so many steps a stage, all at one rate."""
    stages = tuple(
        dataclasses.replace(stage, steps=steps, learning_rate=learning_rate, schedule="constant", warmup_steps=0)
        for stage in recipe.stages
    )
    return dataclasses.replace(recipe, stages=stages)


def first_losses(recipe, folder, write, **compiled):
    """{stage: [terms of each step]} of every stage, each from the weights that lie in a folder.

    Args:
        recipe: a `Recipe`.
        folder: holds `STAGE.npz` for each stage, where `write` is False.
        write: write the weights in place of reading them.
        compiled: options of `keras.Model.compile`.
    """
    system, found = systems.build(recipe), {}
    if recipe.system == "teacher_slim":
        # Its run keeps them in the run directory.
        system.pools = cached_pools(system.teacher, system.images, Path(folder) / "pools")
    with system.policy():
        for plan in system.plans:
            system.before_stage(plan)
            trainer, losses, path = system.own_trainer(plan), Losses(), Path(folder) / f"{plan.stage.name}.npz"
            if write:
                np.savez(path, *map(np.asarray, trainer.kept_variables))
            with np.load(path) as stored:
                for variable, values in zip(trainer.kept_variables, stored.values(), strict=True):
                    variable.assign(values)
            trainer.compile(optimizer=trainer.make_optimizer(plan.stage, plan.steps, recipe.training), **compiled)
            trainer.optimizer.build(trainer.trainable_variables)
            batches = system.batches(plan, plan.first_step, plan.last_step)
            trainer.fit(batches, shuffle=False, verbose=0, callbacks=[losses])
            found[plan.stage.name] = losses.terms
    return found
