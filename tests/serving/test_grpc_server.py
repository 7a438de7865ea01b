"""gRPC's server beneath a method of the test's own, asked as gRPC's own client never asks."""

import asyncio
import contextlib
import socket
import struct
import time

import grpc
import pytest
from tensorflow_serving.apis import get_model_status_pb2

from t2i_kd.conditions.caption import CaptionCondition as CAPTION
from t2i_kd.errors import UserError
from t2i_kd.serving import grpc_server
from t2i_kd.serving.settings import Settings

METHOD = "/test/Method"
DATA, HEADERS, SETTINGS, ACK, END_HEADERS = 0, 1, 4, 1, 4
REQUEST_HEADERS = {
    ":method": "POST",
    ":scheme": "http",
    ":authority": "localhost",
    "content-type": "application/grpc",
    "te": "trailers",
}


def frame(kind, flags=0, stream=0, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def literal(name, value):
    """A header as HPACK writes it without any table."""
    return b"\0" + b"".join(bytes([len(text)]) + text for text in (name.encode(), value))


def begin(port, requests, message=b"", path=b"/test/Method"):
    """A connection that begins requests, each with the beginning of a message, and then reads nothing."""
    connection = socket.create_connection(("127.0.0.1", port))
    head = b"".join(literal(name, value.encode()) for name, value in REQUEST_HEADERS.items()) + literal(":path", path)
    sent = [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(SETTINGS), frame(SETTINGS, ACK)]
    for number in range(requests):
        stream = 2 * number + 1
        sent += [frame(HEADERS, END_HEADERS, stream, head), frame(DATA, 0, stream, message)]
    connection.sendall(b"".join(sent))
    return connection


@contextlib.asynccontextmanager
async def serving(**settings):
    """Yields a port whose only method answers with as many bytes as the asked version says."""

    async def method(request, context):
        return b"x" * request.model_spec.version.value

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = grpc_server.GrpcServer(Settings("m", "folder", port=port, **settings).with_limits(CAPTION.limits))
    handler = grpc.unary_unary_rpc_method_handler(method, get_model_status_pb2.GetModelStatusRequest.FromString)
    server.library.add_registered_method_handlers("test", {"Method": handler})
    await server.start()
    try:
        yield port
    finally:
        await server.finish(5)


def request(size=3):
    made = get_model_status_pb2.GetModelStatusRequest()
    made.model_spec.version.value = size
    return made.SerializeToString()


async def ask(port, message=None):
    """The answer's length, or the code and the words of an error."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
        try:
            return len(await channel.unary_unary(METHOD)(request() if message is None else message, timeout=5))
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name} {error.details()}"


async def until(port, expected, seconds=30):
    """Asks until the answer is `expected`."""
    async with asyncio.timeout(seconds):
        while await ask(port) != expected:
            await asyncio.sleep(0.05)


def test_messages_are_read_and_answers_written():
    async def script():
        async with serving(max_body_bytes=1000) as port:
            assert await ask(port) == 3
            assert await ask(port, request(5_000)) == 5_000
            assert (await ask(port, b"\xff\xff")).startswith("INVALID_ARGUMENT the message is not")
            assert (await ask(port, bytes(1001))).startswith("RESOURCE_EXHAUSTED")

    asyncio.run(script())


def test_messages_that_never_arrive_hold_no_place():
    async def script():
        # Long enough that a question, which takes a second on a busy machine, falls into it.
        async with serving(max_connections=4, read_timeout_seconds=3) as port:
            # The first byte of a length, and no more.
            with begin(port, 6, b"\0"):
                await until(port, "UNAVAILABLE too busy: 4 requests are open (--max_connections); try again later")
                await until(port, 3)

    asyncio.run(script())


def test_answers_that_are_not_taken_hold_their_place_for_a_while(monkeypatch):
    monkeypatch.setattr(grpc_server, "CONNECTION_AGE_SECONDS", 2)

    async def script():
        async with serving(max_connections=4, read_timeout_seconds=2, request_timeout_seconds=2) as port:
            wanted = request(1 << 20)
            with begin(port, 4, b"\0" + struct.pack(">I", len(wanted)) + wanted):
                await until(port, "UNAVAILABLE too busy: 4 requests are open (--max_connections); try again later")
                await until(port, 3)

    asyncio.run(script())


def test_idle_connections_are_counted_and_dropped(monkeypatch):
    monkeypatch.setattr(grpc_server, "CONNECTION_AGE_SECONDS", 3)

    async def script():
        async with serving(max_connections=4, read_timeout_seconds=0.2, request_timeout_seconds=0.2) as port:
            with contextlib.ExitStack() as opened:
                for _ in range(4):
                    opened.enter_context(begin(port, 0))
                await asyncio.sleep(0.1)
                assert (await ask(port)).startswith("UNAVAILABLE failed to connect")
                await until(port, 3)

    asyncio.run(script())


def test_what_has_arrived_when_the_server_ends_is_answered():
    def ask_in_a_thread(port):
        with grpc.insecure_channel(f"127.0.0.1:{port}", [("grpc.use_local_subchannel_pool", 1)]) as channel:
            asked = [channel.unary_unary(METHOD).future(request(), timeout=20) for _ in range(40)]
            return [len(each.result()) if each.exception() is None else each.code().name for each in asked]

    async def script():
        async with serving() as port:
            answers = asyncio.create_task(asyncio.to_thread(ask_in_a_thread, port))
            await asyncio.sleep(0.01)
            # The library has taken all of them by then, and this loop none.
            time.sleep(1)
        assert await answers == [3] * 40

    asyncio.run(script())


def test_a_path_that_is_no_text_ends_nothing():
    async def script():
        async with serving() as port:
            for path in (b"/test/M\xd9thod", b"/\xff", b"\xc3\xa9", b"", b"/test/Other"):
                with begin(port, 3, b"\0\0\0\0\0", path):
                    assert await ask(port) == 3
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await channel.unary_unary("/test/Other")(b"", timeout=5)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED

    asyncio.run(script())


def test_an_address_that_cannot_be_had():
    async def script():
        with pytest.raises(UserError, match="cannot be had"):
            grpc_server.GrpcServer(Settings("m", "folder", host="no.such.host.invalid").with_limits(CAPTION.limits))

    asyncio.run(script())
