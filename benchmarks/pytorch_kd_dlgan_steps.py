"""PyTorch's side of `benchmarks.train_step --objectives=kd_dlgan`: the same networks, losses and Adams.

Written for speed as `benchmarks/pytorch_gan_steps.py` is: one pass of the discriminator over real and generated images,
the teacher without a gradient.
"""

import json
import sys

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.pytorch_gan_steps import adams, as_they_were, compiled_or_not, descend, normalise, untrained
from benchmarks.pytorch_steps import (
    LAYOUT,
    Teacher,
    convolution,
    dense,
    in_precision,
    pictures,
    read_start,
    train,
)
from benchmarks.steps import BETA_2, EMA, KD_WEIGHTS

EPSILON = 1e-5
FIRST_SIDE = 4


def layers_of(weights, **orders):
    """An `nn.ModuleDict` of all convolutions and dense layers among {"layer/weight": array}.

    Args:
        weights: see above.
        orders: of a dense layer's outputs, by its name; see `dense`.
    """

    def layer(name):
        if weights[f"{name}/kernel"].ndim == 4:
            return convolution(weights, name)
        return dense(weights, name, orders.get(name))

    names = dict.fromkeys(name.partition("/")[0] for name in weights if name.endswith("/kernel"))
    return nn.ModuleDict({name: layer(name) for name in names})


class Generator(nn.Module):
    """BigGAN's generator, see `t2i_kd.kd_dlgan.networks.build_generator`."""

    def __init__(self, weights):
        super().__init__()
        units = weights["first/bias"].size
        # Keras reads the first map as [side, side, channels], PyTorch as [channels, side, side].
        order = np.arange(units).reshape(FIRST_SIDE, FIRST_SIDE, -1).transpose(2, 0, 1).ravel()
        self.layers = layers_of(weights, first=order)
        sides = {int(name.split("_")[1]) for name in self.layers if name.startswith("block_")}
        self.blocks = [f"block_{side}" for side in sorted(sides)]
        for name in [name.partition("/")[0] for name in weights if name.endswith("/moving_mean")]:
            for part in ("moving_mean", "moving_variance"):
                self.register_buffer(f"{name}_{part}", torch.from_numpy(weights[f"{name}/{part}"].copy()))
        self.gamma, self.beta = (
            nn.Parameter(torch.from_numpy(weights[f"last_bn/{part}"].copy())) for part in ("gamma", "beta")
        )

    def normalised(self, features, name, *affine):
        """Batch normalisation by the batch's statistics, which also move the kept ones."""
        kept = getattr(self, f"{name}_moving_mean"), getattr(self, f"{name}_moving_variance")
        return functional.batch_norm(features, *kept, *affine, training=True, momentum=0.1, eps=EPSILON)

    def conditioned(self, features, text, name):
        """The ReLU of the normalised map, which the text scales and shifts: h (1 + A t + a) + B t + b."""
        scale, shift = (self.layers[f"{name}_{what}"](text)[:, :, None, None] for what in ("scale", "shift"))
        features = self.normalised(features, f"{name}_bn")
        return functional.relu(torch.addcmul(features + shift, features, scale))

    def forward(self, text, noise):
        features = self.layers["first"](noise).reshape(len(noise), -1, FIRST_SIDE, FIRST_SIDE)
        features = features.contiguous(memory_format=LAYOUT)
        for block in self.blocks:
            change = functional.interpolate(self.conditioned(features, text, f"{block}_a"), scale_factor=2.0)
            change = self.conditioned(self.layers[f"{block}_a_conv"](change), text, f"{block}_b")
            kept = functional.interpolate(self.layers[f"{block}_shortcut"](features), scale_factor=2.0)
            features = self.layers[f"{block}_b_conv"](change) + kept
        features = functional.relu(self.normalised(features, "last_bn", self.gamma, self.beta))
        with torch.autocast("cpu", enabled=False):
            return 127.5 * (1 + torch.tanh(self.layers["rgb"](features.float())))


