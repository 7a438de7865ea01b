"""SRPKD's teachers: trained image-to-image generators, from runs, exports and published files.

Two published families are read from `.npz` files, float16 or float32:

    ml5.js' style networks (MIT): `Variable`, `Variable_1` to `Variable_47`, kernels [height, width, in, out].
    PyTorch's CycleGAN ResNets with affine instance norm, as vintagify (MIT): `model.1.weight`, ..., kernels [out, in,
    height, width], blocks `model.10.block.1.weight`, ....
"""

import dataclasses
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

import keras
from keras import ops

from t2i_kd import plugins
from t2i_kd.checksums import sha256_of
from t2i_kd.conditions.image import SOURCE
from t2i_kd.dtype_policy import dtype_policy
from t2i_kd.errors import UserError
from t2i_kd.files import parse_json, reason
from t2i_kd.recipe import RECIPE_FILE
from t2i_kd.srpkd.channels import channels_of, is_transposed, largest, take_channels, width_of
from t2i_kd.srpkd.networks import build_resnet, build_style
from t2i_kd.student import IMAGE, INVERSE_FILE, load_network, load_student
from t2i_kd.teachers import run
from t2i_kd.trust import check_graph
from t2i_kd.weight_files import Arrays

# The folder of an exported model that holds its recipe.
EXTRA = "assets.extra"
# Of a published generator: bytes of its arrays, channels of its first layer, and residual blocks.
LARGEST_PUBLISHED, MOST_CHANNELS, MOST_BLOCKS = 2**28, 256, 64
ML5_LAYERS = ("stem", "down1", "down2", "block1a", "block1b", "block2a", "block2b", "block3a", "block3b", "block4a")
ML5_LAYERS += ("block4b", "block5a", "block5b", "up1", "up2", "rgb")


@dataclass(frozen=True)
class Teacher:
    """A trained generator.

    Attributes:
        network: `keras.Model` from {"source": float32 [batch, side, side, 3] in 0-255} to {"image": ...}.
        inverse: the generator of the other direction, or None.
    """

    network: keras.Model
    inverse: keras.Model | None = None


def pinned(options):
    """The options with the SHA-256 of the teacher's file, so that a recipe says which network taught it.

    Of an exported model it is that of all its files, in the order of their names.

    Raises:
        UserError: naming --teacher, where there is no such file.
    """
    name = options.teacher
    if name == "none" or (plugins.is_dotted(name) and not Path(name).exists()):
        return options
    found = _sha256(name)
    if options.teacher_weights_sha256 and found != options.teacher_weights_sha256.lower():
        raise UserError(f"--teacher: {name} has SHA-256 {found}, not {options.teacher_weights_sha256}")
    return dataclasses.replace(options, teacher_weights_sha256=found)


def _sha256(name):
    if name.startswith(run.PREFIX):
        return run.run_sha256(name)
    path = Path(name)
    if path.is_file() and path.suffix == ".npz":
        return sha256_of(path)
    if not (path / "saved_model.pb").is_file():
        raise UserError(
            f"--teacher: {name} is none of none, {run.PREFIX}DIR, a .npz, a version folder with saved_model.pb, or a "
            "module such as my_package.my_teacher"
        )
    files = [each for each in sorted(path.rglob("*")) if each.is_file() and EXTRA not in each.parts]
    return hashlib.sha256("".join(map(sha256_of, files)).encode()).hexdigest()


def load_generator(options, resolution):
    """The teacher that the options name, frozen.

    Args:
        options: `GeneratorTeacherOptions`, `pinned`.
        resolution: side of the images in pixels. Published files and modules are built at it; a run or an export must
            have it.

    Returns:
        `Teacher`, or None for `none`.

    Raises:
        UserError: naming --teacher.
    """
    name = options.teacher
    if name == "none":
        return None
    if name.startswith(run.PREFIX):
        teacher = _load_run(name, resolution)
    elif Path(name).is_file():
        teacher = Teacher(load_published(name, resolution))
    elif Path(name).is_dir():
        teacher = Teacher(_load_saved_model(Path(name), resolution))
    else:
        (load,) = plugins.members(plugins.import_module(name, "teacher"), "teacher", "load")
        teacher = Teacher(load(options, resolution))
    for network in filter(None, (teacher.network, teacher.inverse)):
        _check(name, network, resolution)
        network.trainable = False
    return teacher


