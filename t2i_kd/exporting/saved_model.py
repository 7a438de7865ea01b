"""A student as a TensorFlow SavedModel that takes captions and answers with pictures."""

from t2i_kd.exporting.core import core_function
from t2i_kd.noise import noise_in_graph


def write_saved_model(student, folder):
    """Writes a SavedModel with text, noise and PNG inside the graph.

    Signatures, all with any batch size:
        `serving_default`: `text` string [batch] -> `image_bytes` string [batch], each a PNG, drawn with seed 0.
        `seeded`: `text`, `seed` int64 [batch] -> `image_bytes`.
        `pixels`: `text`, `seed` -> `image` uint8 [batch, height, width, 3].
        `pixels_SIDE`: the same for the image of an earlier stage, where the generator has several.

    Noise is drawn per row from that row's seed, so that an answer does not depend on who shared the batch; a student
    without noise does not look at the seed.

    Args:
        student: a `t2i_kd.student.Student` in float32, whose front end reads any text.
        folder: where the SavedModel goes.
    """
    import keras
    import tensorflow as tf

    final = core_function(student)
    noise_dim = student.noise_dim

    def draw(text, seed, core=final):
        inputs = [student.front_end.in_graph(text)]
        if noise_dim:
            inputs.append(noise_in_graph(seed, noise_dim))
        # tf.round rounds halves to even, as `imaging.to_uint8` does.
        return tf.cast(tf.round(core(*inputs)["image"]), tf.uint8)

    def serving_default(text):
        return {"image_bytes": tf.io.encode_png(draw(text, tf.zeros(tf.shape(text), tf.int64)))}

    def seeded(text, seed):
        return {"image_bytes": tf.io.encode_png(draw(text, seed))}

    def pixels_of(core):
        return lambda text, seed: {"image": draw(text, seed, core)}

    text, seed = tf.TensorSpec([None], tf.string, name="text"), tf.TensorSpec([None], tf.int64, name="seed")
    archive = keras.export.ExportArchive()
    # The network's variables are found by the endpoints; tracked as well, Keras would write each of them twice.
    archive.track(student.front_end.in_graph_module())
    # The order matters: the first endpoint is the default.
    archive.add_endpoint("serving_default", serving_default, input_signature=[text])
    archive.add_endpoint("seeded", seeded, input_signature=[text, seed])
    archive.add_endpoint("pixels", pixels_of(final), input_signature=[text, seed])
    for side, coarse in student.coarse_images.items():
        archive.add_endpoint(f"pixels_{side}", pixels_of(core_function(coarse)), input_signature=[text, seed])
    archive.write_out(str(folder), verbose=False)
