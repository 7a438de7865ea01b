"""An exported student that is asked with images, as the exporter writes it, and files that users send it."""

import io

import numpy as np
from PIL import Image

from tests.exporting.tiny_student import make_image_student, make_photos

# Its answers are smaller than what it reads, so that neither side can be mistaken for the other.
SOURCE, SIDE = 40, 32


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


PHOTOS = make_photos(5, SOURCE, SOURCE, seed=5)
# Pillow reads it, TensorFlow does not: the last chunk is missing.
UNENDED = encoded(PHOTOS[0])[:-12]


def export_translator(folder, noise_dim=0):
    """Exports it as version 1 into `folder`, without anything beside the SavedModel; returns the version's folder."""
    from t2i_kd.exporting.exporter import export_student

    return export_student(make_translator(noise_dim), folder, make_photos(8, 48, 56), artifacts=())


def make_translator(noise_dim=0):
    """The tests' image student with a smaller image; noise shifts each of its colours."""
    import keras

    from t2i_kd.student import Student

    whole = make_image_student(SOURCE)
    inputs = {"source": keras.Input((SOURCE, SOURCE, 3), name="source")}
    image = keras.layers.Cropping2D((SOURCE - SIDE) // 2)(whole.network(dict(inputs))["image"])
    if noise_dim:
        inputs["noise"] = keras.Input((noise_dim,), name="noise")
        shift = keras.layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(0, 20, seed=0))
        image += keras.layers.Reshape((1, 1, 3))(shift(inputs["noise"]))
    return Student(keras.Model(inputs, {"image": image}), whole.condition)


def same_images(found, expected):
    """Whether images have the same pixels, as far as batches of another size or place leave them the same.

    Args:
        found, expected: PNGs, PIL images or uint8 arrays [side, side, 3], as many of each.

    Returns:
        True where every image differs by at most 1/255, in at most 0.5 % of its pixels.
    """
    found, expected = (np.stack([pixels_of(image) for image in images]).astype(int) for images in (found, expected))
    differences = np.abs(found - expected)
    return differences.max() <= 1 and (differences.max(-1) > 0).mean((1, 2)).max() <= 0.005


def pixels_of(image):
    return np.asarray(Image.open(io.BytesIO(image)) if isinstance(image, bytes) else image)
