import base64
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2i_kd.serving import json_format
from t2i_kd.serving.errors import RequestError, invalid

# A machine may be busy.
NOT_TIMED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["b64", "text", "seed"]), inner),
    max_leaves=12,
)


def at_most_8(rows):
    if not 1 <= rows <= 8:
        raise invalid(f"{rows} rows")


def read(body, names=("text",)):
    form, content, signature = json_format.parse(body if isinstance(body, bytes) else json.dumps(body).encode())
    return json_format.read_inputs(form, content, names, at_most_8), signature


@pytest.mark.parametrize(
    ("body", "names", "expected"),
    [
        ({"instances": ["a", "ä"]}, ["text"], {"text": [b"a", "ä".encode()]}),
        ({"instances": [{"b64": "YQ=="}, "b"]}, ["text"], {"text": [b"a", b"b"]}),
        ({"instances": [{"text": "a"}, {"text": {"b64": "Yg=="}}]}, ["text"], {"text": [b"a", b"b"]}),
        ({"instances": [{"text": "a", "seed": 1}]}, ["text", "seed"], {"text": [b"a"], "seed": [1]}),
        ({"inputs": ["a", "b"]}, ["text"], {"text": [b"a", b"b"]}),
        ({"inputs": ["a"], "model": "x"}, ["text"], {"text": [b"a"]}),
        ({"inputs": {"text": ["a"], "seed": [-5]}}, ["text", "seed"], {"text": [b"a"], "seed": [-5]}),
        ({"instances": [{"b64": "AAE="}]}, ["image_bytes"], {"image_bytes": [b"\0\1"]}),
        ({"instances": [[[1, 2], [3, 4]]]}, ["image"], {"image": [[[1, 2], [3, 4]]]}),
        ({"instances": [{"image": [[1]]}]}, ["image"], {"image": [[[1]]]}),
        ({"inputs": [[[1]], [[2]]]}, ["image"], {"image": [[[1]], [[2]]]}),
    ],
)
def test_rows_and_columns_are_read(body, names, expected):
    assert read(body, names) == (expected, "serving_default")


def test_the_signature_is_read():
    assert read({"instances": ["a"], "signature_name": "seeded"})[1] == "seeded"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"instances": ["a"', "JSON Parse error"),
        (b"", "JSON Parse error"),
        (b'{"instances": ["\xff"]}', "not UTF-8"),
        (b"[" * 100_000, "JSON Parse error"),
        (b'{"instances": [' + b"9" * 10_000 + b"]}", "JSON Parse error"),
        (b'{"instances": [NaN]}', "NaN is not JSON"),
        (["a"], "not an object"),
        ({}, "one of 'instances'"),
        ({"instances": ["a"], "inputs": ["a"]}, "one of 'instances'"),
        ({"instances": ["a"], "signature_name": 3}, "'signature_name' is not a string"),
        ({"instances": "a"}, "'instances' is not a list"),
        ({"instances": []}, "0 rows"),
        ({"instances": ["a"] * 9}, "9 rows"),
        ({"instances": ["a", {"text": "a"}]}, "mixes"),
        ({"instances": [{"text": "a"}, {"seed": 1}]}, "instance 1 has other keys"),
        ({"instances": [{"b64": "?"}]}, "base64"),
        ({"instances": [{"b64": 7}]}, "base64"),
        ({"inputs": {"text": "a"}}, "'text' is not a list"),
        ({"inputs": "a"}, "'text' is not a list"),
        ({"inputs": {"text": []}}, "0 rows"),
    ],
)
def test_what_is_wrong_is_said(body, message):
    with pytest.raises(RequestError, match=message) as caught:
        read(body)
    assert caught.value.http_status == 400


@pytest.mark.parametrize(
    "body",
    [{"instances": [{"b64": "AA=="}, "iVBORw0K"]}, {"inputs": {"image_bytes": [{"b64": "AA=="}, "iVBORw0K"]}}],
)
def test_text_is_no_binary_value(body):
    with pytest.raises(RequestError, match=r'\'image_bytes\', row 1: text, but .* give {"b64": "..."} with base64'):
        read(body, ["image_bytes"])


def test_a_signature_with_two_inputs_needs_names():
    for body in ({"instances": ["a"]}, {"inputs": ["a"]}):
        with pytest.raises(RequestError, match="text, seed"):
            read(body, ["text", "seed"])


@NOT_TIMED
@given(st.dictionaries(st.sampled_from(["instances", "inputs", "signature_name"]), JSON) | JSON)
def test_any_json_is_read_or_refused(body):
    try:
        values, signature = read(body, ["text", "seed"])
    except RequestError as error:
        assert error.http_status == 400
    else:
        assert isinstance(signature, str)
        assert all(1 <= len(column) <= 8 for column in values.values())


@NOT_TIMED
@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body):
    with pytest.raises(RequestError):
        read(body)


@NOT_TIMED
@given(st.lists(st.binary(), min_size=1, max_size=8))
def test_rows_and_columns_mean_the_same(values):
    coded = [{"b64": base64.b64encode(value).decode()} for value in values]
    for body in ({"instances": coded}, {"inputs": coded}, {"inputs": {"text": coded}}):
        assert read(body)[0] == {"text": values}


def test_answers_have_the_form_of_the_question():
    one, two = np.array([b"\x00", b"\xff"], object), np.array([[1, 2], [3, 4]], np.uint8)
    coded = [{"b64": "AA=="}, {"b64": "/w=="}]

    def answer(form, **outputs):
        return json.loads(json_format.write_outputs(form, outputs))

    assert answer("instances", image_bytes=one) == {"predictions": coded}
    assert answer("inputs", image_bytes=one) == {"outputs": coded}
    assert answer("inputs", image=two) == {"outputs": [[1, 2], [3, 4]]}
    rows = [{"a_bytes": coded[0], "b": [1, 2]}, {"a_bytes": coded[1], "b": [3, 4]}]
    assert answer("instances", a_bytes=one, b=two) == {"predictions": rows}
    assert answer("inputs", a_bytes=one, b=two) == {"outputs": {"a_bytes": coded, "b": [[1, 2], [3, 4]]}}
    assert answer("inputs", words=np.array([b"\xc3\xa4"], object)) == {"outputs": ["ä"]}
