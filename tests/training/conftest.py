"""A trainer small enough to be worked out by hand: a line through three inputs."""

import types
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from t2i_kd.options import TrainingOptions
from t2i_kd.recipe import Stage
from t2i_kd.training.loop import plan_stages, train_stage
from t2i_kd.training.trainer import Trainer

BATCH = 4


class LineTrainer(Trainer):
    """L = mean (s x . w - y)^2, or its root, s a factor that comes with the batch."""

    def __init__(self, root=False):
        super().__init__(name="line")
        # Names of its own: those that Keras numbers differ from one trainer of a process to the next.
        dense = keras.layers.Dense(1, use_bias=False, name="weights")
        self.network, self.root = keras.Sequential([keras.Input((3,)), dense], name="line"), root
        self.built = True

    def loss_terms(self, batch):
        error = batch["scale"] * (self.network(batch["x"]) - batch["y"])
        loss = ops.mean(ops.square(error))
        loss = ops.sqrt(loss) if self.root else loss
        return loss, {"halved": loss / 2}


class LineBatches(keras.utils.PyDataset):
    """The batch of a step follows from the step alone; `scales` gives some steps another factor."""

    def __init__(self, first_step, last_step, scales=()):
        super().__init__()
        self.first_step, self.last_step, self.scales = first_step, last_step, dict(scales)

    def __len__(self):
        return self.last_step - self.first_step

    def __getitem__(self, index):
        return line_batch(self.first_step + index, self.scales.get(self.first_step + index, 1.0))


def line_batch(step, scale=1.0):
    """The data of a step, counted from 0: {x [4, 3], y [4, 1], scale [4, 1]}, float32."""
    rng = np.random.default_rng(step)
    x = rng.standard_normal((BATCH, 3)).astype("float32")
    y = (x @ np.array([[1.0], [-2.0], [3.0]], "float32") * (1 + step)).astype("float32")
    return {"x": x, "y": y, "scale": np.full((BATCH, 1), scale, "float32")}


def line_gradient(w, step):
    """dL/dw of a step's data at weights `w` [3, 1], by hand: 2 x^T (x w - y) / n."""
    batch = {name: values.astype("float64") for name, values in line_batch(step).items()}
    return 2 * batch["x"].T @ (batch["x"] @ w - batch["y"]) / BATCH


@pytest.fixture
def line():
    """What a hand calculation needs: `Trainer`, `batch(step)` and `gradient(w, step)`."""
    return types.SimpleNamespace(Trainer=LineTrainer, batch=line_batch, gradient=line_gradient)


@pytest.fixture
def train_line(tmp_path, uncompiled):
    """A function that trains a line and returns its trainer, its first weights, and those at each sample sheet."""

    def train(
        steps=6,
        scales=(),
        root=False,
        stages=("line",),
        rate=0.1,
        run_dir=tmp_path,
        measure=None,
        keep_best=lambda trainer: None,
        deadline=np.inf,
        draw=lambda step: None,
        **training,
    ):
        keras.utils.set_random_seed(3)
        trainer = LineTrainer(root)
        first = trainer.network.get_weights()[0]
        seen, finished = [], []

        def draw_samples(stage, step, events):
            sheet = draw(step)
            seen.append((stage.name, step, trainer.network.get_weights()[0]))
            return sheet

        every_step = {"checkpoint_every": 1, "sample_every": 1, "log_every": 1}
        options = TrainingOptions(**{"batch_size": BATCH} | every_step | training)
        for plan in plan_stages([Stage(name, "line", steps=steps, learning_rate=rate) for name in stages], 1):
            finished.append(
                train_stage(
                    plan,
                    trainer,
                    lambda first, last: LineBatches(first, last, scales),
                    options,
                    run_dir,
                    draw_samples,
                    measure,
                    lambda: keep_best(trainer),
                    deadline,
                )
            )
        return types.SimpleNamespace(trainer=trainer, first=first, seen=seen, run_dir=Path(run_dir), finished=finished)

    return train
