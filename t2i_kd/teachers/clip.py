"""CLIP as a teacher with two towers, by KerasHub.

Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (ICML 2021).
"""

import keras
import numpy as np
from keras import ops

from t2i_kd import quiet
from t2i_kd.errors import UserError
from t2i_kd.imaging import HALF_RANGE
from t2i_kd.teachers.dual_encoder import DualEncoder, image_tower, resized, unit

NAME, PREFIX = "clip", "clip:"
DEFAULT_PRESET = "clip_vit_base_patch32"


def preset_of(teacher):
    """The KerasHub preset, a name or a folder, of `clip:PRESET`; of `clip`, ViT-B/32."""
    return teacher.removeprefix(PREFIX) if teacher.startswith(PREFIX) else DEFAULT_PRESET


def load_taps(options, resolution):
    """The image alone: CLIP is a teacher by its two towers; see `catalogue.load_teacher`."""
    image = keras.Input((resolution, resolution, 3), name="image")
    return keras.Model(image, {"image": image}, name=NAME)


def load_clip(options, towers, resolution):
    """The two towers; see `catalogue.load_dual_encoder`.

    Args:
        options: `TeacherOptions` with `teacher` `clip` or `clip:PRESET`.
        towers: `DualEncoderOptions`. `teacher_normalisation=own` normalises as the preset says; `none` feeds the images
            in -1 to 1, as KD-DLGAN's code does, which CLIP was not trained on.
        resolution: side of the images in pixels, which are resized to the preset's.

    Raises:
        UserError: naming `--teacher`, when KerasHub is not installed, or the preset cannot be had or is another
            model's; or an option that CLIP does not read.
    """
    for option in ("sentence_vocabulary", "class_names"):
        if getattr(towers, option):
            raise UserError(f"--{option}: {NAME} has a text tower of its own, only conse reads it")
    if options.teacher_weights != "imagenet":
        raise UserError(f"--teacher_weights: {NAME} takes those of its preset, as in --teacher={PREFIX}FOLDER")
    backbone, preprocessor = _load(preset_of(options.teacher))
    side, *_ = backbone.vision_encoder.image_shape
    if towers.teacher_side not in (0, side):
        raise UserError(f"--teacher_side: {options.teacher} reads images of {side} px, not {towers.teacher_side}")
    image = keras.Input((resolution, resolution, 3), name="image")
    pixels = _normalised(resized(image, side, towers.teacher_resize), preprocessor, towers.teacher_normalisation)
    tower = image_tower(image, backbone.get_vision_embeddings(pixels), NAME)
    return DualEncoder(options.teacher, tower, lambda texts: _text(backbone, preprocessor, texts))


def _load(preset):
    try:
        with quiet.standard_error_held():
            from keras_hub.models import CLIPBackbone, CLIPPreprocessor
    except ImportError:
        raise UserError("--teacher: clip needs the extra `clip`: pip install 't2i_kd[clip]'") from None
    try:
        backbone = CLIPBackbone.from_preset(preset, dtype="float32")
        preprocessor = CLIPPreprocessor.from_preset(preset)
    except Exception as error:  # KerasHub raises anything here, from FileNotFoundError to Kaggle's own errors.
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--teacher: KerasHub cannot load {preset} as CLIP ({reason}); offline, download the preset elsewhere and "
            f"give the folder with its config.json, as in --teacher={PREFIX}FOLDER"
        ) from None
    if preprocessor.image_converter is None or preprocessor.image_converter.scale is None:
        raise UserError(f"--teacher: the preset {preset} does not say how its images are normalised")
    return backbone, preprocessor


def _normalised(image, preprocessor, kind):
    if kind == "none":
        return keras.layers.Rescaling(1 / HALF_RANGE, -1.0, dtype="float32", name="preprocessing")(image)
    converter = preprocessor.image_converter
    offset = 0.0 if converter.offset is None else converter.offset
    scale, offset = (np.broadcast_to(each, 3).tolist() for each in (converter.scale, offset))
    return keras.layers.Rescaling(scale, offset, dtype="float32", name="preprocessing")(image)


def _text(backbone, preprocessor, texts):
    texts = list(texts)
    longest = preprocessor.sequence_length
    for text in texts:
        # Begin and end are tokens, too; the preprocessor would cut the text without a word.
        count = len(preprocessor.tokenizer(text.lower())) + 2
        if count > longest:
            raise UserError(f"--prompts: {text[:60]!r} has {count} tokens, the encoder takes {longest}")
    tokens = preprocessor({"images": None, "prompts": texts})["token_ids"]
    return unit(ops.convert_to_numpy(backbone.get_text_embeddings(tokens)))
