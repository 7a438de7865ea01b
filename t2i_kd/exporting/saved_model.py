"""A student as a TensorFlow SavedModel that takes requests and answers with images."""

from t2i_kd.exporting.core import core_function
from t2i_kd.noise import noise_in_graph


def write_saved_model(student, folder):
    """Writes a SavedModel with the condition, noise and PNG inside the graph.

    Signatures of a caption's student, all with any batch size:
        `serving_default`: `text` string [batch] -> `image_bytes` string [batch], each a PNG, with seed 0.
        `seeded`: `text`, `seed` int64 [batch] -> `image_bytes`.
        `pixels`: `text`, `seed` -> `image` uint8 [batch, height, width, 3].
        `pixels_SIDE`: the same for the image of an earlier stage, where the generator has several.
    Of an image's student:
        `serving_default`: `image_bytes` string [batch], each a JPEG or PNG -> `image_bytes`, each a PNG.
        `pixels`: `image` uint8 [batch, height, width, 3], of the student's side -> `image`.
        `seeded`, and `seed` in `pixels`, only where it takes noise.

    Noise is generated per row from that row's seed, so that an answer does not depend on who shared the batch; a
    student without noise does not read the seed.

    Args:
        student: a `t2i_kd.student.Student` in float32, whose condition reads any item.
        folder: where the SavedModel goes.
    """
    import keras
    import tensorflow as tf

    condition = student.condition
    archive = keras.export.ExportArchive()
    # The network's variables are found by the endpoints; tracked as well, Keras would write each of them twice.
    if condition.in_graph_module() is not None:
        archive.track(condition.in_graph_module())
    seed = tf.TensorSpec([None], tf.int64, name="seed")
    request = tf.TensorSpec([None], tf.string, name=condition.request)
    final = core_function(student)

    # The order matters: the first endpoint is the default.
    endpoint = _endpoint(student, final, condition.in_graph, encoded=True)
    archive.add_endpoint("serving_default", lambda value: endpoint(value), input_signature=[request])
    takes_seed = condition.kind == "caption" or student.noise_dim > 0
    if takes_seed:
        archive.add_endpoint("seeded", endpoint, input_signature=[request, seed])
    cores = {"pixels": final}
    cores |= {f"pixels_{side}": core_function(coarse) for side, coarse in student.coarse_images.items()}
    for name, core in cores.items():
        pixels = _endpoint(student, core, condition.core_in_graph, encoded=False)
        archive.add_endpoint(name, pixels, input_signature=[condition.core_spec(), *([seed] if takes_seed else [])])
    archive.write_out(str(folder), verbose=False)


def _endpoint(student, core, read, encoded):
    """A function (values, seed=None) -> {"image_bytes": ...} or {"image": ...}; `read` makes the core's inputs."""
    import tensorflow as tf

    def generate(values, seed=None):
        inputs = list(read(values).values())
        if student.noise_dim:
            seed = tf.zeros(tf.shape(values)[:1], tf.int64) if seed is None else seed
            inputs.append(noise_in_graph(seed, student.noise_dim))
        # tf.round rounds halves to even, as `imaging.to_uint8` does.
        image = tf.cast(tf.round(core(*inputs)["image"]), tf.uint8)
        return {"image_bytes": tf.io.encode_png(image)} if encoded else {"image": image}

    return generate
