"""A teacher with two towers that needs no weights: a random linear view of an image, and of a text's letters."""

import keras
import numpy as np

from t2i_kd.errors import UserError
from t2i_kd.teachers.dual_encoder import DualEncoder, image_tower, unit

DIM, SEEN, LONGEST = 6, 4, 40


def load(options, resolution):
    """The image and its half, for discriminators that see through it."""
    image = keras.Input((resolution, resolution, 3), name="image")
    return keras.Model(image, {"image": image, "half": keras.layers.AveragePooling2D(2, name="half")(image)})


def load_dual_encoder(options, towers, resolution):
    """Its two towers."""
    rng = np.random.default_rng(7)
    image = keras.Input((resolution, resolution, 3), name="image")
    seen = keras.layers.AveragePooling2D(resolution // SEEN, dtype="float32")(image)
    centred = keras.layers.Rescaling(1 / 127.5, -1.0, dtype="float32")(keras.layers.Flatten(dtype="float32")(seen))
    view = keras.layers.Dense(DIM, dtype="float32", name="view")
    tower = image_tower(image, view(centred), "tiny")
    view.set_weights([rng.standard_normal((3 * SEEN**2, DIM)), rng.standard_normal(DIM)])
    letters = rng.standard_normal((256, DIM))

    def text(texts):
        for each in texts:
            if len(each) > LONGEST:
                raise UserError(f"--prompts: {each!r} has {len(each)} letters, the encoder takes {LONGEST}")
        return unit(np.stack([letters[list(each.encode())].sum(0) for each in texts])).astype("float32")

    return DualEncoder(options.teacher, tower, text)
