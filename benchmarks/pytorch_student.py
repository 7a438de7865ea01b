"""SDN's student in PyTorch, with a Keras student's weights: what our artifacts are timed against.

It is written as somebody would who wants it fast in eager mode: `torch.nn.GRU` over the words that are there and
nothing over the padding, one `torch.nn.Conv2d` a convolution, and no operation that the model does not need. Needs the
extra `benchmarks`.
"""

import numpy as np
import torch
from torch.nn import functional


class PyTorchStudent(torch.nn.Module):
    """A student with a `gru` text encoder and without noise, for one caption at a time.

    Args:
        student: a `t2i_kd.student.Student` in float32, whose weights are copied.
        channels_last: whether convolutions keep their tensors as NHWC in memory.
    """

    def __init__(self, student, channels_last):
        super().__init__()
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        encoder, generator = (student.network.get_layer(name) for name in ("text_encoder", "generator"))
        words = encoder.get_layer("words").get_weights()[0]
        self.words = torch.nn.Embedding.from_pretrained(torch.from_numpy(words))
        self.gru = _gru(encoder.get_layer("gru"))
        whitening = [layer for layer in student.network.layers if layer.name == "text_whitening"]
        self.text = torch.nn.ModuleList(map(_linear, [encoder.get_layer("text_vector"), *whitening]))
        kinds = {"Dense": _linear, "Conv2D": _convolution}
        made = [layer for layer in generator.layers if type(layer).__name__ in {*kinds, "UpSampling2D"}]
        made = {
            layer.name: kinds.get(type(layer).__name__, lambda _: torch.nn.UpsamplingNearest2d(scale_factor=2))(layer)
            for layer in made
        }
        self.head = torch.nn.ModuleList(m for m in made.values() if isinstance(m, torch.nn.Linear))
        self.body = torch.nn.ModuleList(m for m in made.values() if not isinstance(m, torch.nn.Linear))
        # A factor of --head_rank has no bias and no ReLU after it.
        self.rectified = [module.bias is not None for module in self.head]
        self.pool5 = generator.get_layer("pool5").output.shape[1:]
        image = generator.get_layer("image")
        # A scale a channel, all the same.
        self.scale, self.offset = float(image.scale[0]), float(image.offset[0])
        self.to(memory_format=self.memory_format).eval()

    def forward(self, tokens):
        """int64 [1, length] -> float32 [1, height, width, 3], clipped to 0-255."""
        states, _ = self.gru(self.words(tokens[:, : int(torch.count_nonzero(tokens))]))
        features = states.mean(dim=1)
        for layer in self.text:
            features = layer(features)
        for layer, rectified in zip(self.head, self.rectified, strict=True):
            features = functional.relu(layer(features), inplace=True) if rectified else layer(features)
        image = features.view(1, *self.pool5).permute(0, 3, 1, 2).contiguous(memory_format=self.memory_format)
        for layer in self.body[:-1]:
            image = layer(image)
            if isinstance(layer, torch.nn.Conv2d):
                image = functional.relu(image, inplace=True)
        image = self.body[-1](image)
        if self.scale != 1 or self.offset:
            image = image * self.scale + self.offset
        return image.clamp(0.0, 255.0).permute(0, 2, 3, 1)


def _linear(layer):
    kernel, *bias = layer.get_weights()
    module = torch.nn.Linear(*kernel.shape, bias=bool(bias))
    return _load(module, weight=kernel.T, **({"bias": bias[0]} if bias else {}))


def _convolution(layer):
    kernel, bias = layer.get_weights()
    module = torch.nn.Conv2d(*kernel.shape[2:], kernel.shape[0], padding="same")
    return _load(module, weight=kernel.transpose(3, 2, 0, 1), bias=bias)


def _gru(layer):
    """`MeanGRU` has the update gate first, PyTorch the reset gate, and only its candidate a recurrent bias."""
    kernel, recurrent_kernel, bias, recurrent_bias = layer.get_weights()
    units = layer.units
    module = torch.nn.GRU(kernel.shape[1], units, batch_first=True, bidirectional=True)
    order = np.r_[units : 2 * units, :units, 2 * units : 3 * units]
    weights = {}
    for direction, ending in enumerate(("l0", "l0_reverse")):
        weights |= {
            f"weight_ih_{ending}": kernel[direction].T[order],
            f"weight_hh_{ending}": recurrent_kernel[direction].T[order],
            f"bias_ih_{ending}": bias[direction, 0][order],
            f"bias_hh_{ending}": np.concatenate([np.zeros(2 * units, np.float32), recurrent_bias[direction, 0]]),
        }
    return _load(module, **weights)


def _load(module, **weights):
    module.load_state_dict({name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in weights.items()})
    return module
