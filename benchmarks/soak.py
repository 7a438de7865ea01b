"""An endpoint under load, under requests that are damaged, killed, ended and with versions that come and go.

    python -m benchmarks.soak --model=saved_models/shapes32/1 --out=report.json

Starts `python -m t2i_kd.serve` on ports of its own with copies of an exported version that is asked with captions, as
often as it is killed or ended. Every answer is compared with what the version itself gives of that caption and seed: a
value may differ by 1/255, see docs/serving.md. Prints what was held, and exits with 1 where something was not. Memory
is read from /proc, so this is for Linux.
"""

import asyncio
import base64
import collections
import contextlib
import gzip
import io
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import flags
from PIL import Image

from benchmarks import command
from benchmarks.serving_load import CAPTIONS
from t2i_kd.errors import UserError

NAME = "soak"
SEEDS = (0, 7, -1, 2**63 - 1)
RIGHT, REFUSED, WRONG, BROKEN = "right", "refused", "wrong", "broken"
START_SECONDS, PATIENCE = 900, 60
# Of the endpoint, so that a request that never becomes whole is soon given up.
READ_SECONDS = 5.0
MEBIBYTE = 1 << 20
WEIGHTS = Path("variables") / "variables.data-00000-of-00001"
# gRPC's statuses that are HTTP's 5xx, but for 503 and 504.
FAULTS = ("INTERNAL", "UNKNOWN", "DATA_LOSS")
NASTY = [
    *(
        b"\r\n",
        b"\n",
        b"\0",
        b"\xff\xfe",
        b"9" * 30,
        b"-1",
        b"NaN",
        b"1e999",
        b"[" * 2000,
        b'"\\ud800"',
        b"null",
        b"{}",
    ),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 0\r\n",
        b"Content-Encoding: gzip\r\n",
        b"Expect: 100-continue\r\n",
    ),
    *(b"Host: evil.example\r\n", b"Origin: null\r\n", b"Upgrade: websocket\r\nConnection: upgrade\r\n", b"X" * 40000),
    *(b'"instances"', b'"inputs"', b'{"b64": "//4="}', b"%00", b"/../", b":predict", b"HTTP/1.0", b"HTTP/9.9"),
]


def define_flags():
    """Defines this command's flags."""
    flags.DEFINE_string("model", "", "the version folder that is served")
    flags.DEFINE_integer("clients", 64, "that ask at once by one protocol, one caption a request", 1)
    flags.DEFINE_float("seconds", 60, "of load by each protocol", 0.1)
    flags.DEFINE_integer("rest_mutations", 10_000, "damaged requests by REST", 0)
    flags.DEFINE_integer("grpc_mutations", 3_000, "damaged requests by gRPC", 0)
    flags.DEFINE_integer("publications", 5, "versions that are published, damaged and repaired under load", 0)
    flags.DEFINE_integer("kills", 2, "kill -9 under load, each with a start after it", 0)
    flags.DEFINE_integer("terminations", 5, "SIGTERM under load, each but the last with a start after it", 0)
    flags.DEFINE_integer("mebibytes", 50, "that the endpoint's memory may grow under damaged requests", 1)
    flags.DEFINE_integer("seed", 0, "of all that is random")
    flags.DEFINE_string("out", "", "a JSON file for the whole report")


@dataclass(frozen=True)
class Answer:
    """What became of one request: its protocol, when it was sent and answered, and one of the outcomes or why not."""

    protocol: str
    sent: float
    ended: float
    outcome: str
    reason: str = ""


class Expected:
    """What a version gives of every caption and seed that is asked for.

    Args:
        runner: a `runners.Runner` of captions.
    """

    def __init__(self, runner):
        self.items = [(caption, SEEDS[number % len(SEEDS)]) for number, caption in enumerate(CAPTIONS)]
        self._pngs = {item: runner.generate_png(*item) for item in self.items}

    def outcome(self, item, png):
        """`RIGHT` where no value of an answer's image differs by more than 1, and few do; else `WRONG`."""
        if png == self._pngs[item]:
            return RIGHT
        try:
            found, wanted = (_pixels(each) for each in (png, self._pngs[item]))
        except (OSError, ValueError, SyntaxError):
            return WRONG
        if found.shape != wanted.shape:
            return WRONG
        differences = np.abs(found - wanted).max(-1)
        return RIGHT if differences.max() <= 1 and (differences > 0).mean() <= 0.005 else WRONG