class Discriminator(nn.Module):
    """BigGAN's discriminator, see `t2i_kd.kd_dlgan.networks.Discriminator`; its scores are float32."""

    def __init__(self, weights, side):
        super().__init__()
        self.layers = layers_of(weights)
        self.blocks = sorted({name.partition("_")[0] for name in self.layers if name.startswith("block")})
        self.halving = self.blocks[: (side // 8).bit_length() - 1]
        self.vectors = [torch.from_numpy(weights[f"{name}/vector"]) for name in self.layers]

    def normalise(self):
        """Gives every kernel the spectral norm 1."""
        normalise(self.layers.values(), self.vectors)

    def trunk(self, image):
        """The ReLU of the last map, summed over its places."""
        features = image / 127.5 - 1
        for block in self.blocks:
            change = features if block == self.blocks[0] else functional.relu(features)
            change = self.layers[f"{block}_b"](functional.relu(self.layers[f"{block}_a"](change)))
            if f"{block}_shortcut" in self.layers:
                features = self.layers[f"{block}_shortcut"](features)
            features = change + features
            if block in self.halving:
                features = functional.avg_pool2d(features, 2)
        return functional.relu(features.float()).sum((2, 3))

    def scores(self, seen, text):
        """Of a trunk's features with a text."""
        return self.layers["score"](seen) + (self.layers["text"](text) * seen).sum(1, keepdim=True)


class FeatureHead(nn.Module):
    """Two dense layers from the discriminator's features to the teacher's vectors."""

    def __init__(self, weights):
        super().__init__()
        self.hidden, self.vector = (dense(weights, name) for name in ("hidden", "vector"))
        self.vectors = [torch.from_numpy(weights[f"{name}/vector"]) for name in ("hidden", "vector")]

    def normalise(self):
        """Gives both kernels the spectral norm 1."""
        normalise([self.hidden, self.vector], self.vectors)

    def forward(self, features):
        return self.vector(self.hidden(features))


def tower_of(teacher, image):
    """The teacher's vectors of images: its last map averaged over its places, of length 1."""
    return functional.normalize(list(teacher(image).values())[-1].float().mean((2, 3)), dim=1)


def aggregated(real, generated, real_head, generated_head):
    """AGKD of vectors that have the recipe's length."""
    pairs = ((real, real_head), (generated, generated_head), (real, generated_head), (generated, real_head))
    return sum((one - other).norm(dim=1).mean() for one, other in pairs)


def correlated(vectors, heads, prompts):
    """CGKD as the authors' code has it."""

    def correlations(each):
        return functional.normalize(each @ prompts.T, dim=1)

    return (correlations(vectors) - correlations(heads)).square().sum()


def discriminator_loss(discriminator, head, image, made, vectors, text, prompts, dtype_policy):
    """Hinge, AGKD and CGKD; `vectors` are the teacher's, of real images, then of generated ones."""
    with in_precision(dtype_policy):
        seen = discriminator.trunk(torch.cat([image, made]))
    right, fake = (discriminator.scores(each, text) for each in seen.chunk(2))
    own = functional.relu(1 - right).mean() + functional.relu(1 + fake).mean()
    heads = head(seen)
    agkd = aggregated(*(KD_WEIGHTS["agkd_length"] * vectors).chunk(2), *heads.chunk(2))
    cgkd = correlated(vectors, heads, prompts)
    return own + KD_WEIGHTS["agkd_weight"] * agkd + KD_WEIGHTS["cgkd_weight"] * cgkd


def generator_loss(discriminator, made, text, dtype_policy):
    """-s."""
    with in_precision(dtype_policy):
        seen = discriminator.trunk(made)
    return -discriminator.scores(seen, text).mean()


def main(options):
    """Trains as long as it is told to."""
    under, policy = read_start(options["folder"]), options["dtype_policy"]
    generator, teacher = Generator(under("generator/")), Teacher(under("tower/")).requires_grad_(False)
    discriminator, head = (
        Discriminator(under("discriminator/"), options["resolution"]),
        FeatureHead(under("feature_head/")),
    )
    batch, prompts = under("batch/"), torch.from_numpy(under("prompts")[""])
    image, text, noise = pictures(batch["image"]), torch.from_numpy(batch["text"]), torch.from_numpy(batch["noise"])
    weights, judged = list(generator.parameters()), [*discriminator.parameters(), *head.parameters()]
    averaged = [*weights, *generator.buffers()]
    averages = [each.detach().clone() for each in averaged]
    optimizer, judging_optimizer = adams(0.0, BETA_2, weights, judged)

    def draw(text, noise):
        with in_precision(policy):
            return generator(text, noise)

    @torch.no_grad()
    def look(image):
        with in_precision(policy):
            return tower_of(teacher, image)

    fast = compiled_or_not(options)
    draw, look, of_discriminator, of_generator = map(fast, (draw, look, discriminator_loss, generator_loss))

    def judge(made):
        vectors = look(torch.cat([image, made]))
        return of_discriminator(discriminator, head, image, made, vectors, text, prompts, policy)

    def step():
        made = draw(text, noise)
        discriminator.normalise()
        head.normalise()
        loss = judge(made.detach())
        descend(judging_optimizer, judged, loss)
        with untrained(discriminator):
            own = of_generator(discriminator, made, text, policy)
            descend(optimizer, weights, own)
        torch._foreach_lerp_(averages, [each.detach() for each in averaged], 1 - EMA)
        return loss.item() + own.item()

    with torch.no_grad(), as_they_were(generator, discriminator, head):
        discriminator.normalise()
        head.normalise()
        made = draw(text, noise)
        loss = judge(made) + of_generator(discriminator, made, text, policy)
    train(step, loss.item(), options)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
