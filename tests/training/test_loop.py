"""The stage loop against hand-worked trajectories."""

import json
import math
import time

import keras
import numpy as np
import pytest

from t2i_kd import stopping
from t2i_kd.errors import UserError
from t2i_kd.options import TrainingOptions
from t2i_kd.recipe import Stage
from t2i_kd.training import checkpoints
from t2i_kd.training.loop import learning_rate, make_optimizer, plan_stages, train_stage


def adam(first, gradients_of, steps, rate=0.1, clipnorm=0.0):
    """The weights after each step of Adam (Kingma & Ba 2015, algorithm 1, its epsilon where Keras has it), float64."""
    w, m, v, path = first.astype("float64"), 0.0, 0.0, []
    for step in range(1, steps + 1):
        gradient = gradients_of(w, step - 1)
        norm = np.sqrt(np.sum(gradient**2))
        if clipnorm and norm > clipnorm:
            gradient = gradient * clipnorm / norm
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        w = w - rate * math.sqrt(1 - 0.999**step) / (1 - 0.9**step) * m / (np.sqrt(v) + 1e-7)
        path.append(w)
    return path


def stage(**changes):
    return Stage(**{"name": "I", "objective": "mirrored", "steps": 10, "learning_rate": 0.2} | changes)


def test_stages_follow_each_other():
    stages = (stage(), stage(name="II", steps=0, epochs=1.5), stage(name="III", steps=0, epochs=0.01))
    plans = plan_stages(stages, steps_per_epoch=7)
    assert [(plan.first_step, plan.last_step, plan.steps) for plan in plans] == [(0, 10, 10), (10, 20, 10), (20, 21, 1)]
    assert [plan.stage for plan in plans] == list(stages)


def test_a_constant_rate_is_constant():
    assert learning_rate(stage(), 10) == 0.2


def test_a_cosine_falls_to_nothing():
    rate = learning_rate(stage(schedule="cosine"), 10)
    # 0.2 (1 + cos(pi t / 10)) / 2, and cos(pi / 3) = 1 / 2 would be t = 10 / 3.
    assert [float(rate(t)) for t in (0, 5, 10)] == pytest.approx([0.2, 0.1, 0.0], abs=1e-7)
    assert float(rate(2)) == pytest.approx(0.1 * (1 + math.cos(math.pi / 5)))


def test_a_warm_up_rises_in_a_line():
    rate = learning_rate(stage(schedule="cosine", warmup_steps=4), 10)
    assert [float(rate(t)) for t in (0, 1, 2, 3, 4)] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2], abs=1e-7)
    assert [float(rate(t)) for t in (7, 10)] == pytest.approx([0.1, 0.0], abs=1e-7)


def test_a_line_falls_to_nothing_in_the_second_half():
    rate = learning_rate(stage(schedule="linear"), 10)
    assert [float(rate(t)) for t in (0, 4, 5, 6, 7.5, 10, 11)] == pytest.approx(
        [0.2, 0.2, 0.2, 0.16, 0.1, 0, 0], abs=1e-7
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"schedule": "step"}, "schedule is 'step'"),
        ({"warmup_steps": 3}, "warmup_steps needs schedule=cosine"),
        ({"warmup_steps": 3, "schedule": "linear"}, "warmup_steps needs schedule=cosine"),
        ({"warmup_steps": 10, "schedule": "cosine"}, "warmup_steps is 10, the stage has 10 steps"),
        ({"warmup_steps": -1, "schedule": "cosine"}, "warmup_steps is -1"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": -1e-3}, "learning_rate is -0.001"),
        ({"learning_rate": math.nan}, "learning_rate is nan"),
    ],
)
def test_a_wrong_rate_is_named(changes, named):
    with pytest.raises(UserError, match=r"--stage I: ") as error:
        learning_rate(stage(**changes), 10)
    assert named in str(error.value)


def test_a_stage_follows_adam(train_line, line):
    run = train_line(steps=6)
    path = adam(run.first, line.gradient, 6)
    assert np.stack([w for *_, w in run.seen]) == pytest.approx(np.stack(path), rel=1e-4)
    assert [step for _, step, _ in run.seen] == [1, 2, 3, 4, 5, 6]
    assert run.trainer.network.get_weights()[0] == pytest.approx(path[-1], rel=1e-4)


