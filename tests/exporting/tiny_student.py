"""A student small enough to export in seconds, untrained, whose pictures differ from each other."""

import numpy as np

from t2i_kd.options import DataOptions, TextOptions
from t2i_kd.sdn import SDNOptions, SDNRecipe
from t2i_kd.text.front_end import TokenFrontEnd
from t2i_kd.text.tokenizer import Tokenizer

CAPTIONS = [
    f"a {size} {colour} {shape} at the {place}"
    for size in ("small", "large")
    for colour in ("red", "blue", "green")
    for shape in ("circle", "square", "triangle")
    for place in ("top", "bottom")
]
RECIPE = SDNRecipe(
    data=DataOptions(resolution=32),
    text=TextOptions(text_dim=16, text_length=8, word_dim=8),
    sdn=SDNOptions(width=1 / 16, initializer="he", image_output="centred"),
)


def make_student(noise_dim=3, whiten=False):
    import keras

    from t2i_kd.conditions.caption import CaptionCondition
    from t2i_kd.student import Student

    # The encoder's first weights come from Keras's global seed; so narrow a network can be
    # too coarse in float16.
    keras.utils.set_random_seed(1)
    front_end = TokenFrontEnd("gru", Tokenizer.from_captions(CAPTIONS, "words", 8))
    condition = CaptionCondition(front_end)
    network = build_sdn_network(condition, RECIPE, noise_dim, whiten)
    # An untrained network is all grey: stretch what it draws so that differences between pictures can be seen.
    image = network.get_layer("generator").get_layer("image_linear")
    inputs = condition.arrays(CAPTIONS)
    if noise_dim:
        inputs["noise"] = np.random.default_rng(0).standard_normal((len(CAPTIONS), noise_dim)).astype(np.float32)
    spread = np.std(network(inputs)["image"].numpy() - 127.5) / 127.5
    kernel, bias = image.get_weights()
    image.set_weights([kernel * 0.2 / spread, bias])
    return Student(network, condition)


def build_sdn_network(condition, recipe, noise_dim=0, whiten=False):
    """The untrained network of an SDN recipe's student, made in the order in which training makes it."""
    from t2i_kd.training.mirrored_generator import build_generator
    from t2i_kd.training.text_to_image import build_student

    encoder = condition.front_end.build_encoder(recipe.text)
    generator = build_generator(
        recipe.data.resolution,
        recipe.text.text_dim,
        recipe.sdn.width,
        noise_dim,
        recipe.sdn.initializer,
        recipe.sdn.image_output,
        recipe.training.seed,
        recipe.sdn.head_rank,
    )
    return build_student(condition, encoder, generator, whiten)


def save_run(student, folder, items=CAPTIONS, recipe=RECIPE):
    """Writes what a finished training leaves: student, condition, typical items and, where there is one, the recipe."""
    from t2i_kd.student import save_network

    folder.mkdir(parents=True, exist_ok=True)
    save_network(student.network, folder / "student.keras")
    student.condition.save(folder)
    student.condition.save_items(items, folder)
    if recipe is not None:
        (folder / "recipe.json").write_text(recipe.to_json())
    return folder


def make_image_student(side=32):
    """An image-to-image student that nobody trained: two convolutions, whose images fill 0-255."""
    import keras

    from t2i_kd.conditions.image import ImageCondition
    from t2i_kd.student import Student

    def convolution(filters, seed):
        return keras.layers.Conv2D(
            filters, 3, padding="same", kernel_initializer=keras.initializers.HeNormal(seed), name=f"conv{seed}"
        )

    source = keras.Input((side, side, 3), name="source")
    features = keras.layers.ReLU()(convolution(8, 1)(keras.layers.Rescaling(1 / 127.5, -1)(source)))
    network = keras.Model({"source": source}, {"image": convolution(3, 2)(features)})
    last = network.get_layer("conv2")
    kernel, bias = last.get_weights()
    photos = np.stack(make_photos(8, side, side)).astype(np.float32)
    image = np.asarray(network({"source": photos})["image"])
    scale = 80 / image.std((0, 1, 2))
    last.set_weights([kernel * scale, bias + 127.5 - scale * image.mean((0, 1, 2))])
    return Student(network, ImageCondition(side))


def make_photos(count, height, width, seed=0):
    """Smooth images with some detail, as photographs are: uint8 [height, width, 3] each."""
    from PIL import Image

    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, height // 8 + 2, width // 8 + 2, 3), np.uint8)
    return [np.asarray(Image.fromarray(each).resize((width, height), Image.Resampling.BICUBIC)) for each in coarse]
