"""PyTorch's side of `benchmarks.train_step --objectives=cycle_gan`: the same networks, losses and Adams.

Written for speed as `benchmarks/pytorch_gan_steps.py` is. What instance norm allows is done, too: a generator's source
and target in one pass, a discriminator's real and generated images in one. In half precision its instance norms give
bfloat16, where ours compute in float32.
"""

import json
import random
import sys

import torch
from torch import nn
from torch.nn import functional

from benchmarks.pytorch_gan_steps import adams, compiled_or_not, descend, untrained
from benchmarks.pytorch_steps import LAYOUT, convolution, in_precision, pictures, read_start, train
from benchmarks.steps import BETA_1, DISTILLATION_WEIGHTS, HOST, HOST_BETA_2, NAMES, RESIDUAL_BLOCKS


def transposed(weights, name):
    """A transposed convolution by a stride of 2 with the given weights, stored [side, side, out, in]."""
    kernel = weights[f"{name}/kernel"]
    layer = nn.ConvTranspose2d(kernel.shape[3], kernel.shape[2], 3, 2, padding=1, output_padding=1)
    layer.weight.data = torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()).to(memory_format=LAYOUT)
    layer.bias.data = torch.from_numpy(weights[f"{name}/bias"].copy())
    return layer


def reflected(weights, name, margin):
    """A convolution with the given weights after mirrored pixels."""
    layer = convolution(weights, name)
    layer.padding = 0
    return nn.Sequential(nn.ReflectionPad2d(margin), layer)


class Residual(nn.Module):
    """A residual block."""

    def __init__(self, weights, name):
        super().__init__()
        self.first, self.second = (reflected(weights, f"{name}{part}", 1) for part in "ab")

    def forward(self, features):
        change = functional.relu(functional.instance_norm(self.first(features)))
        return features + functional.instance_norm(self.second(change))


class Generator(nn.Module):
    """CycleGAN's ResNet: image in 0-255 -> (image, the map at the end of its encoder)."""

    def __init__(self, weights):
        super().__init__()
        self.encoder = nn.ModuleList(
            [reflected(weights, "stem", 3), *(convolution(weights, f"down{level}", 2) for level in (1, 2))]
        )
        self.blocks = nn.Sequential(*(Residual(weights, f"block{index + 1}") for index in range(RESIDUAL_BLOCKS)))
        self.decoder = nn.ModuleList(transposed(weights, f"up{level}") for level in (1, 2))
        self.rgb = reflected(weights, "rgb", 3)

    def forward(self, image):
        features = image / 127.5 - 1
        for layer in self.encoder:
            features = functional.relu(functional.instance_norm(layer(features)))
        encoded, features = features, self.blocks(features)
        for layer in self.decoder:
            features = functional.relu(functional.instance_norm(layer(features)))
        with torch.autocast("cpu", enabled=False):
            return 127.5 * (1 + torch.tanh(self.rgb(features.float()))), encoded


class Discriminator(nn.Module):
    """The PatchGAN: image in 0-255 -> float32 scores."""

    def __init__(self, weights):
        super().__init__()
        count = sum(name.startswith("conv") and name.endswith("/kernel") for name in weights)
        self.layers = nn.ModuleList(convolution(weights, f"conv{i}", 1 + (i < count - 1)) for i in range(count))
        self.score = convolution(weights, "score")

    def forward(self, image):
        features = image / 127.5 - 1
        for index, layer in enumerate(self.layers):
            features = layer(features)
            if index:
                features = functional.instance_norm(features)
            features = functional.leaky_relu(features, 0.2)
        with torch.autocast("cpu", enabled=False):
            return self.score(features.float())


class Pool:
    """CycleGAN's pool of generated images."""

    def __init__(self, size):
        self.size, self.images = size, []

    def exchange(self, images):
        """The images that a discriminator gets in place of those that were just generated."""
        returned = []
        for image in images.split(1):
            if len(self.images) < self.size:
                self.images.append(image)
            elif random.random() < 0.5:
                place = random.randrange(self.size)
                self.images[place], image = image, self.images[place]
            returned.append(image)
        return torch.cat(returned)


def difference(one, other):
    """The mean absolute difference of images in half ranges."""
    return (one - other).abs().mean() / 127.5