def direction_of(teacher):
    """The `--direction` that a run or an exported model was trained with; None where no recipe tells.

    Args:
        teacher: as `--teacher` names it.
    """
    folder = Path(teacher.removeprefix(run.PREFIX))
    for path in (folder / RECIPE_FILE, folder / EXTRA / RECIPE_FILE):
        if path.is_file():
            found = parse_json(path.read_bytes(), path)
            translation = found.get("translation") if isinstance(found, dict) else None
            return translation.get("direction") if isinstance(translation, dict) else None
    return None


def _check(name, network, resolution):
    """Raises `UserError` unless a network goes from images of a side to images of that side."""
    inputs, outputs = getattr(network, "input", None), getattr(network, "output", None)
    if not isinstance(inputs, dict) or list(inputs) != [SOURCE] or IMAGE not in outputs:
        raise UserError(f"--teacher: {name} is no generator from images to images")
    for tensor in (inputs[SOURCE], outputs[IMAGE]):
        if tuple(tensor.shape[1:]) != (resolution, resolution, 3):
            raise UserError(
                f"--teacher: {name} reads and gives images of {inputs[SOURCE].shape[1]} and {outputs[IMAGE].shape[1]} "
                f"px, not of --resolution={resolution}"
            )


def _load_run(name, resolution):
    path = run.network_file(name)
    student = load_student(path.parent)
    if student.condition.kind != "image":
        raise UserError(
            f"--teacher: {path} is not of a run whose student reads images; objective=compress is for one that reads "
            f"{student.condition.kind}s"
        )
    inverse = path.with_name(INVERSE_FILE)
    return Teacher(student.network, load_network(inverse) if inverse.exists() else None)


class _Served(keras.layers.Layer):
    """A SavedModel's `pixels` as a layer; it cannot be written anywhere. Args: pixels: of its signatures."""

    def __init__(self, pixels, **options):
        super().__init__(trainable=False, **options)
        # Keras tracks no function.
        self._pixels = lambda images: pixels(image=images)["image"]

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, "float32")

    def call(self, inputs):
        """Images in 0-255, rounded to whole numbers, to images in 0-255."""
        return ops.cast(self._pixels(ops.cast(ops.round(inputs), "uint8")), "float32")


def _load_saved_model(folder, resolution):
    if keras.backend.backend() != "tensorflow":
        raise UserError(f"--teacher: {folder} is a SavedModel, which KERAS_BACKEND=tensorflow alone can run")
    import tensorflow as tf

    try:
        check_graph(folder)
        loaded = tf.saved_model.load(str(folder))
    except (OSError, ValueError) as error:
        raise UserError(
            f"--teacher: {folder} is no SavedModel that can be read: {' '.join(str(error).split())}"
        ) from None
    pixels = loaded.signatures.get("pixels")
    inputs = pixels.structured_input_signature[1] if pixels else {}
    side = (None, resolution, resolution, 3)
    if list(inputs) != ["image"] or any(
        tuple(each.shape) != side for each in (inputs["image"], pixels.structured_outputs["image"])
    ):
        raise UserError(f"--teacher: {folder} does not read and give images of --resolution={resolution}")
    served = _Served(pixels, name="served")
    # Signatures work only as long as the loaded object lives.
    served.keep = lambda: loaded
    source = keras.Input((resolution, resolution, 3), name=SOURCE)
    return keras.Model({SOURCE: source}, {IMAGE: served(source)}, name="served_teacher")


def load_published(path, resolution):
    """The generator of a published `.npz`; see the module for the families.

    Args:
        path: of the file.
        resolution: side of the images in pixels, a multiple of 4.

    Returns:
        A `keras.Model` of `networks.build_style` or `networks.build_resnet`, in float32.

    Raises:
        UserError: naming --teacher, where the file is neither.
    """
    try:
        with Arrays(path, LARGEST_PUBLISHED) as stored:
            values = {name: stored.read(name).astype("float32") for name in stored.names}
    except (OSError, ValueError) as error:
        raise UserError(f"--teacher: {path} is not a .npz that can be read: {reason(error)}") from None
    try:
        with dtype_policy("float32"):
            if "Variable_47" in values:
                return _style(values, resolution)
            if "model.1.weight" in values:
                return _pytorch_resnet(values, resolution)
    except (KeyError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"--teacher: {path} has other arrays than its family: {' '.join(str(error).split())}") from None
    raise UserError(f"--teacher: {path} is of neither published family: no Variable_47 and no model.1.weight")


