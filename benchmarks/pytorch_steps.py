"""PyTorch's side of `benchmarks.train_step`: the same networks, losses and Adam, written as one writes PyTorch.

Channels last, the fused Adam, no gradient where nothing is trained; `compiled` adds `torch.compile`, and half precision
is `torch.autocast`'s. Its batch lies in memory. The taps and their errors: t2i_kd/metrics/tap_errors.py; the networks:
t2i_kd/training/mirrored_generator.py.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.steps import CLIPNORM, LEARNING_RATE, PEAK_SHAPE, Turn, answer, peak
from t2i_kd.training.memory import keep_freed_memory

# Convolutions of VGG19's blocks.
BLOCKS = (2, 2, 4, 4, 4)
IMAGENET_MEAN_BGR = (103.939, 116.779, 123.68)
LAYOUT = torch.channels_last


def convolution(weights, name, stride=1):
    """A convolution with the given weights, stored [side, side, in, out], with a bias or without."""
    kernel, bias = weights[f"{name}/kernel"], weights.get(f"{name}/bias")
    side, _, inputs, outputs = kernel.shape
    layer = nn.Conv2d(inputs, outputs, side, stride, padding=(side - 1) // 2, bias=bias is not None)
    layer.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()).to(memory_format=LAYOUT)
    if bias is not None:
        layer.bias.data = torch.from_numpy(bias.copy())
    return layer


def dense(weights, name, order=None):
    """A dense layer with given weights, stored [in, out], with a bias or without; `order` rearranges its outputs."""
    kernel, bias = weights[f"{name}/kernel"], weights.get(f"{name}/bias")
    layer = nn.Linear(*kernel.shape, bias=bias is not None)
    order = slice(None) if order is None else order
    layer.weight.data = torch.from_numpy(kernel.T[order].copy())
    if bias is not None:
        layer.bias.data = torch.from_numpy(bias[order].copy())
    return layer


class Teacher(nn.Module):
    """VGG19 with average pooling, as far as there are weights: image in 0-255 -> {tap: map}."""

    def __init__(self, weights):
        super().__init__()
        names = [f"conv{block}_{index}" for block, count in enumerate(BLOCKS, 1) for index in range(1, count + 1)]
        self.layers = nn.ModuleDict({name: convolution(weights, name) for name in names if f"{name}/kernel" in weights})
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN_BGR).reshape(1, 3, 1, 1))

    def forward(self, image):
        taps, features = {"image": image}, image.flip(1) - self.mean
        for block, count in enumerate(BLOCKS, 1):
            for index in range(1, count + 1):
                name = f"conv{block}_{index}"
                if name not in self.layers:
                    return taps
                taps[name] = features = functional.relu(self.layers[name](features))
            taps[f"pool{block}"] = features = functional.avg_pool2d(features, 2)
        return taps


class Student(nn.Module):
    """SDN's generator: text vector -> {tap: map}."""

    def __init__(self, weights, side):
        super().__init__()
        self.side, units = side, weights["pool5_flat/bias"].size
        # Keras reads pool5 as [side, side, channels], PyTorch as [channels, side, side].
        order = np.arange(units).reshape(side, side, -1).transpose(2, 0, 1).ravel()
        self.fc7, self.fc6 = dense(weights, "fc7"), dense(weights, "fc6")
        self.pool5 = dense(weights, "pool5_flat", order)
        names = [f"conv{block}_{index}" for block, count in enumerate(BLOCKS, 1) for index in range(1, count)]
        names += [f"pool{block}" for block in range(1, 5)] + ["image_linear"]
        self.layers = nn.ModuleDict({name: convolution(weights, name) for name in names})

    def modulated(self, name, features, given):
        """What a block makes of its upsampled map: the map itself."""
        return features

    def forward(self, text):
        features = functional.relu(self.fc6(functional.relu(self.fc7(text))))
        features = functional.relu(self.pool5(features)).reshape(len(text), -1, self.side, self.side)
        taps = {"pool5": (features := features.contiguous(memory_format=LAYOUT))}
        for block in range(5, 0, -1):
            count = BLOCKS[block - 1]
            taps[f"conv{block}_{count}"] = features = functional.interpolate(features, scale_factor=2.0)
            features = self.modulated(f"conv{block}_{count}", features, text)
            names = [f"conv{block}_{index}" for index in range(count - 1, 0, -1)]
            for name in [*names, f"pool{block - 1}"] if block > 1 else names:
                taps[name] = features = functional.relu(self.layers[name](features))
        with torch.autocast("cpu", enabled=False):
            taps["image"] = 127.5 * (1 + self.layers["image_linear"](features.float()))
        return taps


