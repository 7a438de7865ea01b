"""Which versions are taken: their signatures, and what they answer to their own warm-up requests."""

import types

import numpy as np
import pytest

from t2i_kd.errors import UserError
from t2i_kd.serving import model
from t2i_kd.serving.signature import STRING, Input, Signature


def version(answer):
    """Version 3 of a model, without TensorFlow; `answer` gives a batch's outputs."""
    made = model.Model.__new__(model.Model)
    made.version, made._typical = 3, [b"a red picture"]
    made.signatures = {"serving_default": Signature({"text": Input(STRING)}, ("image",))}
    made._contract = types.SimpleNamespace(check_outputs=lambda name, outputs: None)
    made.run = lambda name, inputs: answer(len(inputs["text"]))
    return made


def strings(*values):
    found = np.empty(len(values), object)
    found[:] = values
    return found


@pytest.mark.parametrize(
    "answer", [lambda size: {"image": np.zeros((size, 4))}, lambda size: {"png": strings(*size * [b"x"])}]
)
def test_answers_with_a_row_each_are_taken(answer):
    version(answer).warm_up((2, 4))


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        (lambda size: {"image": np.zeros((2, 4))}, r"output image has the shape \[2, 4\] for 4 rows"),
        (lambda size: {"image": np.float32(1)}, r"output image has the shape \[\] for 2 rows"),
        (lambda size: {"image": np.full((size, 4), np.nan)}, "image is empty or not finite"),
        (lambda size: {"image": np.full((size, 4), np.inf)}, "image is empty or not finite"),
        (lambda size: {"png": strings(b"x", b"", *(size - 2) * [b"x"])}, "png is empty or not finite"),
    ],
)
def test_other_answers_to_the_warm_up_are_refused(answer, named):
    with pytest.raises(UserError, match=f"^version 3: signature serving_default: {named}"):
        version(answer).warm_up((2, 4))