def _channels(kernel, axis):
    """How many channels a first layer's kernel gives."""
    if kernel.ndim != 4 or kernel.shape[axis] > MOST_CHANNELS:
        raise ValueError(f"a first kernel of shape {kernel.shape}")
    return kernel.shape[axis]


def _style(values, resolution):
    network = build_style(resolution, _channels(values["Variable"], -1), 5)
    for index, name in enumerate(ML5_LAYERS):
        kernel, shift, scale = (values["Variable" + (f"_{n}" if n else "")] for n in range(3 * index, 3 * index + 3))
        network.get_layer(name).set_weights([kernel])
        network.get_layer(f"{name}_norm").set_weights([scale, shift])
    return network


def _pytorch_resnet(values, resolution):
    blocks = sorted({int(found[1]) for name in values if (found := re.match(r"model\.(\d+)\.block", name))})
    if not 0 < len(blocks) <= MOST_BLOCKS:
        raise ValueError(f"{len(blocks)} residual blocks")
    network = build_resnet(resolution, _channels(values["model.1.weight"], 0), len(blocks), "instance_affine")
    after = blocks[-1] + 1
    places = {"stem": ("1", "2"), "down1": ("4", "5"), "down2": ("7", "8")}
    for number, block in enumerate(blocks, 1):
        places |= {
            f"block{number}{part}": (f"{block}.block.{at}", f"{block}.block.{at + 1}")
            for part, at in zip("ab", (1, 5), strict=True)
        }
    places |= {
        "up1": (f"{after}", f"{after + 1}"),
        "up2": (f"{after + 3}", f"{after + 4}"),
        "rgb": (f"{after + 7}", ""),
    }
    for name, (convolution, norm) in places.items():
        kernel = values[f"model.{convolution}.weight"].transpose(2, 3, 1, 0)
        network.get_layer(name).set_weights([kernel, values[f"model.{convolution}.bias"]])
        if norm:
            pair = [values[f"model.{norm}.{part}"] for part in ("weight", "bias")]
            network.get_layer(f"{name}_norm").set_weights(pair)
    return network


def _starts_from(layer, other):
    """Whether a student's layer can have the weights of a teacher's: of one kind, or convolutions that both enlarge."""
    return type(other) is type(layer) or (is_transposed(other) and type(layer) is keras.layers.Conv2D)


def start_from_teacher(student, teacher):
    """Gives a narrower student the weights of the teacher's channels that have the largest L1 norms.

    Channels that layers share form a group, such as the trunk that all residual blocks add to. Of each group those are
    kept whose kernels, over all layers that make them, have the largest sums of absolute values. Of a teacher with more
    residual blocks the first ones are taken. Source: GAN Compression (Li et al., CVPR 2020), whose students start from
    the pruned teacher; the groups are ours. A convolution after upsampling starts from the teacher's transposed one, of
    whose map it gives the mean over 2x2 places.

    Args:
        student, teacher: networks of one kind of `networks.build_generator`.

    Raises:
        UserError: naming --student_init, where they do not fit.
    """
    ours = {layer.name: layer for layer in student.layers if layer.weights}
    theirs = {layer.name: layer for layer in teacher.layers if layer.weights}
    for name, layer in ours.items():
        if name not in theirs or not _starts_from(layer, theirs[name]):
            raise UserError(f"--student_init: the teacher has no layer {name} as the student has it")
        if len(theirs[name].weights) != len(layer.weights):
            raise UserError(f"--student_init: {name} has other weights in the teacher; does --generator_norm differ?")
    channels = channels_of(teacher)

    def widths(names, count):
        """The width of the student's layers of a group; of equal norms the first channels are kept."""
        wanted = {name: width_of(ours[name]) for name in names if name in ours} if count else {}
        for name, width in wanted.items():
            if width > count:
                raise UserError(f"--student_init: {name} has {width} channels in the student, {count} in the teacher")
        return max(wanted.values(), default=0)

    take_channels(student, teacher, channels, largest(teacher, channels, widths))
