"""gRPC's server, with bounds that the library leaves to its user: on slow senders, on idle and on hoarding clients."""

import asyncio
import contextlib

import grpc
from google.protobuf.message import DecodeError

from t2i_kd.errors import UserError
from t2i_kd.serving.grpc_paths import make_library

# When a server ends, requests that have arrived are still taken in until none has for this long, or at most so long.
QUIET_SECONDS, LONGEST_INTAKE_SECONDS = 0.1, 1.0
# Of the time to end in, what is kept for telling those that are not done.
LAST_WORDS_SECONDS = 0.2
# Then a client is asked to come back on a new connection; what it began is answered. Who does not read its answers or
# has nothing to ask can be hung up on in no other way.
CONNECTION_AGE_SECONDS = 60.0
STREAMS = 100


class GrpcServer:
    """Listens to --host and --port once it is started.

    Args:
        settings: `settings.Settings`.

    Attributes:
        library: the `grpc.aio.Server`, to which services are added.

    Raises:
        UserError: when the address cannot be had.
    """

    def __init__(self, settings):
        address = settings.address(settings.port)
        slowest_answer = 2 * settings.read_timeout_seconds + settings.request_timeout_seconds
        self._bounds = _Bounds(settings)
        self.library = make_library(
            interceptors=[self._bounds],
            options=[
                ("grpc.max_receive_message_length", settings.max_body_bytes),
                ("grpc.server_handshake_timeout_ms", _milliseconds(settings.read_timeout_seconds)),
                ("grpc.max_allowed_incoming_connections", settings.max_connections),
                ("grpc.max_concurrent_streams", STREAMS),
                ("grpc.max_connection_age_ms", _milliseconds(CONNECTION_AGE_SECONDS)),
                ("grpc.max_connection_age_grace_ms", _milliseconds(slowest_answer)),
                # Two endpoints that share a port by accident would each get half of the requests.
                ("grpc.so_reuseport", 0),
            ],
        )
        try:
            self.library.add_insecure_port(address)
        except RuntimeError:
            raise UserError(f"--port: {address} cannot be had; another program may be listening there") from None

    async def start(self):
        """Takes requests from now on."""
        await self.library.start()

    async def finish(self, seconds):
        """Answers what was sent before, and ends within `seconds`; whoever is not answered by then hears UNAVAILABLE.

        gRPC's own `stop` cancels requests that have arrived and that nobody has begun, under load most of them. So they
        are taken in first, and only later ones are refused.
        """
        words = min(LAST_WORDS_SECONDS, seconds / 2)
        await self._bounds.close(seconds - words)
        await self.library.stop(words)


class _Bounds(grpc.aio.ServerInterceptor):
    """Counts the requests that are open, and reads each one's message under a deadline.

    gRPC itself calls a method only when the message is there, and waits for that as long as its sender likes. As a
    stream, which looks the same on the wire, a method is called at once and reads its one message itself. With
    `maximum_concurrent_rpcs` alone, messages that never arrive would fill all places until their connections age. It
    also refuses with RESOURCE_EXHAUSTED, which is what a message gets that is too large for ever; "too busy, try again"
    is UNAVAILABLE, by REST and by gRPC alike.
    """

    def __init__(self, settings):
        self._most, self._seconds = settings.max_connections, settings.read_timeout_seconds
        self._open, self._limits = 0, set()
        self._latest, self._closed = 0.0, False

    async def close(self, seconds):
        """Refuses what comes once nothing came for a while; returns when all is answered, or told that it is not."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        await self._quiet(until)
        self._closed = True
        while self._open and loop.time() < until:
            await asyncio.sleep(QUIET_SECONDS / 10)
        # Those that are refused meanwhile must hear so, too.
        await self._quiet(until)
        for limit in self._limits:
            limit.reschedule(loop.time())

    async def _quiet(self, until):
        loop = asyncio.get_running_loop()
        began = self._latest = loop.time()
        until = min(until, began + LONGEST_INTAKE_SECONDS)
        while loop.time() < min(until, self._latest + QUIET_SECONDS):
            await asyncio.sleep(QUIET_SECONDS / 10)

    async def intercept_service(self, continuation, handler_call_details):
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler

        async def answer(_, context):
            await self._count(context)
            try:
                async with self._until_the_end():
                    request = await self._read(context, handler.request_deserializer)
                    await context.write(await handler.unary_unary(request, context))
            except TimeoutError:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "the server stopped before this was done")

        return grpc.stream_stream_rpc_method_handler(answer, None, handler.response_serializer)

    @contextlib.asynccontextmanager
    async def _until_the_end(self):
        """Raises `TimeoutError` in the block when the server has no more time for it."""
        async with asyncio.timeout(None) as limit:
            self._limits.add(limit)
            try:
                yield
            finally:
                self._limits.discard(limit)

    async def _count(self, context):
        self._latest = asyncio.get_running_loop().time()
        if self._closed:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the server is stopping")
        if self._open >= self._most:
            message = f"too busy: {self._open} requests are open (--max_connections); try again later"
            await context.abort(grpc.StatusCode.UNAVAILABLE, message)
        self._open += 1
        # Which is when the client has the answer, not when the method returns.
        context.add_done_callback(self._forget)

    def _forget(self, context):
        self._open -= 1

    async def _read(self, context, deserialize):
        try:
            async with asyncio.timeout(self._seconds):
                message = await context.read()
        except TimeoutError:
            reason = f"the message did not arrive within {self._seconds:g} seconds"
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, reason)
        if message is grpc.aio.EOF:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request has no message")
        try:
            return deserialize(message)
        except DecodeError:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the message is not the one that the method takes")


def _milliseconds(seconds):
    return int(seconds * 1000)