def test_the_logged_loss_is_of_the_weights_before_the_step(train_line, line):
    run = train_line(steps=2)
    batch = line.batch(0)
    expected = np.mean((batch["x"] @ run.first - batch["y"]) ** 2)
    logged = json.loads((run.run_dir / "metrics.jsonl").read_text().splitlines()[0])
    assert (logged["loss"], logged["halved"]) == pytest.approx((expected, expected / 2), rel=1e-5)


def test_a_long_gradient_is_clipped(train_line, line):
    run = train_line(steps=4, clipnorm=0.5)
    path = adam(run.first, line.gradient, 4, clipnorm=0.5)
    free = adam(run.first, line.gradient, 4)
    assert np.abs(path[-1] - free[-1]).max() > 1e-3
    # What is logged is how long the gradient was.
    logged = json.loads((run.run_dir / "metrics.jsonl").read_text().splitlines()[0])
    assert logged["gradient_norm"] == pytest.approx(np.linalg.norm(line.gradient(run.first, 0)), rel=1e-5)
    assert run.trainer.network.get_weights()[0] == pytest.approx(path[-1], rel=1e-4)


def test_the_moving_average_is_what_is_kept_and_drawn(train_line, line):
    run = train_line(steps=6, ema=0.8)
    average, averages = None, []
    for w in adam(run.first, line.gradient, 6):
        average = w if average is None else 0.8 * average + 0.2 * w
        averages.append(average)
    assert np.stack([w for *_, w in run.seen]) == pytest.approx(np.stack(averages), rel=1e-4)
    assert run.trainer.network.get_weights()[0] == pytest.approx(average, rel=1e-4)
    with np.load(run.run_dir / "checkpoints" / "line" / "final.npz") as kept:
        (name,) = kept.files
        assert np.array_equal(kept[name], run.trainer.network.get_weights()[0])


def test_after_a_look_at_the_average_training_goes_on_bit_exactly(line):
    keras.utils.set_random_seed(0)
    trainer = line.Trainer()
    trainer.compile(optimizer=make_optimizer(stage(), 10, TrainingOptions(ema=0.9)))
    trainer.optimizer.build(trainer.trainable_variables)
    (variable,) = trainer.trainable_variables
    for scale in (1.0, -3.0, 0.1):
        trainer.optimizer.apply([keras.ops.ones_like(variable) * scale], [variable])
    before = np.array(variable)
    with trainer.averaged():
        inside = np.array(variable)
    assert not np.array_equal(before, inside)
    assert np.array_equal(before, np.array(variable))
    with pytest.raises(RuntimeError, match=r"drawing failed"), trainer.averaged():
        raise RuntimeError("drawing failed")
    assert np.array_equal(before, np.array(variable))


def stored(run_dir):
    return sorted(path.name for path in (run_dir / "checkpoints" / "line").iterdir())


def test_a_loss_that_is_not_finite_stops_with_the_steps_number(train_line, tmp_path):
    with pytest.raises(UserError, match=r"stage line: the loss is nan at step 5"):
        train_line(steps=8, scales={4: np.nan})
    assert stored(tmp_path) == ["step-00000003.npz", "step-00000004.npz"]
    with np.load(tmp_path / "checkpoints" / "line" / "step-00000004.npz") as kept:
        assert all(np.isfinite(kept[name]).all() for name in kept.files)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 4


def test_a_stage_that_would_train_nothing_is_refused(line, tmp_path):
    trainer, (plan,) = line.Trainer(), plan_stages([stage()], 1)
    trainer.network.trainable = False
    with pytest.raises(UserError, match=f"--stage {plan.stage.name}: nothing is left to train"):
        train_stage(plan, trainer, None, TrainingOptions(batch_size=4), tmp_path, None)
    assert not any(tmp_path.iterdir())


