"""PyTorch's side of `benchmarks.train_step --objectives=adversarial`: the same networks, losses and Adams.

As one writes PyTorch for speed: channels last, fused Adams, one pass of the heads over real and generated images, no
gradient of what is not trained, the average by one `lerp` over all weights; `compiled` adds `torch.compile`.
"""

import contextlib
import json
import sys

import torch
from torch import nn
from torch.nn import functional

from benchmarks.pytorch_steps import (
    BLOCKS,
    Student,
    Teacher,
    convolution,
    dense,
    in_precision,
    pictures,
    read_start,
    train,
)
from benchmarks.steps import BETA_2, EMA, LEARNING_RATE

SMALLEST = 1e-12


class Generator(Student):
    """SDN's generator with noise, whose upsampled maps text and noise scale and shift."""

    def __init__(self, weights, side):
        super().__init__(weights, side)
        names = [f"conv{block}_{count}" for block, count in enumerate(BLOCKS, 1)]
        self.modulation = nn.ModuleDict(
            {f"{name}_{what}": dense(weights, f"{name}_{what}") for name in names for what in ("scale", "shift")}
        )

    def modulated(self, name, features, given):
        """The map h scaled and shifted: h (1 + A c + a) + B c + b."""
        scale, shift = (self.modulation[f"{name}_{what}"](given)[:, :, None, None] for what in ("scale", "shift"))
        return torch.addcmul(features + shift, features, scale)


class Projection(nn.Module):
    """A teacher's taps, scaled, mixed across channels and scales: image in 0-255 -> maps, the coarsest first."""

    def __init__(self, weights, scales):
        super().__init__()
        self.teacher, self.scales = Teacher(weights), scales
        names = dict.fromkeys(name.partition("/")[0] for name in weights)
        self.mixing = nn.ModuleDict(
            {name: convolution(weights, name) for name in names if name.endswith(("_mixed", "_from_coarser"))}
        )

    def forward(self, image):
        taps, maps, coarser = self.teacher(image), [], None
        for tap, scale in reversed(self.scales.items()):
            features = self.mixing[f"{tap}_mixed"](taps[tap] / scale)
            if coarser is not None:
                mixed = self.mixing[f"{tap}_from_coarser"](coarser)
                features = features + functional.interpolate(mixed, size=features.shape[2:])
            maps.append(coarser := features)
        return maps


class Head(nn.Module):
    """A tap's head; its scores are float32 in every precision, as they are on the other side."""

    def __init__(self, weights, dtype_policy):
        super().__init__()
        self.dtype_policy = dtype_policy
        every = dict.fromkeys(name.partition("/")[0] for name in weights)
        names = sorted(name for name in every if name.startswith(("down", "last")))
        self.layers = nn.ModuleList(convolution(weights, name, 2 if name.startswith("down") else 1) for name in names)
        self.score = convolution(weights, "score")
        self.text = dense(weights, "text")
        self.vectors = [torch.from_numpy(weights[f"{name}/vector"]) for name in (*names, "score", "text")]

    def forward(self, features):
        with in_precision(self.dtype_policy):
            for layer in self.layers:
                features = functional.leaky_relu(layer(features), 0.2)
        features = features.float()
        return self.score(features).flatten(1), features.mean((2, 3))

    def normalise(self):
        """See `normalise`."""
        normalise((*self.layers, self.score, self.text), self.vectors)


@torch.no_grad()
def normalise(layers, vectors):
    """One step of the power iteration for each kernel, which is then divided by its largest singular value.

    Args:
        layers: of convolutions and dense layers.
        vectors: list of each kernel's left singular vector as far as it is known, moved in place.
    """
    for index, layer in enumerate(layers):
        matrix = layer.weight.flatten(1)
        right = functional.normalize(vectors[index] @ matrix, dim=0, eps=SMALLEST)
        along = matrix @ right
        vectors[index] = functional.normalize(along, dim=0, eps=SMALLEST)
        layer.weight /= (along @ vectors[index]).clamp(min=SMALLEST)


def scores(places, mean, projected):
    """Of each place, with what the text adds."""
    return places + (mean * projected).sum(1, keepdim=True)


