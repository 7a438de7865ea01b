"""Batches: a function of (seed, step), every pair once an epoch, the same with and without TensorFlow."""

import dataclasses
import hashlib
import importlib.util
import os
import subprocess
import sys

import numpy as np
import pytest

from t2i_kd.data import batches as batches_module
from t2i_kd.data.batches import Batches, ClassBalancedBatches, caption_numbers, caption_pairs, pairs_at
from t2i_kd.data.captioned_images import CaptionedImages

# Of the batches below; were it to change, no run in progress could be resumed to the same weights.
GOLDEN = "4608329478bc842241c73227f478e2ecf7a87cc4263e2b4e8b476ef4133edb7c"
PICTURES = 5
CAPTIONS = (3, 1, 2, 4, 1)


def dataset():
    """Five pictures of noise with 3, 1, 2, 4 and 1 captions, `i.j` the j-th of the i-th, in 3 classes."""
    images = np.random.default_rng(0).integers(0, 256, (PICTURES, 8, 8, 3), np.uint8)
    captions = tuple(tuple(f"{i}.{j}" for j in range(count)) for i, count in enumerate(CAPTIONS))
    return CaptionedImages("noise/train", images, captions, np.array([0, 1, 0, 2, 1], np.int32), ("a", "b", "c"))


# A pair's input is its two numbers.
INPUTS = {"tokens": np.array([[i, j] for i, count in enumerate(CAPTIONS) for j in range(count)], np.int32)}


def batches(first=0, last=40, batch_size=4, seed=1, **options):
    return Batches(dataset(), INPUTS, batch_size, seed, first, last, **options)


def test_pairs():
    assert caption_pairs(dataset()).tolist() == [[i, j] for i, count in enumerate(CAPTIONS) for j in range(count)]


def test_captions_have_numbers_and_images_those_of_all_their_own():
    data = dataclasses.replace(dataset(), captions=(("a", "b", "c"), ("d",), ("b", "a"), ("e", "d", "d", "f"), ("a",)))
    found = caption_numbers(data)
    assert found["caption_number"].tolist() == [0, 1, 2, 3, 1, 0, 4, 3, 3, 5, 0]
    own = found["own_captions"]
    assert len(own) == 11 and own[np.array([9, 0, 4, 3])].tolist() == [
        [4, 3, 3, 5],
        [0, 1, 2, -1],
        [1, 0, -1, -1],
        [3, -1, -1, -1],
    ]


