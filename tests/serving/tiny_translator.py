"""An exported model that is asked with images: it answers with the negative, written without any exporter."""

import json

import numpy as np

from t2i_kd.exporting.manifest import EXTRA, FORMAT_VERSION, MANIFEST, describe_files
from t2i_kd.exporting.tf_serving import WARMUP

# Not square, so that height and width cannot be mistaken for each other.
HEIGHT, WIDTH, SIDE = 24, 40, 32


def negative(images):
    """What the model answers: uint8 [batch, HEIGHT, WIDTH, 3] to [batch, SIDE, SIDE, 3]."""
    padded = np.pad(images, [(0, 0), (0, SIDE - HEIGHT), (0, 0), (0, 0)])
    return 255 - padded[:, :, :SIDE]


def write_translator(folder, noise_dim=0):
    """Writes a version folder with its manifest and warm-up requests; returns `folder`.

    With noise, the seed is added to every pixel, modulo 256.
    """
    import tensorflow as tf

    pixels, image_bytes = tf.TensorSpec([None, HEIGHT, WIDTH, 3], tf.uint8), tf.TensorSpec([None], tf.string)
    seed = [tf.TensorSpec([None], tf.int64, "seed")] if noise_dim else []

    def translated(image, seed=None):
        image = 255 - tf.pad(image, [[0, 0], [0, SIDE - HEIGHT], [0, 0], [0, 0]])[:, :, :SIDE]
        return image if seed is None else image + tf.cast(seed % 256, tf.uint8)[:, None, None, None]

    def decoded(data):
        image = tf.io.decode_image(data, channels=3, expand_animations=False)
        return tf.cast(tf.round(tf.image.resize(image, (HEIGHT, WIDTH))), tf.uint8)

    def encoded(image_bytes, seed=None):
        images = tf.map_fn(decoded, image_bytes, fn_output_signature=tf.TensorSpec([HEIGHT, WIDTH, 3], tf.uint8))
        return {"image_bytes": tf.io.encode_png(translated(images, seed))}

    def named(spec, name):
        return tf.TensorSpec(spec.shape, spec.dtype, name)

    module = tf.Module()
    module.default = tf.function(encoded, input_signature=[named(image_bytes, "image_bytes")])
    module.pixels = tf.function(
        lambda image, seed=None: {"image": translated(image, seed)}, input_signature=[named(pixels, "image"), *seed]
    )
    signatures = {"serving_default": module.default, "pixels": module.pixels}
    if noise_dim:
        module.seeded = tf.function(encoded, input_signature=[named(image_bytes, "image_bytes"), *seed])
        signatures["seeded"] = module.seeded
    tf.saved_model.save(module, str(folder), signatures)
    _write_extra(folder, noise_dim)
    return folder


def _write_extra(folder, noise_dim):
    import tensorflow as tf
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    (folder / EXTRA).mkdir()
    log = PredictionLog()
    black = tf.io.encode_png(tf.zeros([HEIGHT, WIDTH, 3], tf.uint8)).numpy()
    log.predict_log.request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto([black, black]))
    with tf.io.TFRecordWriter(str(folder / WARMUP)) as writer:
        writer.write(log.SerializeToString())
    saved = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file() and path.parent.name != EXTRA]
    manifest = {
        "format_version": FORMAT_VERSION,
        "name": "negative",
        "version": 1,
        "resolution": SIDE,
        "noise_dim": noise_dim,
        "condition": {
            "kind": "image",
            "request": "image_bytes",
            "inputs": {"source": {"shape": [HEIGHT, WIDTH, 3], "dtype": "float32"}},
        },
        "text": None,
        "artifacts": {"saved_model": {"files": describe_files(folder, saved)}},
        "support_files": describe_files(folder, [WARMUP]),
    }
    (folder / EXTRA / MANIFEST).write_text(json.dumps(manifest))