def loss_of(student, teacher, objective, scales, image, text):
    """The sum over the taps of the mean square of normalised differences."""
    with torch.no_grad():
        real = teacher(image)
    made = student(text)
    if objective == "perceptual":
        made = teacher(made["image"])
    loss = 0.0
    for name, scale in scales.items():
        made_scale = scale if objective == "perceptual" or name == "image" else 1.0
        loss = loss + torch.mean((real[name] / scale - made[name] / made_scale) ** 2)
    return loss


def in_precision(dtype_policy):
    """A context within which PyTorch computes in a Keras dtype policy's precision."""
    return torch.autocast("cpu", torch.bfloat16, enabled=dtype_policy == "mixed_bfloat16")


def large_convolution(dtype_policy):
    """A function that convolves once; see `benchmarks.steps.peak`."""
    batch, height, width, channels = PEAK_SHAPE
    image = torch.randn(batch, channels, height, width).to(memory_format=LAYOUT)
    kernel = torch.randn(channels, channels, 3, 3).to(memory_format=LAYOUT)
    if dtype_policy == "mixed_bfloat16":
        image, kernel = image.bfloat16(), kernel.bfloat16()
    return torch.no_grad()(lambda: functional.conv2d(image, kernel, padding=1))


def read_start(folder):
    """What the other side wrote, as a function: of a prefix, {name without it: array}."""
    with np.load(Path(folder) / "start.npz") as stored:
        start = {name: stored[name] for name in stored.files}
    return lambda prefix: {name.removeprefix(prefix): value for name, value in start.items() if name.startswith(prefix)}


def pictures(array):
    """uint8 [batch, height, width, 3] as PyTorch has it: float32 [batch, 3, height, width], channels last."""
    return torch.from_numpy(array).permute(0, 3, 1, 2).float().contiguous(memory_format=LAYOUT)


def train(step, loss, options):
    """Answers the first loss, and takes steps as long as it is told to, with the other side's ways of memory."""
    keep_freed_memory()
    answer(loss=loss, peak=peak(large_convolution(options["dtype_policy"]), options["clock"]))
    while True:
        turn = Turn(options["steps"])
        for _ in range(options["steps"]):
            step()
        turn.over()


def main(options):
    """Trains as long as it is told to."""
    under = read_start(options["folder"])
    scales = {tap: float(value) for tap, value in under("scale/").items()}
    teacher = Teacher(under("teacher/")).requires_grad_(False)
    student, batch = Student(under("student/"), options["resolution"] // 32), under("batch/")
    image, text = pictures(batch["image"]), torch.from_numpy(batch["text"])
    optimizer = torch.optim.Adam(student.parameters(), LEARNING_RATE, eps=1e-7, fused=True)
    loss_function = torch.compile(loss_of) if options["compiled"] else loss_of

    def step():
        optimizer.zero_grad()
        with in_precision(options["dtype_policy"]):
            loss = loss_function(student, teacher, options["objective"], scales, image, text)
        loss.backward()
        nn.utils.clip_grad_norm_(student.parameters(), CLIPNORM)
        optimizer.step()
        return loss.item()

    train(step, step(), options)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
