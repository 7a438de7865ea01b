"""What happens when the model is slow, broken, or wanted by too many; with a model that the test holds up."""

import asyncio
import contextlib
import json
import threading

import httpx
import numpy as np
import pytest

from t2i_kd.conditions.caption import CaptionCondition as CAPTION
from t2i_kd.serving.batching import Batcher
from t2i_kd.serving.metrics import Metrics
from t2i_kd.serving.rest import make_app
from t2i_kd.serving.service import Service
from t2i_kd.serving.settings import Settings
from t2i_kd.serving.signature import SEED, STRING, Input, Signature


class Fake:
    """A repository with one model, whose picture of a caption is the caption itself."""

    version, ready = 1, True

    def __init__(self):
        self.signatures = {
            "serving_default": Signature({"text": Input(STRING)}, ("image_bytes",)),
            "pixels": Signature({"text": Input(STRING), "seed": Input(SEED)}, ("image",)),
        }
        self.open, self.answered = threading.Event(), set()
        self.open.set()
        self.batcher = Batcher(self.run, (2, 4))

    def run(self, signature, inputs):
        assert self.open.wait(10)
        self.answered.update(inputs["text"])
        if b"break" in inputs["text"]:
            raise MemoryError("no room for this picture")
        if signature == "pixels":
            return {"image": np.full((len(inputs["text"]), 200, 200, 3), 7, np.uint8)}
        return {"image_bytes": inputs["text"]}

    @contextlib.contextmanager
    def hold(self, version=None, label=None):
        yield self, self.batcher


@pytest.fixture
def fake():
    made = Fake()
    yield made
    made.open.set()
    made.batcher.close()
    assert made.batcher.join(10)


def service(fake, **settings):
    settings = Settings("m", "folder", **settings).with_limits(CAPTION.limits)
    return Service(settings, CAPTION, fake, Metrics((2, 4)))


def ask(fake, script, **settings):
    """Runs `await script(post)`; `post(captions, **more)` asks the REST application."""
    app = make_app(service(fake, **settings))

    async def run():
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=20
        ) as client:

            async def post(captions, **more):
                return await client.post("/v1/models/m:predict", json={"inputs": {"text": captions} | more})

            post.client = client
            return await script(post)

    return asyncio.run(run())


def test_too_many_waiting_captions_are_refused_and_the_next_ones_are_not(fake):
    async def script(post):
        fake.open.clear()
        waiting = [asyncio.create_task(post([f"a{number}", f"b{number}"])) for number in range(4)]
        await asyncio.sleep(0.2)
        refused = await post(["c"])
        fake.open.set()
        answers = await asyncio.gather(*waiting)
        return refused, answers, await post(["d"])

    refused, answers, last = ask(fake, script, max_pending_items=8)
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
    assert "8 captions are waiting" in refused.json()["error"]
    assert [len(answer.json()["outputs"]) for answer in answers] == [2] * 4
    assert last.json() == {"outputs": [{"b64": "ZA=="}]}
    assert b"c" not in fake.answered


def test_who_waits_too_long_hears_it_and_is_not_answered(fake):
    async def script(post):
        fake.open.clear()
        first = asyncio.create_task(post(["first"]))
        await asyncio.sleep(0.1)
        late = await post(["late"])
        fake.open.set()
        return await first, late, await post(["next"])

    first, late, following = ask(fake, script, request_timeout_seconds=0.3)
    assert (first.status_code, late.status_code, following.status_code) == (504, 504, 200)
    assert "within 0.3 seconds" in late.json()["error"]
    assert b"late" not in fake.answered


def test_a_model_that_breaks_is_one_answer_not_the_end(fake):
    async def script(post):
        return await post(["break"]), await post(["a"])

    broken, following = ask(fake, script)
    assert broken.status_code == 500
    assert broken.json() == {"error": "the model could not answer this request"}
    assert following.status_code == 200


