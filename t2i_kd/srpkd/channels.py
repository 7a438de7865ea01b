"""Which channels of a trained network belong together, and narrower networks that keep those with the largest norms.

A network's channels are followed from layer to layer. Channels that an addition or a product joins are kept or left out
together, such as those of a trunk that all residual blocks add to, or the two halves of a gated unit. What no rule here
knows stays whole: the images, the inputs, and all that a layer of an unknown kind reads or gives.

Source: students that start from the pruned teacher are GAN Compression's (Li et al., CVPR 2020), the groups are those
of structured pruning (Fang et al., "DepGraph", CVPR 2023).
"""

import itertools
import math
from dataclasses import dataclass

import keras
import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.srpkd.networks import InstanceNormalization, ReflectionPadding
from t2i_kd.student import IMAGE

# Layers and operations whose output's channels are those of their input, each for itself.
SAME_CHANNELS = (
    *(keras.layers.Activation, keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU, keras.layers.Identity),
    *(keras.layers.BatchNormalization, InstanceNormalization, keras.layers.Dropout, keras.layers.SpatialDropout2D),
    *(keras.layers.UpSampling2D, keras.layers.ZeroPadding2D, keras.layers.Cropping2D, ReflectionPadding),
    *(keras.layers.AveragePooling2D, keras.layers.MaxPooling2D),
    *(keras.layers.GlobalAveragePooling2D, keras.layers.GlobalMaxPooling2D),
)
SAME_CHANNELS_BY_NAME = ("Absolute", "Cast", "Clip", "Exp", "Negative", "Relu", "Sigmoid")
# Layers and operations that join their inputs element by element.
JOINING = ("Add", "Average", "Divide", "Maximum", "Minimum", "Multiply", "Subtract", "TrueDivide")
# The first weights of a layer that starts anew; half the initializers of the package are made for the teacher's width.
INITIALIZER = keras.initializers.VarianceScaling(2.0, "fan_in", "untruncated_normal")


@dataclass(frozen=True)
class Channels:
    """The channels of a network's tensors, as numbers that are equal where channels stay or go together.

    Attributes:
        reads: {name of a convolution or dense layer: int [channels] of what it reads}.
        gives: {name of a layer or operation: int [channels] of what it gives}; those that no rule knows, and
            those in `cut`, are missing.
        cut: {name of an operation that takes parts of the channels: (int [channels] of what it reads, the places of
            that axis between which its parts lie)}.
        whole: the numbers that are never left out.
    """

    reads: dict
    gives: dict
    cut: dict
    whole: frozenset

    def groups(self):
        """The layers that make channels in common: a list of lists of names, in the network's order."""
        found = []
        for name in self.reads:
            own = set(self.gives[name].tolist())
            joined = [group for group in found if group[1] & own]
            found = [group for group in found if group not in joined]
            found.append(([each for names, _ in joined for each in names] + [name], own.union(*(n for _, n in joined))))
        return [names for names, _ in found]


class _Numbers:
    """Numbers of channels, of which some turn out to be the same."""

    def __init__(self):
        self.same, self.whole = [], set()

    def new(self, count, whole=False):
        numbers = np.arange(len(self.same), len(self.same) + count)
        self.same.extend(numbers.tolist())
        if whole:
            self.whole.update(numbers.tolist())
        return numbers

    def first(self, number):
        while self.same[number] != number:
            number = self.same[number]
        return number

    def join(self, one, other):
        for pair in zip(one.tolist(), other.tolist(), strict=True):
            low, high = sorted(map(self.first, pair))
            self.same[high] = low

    def resolved(self, numbers):
        return np.array([self.first(number) for number in numbers.tolist()], int)


def channels_of(network):
    """The `Channels` of a functional network; what it reads and gives stays whole.

    Raises:
        UserError: naming --teacher, for a network that uses a layer twice.
    """
    numbers, found, reads, gives, cut = _Numbers(), {}, {}, {}, {}
    for operation in network.operations:
        outputs = keras.tree.flatten(operation.output)
        if isinstance(operation, keras.layers.InputLayer):
            found[id(outputs[0])] = numbers.new(outputs[0].shape[-1], whole=True)
            continue
        inputs = keras.tree.flatten(operation.input)
        if any(id(each) not in found for each in inputs):
            raise UserError(
                f"--teacher: its channels cannot be followed to {operation.name}: a layer is used twice, or "
                "lies in a model within the generator"
            )
        given = [found[id(each)] for each in inputs]
        if makes_channels(operation):
            reads[operation.name], carried = given[0], numbers.new(outputs[0].shape[-1])
        elif edges := _edges(operation):
            cut[operation.name] = given[0], edges
            for output, part in zip(outputs, itertools.pairwise(edges), strict=True):
                found[id(output)] = given[0][slice(*part)]
            continue
        else:
            carried = _carried(operation, given, numbers)
        if carried is None:
            for each in given:
                numbers.whole.update(each.tolist())
            found |= {id(each): numbers.new(each.shape[-1] or 0, whole=True) for each in outputs}
        else:
            found[id(outputs[0])] = gives[operation.name] = carried
    for output in keras.tree.flatten(network.output):
        numbers.whole.update(found[id(output)].tolist())
    return Channels(
        {name: numbers.resolved(each) for name, each in reads.items()},
        {name: numbers.resolved(each) for name, each in gives.items()},
        {name: (numbers.resolved(each), edges) for name, (each, edges) in cut.items()},
        frozenset(map(numbers.first, numbers.whole)),
    )


