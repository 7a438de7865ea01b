"""The part of a student that every format can hold: numbers in, an image in 0-255 out."""


def core_specs(student, batch=None):
    """The core's inputs, in order: the condition's, then `noise` where the student takes some.

    Args:
        student: a `t2i_kd.student.Student`.
        batch: a fixed batch size, or None for any.

    Returns:
        A list of `tf.TensorSpec`, named.
    """
    import tensorflow as tf

    inputs = student.condition.inputs.items()
    specs = [tf.TensorSpec((batch, *each.shape), each.dtype, name=name) for name, each in inputs]
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
