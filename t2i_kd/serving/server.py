"""Both protocols on one event loop, from the first signal to the last answer."""

import asyncio
import contextlib
import logging
import signal
import socket

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from t2i_kd.errors import UserError
from t2i_kd.serving.grpc_server import make_server
from t2i_kd.serving.metrics import Metrics
from t2i_kd.serving.repository import Repository
from t2i_kd.serving.service import Service

log = logging.getLogger(__name__)

KEEP_ALIVE_SECONDS = 5
LARGEST_HEADER = 1 << 15


def serve(settings):
    """Serves a model until SIGTERM or SIGINT, then answers what it has begun and returns.

    Args:
        settings: `settings.Settings`.

    Raises:
        UserError: when a port cannot be had or there is nothing to serve.
    """
    asyncio.run(_serve(settings))


async def _serve(settings):
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    metrics = Metrics(settings.allowed_batch_sizes)
    repository = Repository(settings, metrics)
    service = Service(settings, repository, metrics)
    async with contextlib.AsyncExitStack() as opened:
        # Ports first: a model can take a while to load, only to find that its port is taken. And TensorFlow, which
        # chatters, last: what is wrong with the command line is told in one line.
        listener = _listen(settings) if settings.rest_api_port else None
        grpc_server = make_server(settings, _address(settings.host, settings.port)) if settings.port else None
        await asyncio.to_thread(repository.start)
        if grpc_server:
            await _start_grpc(grpc_server, service)
            opened.push_async_callback(grpc_server.stop, settings.shutdown_timeout_seconds)
            log.info("gRPC at %s", _address(settings.host, settings.port))
        if listener:
            await opened.enter_async_context(_running(_rest_server(settings, service), listener))
            log.info("REST at http://%s", _address(settings.host, settings.rest_api_port))
        log.info("ready")
        await stop.wait()
        log.info("stopping: answering what has begun")
    if not await asyncio.to_thread(repository.stop, settings.shutdown_timeout_seconds):
        log.warning("the model was still drawing after %g seconds", settings.shutdown_timeout_seconds)
    log.info("stopped")


def _listen(settings):
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.rest_api_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        address = _address(settings.host, settings.rest_api_port)
        raise UserError(f"--rest_api_port: {address} cannot be had: {error.strerror or error}") from None
    return listener


def _rest_server(settings, service):
    from t2i_kd.serving.rest import make_app

    config = uvicorn.Config(
        make_app(service),
        http=_timed_protocol(settings.read_timeout_seconds),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=settings.max_connections,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=settings.shutdown_timeout_seconds,
        h11_max_incomplete_event_size=LARGEST_HEADER,
    )
    return _Uvicorn(config)


async def _start_grpc(server, service):
    from t2i_kd.serving.grpc_api import add_services

    add_services(server, service)
    await server.start()


@contextlib.asynccontextmanager
async def _running(server, listener):
    """A uvicorn server that takes requests; at the end it takes no more and answers those it has."""
    task = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not task.done():
        await asyncio.sleep(0.01)
    try:
        yield
    finally:
        server.should_exit = True
        await task


class _Uvicorn(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self):
        """Signals are handled once, for both protocols."""
        yield


def _timed_protocol(seconds):
    class TimedProtocol(H11Protocol):
        """HTTP/1.1 that hangs up on who takes longer than `seconds` for a request's header, or for taking an answer.

        uvicorn itself bounds only the silence between two requests.
        """

        _timer = None

        def connection_made(self, transport):
            super().connection_made(transport)
            self._wait_for_header(seconds)

        def data_received(self, data):
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._timer.cancel()

        def on_response_complete(self):
            # Before super(), which may begin the next request of a pipeline.
            self._wait_for_header(KEEP_ALIVE_SECONDS + seconds)
            super().on_response_complete()
            if not self.cycle.response_complete:
                self._timer.cancel()

        def connection_lost(self, error):
            self._timer.cancel()
            super().connection_lost(error)

        def _wait_for_header(self, limit):
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.loop.call_later(limit, self.transport.abort)

    return TimedProtocol


def _address(host, port):
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