def makes_channels(operation):
    """Whether a layer's output has channels of its own: a dense layer or a convolution."""
    if isinstance(operation, keras.layers.Conv2D | keras.layers.Conv2DTranspose):
        return _channels_are_last(operation) and getattr(operation, "groups", 1) == 1
    return isinstance(operation, keras.layers.Dense)


def _channels_are_last(operation):
    return getattr(operation, "data_format", "channels_last") == "channels_last"


def _carried(operation, given, numbers):
    """The numbers of what an operation without channels of its own gives; None where no rule knows them."""
    kind, rank = type(operation).__name__, len(getattr(operation.output, "shape", ()))
    if isinstance(operation, SAME_CHANNELS) or kind in SAME_CHANNELS_BY_NAME:
        is_last = getattr(operation, "axis", -1) in (-1, rank - 1) and _channels_are_last(operation)
        return given[0] if is_last else None
    if isinstance(operation, keras.layers.Reshape):
        return _reshaped(given[0], operation.input.shape[1:], operation.output.shape[1:], numbers)
    if isinstance(operation, keras.layers.Concatenate):
        return np.concatenate(given) if operation.axis in (-1, rank - 1) else None
    return _joined(operation, given, numbers) if kind in JOINING else None


def _reshaped(given, before, after, numbers):
    """Those of a tensor that is laid out anew: what comes to lie at one channel of several places is one channel."""
    if None in (*before, *after):
        return None
    laid = np.tile(given, math.prod(before[:-1])).reshape(-1, after[-1])
    for row in laid[1:]:
        numbers.join(laid[0], row)
    return laid[0]


def _joined(operation, given, numbers):
    constants = [] if isinstance(operation, keras.Layer) else keras.tree.flatten(_arguments(operation))
    if any(not isinstance(each, keras.KerasTensor) and np.size(each) > 1 for each in constants):
        return None
    widest = max(given, key=len)
    if any(len(each) not in (1, len(widest)) for each in given):
        return None
    for each in given:
        if len(each) == len(widest):
            numbers.join(widest, each)
    return widest


def _arguments(operation):
    return operation._inbound_nodes[0].arguments.args


def _edges(operation):
    """The places of the last axis between which lie the parts that an operation takes; None where it does otherwise."""
    if _is_split(operation) and operation.axis in (-1, len(operation.input.shape) - 1):
        return np.cumsum([0, *(each.shape[-1] for each in keras.tree.flatten(operation.output))]).tolist()
    part = _slice_of_channels(operation) if type(operation).__name__ == "GetItem" else None
    return part and part.indices(operation.input.shape[-1])[:2]


def _is_split(operation):
    """Whether it is `keras.ops.split`, and no stranger's layer of that name."""
    return type(operation).__name__ == "Split" and not isinstance(operation, keras.Layer)


def _slice_of_channels(operation):
    """The slice that `tensor[..., slice]` takes of the last axis; None where it takes something else."""
    tensor, key = _arguments(operation)
    *others, last = key if isinstance(key, tuple | list) else (key,)
    if not isinstance(last, slice) or last.step not in (None, 1):
        return None
    if any(each is not Ellipsis and each != slice(None) for each in others):
        return None
    return last if Ellipsis in others or len(others) == len(tensor.shape) - 1 else None


def largest(network, channels, widths):
    """The channels that are kept: of each group those whose kernels have the largest sums of absolute values, over all
    layers that make them; of equal ones the first.

    Args:
        network: the network of `channels`.
        channels: `channels_of` it.
        widths: a function from a group's names of layers and its count of channels, those that stay whole left out, to
            how many of them are kept.

    Returns:
        A set of numbers of `channels`, `channels.whole` among them.
    """
    kept = set(channels.whole)
    for names in channels.groups():
        norms = {}
        for name in names:
            layer = network.get_layer(name)
            kernel = np.abs(np.asarray(layer.kernel, "float32"))
            sums = kernel.sum(tuple(axis for axis in range(kernel.ndim) if axis != _output_axis(layer)))
            for number, norm in zip(channels.gives[name].tolist(), sums.tolist(), strict=True):
                norms[number] = norms.get(number, 0.0) + norm
        free = sorted(norms.keys() - channels.whole)
        order = sorted(free, key=lambda number: -norms[number])
        kept.update(order[: widths(names, len(free))])
    return kept


def _output_axis(layer):
    return layer.kernel.ndim - (2 if is_transposed(layer) else 1)


