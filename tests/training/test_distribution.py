"""A step's batch on several devices: the losses of one, one writer, and a cluster that goes on after a kill."""

import json
import socket
import types

import keras
import numpy as np
import pytest

from t2i_kd.data.shard_writer import Preparation, prepare
from t2i_kd.errors import UserError
from t2i_kd.training import distribution
from t2i_kd.training.distribution import check_cluster, make_strategy, share, shares
from tests.commands import TRAIN, files, finish, kill_after, metrics, start

RUN = (
    "--resolution=32",
    "--text_dim=16",
    "--word_dim=8",
    "--text_length=12",
    "--batch_size=4",
    "--teacher=vgg19_slim",
    "--width=0.25",
    "--initializer=he",
    "--image_output=centred",
    "--whiten_text",
    "--noise_dim=3",
    "--flip",
    # So short that Adam's epsilon rules: else it makes full steps of gradients that are nothing but rounding.
    "--clipnorm=1e-5",
    "--checkpoint_every=4",
    "--sample_every=10",
    "--log_every=1",
    "--stage=text: objective=ds_sje steps=3 tap_weights=pool3:1",
    "--stage=one: objective=mirrored steps=6 learning_rate=1e-3 error=annealed scaling=normalised",
    "--stage=two: objective=perceptual steps=4 learning_rate=1e-4 error=squared scaling=normalised "
    "tap_weights=image:3,conv3_*:1",
)
# `python -m t2i_kd.train` on a machine with so many CPU devices.
COMMAND = f"""
import sys
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * int(sys.argv.pop(1)))
{TRAIN}
"""

# Adam's first moments after a step with the gradients (1, 5) and (3, 3) in two replicas; their mean's norm is 20 ** .5.
MOMENTS = """
import json
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import keras
from t2i_kd.training.distribution import make_strategy, mean_over_replicas
from t2i_kd.training.optimizer import adam
strategy, found = make_strategy("mirrored"), []
for clipnorm in (0.0, 2.0):
    with strategy.scope():
        variable = keras.Variable(np.zeros(2, "float32"))
        optimizer = adam(0.1, clipnorm)
        optimizer.build([variable])
    @tf.function
    def step():
        def replica():
            second = tf.cast(tf.distribute.get_replica_context().replica_id_in_sync_group, tf.float32)
            optimizer.apply(mean_over_replicas([tf.stack([1 + 2 * second, 5 - 2 * second])]), [variable])
        strategy.run(replica)
    step()
    values = strategy.experimental_local_results(optimizer._momentums[0].value)
    found.append([value.numpy().tolist() for value in values])
print(json.dumps(found))
"""

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.distribute is TensorFlow's")


