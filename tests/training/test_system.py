"""What a run reads of its data before it trains."""

import json

import numpy as np
from PIL import Image

from t2i_kd.data import examples
from t2i_kd.options import DataOptions, TeacherOptions, TextOptions, TrainingOptions
from t2i_kd.sdn import SDNOptions, SDNRecipe, SDNStage
from t2i_kd.sdn.trainer import SDN


def test_held_out_pictures_are_not_decoded(tmp_path, monkeypatch):
    rows = [{"file_name": f"{i}.png", "caption": f"picture {i}", "split": ("train", "test")[i // 3]} for i in range(6)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for row in rows:
        Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / row["file_name"])
    decoded = []
    decode = examples.decode_square
    monkeypatch.setattr(examples, "decode_square", lambda *given: decoded.append(1) or decode(*given))
    recipe = SDNRecipe(
        data=DataOptions(dataset="image_folder", data_dir=str(tmp_path), resolution=32),
        text=TextOptions(text_dim=8, word_dim=4, text_length=4),
        teacher=TeacherOptions(teacher="none"),
        sdn=SDNOptions(width=1 / 32, initializer="he"),
        training=TrainingOptions(batch_size=2),
        stages=(SDNStage("one", "mirrored", steps=1, tap_weights=(("image", 1.0),)),),
    )
    system = SDN(recipe)
    assert not decoded
    system.prepare()
    assert len(decoded) == 3
    assert system.held_out.captions == (("picture 3",), ("picture 4",), ("picture 5",))
