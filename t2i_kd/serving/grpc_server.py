"""gRPC's server, with bounds that the library leaves to its user: on slow senders, on idle and on hoarding clients."""

import asyncio

import grpc
from google.protobuf.message import DecodeError

from t2i_kd.errors import UserError

# Then a client is asked to come back on a new connection; what it began is answered. Who does not read its answers or
# has nothing to ask can be hung up on in no other way.
CONNECTION_AGE_SECONDS = 60.0
STREAMS = 100


def make_server(settings):
    """A `grpc.aio.Server` that listens to --host and --port once it is started, without services.

    Args:
        settings: `settings.Settings`.

    Raises:
        UserError: when the address cannot be had.
    """
    address = settings.address(settings.port)
    slowest_answer = 2 * settings.read_timeout_seconds + settings.request_timeout_seconds
    server = grpc.aio.server(
        interceptors=[_Bounds(settings)],
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
        server.add_insecure_port(address)
    except RuntimeError:
        raise UserError(f"--port: {address} cannot be had; another program may be listening there") from None
    return server


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
        self._open = 0

    async def intercept_service(self, continuation, handler_call_details):
        handler = await continuation(handler_call_details)
        if handler is None or handler.unary_unary is None:
            return handler

        async def answer(_, context):
            await self._count(context)
            request = await self._read(context, handler.request_deserializer)
            await context.write(await handler.unary_unary(request, context))

        return grpc.stream_stream_rpc_method_handler(answer, None, handler.response_serializer)

    async def _count(self, context):
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
