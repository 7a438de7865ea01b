"""REST's server beneath an application of the test's own, asked by clients that do not behave; and how both end."""

import asyncio
import contextlib
import json
import logging
import socket
import time

import grpc
import pytest
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from t2i_kd.conditions.caption import CaptionCondition as CAPTION
from t2i_kd.serving import http_server, server
from t2i_kd.serving.grpc_server import GrpcServer
from t2i_kd.serving.http_server import HttpServer, listen
from t2i_kd.serving.settings import Settings
from tests.serving.endpoint import free_ports

HUGE = 8 << 20


async def huge(request):
    return Response(bytes(HUGE))


async def quick(request):
    return PlainTextResponse("quick")


async def never(request):
    await asyncio.sleep(60)


async def echo(request):
    try:
        return Response(await request.body())
    except ClientDisconnect:
        return Response()


ROUTES = [Route(f"/{f.__name__}", f) for f in (huge, quick, never)] + [Route("/healthz", quick)]
APP = Starlette(routes=[*ROUTES, Route("/echo", echo, methods=["POST"])])


@contextlib.asynccontextmanager
async def serving(finish=True, **settings):
    """Yields a server with its port as an attribute."""
    settings = {"rest_api_port": free_ports(1)[0], "shutdown_timeout_seconds": 0.1} | settings
    settings = Settings("m", "folder", **settings).with_limits(CAPTION.limits)
    started = HttpServer(settings, APP)
    started.port = settings.rest_api_port
    await started.start(listen(settings))
    try:
        yield started
    finally:
        if finish:
            await started.finish()