@pytest.mark.parametrize(("batch_size", "pairs"), [(4, 11), (1, 3), (7, 7), (10, 3), (5, 1)])
def test_every_pair_comes_once_an_epoch(batch_size, pairs):
    epochs = 6
    steps = -(-epochs * pairs // batch_size)
    walk = np.concatenate([pairs_at(step, batch_size, pairs, 5) for step in range(steps)])[: epochs * pairs]
    orders = walk.reshape(epochs, pairs)
    assert (np.sort(orders) == np.arange(pairs)).all()
    assert pairs < 7 or len({tuple(order) for order in orders}) == epochs


def test_the_order_depends_on_seed_and_step_alone():
    walk = [pairs_at(step, 4, 11, 5).tolist() for step in range(8)]
    assert [pairs_at(step, 4, 11, 5).tolist() for step in reversed(range(8))] == walk[::-1]
    assert [pairs_at(step, 4, 11, 6).tolist() for step in range(8)] != walk
    # The size of the batch only cuts the walk elsewhere.
    assert np.concatenate([pairs_at(step, 8, 11, 5) for step in range(4)]).tolist() == np.concatenate(walk).tolist()


def test_a_batch_holds_the_pairs_pictures_and_texts():
    data, batched = dataset(), batches()
    assert len(batched) == 40
    for index in range(len(batched)):
        batch = batched[index]
        assert batch.keys() == {"image", "tokens"}
        assert batch["image"].dtype == np.uint8 and batch["image"].shape == (4, 8, 8, 3)
        assert np.array_equal(batch["image"], data.images[batch["tokens"][:, 0]])


def test_every_caption_of_every_picture_is_used():
    seen = [tuple(tokens) for index in range(11) for tokens in batches()[index]["tokens"]]
    assert len(seen) == 4 * len(set(seen)) and set(seen) == {tuple(pair) for pair in caption_pairs(dataset())}


def test_a_later_start_gives_the_later_batches():
    whole, late = batches(noise_dim=3, flip=True), batches(first=17, noise_dim=3, flip=True)
    for index in range(len(late)):
        for name, values in late[index].items():
            assert np.array_equal(values, whole[17 + index][name])


def test_flips_mirror_exactly_and_follow_seed_and_step():
    plain, flipped, others = batches(), batches(flip=True), batches(flip=True, seed=2)
    mirrored = []
    for index in range(40):
        before, after = plain[index]["image"], flipped[index]["image"]
        for one, other in zip(before, after, strict=True):
            mirrored.append(np.array_equal(other, one[:, ::-1]))
            assert mirrored[-1] or np.array_equal(other, one)
    assert 0.35 < np.mean(mirrored) < 0.65
    assert any(not np.array_equal(flipped[i]["image"], others[i]["image"]) for i in range(40))
    # The data set itself is not turned.
    assert np.array_equal(dataset().images, plain.dataset.images)
    assert np.array_equal(dataset().images, flipped.dataset.images)


def test_noise_is_standard_normal_and_follows_seed_and_step():
    noise = np.stack([batches(noise_dim=50)[index]["noise"] for index in range(40)])
    assert noise.dtype == np.float32 and noise.shape == (40, 4, 50)
    assert abs(noise.mean()) < 0.05 and abs(noise.std() - 1) < 0.05
    assert len(np.unique(noise[:, :, 0])) == 160
    again = np.stack([batches(noise_dim=50)[index]["noise"] for index in range(40)])
    assert np.array_equal(noise, again)
    assert not np.array_equal(noise[0], batches(noise_dim=50, seed=2)[0]["noise"])


def test_class_balanced_batches_have_one_picture_a_class():
    batched = ClassBalancedBatches(dataset(), INPUTS, 3, 1, 0, 60)
    seen = set()
    for index in range(60):
        batch = batched[index]
        labels = batched.dataset.labels[batch["tokens"][:, 0]]
        assert sorted(labels) == [0, 1, 2]
        assert np.array_equal(batch["image"], batched.dataset.images[batch["tokens"][:, 0]])
        seen |= {tuple(tokens) for tokens in batch["tokens"]}
    assert seen == {tuple(pair) for pair in caption_pairs(dataset())}


class Watched(list):
    """Pictures that remember which of them were read."""

    def __getitem__(self, index):
        self.read = [*getattr(self, "read", ()), int(index)]
        return super().__getitem__(index)


@pytest.mark.parametrize(("kind", "size"), [(Batches, 4), (ClassBalancedBatches, 2)])
def test_the_rows_of_a_batch_read_no_picture_of_the_others(kind, size):
    data = dataset()
    parts = dataclasses.replace(data, images=Watched(data.images))
    options = {"flip": True, "noise_dim": 3, "uniforms": 2}
    whole, parts = (kind(each, INPUTS, size, 1, 5, 40, **options) for each in (data, parts))
    for index in range(10):
        batch = whole[index]
        for first in range(0, size, size // 2):
            parts.dataset.images.read = []
            rows = parts.rows(index, first, first + size // 2)
            assert rows.keys() == batch.keys()
            for name in batch:
                np.testing.assert_array_equal(rows[name], batch[name][first : first + size // 2])
            assert (
                parts.dataset.images.read == whole.pairs[whole.chosen(5 + index), 0][first : first + size // 2].tolist()
            )


def test_an_epoch_is_shuffled_once():
    batches_module._permutation.cache_clear()
    for step in range(30):
        pairs_at(step, 4, 11, 1)
    assert batches_module._permutation.cache_info().misses == -(-30 * 4 // 11)


def digest(batched):
    """SHA-256 of every array of all batches, in order."""
    sha256 = hashlib.sha256()
    for index in range(len(batched)):
        for name, values in sorted(batched[index].items()):
            sha256.update(f"{name}{values.dtype}{values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    return sha256.hexdigest()


def test_the_batches_are_those_of_the_record():
    assert digest(batches(noise_dim=2, flip=True)) == GOLDEN


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="jax is not installed")
def test_the_same_batches_without_tensorflow():
    lines = (
        "import importlib.util, sys",
        "sys.modules['tensorflow'] = None",
        f"spec = importlib.util.spec_from_file_location('batches_test', {__file__!r})",
        "module = importlib.util.module_from_spec(spec)",
        "spec.loader.exec_module(module)",
        "assert sys.modules['keras'].backend.backend() == 'jax'",
        "print(module.digest(module.batches(noise_dim=2, flip=True)))",
    )
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(lines)],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split()[-1] == GOLDEN