def _pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), int)


class Endpoint:
    """A `python -m t2i_kd.serve` that can be started again at the same ports.

    Args:
        model: the version folder; a copy is version 1.
        folder: for the versions and the log.
    """

    def __init__(self, model, folder):
        self.model, self.base, self.log = model, folder / "versions", folder / "log"
        self.rest, self.grpc = _free_ports(2)
        shutil.copytree(model, self.base / "1")
        self._file = self.log.open("ab")
        self.process = None

    async def start(self):
        """Starts it; returns the seconds until it serves."""
        began = time.monotonic()
        arguments = [f"--model_name={NAME}", f"--model_base_path={self.base}", f"--port={self.grpc}"]
        arguments += [f"--rest_api_port={self.rest}", f"--read_timeout_seconds={READ_SECONDS}"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "t2i_kd.serve", *arguments, "--file_system_poll_wait_seconds=0.2"],
            stdout=self._file,
            stderr=self._file,
        )
        while await self.get("/healthz") is None:
            if self.process.poll() is not None or time.monotonic() > began + START_SECONDS:
                raise RuntimeError(f"the endpoint does not start:\n{self.log.read_text()[-2000:]}")
            await asyncio.sleep(0.1)
        return time.monotonic() - began

    async def get(self, path):
        """The JSON of a path of REST; None where there is no answer, or another status than 200."""
        with contextlib.suppress(OSError, EOFError, ValueError, TimeoutError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.rest)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
                status, _, body = await asyncio.wait_for(_read_answer(reader), PATIENCE)
                return json.loads(body) if status == 200 else None
            finally:
                writer.close()
        return None

    async def newest(self):
        """The number of the version that is served, 0 for none."""
        answer = await self.get(f"/v1/models/{NAME}/metadata")
        return int(answer["model_spec"]["version"]) if answer else 0

    async def serves(self, version):
        """Whether a version comes to be the one that is served."""
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until:
            if await self.newest() == version:
                return True
            await asyncio.sleep(0.1)
        return False

    def memory(self):
        """Bytes that the process holds."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmRSS"))

    async def end(self, number):
        """Sends a signal; returns the exit code."""
        self.process.send_signal(number)
        return await asyncio.to_thread(self.process.wait, PATIENCE)

    def close(self):
        """Ends what is left."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self._file.close()


