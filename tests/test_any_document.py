"""Documents of a run and an export, whatever they hold: what is read of them, or one line that names the file."""

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from t2i_kd.conditions.catalogue import load_condition
from t2i_kd.conditions.image import ImageCondition
from t2i_kd.errors import UserError
from t2i_kd.text.tokenizer import Tokenizer
from t2i_kd.training.distribution import check_cluster
from t2i_kd.training.inputs import Inputs
from t2i_kd.training.logs import cut_metrics, read_metrics
from tests.any_json import any_json

ANY = any_json(10**9, 10**40, "\ud800", "words", "image", "float32", 1, 8)
CAPTIONS = {
    "format_version": 1,
    "kind": "caption",
    "request": "text",
    "inputs": {"tokens": {"shape": [8], "dtype": "int32"}},
    "encoder": "gru",
    "tokenizer": "words",
    "length": 8,
    "vocabulary_size": 4,
    "vocabulary": "vocabulary.txt",
}
IMAGES = {"format_version": 1, **ImageCondition(8).describe()}
VECTORS = {**CAPTIONS, "encoder": "hub", "source": "a", "embedding_dim": 3}
INPUTS = json.loads(Inputs({"a": "1"}, "2", {"teacher": "3"}).to_json())
CLUSTER = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 0}}


def of(document):
    """Strategy of documents with another value in one place, or without it."""

    def places(value, path=()):
        yield path
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, each in items:
            yield from places(each, (*path, key))

    def changed(place, value):
        if not place:
            return value
        copied = json.loads(json.dumps(document))
        holder = copied
        for key in place[:-1]:
            holder = holder[key]
        holder[place[-1]] = value
        return copied

    return st.builds(changed, st.sampled_from(list(places(document))), ANY)


def allowed(max_examples=150):
    """Hypothesis's settings of a test that writes a file."""
    return settings(
        max_examples=max_examples, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )


def named(name):
    """Whatever is raised within it is a `UserError` of one line that names the file."""
    return pytest.raises(UserError, match=name)


def taken(read, name):
    """Calls a reader; what it refuses must be one line that names the file."""
    try:
        return read()
    except UserError as error:
        assert name in str(error) and "\n" not in str(error) and len(str(error)) < 1000
        return None


@allowed()
@given(of(CAPTIONS) | of(IMAGES) | of(VECTORS))
def test_conditions(tmp_path, document):
    (tmp_path / "condition.json").write_text(json.dumps(document))
    (tmp_path / "vocabulary.txt").write_text("[PAD]\n[UNK]\na\nb\n")
    condition = taken(lambda: load_condition(tmp_path), "")
    if condition is not None:
        assert all(side <= 2**16 for each in condition.inputs.values() for side in each.shape)


@allowed()
@given(of(INPUTS))
def test_inputs(tmp_path, document):
    (tmp_path / "inputs.json").write_text(json.dumps(document))
    inputs = taken(lambda: Inputs.load(tmp_path / "inputs.json"), "inputs.json: ")
    if inputs is not None:
        (tmp_path / "again.json").write_text(inputs.to_json())
        assert Inputs.load(tmp_path / "again.json") == inputs


@allowed()
@given(st.lists(of({"stage": "I", "step": 3, "loss": 0.5}).map(json.dumps) | st.text(max_size=9), max_size=4))
def test_metrics(tmp_path, lines):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    for entry in taken(lambda: read_metrics(path, "I"), "metrics.jsonl") or ():
        assert all(isinstance(value, int | float) for value in entry.values())
    before = path.read_bytes()
    if taken(lambda: cut_metrics(path, 5) or path, "metrics.jsonl") is None:
        assert path.read_bytes() == before


def test_a_line_of_metrics_that_is_no_entry_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"stage": "I", "step": 1}\nnothing\n{"stage": "I", "step": 2}\n')
    with named(r"metrics\.jsonl line 2: not JSON"):
        cut_metrics(path, 5)
    path.write_text('{"stage": "I", "step": "1"}\n')
    with named(r"metrics\.jsonl line 1: not an entry"):
        read_metrics(path, "I")


@allowed()
@given(st.binary(max_size=30) | st.text(max_size=20).map(lambda text: f"[PAD]\n[UNK]\n{text}\n".encode()))
def test_vocabularies(tmp_path, content):
    path = tmp_path / "vocabulary.txt"
    path.write_bytes(content)
    tokenizer = taken(lambda: Tokenizer.load(path, "words", 8), "vocabulary.txt: ")
    if tokenizer is not None:
        tokenizer.save(path)
        assert path.read_bytes() == content


@pytest.mark.parametrize("length", [0, -1, 2001, 10**9, 3.0, True, "8", None])
def test_a_length_that_is_none_is_named(length):
    with named("--text_length: .* is no number of tokens from 1 to 2,000"):
        Tokenizer("words", ("a",), length)


@settings(max_examples=150, deadline=None)
@given(of(CLUSTER).map(json.dumps) | st.text(max_size=20))
def test_clusters(text):
    taken(lambda: check_cluster(text), "TF_CONFIG: ")
