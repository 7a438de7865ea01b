"""Two devices that share a batch distil as one does: the sums over the whole batch, and their gradients."""

import json

import numpy as np
import pytest

from t2i_kd.kd_dlgan.objective import correlated_loss, pairwise_similarity
from tests.commands import finish, start

VECTORS = np.random.default_rng(0).standard_normal((4, 6, 5)).astype("float32")
PROMPTS = np.random.default_rng(1).standard_normal((3, 5)).astype("float32")
TWO_DEVICES = """
import json, sys
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from t2i_kd.kd_dlgan.objective import correlated_loss, lecam_averages, lecam_penalty, pairwise_similarity
from t2i_kd.training.distribution import gathered

vectors, prompts = (tf.constant(each) for each in json.loads(sys.argv[1]))
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
halves = [strategy.experimental_distribute_values_from_function(
    lambda context, each=each: each[3 * context.replica_id_in_sync_group :][:3]) for each in tf.unstack(vectors)]

def step(*own):
    with tf.GradientTape() as tape:
        tape.watch(own)
        loss = correlated_loss(*map(gathered, own), prompts) + pairwise_similarity(gathered(own[1]), prompts)
    return loss, tape.gradient(loss, own[1:])

def judge(right, fake, *_):
    averages = lecam_averages(tf.constant([0.3, -0.2]), gathered(right), gathered(fake), 0.6)
    return averages, lecam_penalty(right, fake, averages[0], averages[1])

losses, gradients = strategy.run(tf.function(step), halves)
averages, penalties = map(strategy.experimental_local_results, strategy.run(tf.function(judge), halves))
both = [tf.concat(strategy.experimental_local_results(each), 0).numpy().tolist() for each in gradients]
losses = [float(each) for each in strategy.experimental_local_results(losses)]
print(json.dumps([losses, both, [each.numpy().tolist() for each in averages], [float(each) for each in penalties]]))
"""


@pytest.mark.slow
def test_two_devices_give_the_value_of_one():
    import tensorflow as tf

    given = json.dumps([VECTORS.tolist(), PROMPTS.tolist()])
    losses, gradients, averages, penalties = json.loads(finish(start(given, code=TWO_DEVICES)).splitlines()[-1])
    vectors = tf.unstack(tf.constant(VECTORS))
    with tf.GradientTape() as tape:
        tape.watch(vectors)
        loss = correlated_loss(*vectors, PROMPTS) + pairwise_similarity(vectors[1], PROMPTS)
    assert losses == pytest.approx([float(loss)] * 2, rel=1e-6)
    # Each device's loss is the whole batch's, so that the mean of the devices' gradients is one device's.
    for found, expected in zip(gradients, tape.gradient(loss, vectors[1:]), strict=True):
        np.testing.assert_allclose(found, 2 * np.asarray(expected), rtol=1e-4, atol=1e-5)
    right, fake = VECTORS[:2].astype("float64")
    expected = 0.6 * np.array([0.3, -0.2]) + 0.4 * np.array([right.mean(), fake.mean()])
    np.testing.assert_allclose(averages, [expected] * 2, rtol=1e-5)
    above, below = np.maximum(right - expected[1], 0), np.maximum(expected[0] - fake, 0)
    assert np.mean(penalties) == pytest.approx((above**2).mean() + (below**2).mean(), rel=1e-5)