def test_what_waits_is_counted_until_it_is_answered(fake):
    async def script(post):
        fake.open.clear()
        waiting = asyncio.create_task(post(["a", "b", "c"]))
        await asyncio.sleep(0.2)
        during = (await post.client.get("/monitoring/prometheus/metrics")).text
        fake.open.set()
        await waiting
        return during, (await post.client.get("/monitoring/prometheus/metrics")).text

    during, after = ask(fake, script)
    assert "t2i_kd_pending_items 3.0" in during and "t2i_kd_pending_items 0.0" in after


def test_a_large_answer_leaves_room_for_small_ones(fake):
    async def script(post):
        large = {"signature_name": "pixels", "inputs": {"text": ["a"] * 4, "seed": [0] * 4}}
        slow = asyncio.create_task(post.client.post("/v1/models/m:predict", json=large))
        await asyncio.sleep(0)
        order = []
        slow.add_done_callback(lambda _: order.append("large"))
        for _ in range(3):
            await post(["b"])
            order.append("small")
        return (await slow).json()["outputs"], order

    pictures, order = ask(fake, script)
    assert np.shape(pictures) == (4, 200, 200, 3)
    assert order[0] == "small"


def test_a_picture_counts_until_its_client_has_taken_it(fake):
    app, body = make_app(service(fake, max_pending_items=2)), b'{"instances": ["a", "b"]}'
    scope = {"type": "http", "method": "POST", "path": "/v1/models/m:predict", "query_string": b""}
    scope["headers"] = [(b"host", b"localhost")]

    async def ask_and_take(taken):
        sent = []

        async def send(message):
            # As uvicorn's: nothing is taken from the application while the piece before is not written.
            if sent and sent[-1].get("body"):
                await taken.wait()
            sent.append(message)

        async def receive():
            return {"type": "http.request", "body": body, "more_body": False}

        await app(scope, receive, send)
        return sent[0]["status"]

    async def script():
        taken = asyncio.Event()
        first = asyncio.create_task(ask_and_take(taken))
        await asyncio.sleep(0.3)
        while_unread = await ask_and_take(taken)
        taken.set()
        return while_unread, await first, await ask_and_take(taken)

    assert asyncio.run(script()) == (503, 200, 200)


@pytest.mark.parametrize(
    "body",
    [
        rb'{"inputs": ["a"], "signature_name": "\ud800"}',
        rb'{"inputs": {"\udfff": ["a"]}}',
        rb'{"inputs": {"\ud800_bytes": ["a"]}}',
        rb'{"inputs": {"\ud800": 3}}',
        rb'{"instances": [{"\ud800": "a"}]}',
        rb'{"inputs": {"text": ["\ud800"]}}',
        rb'{"inputs": {"text": {"\ud800": 1}}}',
        rb'{"\ud800": 1}',
        rb'["\ud800"]',
    ],
)
def test_a_lone_surrogate_is_the_clients_fault(fake, body):
    async def script(post):
        return [await post.client.post(path, content=body) for path in ("/v1/models/m:predict", "/unread.json")]

    predicted, unread = ask(fake, script)
    for answer in (predicted, unread):
        assert answer.status_code == 400 and answer.json()["error"]


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        (None, 200),
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("application/problem+json", 200),
        ("application/x-www-form-urlencoded", 200),
        ("text/plain;charset=UTF-8", 415),
        ("text/plain, application/json", 415),
        ("multipart/form-data; boundary=x", 415),
        ("application/octet-stream", 415),
        ("application/jsonx", 415),
        ("", 415),
    ],
)
def test_bodies_are_json(fake, content_type, status):
    fake.open.set()

    async def script(post):
        headers = {} if content_type is None else {"content-type": content_type}
        body = json.dumps({"inputs": {"text": ["a red circle"]}})
        answers = [await post.client.post("/v1/models/m:predict", content=body, headers=headers)]
        answers.append(await post.client.post("/unread.json", content="{", headers=headers))
        return answers

    answer, unread = ask(fake, script)
    assert (answer.status_code, unread.status_code) == (status, 400 if status == 200 else 415), answer.text
    if status == 415:
        assert answer.json() == {"error": f"Content-Type {content_type!r} is not known; application/json is"}
