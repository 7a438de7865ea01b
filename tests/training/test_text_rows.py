"""Text inputs of a set that is too large for them are made for each batch, and are the same."""

import numpy as np
import pytest

from t2i_kd.conditions.caption import CaptionCondition
from t2i_kd.data.batches import Batches
from t2i_kd.data.catalogue import load_dataset
from t2i_kd.options import TextOptions
from t2i_kd.text.front_end import build_front_end
from t2i_kd.training import text_to_image
from t2i_kd.training.text_to_image import TextRows, text_rows


@pytest.mark.parametrize("encoder", ["gru", "char_cnn_rnn"])
def test_the_same_batches_however_many_captions_there_are(monkeypatch, encoder):
    data = load_dataset("captioned_shapes", "test", 8)
    condition = CaptionCondition(build_front_end(TextOptions(text_encoder=encoder), data))
    kept = text_rows(condition, data.all_captions)
    size = sum(rows.nbytes for rows in kept.values())
    monkeypatch.setattr(text_to_image, "TEXT_BYTES", size)
    assert all(isinstance(rows, np.ndarray) for rows in text_rows(condition, data.all_captions).values())
    monkeypatch.setattr(text_to_image, "TEXT_BYTES", size - 1)
    made = text_rows(condition, data.all_captions)
    assert all(isinstance(rows, TextRows) and len(rows) == len(data.all_captions) for rows in made.values())
    (ours, theirs) = (Batches(data, inputs, 8, 3, 0, 20) for inputs in (made, kept))
    for step in range(20):
        for name in ("image", "tokens"):
            np.testing.assert_array_equal(ours[step][name], theirs[step][name])