def test_the_steps_number_counts_over_all_stages(train_line):
    with pytest.raises(UserError, match=r"stage second: the loss is inf at step 8"):
        train_line(steps=6, stages=("first", "second"), scales={7: 1e38})


def test_a_gradient_that_is_not_finite_leaves_no_checkpoint(train_line, tmp_path):
    # d sqrt(u) / du at u = 0: the loss of the step is 0, its gradient is not a number.
    with pytest.raises(UserError, match=r"step-00000003.npz: not written, .* not finite"):
        train_line(steps=3, root=True, scales={2: 0.0})
    assert stored(tmp_path) == ["step-00000001.npz", "step-00000002.npz"]


def test_nor_does_it_finish_a_stage(train_line, tmp_path):
    with pytest.raises(UserError, match=r"step-00000003.npz: not written"):
        train_line(steps=3, root=True, scales={2: 0.0}, checkpoint_every=100)
    assert not (tmp_path / "checkpoints" / "line" / "final.npz").exists()


@pytest.mark.parametrize("ema", [0.0, 0.8])
@pytest.mark.parametrize(("poison", "every"), [(5, 2), (3, 1), (9, 4), (1, 5)])
def test_a_stopped_run_goes_on_bit_exactly(train_line, tmp_path, poison, every, ema):
    options = {"steps": 6, "stages": ("first", "second"), "checkpoint_every": every, "ema": ema}
    whole = train_line(run_dir=tmp_path / "whole", **options)
    with pytest.raises(UserError, match=f"at step {poison + 1};"):
        train_line(run_dir=tmp_path / "broken", scales={poison: np.nan}, **options)
    again = train_line(run_dir=tmp_path / "broken", **options)
    assert np.array_equal(whole.trainer.network.get_weights()[0], again.trainer.network.get_weights()[0])
    assert again.seen[0][1] == max(every * (poison % 6 // every) + poison // 6 * 6, 0) + 1
    lines = [
        [(entry["stage"], entry["step"], entry["loss"]) for entry in map(json.loads, path.read_text().splitlines())]
        for path in (tmp_path / "whole" / "metrics.jsonl", tmp_path / "broken" / "metrics.jsonl")
    ]
    assert lines[0] == lines[1] and len(lines[0]) == 12


def test_who_is_killed_while_drawing_draws_that_sheet_again(train_line, tmp_path):
    def die(step):
        if step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_line(draw=die)
    assert stored(tmp_path)[-1] == "step-00000002.npz"
    assert [step for _, step, _ in train_line().seen] == [3, 4, 5, 6]


def test_a_run_whose_time_is_over_goes_on_bit_exactly(train_line, tmp_path):
    options = {"steps": 6, "ema": 0.8, "checkpoint_every": 4}
    whole = train_line(run_dir=tmp_path / "whole", **options)
    for step in (1, 2, 3):
        early = train_line(deadline=time.monotonic(), **options)
        assert early.finished == [False] and stored(tmp_path)[-1] == f"step-{step:08d}.npz"
        with early.trainer.averaged():
            np.testing.assert_array_equal(early.trainer.network.get_weights()[0], whole.seen[step - 1][2])
    again = train_line(**options)
    assert whole.finished == again.finished == [True]
    np.testing.assert_array_equal(whole.trainer.network.get_weights()[0], again.trainer.network.get_weights()[0])


def test_the_deadlines_step_has_a_sheet_and_a_signals_has_none(train_line, tmp_path, monkeypatch):
    sheets = []
    options = {"steps": 8, "sample_every": 100, "draw": sheets.append}
    train_line(deadline=time.monotonic(), **options)
    assert sheets == [1]
    train_line(deadline=time.monotonic(), **options)
    assert sheets == [1, 2]
    monkeypatch.setattr(stopping, "asked", lambda: True)
    assert train_line(**options).finished == [False] and stored(tmp_path)[-1] == "step-00000003.npz"
    assert sheets == [1, 2]


def test_a_stage_whose_last_step_is_the_deadlines_is_finished(train_line, tmp_path):
    run = train_line(steps=1, deadline=time.monotonic())
    assert run.finished == [True] and stored(tmp_path) == ["final.npz", "step-00000001.npz"]


def test_what_is_measured_is_logged_of_the_averages(train_line, tmp_path):
    found = []

    def measure(trainer, step):
        found.append((step, float(trainer.network.get_weights()[0].sum())))
        return {"sum": found[-1][1]}

    run = train_line(steps=5, ema=0.8, measure_every=2, log_every=100, measure=measure)
    assert found == [(step, pytest.approx(float(run.seen[step - 1][2].sum()))) for step in (2, 4, 5)]
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["sum"]) for line in lines] == found and all("loss" in line for line in lines)


