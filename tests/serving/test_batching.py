import threading
from concurrent.futures import wait

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from t2i_kd.serving.batching import Batcher
from t2i_kd.serving.errors import RequestError, invalid


class Doubler:
    """A model whose answer to a row is twice the row; it can be held up."""

    def __init__(self):
        self.calls, self.open = [], threading.Event()
        self.open.set()
        self.entered = threading.Event()

    def __call__(self, signature, inputs):
        self.entered.set()
        assert self.open.wait(10)
        self.calls.append((signature, inputs["x"].tolist()))
        if -1 in inputs["x"]:
            raise ValueError("cannot answer -1")
        return {"y": inputs["x"] * 2}


@pytest.fixture
def doubler():
    return Doubler()


@pytest.fixture
def batcher(doubler):
    made = Batcher(doubler, (2, 4, 8))
    yield made
    doubler.open.set()
    made.close()
    assert made.join(10)


def rows(*values):
    return {"x": np.array(values)}


def hold_up(batcher, doubler):
    """Lets the next requests pile up."""
    doubler.open.clear()
    first = batcher.submit("a", rows(0))
    assert doubler.entered.wait(10)
    return first


def test_what_waits_is_run_together_and_padded_to_an_allowed_size(batcher, doubler):
    hold_up(batcher, doubler)
    futures = [batcher.submit("a", rows(value)) for value in (1, 2, 3)]
    doubler.open.set()
    assert [future.result(10)["y"].tolist() for future in futures] == [[2], [4], [6]]
    assert doubler.calls == [("a", [0, 0]), ("a", [1, 2, 3, 1])]


def test_signatures_are_not_mixed_and_keep_their_order(batcher, doubler):
    hold_up(batcher, doubler)
    futures = [batcher.submit(name, rows(value)) for name, value in [("a", 1), ("b", 2), ("a", 3)]]
    doubler.open.set()
    assert [future.result(10)["y"].tolist() for future in futures] == [[2], [4], [6]]
    assert doubler.calls[1:] == [("a", [1, 3]), ("b", [2, 2])]


def test_a_request_may_be_larger_than_a_batch(batcher, doubler):
    answer = batcher.submit("a", rows(*range(19))).result(10)
    assert answer["y"].tolist() == [2 * value for value in range(19)]
    assert [len(call) for _, call in doubler.calls] == [8, 8, 4]


def test_a_cancelled_request_is_not_run(batcher, doubler):
    hold_up(batcher, doubler)
    assert batcher.submit("a", rows(5)).cancel()
    kept = batcher.submit("a", rows(6))
    doubler.open.set()
    assert kept.result(10)["y"].tolist() == [12]
    assert doubler.calls[1:] == [("a", [6, 6])]


def test_after_a_failure_the_next_request_is_answered(batcher, doubler):
    with pytest.raises(RequestError, match="could not answer") as caught:
        batcher.submit("a", rows(*range(9), -1)).result(10)
    assert caught.value.code == "INTERNAL"
    assert batcher.submit("a", rows(4)).result(10)["y"].tolist() == [8]


def test_company_of_a_request_that_fails_is_answered(batcher, doubler):
    hold_up(batcher, doubler)
    good, bad, other = [batcher.submit("a", rows(*values)) for values in ([1, 2], [-1], [3])]
    doubler.open.set()
    assert (good.result(10)["y"].tolist(), other.result(10)["y"].tolist()) == ([2, 4], [6])
    with pytest.raises(RequestError, match="could not answer"):
        bad.result(10)


@pytest.mark.parametrize("answer", [np.array(7.0), np.zeros(1), np.zeros(9)])
def test_a_model_that_answers_with_other_rows_fails_and_the_threads_live(batcher, answer):
    batcher._run = lambda signature, inputs: {"y": answer if signature == "bad" else inputs["x"]}
    for _ in range(3):
        with pytest.raises(RequestError, match="could not answer"):
            batcher.submit("bad", rows(1, 2)).result(10)
    assert batcher.alive and batcher.submit("good", rows(4)).result(10)["y"].tolist() == [4]


def test_what_fails_beside_the_model_fails_the_request_and_the_thread_lives(doubler):
    def observe(rows, size, seconds):
        if rows == 2:
            raise OSError("no metrics")

    batcher = Batcher(doubler, (2, 4), observe=observe)
    with pytest.raises(RequestError, match="could not answer"):
        batcher.submit("a", rows(1, 2)).result(10)
    assert batcher.alive and batcher.submit("a", rows(4)).result(10)["y"].tolist() == [8]
    batcher.close()
    assert batcher.join(10) and not batcher.alive


def test_what_a_model_says_of_a_request_is_kept(batcher):
    def refuse(signature, inputs):
        raise invalid("the model refuses this")

    batcher._run = refuse
    with pytest.raises(RequestError, match="the model refuses this") as caught:
        batcher.submit("a", rows(1)).result(10)
    assert caught.value.code == "INVALID_ARGUMENT"


def test_closing_answers_what_waits(doubler):
    batcher = Batcher(doubler, (2, 4))
    hold_up(batcher, doubler)
    waiting = batcher.submit("a", rows(7))
    batcher.close()
    assert not batcher.join(0.05)
    doubler.open.set()
    assert waiting.result(10)["y"].tolist() == [14]
    assert batcher.join(10)
    with pytest.raises(RuntimeError):
        batcher.submit("a", rows(1))


def test_the_oldest_request_waits_for_company_no_longer_than_it_must(doubler):
    batcher = Batcher(doubler, (2, 4), timeout=30)
    futures = [batcher.submit("a", rows(value)) for value in (1, 2, 3)]
    assert not wait(futures, timeout=0.1).done
    futures.append(batcher.submit("a", rows(4)))
    assert not wait(futures, timeout=10).not_done
    assert doubler.calls == [("a", [1, 2, 3, 4])]
    last = batcher.submit("a", rows(5))
    batcher.close()
    assert last.result(10)["y"].tolist() == [10]


def test_as_many_batches_are_run_at_once_as_there_are_threads(doubler):
    both = threading.Barrier(2)

    def run(signature, inputs):
        both.wait(10)
        return doubler(signature, inputs)

    batcher = Batcher(run, (2,), threads=2)
    # Of one request too: its parts come back in their order.
    assert batcher.submit("a", rows(1, 2, 3, 4)).result(10)["y"].tolist() == [2, 4, 6, 8]
    batcher.close()
    assert batcher.join(10)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.lists(st.integers(0, 10**6), min_size=1, max_size=20)), max_size=30),
    st.integers(1, 3),
)
def test_every_request_gets_its_own_rows(requests, threads):
    doubler, sizes = Doubler(), []
    batcher = Batcher(
        doubler, (2, 4, 8), observe=lambda rows, size, seconds: sizes.append((rows, size)), threads=threads
    )
    futures = [batcher.submit(name, rows(*values)) for name, values in requests]
    for future, (_, values) in zip(futures, requests, strict=True):
        assert future.result(10)["y"].tolist() == [2 * value for value in values]
    batcher.close()
    assert batcher.join(10)
    assert sum(count for count, _ in sizes) == sum(len(values) for _, values in requests)
    assert all(size in (2, 4, 8) and count <= size for count, size in sizes)
