"""The fused Adam moves weights as Keras's does."""

import keras
import numpy as np
import pytest

from t2i_kd.training.optimizer import adam, gradient_norm

tf = pytest.importorskip("tensorflow")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the kernel is TensorFlow's")
SCHEDULE = keras.optimizers.schedules.CosineDecay(0.1, 8)


def moved(optimizer):
    """Weights, moments and averages after five steps, one of them with a gradient that no clipping leaves alone."""
    rng = np.random.default_rng(0)
    variables = [keras.Variable(rng.standard_normal(shape).astype("float32")) for shape in ((5, 3), (4,))]
    optimizer.build(variables)
    for step in range(5):
        gradients = [tf.constant(rng.standard_normal(v.shape).astype("float32") * (1 + 9 * step)) for v in variables]
        optimizer.apply(gradients, variables)
    return [np.asarray(v) for v in (*variables, *optimizer.variables)]


@pytest.mark.parametrize("clipnorm", [0.0, 2.0])
@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_it_is_kerass(clipnorm, ema):
    plain = keras.optimizers.Adam(
        SCHEDULE, global_clipnorm=clipnorm or None, use_ema=ema > 0, ema_momentum=ema or 0.99, name="adam"
    )
    ours = adam(SCHEDULE, clipnorm, ema)
    assert isinstance(ours, keras.optimizers.Adam) and type(ours) is not keras.optimizers.Adam
    for mine, theirs in zip(moved(ours), moved(plain), strict=True):
        assert mine == pytest.approx(theirs, rel=2e-5, abs=1e-5)


def test_its_variables_are_named_as_kerass():
    variables = [keras.Variable(np.zeros(2, "float32"), name="w")]
    ours, plain = adam(0.1), keras.optimizers.Adam(0.1, name="adam")
    for each in (ours, plain):
        each.build(variables)
    assert [v.path for v in ours.variables] == [v.path for v in plain.variables]


def test_a_gradients_norm_is_of_all_its_values_together():
    gradients = [tf.constant([[3.0, 0.0], [0.0, 4.0]]), None, tf.constant([12.0], "bfloat16")]
    norm = gradient_norm(gradients)
    assert norm.dtype == "float32" and float(norm) == 13
    assert float(gradient_norm([None])) == 0