def discriminator_loss(heads, real, generated, text):
    """Hinge on real, generated and wrongly captioned real images."""
    loss, wrong = 0.0, text.roll(-1, 0)
    for head, seen, drawn in zip(heads, real, generated, strict=True):
        places, mean = head(torch.cat([seen, drawn]))
        (own, other), (mean, drawn_mean), projected = places.chunk(2), mean.chunk(2), head.text(text)
        fake = functional.relu(1 + scores(other, drawn_mean, projected)).mean()
        unfit = functional.relu(1 + scores(own, mean, head.text(wrong))).mean()
        loss = loss + functional.relu(1 - scores(own, mean, projected)).mean() + (fake + unfit) / 2
    return loss


def generator_loss(heads, generated, text):
    """-s of every head."""
    return -sum(
        scores(*head(features), head.text(text)).mean() for head, features in zip(heads, generated, strict=True)
    )


def descend(optimizer, parameters, loss):
    """Moves parameters down a loss's gradient."""
    for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
        parameter.grad = gradient
    optimizer.step()


def adams(beta_1, beta_2, *groups):
    """An Adam for each list of parameters."""
    return [torch.optim.Adam(group, LEARNING_RATE, (beta_1, beta_2), eps=1e-7, fused=True) for group in groups]


def compiled_or_not(options):
    """What makes a function fast: `torch.compile`, or nothing."""
    return torch.compile if options["compiled"] else lambda function: function


@contextlib.contextmanager
def untrained(network):
    """Within it a network's weights have no gradient: a compiled function computes all that there are."""
    network.requires_grad_(False)
    yield
    network.requires_grad_(True)


@contextlib.contextmanager
def as_they_were(*networks):
    """Gives networks, with the vectors of their power iterations, the values back, at its end, that they had."""
    kept = [{name: value.clone() for name, value in each.state_dict().items()} for each in networks]
    normalised = [part for each in networks for part in each.modules() if hasattr(part, "vectors")]
    vectors = [list(part.vectors) for part in normalised]
    yield
    for each, values in zip(networks, kept, strict=True):
        each.load_state_dict(values)
    for part, values in zip(normalised, vectors, strict=True):
        part.vectors = values


def main(options):
    """Trains as long as it is told to."""
    under, policy = read_start(options["folder"]), options["dtype_policy"]
    scales = {tap: float(value) for tap, value in under("scale/").items()}
    projection = Projection(under("teacher/"), scales).requires_grad_(False)
    heads = nn.ModuleList(Head(under(f"head/{tap}/"), policy) for tap in reversed(scales))
    generator = Generator(under("student/"), options["resolution"] // 32)
    batch = under("batch/")
    image, text, noise = pictures(batch["image"]), torch.from_numpy(batch["text"]), torch.from_numpy(batch["noise"])
    given = torch.cat([text, noise], 1)
    weights, judged = list(generator.parameters()), list(heads.parameters())
    averages = [weight.detach().clone() for weight in weights]
    optimizer, head_optimizer = adams(0.0, BETA_2, weights, judged)

    def draw(given):
        with in_precision(policy):
            return projection(generator(given)["image"])

    @torch.no_grad()
    def look():
        with in_precision(policy):
            return projection(image)

    fast = compiled_or_not(options)
    draw, look, of_heads, of_generator = map(fast, (draw, look, discriminator_loss, generator_loss))

    def step():
        made = draw(given)
        for head in heads:
            head.normalise()
        loss = of_heads(heads, look(), [each.detach() for each in made], text)
        descend(head_optimizer, judged, loss)
        with untrained(heads):
            own = of_generator(heads, made, text)
            descend(optimizer, weights, own)
        torch._foreach_lerp_(averages, [weight.detach() for weight in weights], 1 - EMA)
        return loss.item() + own.item()

    with torch.no_grad(), as_they_were(heads):
        for head in heads:
            head.normalise()
        made = draw(given)
        loss = discriminator_loss(heads, look(), made, text) + generator_loss(heads, made, text)
    train(step, loss.item(), options)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