def distributed(run_dir, distribute, devices=1, cluster=None, more=()):
    """Starts a run on so many devices, or as one worker (addresses, its index) of a cluster."""
    changes = {}
    if cluster:
        addresses, index = cluster
        task = {"type": "worker", "index": index}
        changes["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    arguments = [devices, *RUN, f"--run_dir={run_dir}", f"--distribute={distribute}", *more]
    return start(*arguments, code=COMMAND, **changes)


def addresses(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    found = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    for each in sockets:
        each.close()
    return found


def terms(run_dir):
    """Every step's terms, in order."""
    lines = metrics(run_dir)
    for line in lines:
        del line["images_per_second"]
    return lines


def assert_same_curve(run_dir, other):
    ours, theirs = terms(run_dir), terms(other)
    assert [(line.pop("stage"), line.pop("step")) for line in ours] == [
        (line.pop("stage"), line.pop("step")) for line in theirs
    ]
    for mine, line in zip(ours, theirs, strict=True):
        # Where rounding takes a ReLU across its kink, a gradient jumps and the loss does not: by .2 % with AVX512.
        assert mine.pop("gradient_norm") == pytest.approx(line.pop("gradient_norm"), rel=1e-2)
        assert mine == pytest.approx(line, rel=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run on one device."""
    run_dir = tmp_path_factory.mktemp("alone") / "run"
    finish(distributed(run_dir, "none"))
    return run_dir


def test_a_host_reads_its_own_part_of_a_batch_alone():
    """Where the batches can give some rows, no whole batch is made."""

    class Numbers:
        batch_size = 6

        def __getitem__(self, index):
            return {"row": np.arange(6) + 10 * index}

    class Parts(Numbers):
        def __getitem__(self, index):
            raise AssertionError("a whole batch")

        def rows(self, index, first, last):
            return {"row": np.arange(first, last) + 10 * index}

    for batches in (Numbers(), Parts()):
        assert [part["row"].tolist() for part in shares(batches, 2, [1, 2], 3)] == [[22, 23], [24, 25]]


@pytest.mark.slow
def test_two_devices_lose_what_one_does(alone, tmp_path):
    finish(distributed(tmp_path / "run", "mirrored", devices=2))
    assert_same_curve(tmp_path / "run", alone)


@pytest.mark.slow
def test_the_mean_gradient_is_clipped_and_moves_every_replica():
    free, clipped = json.loads(finish(start(code=MOMENTS)).splitlines()[-1])
    assert free == [pytest.approx([0.2, 0.4])] * 2
    assert clipped == [pytest.approx([0.2 * 2 / 20**0.5, 0.4 * 2 / 20**0.5])] * 2


@pytest.fixture
def shards(tmp_path):
    """Flags that read the same set from shards, each so small that a batch lies in several."""
    pytest.importorskip("apache_beam", reason="shards need Apache Beam")
    prepare(Preparation("captioned_shapes", "", 32, 0, 500, str(tmp_path / "shards")), ("train", "test"))
    return "--dataset=shards", f"--data_dir={tmp_path / 'shards'}"


@pytest.mark.slow
def test_two_processes_go_on_after_one_was_killed_and_one_writes(alone, shards, tmp_path):
    run_dir, cluster = tmp_path / "run", addresses(2)

    def started():
        return [distributed(run_dir, "multi_worker", 1, (cluster, index), shards) for index in (0, 1)]

    workers = started()
    kill_after(workers[1], run_dir, 8)
    _, errors = workers[0].communicate(timeout=300)
    assert workers[0].returncode == 1 and "error: --distribute: a worker is gone" in errors, errors
    for worker in started():
        finish(worker)
    assert_same_curve(run_dir, alone)
    kept = [name for name in files(run_dir) if not name.startswith("tensorboard/")]
    assert kept == [name for name in files(alone) if not name.startswith("tensorboard/")]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "needs it in the environment"),
        ("{", "not of the form"),
        ('{"cluster": {"worker": ["a:1"]}}', "not of the form"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}', "not of the form"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}', "task index is 1"),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "0"}}', "task index is '0'"),
        ('{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}', "HOST:PORT"),
        ('{"cluster": {"worker": ["a:1", "a:1"]}, "task": {"type": "worker", "index": 0}}', "HOST:PORT"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {"type": "worker", "index": 0}}', "worker and chief"),
    ],
)
def test_a_wrong_cluster_is_named(text, named):
    with pytest.raises(UserError, match="TF_CONFIG") as error:
        check_cluster(text)
    assert named in str(error.value)


def test_a_right_cluster_passes():
    check_cluster('{"cluster": {"chief": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}')


def test_other_backends_are_refused(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(UserError, match="--distribute=mirrored: needs KERAS_BACKEND=tensorflow, not jax"):
        make_strategy("mirrored")


def test_shares_make_up_the_batch():
    batch = {"image": np.arange(12).reshape(6, 2), "features": {"pool1": np.arange(6)}}
    shares = [share(batch, replica, 3) for replica in range(3)]
    assert np.array_equal(np.concatenate([each["image"] for each in shares]), batch["image"])
    assert np.array_equal(np.concatenate([each["features"]["pool1"] for each in shares]), batch["features"]["pool1"])


def test_a_batch_that_does_not_divide_is_named(monkeypatch):
    monkeypatch.setattr(distribution, "strategy", lambda: types.SimpleNamespace(num_replicas_in_sync=3))
    distribution.check_batch_size(6)
    with pytest.raises(UserError, match="--batch_size: 4 does not divide among 3 replicas"):
        distribution.check_batch_size(4)