def _free_ports(count):
    with contextlib.ExitStack() as opened:
        sockets = [opened.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


async def _read_answer(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = dict(line.lower().split(": ", 1) for line in lines[1:] if ": " in line)
    return int(lines[0].split()[1]), headers, await reader.readexactly(int(headers.get("content-length", 0)))


# ---- load


@contextlib.asynccontextmanager
async def load(endpoint, expected, by_rest, by_grpc, seed):
    """Asks without a pause for as long as the block runs.

    Args:
        endpoint, expected: what is asked, and what it must answer.
        by_rest, by_grpc: clients of either protocol; every second one by REST opens a connection for each request.
        seed: of what is asked.

    Yields:
        A list of `Answer`, complete after the block.
    """
    import grpc

    answers, done = [], asyncio.Event()
    async with contextlib.AsyncExitStack() as opened:
        clients = [_rest_client(endpoint, number % 2 == 0) for number in range(by_rest)]
        for at in range(0, by_grpc, 8):
            # The clients of one channel share a connection.
            channel = grpc.aio.insecure_channel(
                f"127.0.0.1:{endpoint.grpc}",
                [("grpc.use_local_subchannel_pool", 1), ("grpc.max_reconnect_backoff_ms", 500)],
            )
            await opened.enter_async_context(channel)
            clients += [_grpc_client(channel) for _ in range(min(8, by_grpc - at))]
        tasks = [
            asyncio.create_task(_ask_on(client, expected, random.Random(f"{seed} {number}"), answers, done))
            for number, client in enumerate(clients)
        ]
        try:
            yield answers
        finally:
            done.set()
            await asyncio.gather(*tasks)


async def _ask_on(client, expected, chance, answers, done):
    try:
        while not done.is_set():
            item = chance.choice(expected.items)
            # Set once the whole request is on its way.
            sent = [time.monotonic()]
            protocol, outcome = client.protocol, None
            try:
                outcome, reason = await asyncio.wait_for(client.ask(item, sent), PATIENCE), ""
                if isinstance(outcome, bytes):
                    outcome = expected.outcome(item, outcome)
                else:
                    outcome, reason = outcome
            except Exception as error:
                outcome, reason = BROKEN, f"{type(error).__name__}: {error}"[:100]
                await client.close()
            answers.append(Answer(protocol, sent[0], time.monotonic(), outcome, reason))
            if outcome in (BROKEN, REFUSED):
                await asyncio.sleep(0.05)
    finally:
        await client.close()


class _rest_client:
    protocol = "REST"

    def __init__(self, endpoint, keep):
        self._port, self._keep = endpoint.rest, keep
        self._reader = self._writer = None

    async def ask(self, item, sent):
        if self._writer is None:
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(rest_request(predict_body(*item), ["Connection: close"] * (not self._keep)))
        sent[0] = time.monotonic()
        status, headers, body = await _read_answer(self._reader)
        if headers.get("connection") == "close":
            await self.close()
        if status != 200:
            return REFUSED if status in (503, 504) else WRONG, f"HTTP {status}"
        return base64.b64decode(json.loads(body)["outputs"][0]["b64"])

    async def close(self):
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class _grpc_client:
    protocol = "gRPC"

    def __init__(self, channel):
        from tensorflow_serving.apis import prediction_service_pb2_grpc

        self._predict = prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict

    async def ask(self, item, sent):
        import grpc

        request = predict_request(*item)
        sent[0] = time.monotonic()
        try:
            answer = await self._predict(request, timeout=PATIENCE)
        except grpc.aio.AioRpcError as error:
            # A status of the endpoint's own, not the library's word for a connection that broke.
            told = error.code().name in ("UNAVAILABLE", "DEADLINE_EXCEEDED") and any(
                words in error.details() for words in ("try again later", "stopping", "stopped", "within")
            )
            return REFUSED if told else BROKEN, f"{error.code().name}: {error.details()}"[:100]
        return answer.outputs["image_bytes"].string_val[0]

    async def close(self):
        pass


def predict_body(caption, seed):
    """The JSON of a request for one image."""
    return json.dumps({"signature_name": "seeded", "inputs": {"text": [caption], "seed": [seed]}}).encode()


def predict_request(caption, seed):
    """`predict_body` as a protocol buffer."""
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = NAME, "seeded"
    request.inputs["text"].CopyFrom(tf.make_tensor_proto([caption]))
    request.inputs["seed"].CopyFrom(tf.make_tensor_proto(np.array([seed], np.int64)))
    return request


def rest_request(body, headers=(), target=f"/v1/models/{NAME}:predict", method="POST"):
    """A whole request of HTTP/1.1."""
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: localhost",
        *headers,
        *([f"Content-Length: {len(body)}"] if body else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def summary(answers):
    """{protocol: {outcome: how many}}, with the reasons of those that are not right."""
    found = {}
    for protocol in sorted({answer.protocol for answer in answers}):
        of = [answer for answer in answers if answer.protocol == protocol]
        found[protocol] = dict(collections.Counter(answer.outcome for answer in of))
        reasons = collections.Counter(answer.reason for answer in of if answer.outcome != RIGHT)
        if reasons:
            found[protocol]["reasons"] = dict(reasons.most_common(5))
    return found


async def _wait_for(answers, count, since=0.0):
    """Waits for as many answers to what was sent after a moment; a busy machine takes long."""
    until = time.monotonic() + PATIENCE
    while sum(answer.sent > since for answer in answers) < count and time.monotonic() < until:
        await asyncio.sleep(0.1)


def _all(answers, *outcomes):
    return bool(answers) and all(answer.outcome in outcomes for answer in answers)


# ---- damaged requests


def damaged(data, chance):
    """Bytes with one to four damages: flipped, removed, put in, doubled, cut off."""
    data = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4))):
        at = chance.randrange(len(data) + 1)
        to = min(len(data), at + chance.choice((1, 1, 2, 8, 40)))
        kind = chance.randrange(6)
        if kind == 0 and at < len(data):
            data[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[at:to]
        elif kind == 2:
            data[at:at] = chance.choice(NASTY)
        elif kind == 3:
            data[at:to] = chance.choice(NASTY)
        elif kind == 4:
            data[at:at] = data[at:to] * chance.choice((1, 2, 50))
        elif chance.random() < 0.2:
            del data[at:]
        else:
            data[at:to] = chance.randbytes(to - at)
    return bytes(data)


def damaged_rest(chance):
    """A request of REST in which something is damaged: its body alone, or anything."""
    item = chance.choice(CAPTIONS), chance.choice(SEEDS)
    rows = json.dumps({"instances": [{"text": item[0], "seed": item[1]}], "signature_name": "pixels"}).encode()
    body = chance.choice(
        [predict_body(*item), rows, json.dumps({"instances": [item[0]]}).encode(), json.dumps([item[0]]).encode()]
    )
    target = (
        "/unread.json" if body.startswith(b"[") else f"/v1/models/{NAME}{chance.choice(['', '/versions/1'])}:predict"
    )
    kind = chance.randrange(8)
    if kind < 3:
        return rest_request(damaged(body, chance), ["Content-Type: application/json"], target)
    if kind == 3:
        packed = gzip.compress(body, mtime=0)  # the time of day is no part of the seed
        return rest_request(damaged(packed, chance), ["Content-Encoding: gzip"], target)
    if kind == 4:
        target = chance.choice(["/", "/healthz", "/page.json", f"/v1/models/{NAME}", f"/v1/models/{NAME}/metadata"])
        return damaged(rest_request(b"", target=target, method="GET"), chance)
    if kind == 5:
        pieces = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:20], body[20:], b""))
        head = rest_request(b"", ["Transfer-Encoding: chunked"], target)
        return damaged(head + pieces, chance)
    return damaged(rest_request(body, ["Content-Type: application/json"], target), chance)