def relations(features):
    """The rows of Q Q^T, each divided by its length."""
    places = features.float().flatten(2)
    return functional.normalize(places.transpose(1, 2) @ places, dim=2)


def discriminator_loss(discriminators, reals, fakes, dtype_policy):
    """LSGAN on real and on generated images, half of each."""
    loss = 0.0
    for discriminator, real, fake in zip(discriminators, reals, fakes, strict=True):
        with in_precision(dtype_policy):
            right, wrong = discriminator(torch.cat([real, fake])).chunk(2)
        loss = loss + ((1 - right).square().mean() + wrong.square().mean()) / 2
    return loss


def generator_loss(discriminators, reals, made, taught, dtype_policy):
    """LSGAN, cycles, identity, outputs and relations of both generators.

    Args:
        discriminators, reals: of each generator, the latter its sources and its targets.
        made: of each generator (image, relations, its target's image, the other's image turned back).
        taught: of each generator its teacher's (image, relations).
    """
    loss = 0.0
    for discriminator, (source, target), (image, own, same, cycled), (wanted, theirs) in zip(
        discriminators, reals, made, taught, strict=True
    ):
        with in_precision(dtype_policy):
            score = discriminator(image)
        loss = loss + (1 - score).square().mean() + HOST["cycle_weight"] * difference(cycled, source)
        loss = loss + HOST["identity_weight"] * HOST["cycle_weight"] * difference(same, target)
        loss = loss + DISTILLATION_WEIGHTS["output_weight"] * difference(image, wanted)
        loss = loss + DISTILLATION_WEIGHTS["relation_weight"] * (own - theirs).abs().mean()
    return loss


def main(options):
    """Trains as long as it is told to."""
    under, policy, batch_size = read_start(options["folder"]), options["dtype_policy"], options["batch_size"]
    generators = nn.ModuleList(Generator(under(f"student_{name}/")) for name in NAMES)
    teachers = nn.ModuleList(Generator(under(f"teacher_{name}/")) for name in NAMES).requires_grad_(False)
    discriminators = nn.ModuleList(Discriminator(under(f"discriminator_{name}/")) for name in NAMES)
    batch = under("batch/")
    source, target = pictures(batch["source"]), pictures(batch["image"])
    reals, pools = ((source, target), (target, source)), [Pool(HOST["pool_size"]) for _ in NAMES]
    weights, judged = list(generators.parameters()), list(discriminators.parameters())
    optimizer, judging_optimizer = adams(BETA_1, HOST_BETA_2, weights, judged)

    def draw(source, target):
        with in_precision(policy):
            images, encoded = zip(
                *(
                    each(torch.cat(pair))
                    for each, pair in zip(generators, ((source, target), (target, source)), strict=True)
                ),
                strict=True,
            )
            own, same = zip(*(image.split(batch_size) for image in images), strict=True)
            cycled = [each(image)[0] for each, image in zip(generators[::-1], own, strict=True)]
        return list(zip(own, (relations(each[:batch_size]) for each in encoded), same, cycled, strict=True))

    @torch.no_grad()
    def look(source, target):
        with in_precision(policy):
            seen = [each(image) for each, image in zip(teachers, (source, target), strict=True)]
        return [(image, relations(encoded)) for image, encoded in seen]

    fast = compiled_or_not(options)
    draw, look, of_discriminators, of_generators = map(fast, (draw, look, discriminator_loss, generator_loss))

    def step():
        made, taught = draw(source, target), look(source, target)
        fakes = [pool.exchange(each[0].detach()) for pool, each in zip(pools, made, strict=True)]
        loss = of_discriminators(discriminators, (target, source), fakes, policy)
        descend(judging_optimizer, judged, loss)
        with untrained(discriminators):
            own = of_generators(discriminators, reals, made, taught, policy)
            descend(optimizer, weights, own)
        return loss.item() + own.item()

    with torch.no_grad():
        made, taught = draw(source, target), look(source, target)
        # An empty pool gives back what it gets.
        loss = of_discriminators(discriminators, (target, source), [each[0] for each in made], policy)
        loss = loss + of_generators(discriminators, reals, made, taught, policy)
    train(step, loss.item(), options)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
