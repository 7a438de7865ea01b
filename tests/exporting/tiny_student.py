"""A student small enough to export in seconds, untrained, whose pictures differ from each other."""

import numpy as np

from t2i_kd.recipe import DataOptions, Recipe, StudentRecipe, TextOptions
from t2i_kd.text.front_end import TokenFrontEnd
from t2i_kd.text.tokenizer import Tokenizer

CAPTIONS = [
    f"a {size} {colour} {shape} at the {place}"
    for size in ("small", "large")
    for colour in ("red", "blue", "green")
    for shape in ("circle", "square", "triangle")
    for place in ("top", "bottom")
]


def make_student(noise_dim=3):
    import keras

    from t2i_kd.student import Student, build_student

    recipe = Recipe(
        data=DataOptions(resolution=32),
        text=TextOptions(text_dim=16, text_length=8, word_dim=8),
        student=StudentRecipe(width=1 / 16, noise_dim=noise_dim, initializer="he", image_output="centred"),
    )
    # The encoder's first weights come from Keras's global seed; so narrow a network can be
    # too coarse in float16.
    keras.utils.set_random_seed(1)
    front_end = TokenFrontEnd("gru", Tokenizer.from_captions(CAPTIONS, "words", 8), 16, 8)
    network = build_student(recipe, front_end)
    # An untrained network is all grey: stretch what it draws so that differences between pictures can be seen.
    image = network.get_layer("generator").get_layer("image_linear")
    inputs = {"tokens": front_end.features(CAPTIONS)}
    if noise_dim:
        inputs["noise"] = np.random.default_rng(0).standard_normal((len(CAPTIONS), noise_dim)).astype(np.float32)
    spread = np.std(network(inputs)["image"].numpy() - 127.5) / 127.5
    kernel, bias = image.get_weights()
    image.set_weights([kernel * 0.2 / spread, bias])
    return Student(network, front_end, recipe)


def save_run(student, folder):
    from t2i_kd.student import save_network

    folder.mkdir(parents=True, exist_ok=True)
    save_network(student.network, folder / "student.keras")
    student.front_end.save(folder)
    (folder / "recipe.json").write_text(student.recipe.to_json())
    (folder / "captions.txt").write_text("\n".join(CAPTIONS) + "\n")
    return folder