def is_transposed(layer):
    """Whether a layer is a transposed convolution, whose kernel has its output's channels before its input's."""
    return isinstance(layer, keras.layers.Conv2DTranspose)


def _as_convolution(kernel):
    """The kernel of a convolution after nearest-neighbour upsampling that gives the mean, over 2x2 places, of what a
    transposed convolution of strides of 2 gives.

    Its window is turned by half a turn, which makes of the transposed convolution one of the input with zeros between
    its places; upsampling has each place four times where that has it once, so that the kernel is divided by 4.

    Args:
        kernel: float [height, width, out, in].

    Returns:
        Float [height, width, in, out].
    """
    return kernel[::-1, ::-1].swapaxes(2, 3) / 4


def width_of(layer):
    """How many channels a layer of `makes_channels` makes."""
    return layer.kernel.shape[_output_axis(layer)]


def take_channels(student, teacher, channels, kept):
    """Gives the layers of a narrower network the weights of the teacher's layers of the same names, as far as kept.

    A convolution after nearest-neighbour upsampling starts from a transposed one of strides of 2 as `_as_convolution`
    says.

    Args:
        student, teacher: networks.
        channels: `channels_of` the teacher.
        kept: of `largest`, as many as the student has.
    """
    for layer in student.layers:
        if not layer.weights:
            continue
        name, source = layer.name, teacher.get_layer(layer.name)
        values = source.get_weights()
        if name in channels.gives:
            out = _places(channels.gives[name], kept)
            if name in channels.reads:
                kernel, *bias = values
                axis, inputs = _output_axis(source), _places(channels.reads[name], kept)
                other = 2 * kernel.ndim - 3 - axis
                kernel = kernel.take(out, axis).take(inputs, other)
                if is_transposed(source) and not is_transposed(layer):
                    kernel = _as_convolution(kernel)
                values = [kernel, *(each[out] for each in bias)]
            else:
                values = [each[out] for each in values]
        layer.set_weights(values)


def _places(numbers, kept):
    """Where the numbers that are kept stand."""
    return np.flatnonzero([number in kept for number in numbers.tolist()])


def thawed(config):
    """A layer's configuration in which the layer, and every one within it, is trainable."""
    if isinstance(config, dict):
        return {name: name == "trainable" or thawed(value) for name, value in config.items()}
    if isinstance(config, list | tuple):
        return type(config)(thawed(each) for each in config)
    return config


def narrowed(network, share, starts_from_it=True):
    """A narrower twin of a generator: the same layers, with a share of the channels of each group, at least one.

    Args:
        network: a functional `keras.Model` to {"image": ...} and other outputs, each layer used once, in float32.
        share: of the channels, between 0 and 1.
        starts_from_it: whether the twin has the weights of the channels with the largest norms; otherwise kernels are
            drawn by He et al. (2015), from Keras's random generator, where the network's did not start at zero.

    Returns:
        A `keras.Model` from the same inputs to {"image": ...} alone, with the names of the network's layers; all of it
        is trainable, also where the network is frozen.

    Raises:
        UserError: naming --channel_share, where nothing becomes smaller, or nothing is left of a part of the channels.
    """
    # Nothing would teach the twin's other outputs, such as the images of earlier stages.
    network = keras.Model(network.input, {IMAGE: network.output[IMAGE]}, name=network.name)
    channels = channels_of(network)
    kept = largest(network, channels, lambda names, count: min(count, max(1, round(share * count))))

    def copied(operation):
        # The configuration of a frozen teacher's layer would freeze the student's.
        name, config = operation.name, thawed(operation.get_config())
        if name in channels.cut:
            numbers, edges = channels.cut[name]
            start, *between, stop = np.searchsorted(_places(numbers, kept), edges).tolist()
            widths = np.diff([start, *between, stop])
            if not widths.all():
                raise UserError(f"--channel_share: {share:g} leaves no channel of a part that {name} takes")
            if _is_split(operation):
                # A count where it can be: runtimes have faster kernels for equal parts.
                parts = len(widths) if len(set(widths)) == 1 else between
                return lambda tensor: keras.ops.split(tensor, parts, axis=-1)
            return lambda tensor, key: tensor[..., start:stop]
        if makes_channels(operation):
            config["units" if isinstance(operation, keras.layers.Dense) else "filters"] = width(name)
            if not isinstance(operation.kernel_initializer, keras.initializers.Zeros):
                config["kernel_initializer"] = keras.initializers.serialize(INITIALIZER)
        elif isinstance(operation, keras.layers.Reshape) and name in channels.gives:
            config["target_shape"] = (*operation.output.shape[1:-1], width(name))
        return type(operation).from_config(config)

    def width(name):
        return len(_places(channels.gives[name], kept))

    twin = keras.models.clone_model(network, clone_function=copied)
    if twin.count_params() >= network.count_params():
        raise UserError(
            f"--channel_share: {share:g} leaves the teacher's generator as it is, with {network.count_params():,} "
            "parameters"
        )
    if starts_from_it:
        take_channels(twin, network, channels, kept)
    return twin
