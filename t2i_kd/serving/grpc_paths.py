"""gRPC's server for any path: one that is not UTF-8 would otherwise end it, for everybody and for good."""

import asyncio
import contextlib
import logging

from grpc._cython import cygrpc
from grpc.aio import _server

# Of the library's own; where it has other ones, its server is taken as it is.
NEEDED = ("_make_request_call_future", "_request_call", "is_running")


def make_library(interceptors, options):
    """A `grpc.aio.Server` of methods that are added by `add_registered_method_handlers`.

    The library decodes the path of whatever is no such method in its main loop, without expecting that this can fail
    (grpcio 1.85). So that loop does not see them: they are answered with UNIMPLEMENTED beside it.

    Args:
        interceptors: a list of `grpc.aio.ServerInterceptor`.
        options: a list of (name, value).
    """
    logging.getLogger(cygrpc.__name__).addFilter(_is_no_strangers_fault)
    if not all(hasattr(cygrpc.AioServer, name) for name in NEEDED):
        return _server.server(interceptors=interceptors, options=options)
    return _Library(interceptors, options)


def _is_no_strangers_fault(record):
    """False for a header that is not UTF-8: the library logs each with a traceback, and reads it as Latin-1."""
    return not str(record.msg).startswith("Invalid encoding on")


class _Library(_server.Server):
    def __init__(self, interceptors, options):
        self._loop = cygrpc.get_working_loop()
        self._server = _AnyPath(self._loop, None, (), interceptors, tuple(options), None)


class _AnyPath(cygrpc.AioServer):
    def _make_request_call_future(self, method):
        if method is not None:
            return super()._make_request_call_future(method)
        loop = asyncio.get_running_loop()
        # The loop holds tasks only weakly.
        self._others = loop.create_task(self._refuse_others(loop))
        return loop.create_future()

    async def _refuse_others(self, loop):
        nothing = cygrpc._MethodResolver([], {})
        # Which is how the library says that it stops.
        with contextlib.suppress(cygrpc._RequestCallError):
            while self.is_running():
                state = await self._request_call()
                answer = cygrpc._handle_rpc("", nothing, (), state, loop, False)
                loop.create_task(cygrpc._schedule_rpc_coro(answer, state, loop, ""))
