"""The part of a student that every format can hold: numbers in, a picture in 0-255 out."""

from t2i_kd.noise import noise_from_seeds


def core_specs(student, batch=None):
    """The core's inputs, in order: the text front end's, then `noise` where the student takes some.

    Args:
        student: a `t2i_kd.student.Student`.
        batch: a fixed batch size, or None for any.

    Returns:
        A list of `tf.TensorSpec`, named.
    """
    import tensorflow as tf

    front_end = student.front_end
    specs = [tf.TensorSpec((batch, *front_end.input_shape), front_end.input_dtype, name=front_end.input_name)]
    if student.noise_dim:
        specs.append(tf.TensorSpec((batch, student.noise_dim), tf.float32, name="noise"))
    return specs


def core_function(student, batch=None):
    """The student as a TensorFlow function of named inputs, without strings and without random numbers.

    Args:
        student: a `t2i_kd.student.Student` in float32.
        batch: a fixed batch size, or None for any.

    Returns:
        A `tf.function` from `core_specs(student, batch)` to {"image": float32 [batch, height, width, 3]}, clipped to
        0-255 and not rounded.
    """
    import tensorflow as tf

    specs = core_specs(student, batch)

    # Nothing in it is Python control flow that depends on tensors, and tracing without AutoGraph is faster.
    @tf.function(input_signature=specs, autograph=False)
    def core(*inputs):
        named = {spec.name: value for spec, value in zip(specs, inputs, strict=True)}
        image = student.network(named, training=False)["image"]
        return {"image": tf.clip_by_value(tf.cast(image, tf.float32), 0.0, 255.0)}

    return core


def core_inputs(features, seeds, input_name, noise_dim):
    """The core's inputs for captions whose features are known.

    Args:
        features: array [n, ...], the front end's.
        seeds: n integers of 64 bits.
        input_name: `tokens` or `embedding`.
        noise_dim: width of the student's noise, 0 for none.

    Returns:
        {name: array [n, ...]}.
    """
    inputs = {input_name: features}
    if noise_dim:
        inputs["noise"] = noise_from_seeds(seeds, noise_dim)
    return inputs
