"""Training with cached features of the teacher: the losses of a forward pass at every step."""

import keras
import numpy as np
import pytest
from PIL import Image

from t2i_kd.options import DataOptions, TeacherOptions, TextOptions, TrainingOptions
from t2i_kd.recipe_flags import parse_stage
from t2i_kd.sdn import SDNOptions, SDNRecipe, SDNStage
from t2i_kd.sdn.trainer import SDN
from t2i_kd.training.loop import make_optimizer

STEPS = 8


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of four captioned pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for index in range(4):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text(f"picture {index}")
    lines = [f'{{"file_name": "{i}.png", "captions": ["picture {i}"], "split": "train"}}\n' for i in range(4)]
    (folder / "metadata.jsonl").write_text("".join(lines[:3]) + lines[3].replace("train", "test"))
    return folder


def losses(pictures, megabytes):
    """The loss of every step, and whether features were cached."""
    stage = parse_stage(f"one: objective=perceptual steps={STEPS} error=squared scaling=normalised", SDNStage)
    recipe = SDNRecipe(
        data=DataOptions(dataset="image_folder", data_dir=str(pictures), resolution=32, flip=True),
        text=TextOptions(text_dim=8, word_dim=4, text_length=4),
        teacher=TeacherOptions(teacher="vgg19_slim", teacher_cache_mb=megabytes),
        sdn=SDNOptions(width=1 / 32, initializer="he"),
        training=TrainingOptions(batch_size=2),
        stages=(stage,),
    )
    system = SDN(recipe)
    trainer, found = system.objective_trainer(system.plans[0]), []
    trainer.compile(optimizer=make_optimizer(stage, STEPS, recipe.training), jit_compile=False)
    batches = system.batches(system.plans[0], 0, STEPS)
    keep = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: found.append(float(logs["loss"])))
    trainer.fit(batches, shuffle=False, verbose=0, callbacks=[keep])
    return found, batches.features is not None


@pytest.mark.slow
def test_the_losses_are_the_same(pictures):
    computed, cached = losses(pictures, 0)
    assert not cached and len(computed) == STEPS
    found, cached = losses(pictures, 1024)
    assert cached
    assert found[0] == pytest.approx(computed[0], rel=1e-6)
    assert found == pytest.approx(computed, rel=1e-4)
