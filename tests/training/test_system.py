"""What a run reads of its data before it trains."""

import json

import numpy as np
import pytest
from PIL import Image

from t2i_kd.data import checked_files, examples
from t2i_kd.options import DataOptions, TeacherOptions, TextOptions, TrainingOptions
from t2i_kd.sdn import SDNOptions, SDNRecipe, SDNStage
from t2i_kd.sdn.trainer import SDN
from t2i_kd.training.inputs import example_digests


@pytest.fixture
def decoded(monkeypatch):
    """Gets an item for each picture that is decoded."""
    found, decode = [], examples.decode_square
    monkeypatch.setattr(examples, "decode_square", lambda *given: found.append(1) or decode(*given))
    return found


def recipe_of(folder):
    """A recipe of three training and three held-out pictures, which are written to the folder."""
    rows = [{"file_name": f"{i}.png", "caption": f"picture {i}", "split": ("train", "test")[i // 3]} for i in range(6)]
    folder.mkdir()
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for row in rows:
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / row["file_name"])
    return SDNRecipe(
        data=DataOptions(
            dataset="image_folder", data_dir=str(folder), resolution=32, cache_dir=str(folder.with_name("cache"))
        ),
        text=TextOptions(text_dim=8, word_dim=4, text_length=4),
        teacher=TeacherOptions(teacher="none"),
        sdn=SDNOptions(width=1 / 32, initializer="he"),
        training=TrainingOptions(batch_size=2),
        stages=(SDNStage("one", "mirrored", steps=1, tap_weights=(("image", 1.0),)),),
    )


def test_a_later_start_decodes_nothing_and_is_of_the_same_examples(tmp_path, decoded, monkeypatch):
    monkeypatch.setattr(checked_files, "SETTLED_SECONDS", -1)
    recipe = recipe_of(tmp_path / "data")
    first, later = (example_digests([SDN(recipe).dataset]) for _ in range(2))
    assert first == later and len(first) == len(decoded) == 3
    Image.fromarray(np.ones((32, 32, 3), np.uint8)).save(tmp_path / "data" / "1.png")
    changed = example_digests([SDN(recipe).dataset])
    assert [name for name in first if first[name] != changed[name]] == ["1.png"] and len(decoded) == 4


def test_held_out_pictures_are_not_decoded(tmp_path, decoded):
    recipe = recipe_of(tmp_path / "data")
    system = SDN(recipe)
    assert not decoded
    system.prepare()
    assert len(decoded) == 3
    assert system.held_out.captions == (("picture 3",), ("picture 4",), ("picture 5",))