async def rest_mutations(endpoint, count, seed, workers):
    """Sends damaged requests, each on a connection of its own; {status: how many}, and answers that are no answers."""
    statuses, odd, numbers = collections.Counter(), [], iter(range(count))

    async def work():
        for number in numbers:
            data = damaged_rest(random.Random(f"{seed} rest {number}"))
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", endpoint.rest, limit=MEBIBYTE)
            except OSError as error:
                odd.append(f"{number}: no connection: {error}")
                return
            try:
                writer.write(data)
                status, _, body = await asyncio.wait_for(_read_answer(reader), PATIENCE)
                statuses[status] += 1
                if status >= 400 and "error" not in json.loads(body):
                    odd.append(f"{number}: {status} without a reason")
            except (asyncio.IncompleteReadError, ConnectionError):
                statuses["hung up"] += 1
            except Exception as error:
                odd.append(f"{number}: {type(error).__name__}: {error}"[:200])
            finally:
                writer.close()

    await asyncio.gather(*(work() for _ in range(workers)))
    return dict(statuses), odd


METHODS = [
    *(f"/tensorflow.serving.PredictionService/{name}" for name in ("Predict", "GetModelMetadata", "Classify", "Other")),
    *(f"/tensorflow.serving.ModelService/{name}" for name in ("GetModelStatus", "HandleReloadConfigRequest")),
]


def damaged_frames(message, chance):
    """A connection of HTTP/2 whose frames are damaged."""

    def frame(kind, flags_, stream, payload=b""):
        return struct.pack(">I", len(payload))[1:] + bytes([kind, flags_]) + struct.pack(">I", stream) + payload

    headers = {":method": "POST", ":scheme": "http", ":path": METHODS[0], ":authority": "localhost"}
    headers |= {"content-type": "application/grpc", "te": "trailers"}
    packed = b"".join(
        b"\0" + b"".join(bytes([len(part)]) + part.encode() for part in header) for header in headers.items()
    )
    framed = b"\0" + struct.pack(">I", len(message)) + message
    frames = frame(4, 0, 0) + frame(4, 1, 0) + frame(1, 4, 1, packed) + frame(0, 1, 1, framed)
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + damaged(frames, chance)