@pytest.mark.parametrize("stop", [0, 3])
def test_the_best_step_is_kept_as_it_was_drawn(train_line, tmp_path, stop):
    """Whether or not the run is stopped after each of its first steps."""
    values, kept = {1: 5.0, 2: 3.0, 3: 4.0, 4: 3.0, 5: 2.0, 6: 9.0}, []
    options = {
        "ema": 0.8,
        "measure_every": 1,
        "measure": lambda trainer, step: {"kernel_distance_x": step, "held_out_loss": values[step]},
        "keep_best": lambda trainer: kept.append(trainer.network.get_weights()[0]),
    }
    seen = []
    for _ in range(stop):
        seen += train_line(deadline=time.monotonic(), **options).seen
    seen += train_line(**options).seen
    assert [step for _, step, _ in seen] == [1, 2, 3, 4, 5, 6]
    np.testing.assert_array_equal(kept, [seen[index][2] for index in (0, 1, 4)])


def test_a_finished_run_trains_no_more(train_line):
    first, again = train_line(), train_line()
    assert again.seen == []
    assert np.array_equal(first.trainer.network.get_weights()[0], again.trainer.network.get_weights()[0])


@pytest.mark.parametrize("ema", [0.0, 0.8])
def test_a_finished_stage_becomes_longer_as_if_it_had_never_ended(train_line, tmp_path, ema):
    whole = train_line(run_dir=tmp_path / "whole", steps=6, ema=ema)
    train_line(steps=4, ema=ema, checkpoint_every=3)
    longer = train_line(steps=6, ema=ema)
    assert [step for _, step, _ in longer.seen] == [5, 6]
    np.testing.assert_array_equal(whole.trainer.network.get_weights()[0], longer.trainer.network.get_weights()[0])
    assert stored(tmp_path) == ["final.npz", "step-00000006.npz"]


def test_a_stage_killed_before_its_end_is_written_is_finished(train_line, tmp_path, monkeypatch):
    whole = train_line(run_dir=tmp_path / "whole", steps=4, ema=0.8)
    write = checkpoints.write

    def killed(path, groups):
        if path.name == checkpoints.FINAL:
            raise KeyboardInterrupt
        write(path, groups)

    monkeypatch.setattr(checkpoints, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        train_line(steps=4, ema=0.8)
    assert stored(tmp_path)[-1] == "step-00000004.npz"
    monkeypatch.undo()
    again = train_line(steps=4, ema=0.8)
    assert again.seen == []
    assert np.array_equal(whole.trainer.network.get_weights()[0], again.trainer.network.get_weights()[0])
    final = tmp_path / "checkpoints" / "line" / "final.npz"
    assert final.read_bytes() == (tmp_path / "whole" / "checkpoints" / "line" / "final.npz").read_bytes()


@pytest.fixture
def free_to_compile():
    """Undoes for a while what an earlier training and `uncompiled` did: no deterministic operation is compiled."""
    if keras.backend.backend() != "tensorflow":
        yield
        return
    import tensorflow as tf
    from tensorflow.python.framework import config

    deterministic = config.is_op_determinism_enabled()
    config.disable_op_determinism()
    tf.config.run_functions_eagerly(False)
    yield
    if deterministic:
        config.enable_op_determinism()


def test_a_compiled_step_trains(train_line, free_to_compile, line):
    run = train_line(steps=3, jit_compile=True)
    assert run.trainer.jit_compile is True
    assert run.trainer.network.get_weights()[0] == pytest.approx(adam(run.first, line.gradient, 3)[-1], rel=1e-4)