async def connect(started, *paths, buffer=None):
    """A connection that asks for paths at once."""
    made = socket.socket()
    if buffer:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    made.connect(("127.0.0.1", started.port))
    made.setblocking(False)
    reader, writer = await asyncio.open_connection(sock=made, limit=1 << 12 if buffer else 1 << 16)
    writer.write(b"".join(f"GET /{path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() for path in paths))
    return reader, writer


async def ask(started, path):
    """(status, headers, body) of a connection of its own; the status is None where it is closed without a word."""
    reader, writer = await connect(started, path)
    try:
        return await answer_of(reader)
    except (asyncio.IncompleteReadError, ConnectionError):
        return None, {}, b""
    finally:
        writer.close()


async def answer_of(reader):
    head = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
    headers = dict(line.lower().split(": ") for line in head[1:] if line)
    return int(head[0].split()[1]), headers, await reader.readexactly(int(headers["content-length"]))


def test_answers_that_nobody_reads_are_hung_up_on(monkeypatch):
    monkeypatch.setattr(http_server, "KEEP_ALIVE_SECONDS", 0.1)

    async def script():
        async with serving(read_timeout_seconds=0.3) as started:
            # One request a connection, and many in a row, of which the next cancelled the time of the one before.
            kept = [await connect(started, *["huge"] * count, buffer=4096) for count in (1, 6)]
            async with asyncio.timeout(5):
                while not started.server_state.connections:
                    await asyncio.sleep(0.01)
                while started.server_state.connections:
                    await asyncio.sleep(0.01)
            for _, writer in kept:
                writer.close()

    asyncio.run(script())


def test_answers_that_are_read_without_haste_are_whole(monkeypatch):
    monkeypatch.setattr(http_server, "KEEP_ALIVE_SECONDS", 0.1)

    async def script():
        async with serving(read_timeout_seconds=0.3) as started:
            reader, writer = await connect(started, "huge", buffer=1 << 16)
            await reader.readuntil(b"\r\n\r\n")
            began, taken = time.monotonic(), 0
            while taken < HUGE:
                taken += len(await reader.readexactly(1 << 18))
                await asyncio.sleep(0.04)
            assert time.monotonic() - began > 1
            writer.close()

    asyncio.run(script())


def test_a_pipeline_is_answered_in_order():
    async def script():
        async with serving(read_timeout_seconds=0.3) as started:
            reader, writer = await connect(started, "quick", "huge", "quick")
            for size in (5, HUGE, 5):
                status, _, body = await answer_of(reader)
                assert (status, len(body)) == (200, size)
            writer.close()

    asyncio.run(script())


def test_over_the_limit_only_probes_are_answered():
    async def script():
        async with serving(max_connections=2, read_timeout_seconds=5) as started:
            idle = [await connect(started) for _ in range(2)]
            await asyncio.sleep(0.05)
            status, headers, body = await ask(started, "quick")
            assert (status, headers["retry-after"], headers["connection"]) == (503, "1", "close")
            assert "2 connections are open (--max_connections)" in json.loads(body)["error"]
            status, headers, body = await ask(started, "healthz")
            assert (status, headers["connection"], body) == (200, "close", b"quick")
            # As many again hear so; then nobody is listened to.
            idle += [await connect(started) for _ in range(2)]
            await asyncio.sleep(0.05)
            assert (await ask(started, "healthz"))[0] is None
            for _, writer in idle:
                writer.close()
            await asyncio.sleep(0.05)
            assert (await ask(started, "quick"))[0] == 200

    asyncio.run(script())


BODY = b'{"x": 1}'


@pytest.mark.parametrize(
    ("head", "reason"),
    [
        (["Content-Length: 8", "Transfer-Encoding: chunked"], "Transfer-Encoding beside a Content-Length"),
        (["Transfer-Encoding: chunked", "Content-Length: 8"], "Transfer-Encoding beside a Content-Length"),
        (["Content-Length: 8", "Content-Length: 8"], "Content-Length is given twice"),
        (["Content-Length: 8", "content-length: 9"], "Content-Length is given twice"),
        (["Content-Length: 8, 8"], "Content-Length is not a number"),
        (["Content-Length: +8"], "Content-Length is not a number"),
        (["Content-Length: -8"], "Content-Length is not a number"),
        (["Content-Length: 0x8"], "Content-Length is not a number"),
        (["Content-Length: 8 8"], "Content-Length is not a number"),
        (["Content-Length:"], "Content-Length is not a number"),
        (["Content-Length: " + 30 * "9"], "Content-Length is not a number"),
        (["Content-Length : 8"], "illegal header line"),
        (["Transfer-Encoding: chunked", "Transfer-Encoding: chunked"], "multiple Transfer-Encoding"),
        (["Transfer-Encoding: gzip, chunked"], "Only Transfer-Encoding: chunked"),
        (["X: y", " Content-Length: 8"], "a header goes on on the next line"),
        (["X: y\nContent-Length: 8"], "does not end with CR LF"),
        (["X: y\rContent-Length: 8"], "does not end with CR LF"),
        (["Content-Length: 8\n\r"], "does not end with CR LF"),
        (["Host: elsewhere"], "Found multiple Host: headers"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_requests_that_two_programs_may_read_differently_end_the_connection(head, reason):
    async def script():
        async with serving(read_timeout_seconds=5) as started:
            reader, writer = await connect(started)
            lines = ["POST /echo HTTP/1.1", "Host: localhost", *head]
            # What a second request could be smuggled in by.
            writer.write(
                "\r\n".join([*lines, "", ""]).encode() + BODY + b"GET /quick HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            status, headers, body = await answer_of(reader)
            assert (status, headers["connection"], headers["content-type"]) == (400, "close", "application/json")
            assert json.loads(body)["error"].startswith("Malformed request: ")
            assert reason in json.loads(body)["error"]
            assert await reader.read() == b""
            writer.close()

    asyncio.run(script())


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST /echo HTTP/1.1\nHost: localhost\nContent-Length: 8\n\n" + BODY,
        b"GET /quick HTTP/1.1\r\nHost: localhost\n\n",
        b"POST /echo HTTP/1.0\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n8\n" + BODY + b"\n0\n\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n-8\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n" + BODY + b"\r\n0\r\n\r\n",
        b"GET /quick HTTP/1.1\r\n\r\n",
        b"GET /quick\r\n\r\n",
        b"\r\n\r\n",
    ],
    ids=range(9),
)
def test_what_is_no_http_gets_an_error_in_json(request_bytes, caplog):
    async def script():
        async with serving(read_timeout_seconds=5) as started:
            # Whole, and byte by byte.
            for size in (len(request_bytes), 1):
                reader, writer = await connect(started)
                for at in range(0, len(request_bytes), size):
                    writer.write(request_bytes[at : at + size])
                    await asyncio.sleep(0)
                status, headers, body = await answer_of(reader)
                assert (status, headers["connection"]) == (400, "close")
                assert list(json.loads(body)) == ["error"]
                writer.close()
            assert (await ask(started, "quick"))[0] == 200

    asyncio.run(script())
    assert "Traceback" not in caplog.text


def test_good_bodies_of_both_framings_are_read():
    async def script():
        async with serving(read_timeout_seconds=5) as started:
            reader, writer = await connect(started)
            head = b"POST /echo HTTP/1.1\r\nHost: localhost\r\n"
            chunked = (
                head + b"Transfer-Encoding: chunked\r\n\r\n3\r\n" + BODY[:3] + b"\r\n5\r\n" + BODY[3:] + b"\r\n0\r\n"
            )
            for request in (head + b"Content-Length:8 \r\n\r\n" + BODY, chunked + b"\r\n", chunked + b"X: y\r\n\r\n"):
                for size in (len(request), 1):
                    for at in range(0, len(request), size):
                        writer.write(request[at : at + size])
                        await asyncio.sleep(0)
                    status, _, body = await answer_of(reader)
                    assert (status, body) == (200, BODY)
            writer.close()

    asyncio.run(script())


class NoModel:
    """A repository whose queues are empty."""

    def stop(self, timeout):
        return True


def test_both_protocols_end_in_one_span_of_time(caplog):
    caplog.set_level(logging.INFO)

    async def method(request, context):
        await asyncio.sleep(60)

    async def script():
        port = free_ports(1)[0]
        by_grpc = GrpcServer(Settings("m", "folder", port=port).with_limits(CAPTION.limits))
        handlers = {"Never": grpc.unary_unary_rpc_method_handler(method, bytes)}
        by_grpc.library.add_registered_method_handlers("test", handlers)
        await by_grpc.start()
        async with (
            serving(finish=False, shutdown_timeout_seconds=1.0) as by_rest,
            grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            asked = asyncio.create_task(ask(by_rest, "never"))
            _, writer = await connect(by_rest, "huge", buffer=4096)
            call = channel.unary_unary("/test/Never")(b"")
            await asyncio.sleep(0.3)
            began = time.monotonic()
            ending = asyncio.create_task(
                server._finish(
                    [lambda until: by_rest.finish(), lambda until: by_grpc.finish(server._left(until))], NoModel(), 1.0
                )
            )
            await asyncio.sleep(0.3)
            # Nothing new is begun meanwhile.
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as late:
                assert await code(late.unary_unary("/test/Never")(b"", timeout=5)) == "UNAVAILABLE"
            await ending
            assert 0.9 < time.monotonic() - began < 2.5
            status, _, body = await asked
            assert (status, json.loads(body)) == (503, {"error": "the server stopped before this was done"})
            assert await code(call) == "UNAVAILABLE"
            writer.close()

    asyncio.run(script())
    assert "Traceback" not in caplog.text and "Exception" not in caplog.text, caplog.text


async def code(call):
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    return "OK"
