"""Two devices that share a batch see the same cross-sample similarities, and the same gradients, as one."""

import json

import numpy as np
import pytest

from t2i_kd.icsd_gan.objective import icsd_loss
from t2i_kd.training.distribution import gathered
from tests.commands import finish, start

FEATURES = [np.random.default_rng(dim).standard_normal((6, dim)).astype("float32") for dim in (5, 4)]
TWO_DEVICES = """
import json, sys
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from t2i_kd.icsd_gan.objective import icsd_loss
from t2i_kd.training.distribution import gathered

features = [tf.constant(each) for each in json.loads(sys.argv[1])]
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
halves = [strategy.experimental_distribute_values_from_function(
    lambda context, each=each: each[3 * context.replica_id_in_sync_group :][:3]) for each in features]

def step(*own):
    with tf.GradientTape() as tape:
        tape.watch(own)
        loss = icsd_loss([gathered(each) for each in own])
    return loss, tape.gradient(loss, own)[0]

losses, gradients = strategy.run(tf.function(step), halves)
both = tf.concat(strategy.experimental_local_results(gradients), 0)
print(json.dumps([[float(each) for each in strategy.experimental_local_results(losses)], both.numpy().tolist()]))
"""


def test_one_device_keeps_its_rows():
    assert gathered(FEATURES[0]) is FEATURES[0]


@pytest.mark.slow
def test_two_devices_give_the_value_of_one():
    import tensorflow as tf

    given = json.dumps([each.tolist() for each in FEATURES])
    losses, gradients = json.loads(finish(start(given, code=TWO_DEVICES)).splitlines()[-1])
    features = [tf.constant(each) for each in FEATURES]
    with tf.GradientTape() as tape:
        tape.watch(features)
        loss = icsd_loss(features)
    assert losses == pytest.approx([float(loss)] * 2, rel=1e-6)
    # Each device's loss is the whole batch's, so that the devices' gradients add up to twice one device's.
    np.testing.assert_allclose(gradients, 2 * np.asarray(tape.gradient(loss, features)[0]), atol=1e-6)
