"""Random arrays as the published generators have them; see `t2i_kd.srpkd.generators`."""

import numpy as np


def ml5_arrays(channels):
    """Arrays of ml5.js' style network, {name: float32}, with so many channels in its first layer."""
    rng, c = np.random.default_rng(0), channels
    shapes = [(9, 9, 3, c), (3, 3, c, 2 * c), (3, 3, 2 * c, 4 * c)]
    shapes += [(3, 3, 4 * c, 4 * c)] * 10
    shapes += [(3, 3, 2 * c, 4 * c), (3, 3, c, 2 * c), (9, 9, c, 3)]
    values = {}
    for index, shape in enumerate(shapes):
        width = shape[2] if 13 <= index < 15 else shape[3]
        for offset, size in enumerate((shape, (width,), (width,))):
            number = 3 * index + offset
            values[f"Variable_{number}" if number else "Variable"] = rng.normal(0, 0.2, size).astype("float32")
    return values


def resnet_arrays(channels, blocks):
    """Arrays of PyTorch's CycleGAN ResNet with affine instance norm, {name: float32}."""
    rng, c, values = np.random.default_rng(0), channels, {}

    def layer(name, norm, shape, out):
        values[f"model.{name}.weight"] = rng.normal(0, 0.2, shape).astype("float32")
        values[f"model.{name}.bias"] = rng.normal(0, 0.2, out).astype("float32")
        if norm:
            values[f"model.{norm}.weight"] = rng.normal(1, 0.2, out).astype("float32")
            values[f"model.{norm}.bias"] = rng.normal(0, 0.2, out).astype("float32")

    layer("1", "2", (c, 3, 7, 7), c)
    layer("4", "5", (2 * c, c, 3, 3), 2 * c)
    layer("7", "8", (4 * c, 2 * c, 3, 3), 4 * c)
    for block in range(10, 10 + blocks):
        for at in (1, 5):
            layer(f"{block}.block.{at}", f"{block}.block.{at + 1}", (4 * c, 4 * c, 3, 3), 4 * c)
    after = 10 + blocks
    layer(f"{after}", f"{after + 1}", (4 * c, 2 * c, 3, 3), 2 * c)
    layer(f"{after + 3}", f"{after + 4}", (2 * c, c, 3, 3), c)
    layer(f"{after + 7}", "", (3, c, 7, 7), 3)
    return values
