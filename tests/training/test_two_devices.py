"""What a GAN's loss takes from a whole batch is on two devices what it is on one."""

import json

import numpy as np
import pytest

from t2i_kd.training.batch_captions import BatchCaptions, next_rows
from t2i_kd.training.projected import contrastive_loss
from t2i_kd.training.seed_diversity import first_images, pairs_of
from tests.commands import finish, start

TEXTS = [[1.0, 2], [1, 2], [3, 4], [1, 2], [5, 6], [0, 7], [0, 7], [1, 2]]
LOSSES = [1.0, 2, 3, 4, 5, 6, 7, 8]
NUMBERS = [0, 0, 1, 0, 2, 3, 3, 0]
# Images 3 and 7 have the caption of the next row beside their own.
OWN = [[0, -1], [0, -1], [1, -1], [0, 2], [2, -1], [3, -1], [3, -1], [0, 9]]
TWO_DEVICES = """
import json, sys
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from t2i_kd.training.batch_captions import BatchCaptions, next_rows
from t2i_kd.training.projected import contrastive_loss
from t2i_kd.training.seed_diversity import SeedDiversity

given = [tf.constant(each) for each in json.loads(sys.argv[1])]
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
halves = [strategy.experimental_distribute_values_from_function(
    lambda context, each=each: each[4 * context.replica_id_in_sync_group :][:4]) for each in given]
diversity = SeedDiversity.__new__(SeedDiversity)
diversity.target, diversity.distances, diversity.pooled = 4.0, {"tap": 2.0}, lambda images: {"tap": images}

def step(texts, losses, numbers, own):
    captions = BatchCaptions(texts, numbers, own)
    differs = captions.next_differs()
    with tf.GradientTape() as tape:
        tape.watch(losses)
        images = tf.stack([losses, tf.zeros_like(losses)], 1)
        loss, share = diversity.loss(images, 0 * images)
    contrastive = contrastive_loss(texts, texts[:, ::-1], captions)
    slope = tape.gradient(loss, losses)
    return next_rows(texts), differs, contrastive, loss, share, slope

results = strategy.run(tf.function(step), halves)
found = [[each.numpy().tolist() for each in strategy.experimental_local_results(result)] for result in results]
print(json.dumps(found))
"""


def test_two_devices_give_what_one_does():
    found = json.loads(finish(start(json.dumps([TEXTS, LOSSES, NUMBERS, OWN]), code=TWO_DEVICES)).splitlines()[-1])
    rows, differs, contrastive, losses, shares, gradients = found
    texts = np.array(TEXTS, "float32")
    captions = BatchCaptions(texts, np.array(NUMBERS), np.array(OWN))
    np.testing.assert_array_equal(np.concatenate(rows), next_rows(texts))
    assert np.concatenate(differs).tolist() == [0, 1, 1, 0, 1, 0, 1, 0] == captions.next_differs().numpy().tolist()
    assert sum(contrastive) / 2 == pytest.approx(float(contrastive_loss(texts, texts[:, ::-1], captions)), rel=1e-5)
    # rho is the mean of all eight lengths over 2, on both; each one's slope is -1 / 16 of the loss of one device.
    assert shares == pytest.approx([36 / 16] * 2) and losses == pytest.approx([4 - 36 / 16] * 2)
    assert np.concatenate(gradients) / 2 == pytest.approx([-1 / 16] * 8)


@pytest.mark.parametrize(("batch", "count"), [(2, 1), (5, 1), (6, 2), (8, 2)])
def test_second_images_have_the_caption_of_one_sample_and_the_noise_of_the_next(batch, count):
    given = {"tokens": np.arange(batch), "noise": 10 * np.arange(batch), "image": np.zeros(batch)}
    found = pairs_of(given, ["tokens", "noise"])
    assert found["tokens"].tolist() == [0, 4][:count] and found["noise"].tolist() == [10, 50][:count]
    assert first_images(np.arange(batch), found["noise"]).tolist() == [0, 4][:count]
