"""CLIP by KerasHub, end to end on a tiny random preset that KerasHub itself writes here."""

import json

import numpy as np
import pytest

from t2i_kd.errors import UserError
from t2i_kd.options import DualEncoderOptions, TeacherOptions
from t2i_kd.teachers.catalogue import load_dual_encoder, load_teacher

keras_hub = pytest.importorskip("keras_hub")
SIDE, DIM, LENGTH = 32, 6, 12
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def write_preset(folder):
    """A random CLIP of 32 px with a vocabulary of letters; its backbone."""
    from keras_hub.layers import CLIPImageConverter
    from keras_hub.models import CLIPBackbone, CLIPPreprocessor, CLIPTextEncoder, CLIPTokenizer, CLIPVisionEncoder

    letters = "abcdefghijklmnopqrstuvwxyz"
    tokens = [*letters, *(f"{each}</w>" for each in letters), "<|startoftext|>", "<|endoftext|>", "ca", "cat</w>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    small = {"hidden_dim": 8, "num_layers": 1, "num_heads": 2, "intermediate_dim": 8}
    vision = CLIPVisionEncoder(patch_size=16, image_shape=(SIDE, SIDE, 3), **small)
    text = CLIPTextEncoder(vocabulary_size=len(vocabulary), embedding_dim=8, max_sequence_length=LENGTH, **small)
    backbone = CLIPBackbone(vision_encoder=vision, text_encoder=text, projection_dim=DIM)
    converter = CLIPImageConverter(
        image_size=(SIDE, SIDE),
        scale=[1 / 255 / each for each in DEVIATION],
        offset=[-mean / each for mean, each in zip(MEAN, DEVIATION, strict=True)],
    )
    tokenizer = CLIPTokenizer(vocabulary=vocabulary, merges=["c a", "ca t</w>"], pad_with_end_token=True)
    preprocessor = CLIPPreprocessor(tokenizer, image_converter=converter, sequence_length=LENGTH)
    backbone.save_to_preset(str(folder))
    preprocessor.save_to_preset(str(folder))
    return backbone


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip") / "tiny"
    return folder, write_preset(folder)


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_the_towers_are_the_presets(preset):
    folder, backbone = preset
    teacher = load_dual_encoder(TeacherOptions(f"clip:{folder}"), DualEncoderOptions(), SIDE)
    images = np.random.default_rng(0).uniform(0, 255, (3, SIDE, SIDE, 3)).astype("float32")
    pixels = (images / 255 - MEAN) / DEVIATION
    expected = unit(np.asarray(backbone.get_vision_embeddings(pixels.astype("float32"))))
    np.testing.assert_allclose(teacher.image(images), expected, atol=1e-4)
    # Begin, c-a-t as one piece, end; filled up with the end.
    start, end, cat = 52, 53, 55
    tokens = np.array([[start, cat] + [end] * (LENGTH - 2)])
    expected = unit(np.asarray(backbone.get_text_embeddings(tokens)))
    np.testing.assert_allclose(teacher.prompts(["Cat"]), expected, atol=1e-4)
    assert teacher.dim == DIM and not teacher.image.trainable_variables
    assert list(load_teacher(TeacherOptions(f"clip:{folder}"), SIDE).output) == ["image"]


def test_the_codes_view_repeats_pixels_and_does_not_normalise(preset):
    folder, backbone = preset
    towers = DualEncoderOptions(teacher_resize="nearest", teacher_normalisation="none")
    teacher = load_dual_encoder(TeacherOptions(f"clip:{folder}"), towers, SIDE // 2)
    images = np.random.default_rng(1).uniform(0, 255, (2, SIDE // 2, SIDE // 2, 3)).astype("float32")
    pixels = images.repeat(2, axis=1).repeat(2, axis=2) / 127.5 - 1
    expected = unit(np.asarray(backbone.get_vision_embeddings(pixels)))
    np.testing.assert_allclose(teacher.image(images), expected, atol=1e-4)


def test_what_does_not_fit_is_named(preset, tmp_path):
    teacher = TeacherOptions(f"clip:{preset[0]}")
    encoder = load_dual_encoder(teacher, DualEncoderOptions(), SIDE)
    with pytest.raises(UserError, match=r"--prompts: 'q q q.* has 14 tokens, the encoder takes 12"):
        encoder.prompts(["q " * 12])
    with pytest.raises(UserError, match=r"--teacher_side: .* reads images of 32 px, not 64"):
        load_dual_encoder(teacher, DualEncoderOptions(teacher_side=64), SIDE)
    with pytest.raises(UserError, match="--class_names: clip has a text tower of its own"):
        load_dual_encoder(teacher, DualEncoderOptions(class_names="names.txt"), SIDE)
    with pytest.raises(UserError, match=r"--teacher: KerasHub cannot load .*nowhere as CLIP .*offline, download"):
        load_dual_encoder(TeacherOptions(f"clip:{tmp_path / 'nowhere'}"), DualEncoderOptions(), SIDE)


def test_a_preset_of_another_model_is_refused(tmp_path):
    layer = keras_hub.models.BertTokenizer(vocabulary=["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "a"])
    layer.save_to_preset(str(tmp_path / "bert"))
    backbone = keras_hub.models.BertBackbone(6, 1, 1, 4, 4, max_sequence_length=8)
    backbone.save_to_preset(str(tmp_path / "bert"))
    assert json.loads((tmp_path / "bert" / "config.json").read_text())["class_name"] == "BertBackbone"
    with pytest.raises(UserError, match=r"--teacher: KerasHub cannot load .*bert as CLIP") as error:
        load_dual_encoder(TeacherOptions(f"clip:{tmp_path / 'bert'}"), DualEncoderOptions(), SIDE)
    assert "\n" not in str(error.value)