async def grpc_mutations(endpoint, count, seed, workers):
    """Sends damaged messages, and every fourth time damaged frames; {status: how many}, and what is no answer."""
    import grpc

    statuses, odd, numbers = collections.Counter(), [], iter(range(count))

    async def work():
        async with grpc.aio.insecure_channel(
            f"127.0.0.1:{endpoint.grpc}", [("grpc.use_local_subchannel_pool", 1)]
        ) as channel:
            for number in numbers:
                chance = random.Random(f"{seed} grpc {number}")
                message = predict_request(chance.choice(CAPTIONS), chance.choice(SEEDS)).SerializeToString()
                if number % 4 == 0:
                    await _send_frames(endpoint.grpc, damaged_frames(message, chance))
                    statuses["frames"] += 1
                    continue
                method = METHODS[0] if chance.random() < 0.7 else chance.choice(METHODS)
                try:
                    await channel.unary_unary(method)(damaged(message, chance), timeout=PATIENCE)
                    statuses["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    statuses[error.code().name] += 1
                    if error.code().name in FAULTS:
                        odd.append(f"{number}: {error.code().name}: {error.details()}"[:200])

    await asyncio.gather(*(work() for _ in range(workers)))
    return dict(statuses), odd


async def _send_frames(port, data):
    with contextlib.suppress(OSError, TimeoutError):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write(data)
            await asyncio.wait_for(reader.read(1 << 16), 0.2)
        finally:
            writer.close()


# ---- phases, each {what: number, ..., "held": whether}


async def under_load(endpoint, expected, values):
    """Both protocols in turn."""
    found = {}
    for protocol, clients in (("REST", (values.clients, 0)), ("gRPC", (0, values.clients))):
        async with load(endpoint, expected, *clients, values.seed) as answers:
            await asyncio.sleep(values.seconds)
        rate = sum(answer.outcome == RIGHT for answer in answers) / values.seconds
        found[f"load by {protocol}"] = {
            "held": _all(answers, RIGHT, REFUSED) and rate > 0,
            "clients": values.clients,
            "seconds": values.seconds,
            "pictures_per_second": round(rate, 1),
            **summary(answers),
        }
    return found


async def damaged_requests(endpoint, expected, values):
    """Damaged requests by both protocols, and what the endpoint's memory is before and after."""
    found, before = {}, endpoint.memory()
    for name, send, count in (
        ("damaged by REST", rest_mutations, values.rest_mutations),
        ("damaged by gRPC", grpc_mutations, values.grpc_mutations),
    ):
        statuses, odd = await send(endpoint, count, values.seed, min(32, values.clients))
        faults = [
            status for status in statuses if isinstance(status, int) and status >= 500 and status not in (503, 504)
        ]
        async with load(endpoint, expected, 2, 2, values.seed) as answers:
            await _wait_for(answers, 8)
        found[name] = {
            "held": not odd and not faults and endpoint.process.poll() is None and _all(answers, RIGHT),
            "requests": count,
            "statuses": dict(sorted(statuses.items(), key=str)),
            "faults": faults + odd[:20],
            "afterwards": summary(answers),
        }
    grown = (endpoint.memory() - before) / MEBIBYTE
    found["memory"] = {"held": grown <= values.mebibytes, "grown_mebibytes": round(grown, 1)}
    return found


async def publications(endpoint, expected, values):
    """Versions are published damaged, repaired, taken away, and replaced by the first again, while both are asked."""
    chance, served, refused = random.Random(f"{values.seed} versions"), [], []
    async with load(endpoint, expected, min(8, values.clients), min(8, values.clients), values.seed) as answers:
        for version in range(2, 2 + values.publications):
            _publish(endpoint, version, lambda folder, kind=version % 4: damage(folder, chance, kind))
            refused.append(await _is_refused(endpoint, version))
            shutil.rmtree(endpoint.base / str(version))
            _publish(endpoint, version)
            served.append(await endpoint.serves(version))
        if values.publications:
            for folder in endpoint.base.iterdir():
                shutil.rmtree(folder)
            await asyncio.sleep(1)
            served.append(await endpoint.newest() == 1 + values.publications)
            _publish(endpoint, 1)
            served.append(await endpoint.serves(1))
    return {
        "versions": {
            "held": all(served) and all(refused) and _all(answers, RIGHT, REFUSED),
            "published": len(served),
            "damaged_and_refused": sum(refused),
            **summary(answers),
        }
    }


def _publish(endpoint, version, change=lambda folder: None):
    temporary = endpoint.base / "temporary"
    shutil.copytree(endpoint.model, temporary)
    change(temporary)
    temporary.rename(endpoint.base / str(version))


def damage(folder, chance, kind):
    """Cuts a version's weights off (0), changes one of their bits (1), removes its graph (2), or has its manifest say
    twice its side (3)."""
    weights, manifest = folder / WEIGHTS, folder / "assets.extra" / "manifest.json"
    if kind == 0:
        os.truncate(weights, chance.randrange(weights.stat().st_size))
    elif kind == 1:
        data = bytearray(weights.read_bytes())
        data[chance.randrange(len(data))] ^= 1
        weights.write_bytes(data)
    elif kind == 2:
        (folder / "saved_model.pb").unlink()
    else:
        described = json.loads(manifest.read_text("utf-8"))
        manifest.write_text(json.dumps(described | {"resolution": 2 * described["resolution"]}), "utf-8")


async def _is_refused(endpoint, version):
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        answer = await endpoint.get(f"/v1/models/{NAME}/versions/{version}")
        if answer and answer["model_version_status"][0]["state"] == "END":
            return await endpoint.newest() != version
        await asyncio.sleep(0.1)
    return False


async def kills(endpoint, expected, values):
    """SIGKILL under load; whoever asks meanwhile finds nobody, whoever asks after the next start is answered."""
    starts, everything, held = [], [], True
    for number in range(values.kills):
        async with load(endpoint, expected, min(16, values.clients), min(16, values.clients), number) as answers:
            await _wait_for(answers, 4 * values.clients)
            killed = time.monotonic()
            await endpoint.end(signal.SIGKILL)
            starts.append(round(await endpoint.start(), 1))
            # By then clients of gRPC have tried again, too.
            again = time.monotonic() + 2
            await asyncio.sleep(2)
            await _wait_for(answers, 4 * values.clients, again)
        before = [answer for answer in answers if answer.ended < killed]
        after = [answer for answer in answers if answer.sent > again]
        wrong = [answer for answer in answers if answer.outcome == WRONG]
        held = held and _all(before, RIGHT) and _all(after, RIGHT) and not wrong
        everything += answers
    return {"kill -9": {"held": held, "kills": values.kills, "seconds_to_start": starts, **summary(everything)}}


async def terminations(endpoint, expected, values):
    """SIGTERM under load: what was sent before is answered, or told that it is not."""
    codes, begun_in_all, seconds = [], [], []
    for number in range(values.terminations):
        async with load(endpoint, expected, min(16, values.clients), min(16, values.clients), number) as answers:
            await _wait_for(answers, 4 * values.clients)
            await asyncio.sleep(random.Random(number).random())
            told = time.monotonic()
            codes.append(await endpoint.end(signal.SIGTERM))
            seconds.append(round(time.monotonic() - told, 1))
        begun_in_all += [answer for answer in answers if answer.sent < told < answer.ended]
        if number + 1 < values.terminations:
            await endpoint.start()
    return {
        "SIGTERM": {
            "held": not any(codes) and (not codes or _all(begun_in_all, RIGHT, REFUSED)),
            "exit_codes": codes,
            "seconds_to_end": seconds,
            "begun": summary(begun_in_all),
        }
    }


PHASES = (under_load, damaged_requests, publications, kills, terminations)


async def soak(endpoint, expected, values, report):
    """Runs every phase. Returns {promise: {"held": whether, ...}}; `report` gets each one's lines."""
    found = {"start": {"held": True, "seconds": round(await endpoint.start(), 1)}}
    for phase in PHASES:
        new = await phase(endpoint, expected, values)
        for name, each in new.items():
            report(name, each)
        found |= new
    log = endpoint.log.read_text("utf-8", "replace")
    found["log"] = {"held": "Traceback" not in log, "lines": log.count("\n")}
    report("log", found["log"])
    return found


def _say(name, found):
    rest = ", ".join(f"{key} {value}" for key, value in found.items() if key != "held")
    print(f"{'held' if found['held'] else 'NOT HELD':8}  {name}: {rest}", flush=True)


def main():
    """Runs the command."""
    from t2i_kd.loading import load_artifact

    values = flags.FLAGS
    if not values.model:
        raise UserError("--model is needed")
    runner = load_artifact(values.model)
    if runner.condition.kind != "caption":
        raise UserError(f"--model: {values.model} takes {runner.condition.kind}s; captions are asked here")
    with tempfile.TemporaryDirectory() as folder:
        endpoint = Endpoint(Path(values.model), Path(folder))
        try:
            found = asyncio.run(soak(endpoint, Expected(runner), values, _say))
        finally:
            endpoint.close()
        if values.out:
            Path(values.out).write_text(json.dumps(found, indent=2) + "\n", "utf-8")
    sys.exit(not all(each["held"] for each in found.values()))


if __name__ == "__main__":
    command.run(main, define_flags, __doc__.partition("\n")[0])
