"""Both protocols on one event loop, from the first signal to the last answer."""

import asyncio
import functools
import logging
import signal

import uvloop

from t2i_kd.serving.folders import find_condition
from t2i_kd.serving.grpc_server import GrpcServer
from t2i_kd.serving.http_server import HttpServer, listen
from t2i_kd.serving.metrics import Metrics
from t2i_kd.serving.model import Model
from t2i_kd.serving.repository import Repository
from t2i_kd.serving.service import Service

log = logging.getLogger(__name__)


def serve(settings, load_backend=lambda: None):
    """Serves a model until SIGTERM or SIGINT, then answers what it has begun and returns.

    Args:
        settings: `settings.Settings`.
        load_backend: called before the first model is loaded.

    Raises:
        UserError: when a port cannot be had or there is nothing to serve.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, load_backend))


async def _serve(settings, load_backend):
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    condition = find_condition(settings.model_base_path)
    settings = settings.with_limits(condition.limits)
    metrics = Metrics(settings.allowed_batch_sizes)
    repository = Repository(settings, metrics, functools.partial(Model, condition=condition, threads=settings.threads))
    service = Service(settings, condition, repository, metrics)
    # Ports first: TensorFlow and a model take a while to load, only to find that a port is taken.
    listener = listen(settings) if settings.rest_api_port else None
    grpc_server = GrpcServer(settings) if settings.port else None
    load_backend()
    await asyncio.to_thread(repository.start)
    finish = []
    if grpc_server:
        finish.append(await _start_grpc(grpc_server, service))
        log.info("gRPC at %s", settings.address(settings.port))
    if listener:
        finish.append(await _start_rest(settings, service, listener))
        log.info("REST at http://%s", settings.address(settings.rest_api_port))
    log.info("ready")
    await stop.wait()
    log.info("stopping: answering what has begun")
    await _finish(finish, repository, settings.shutdown_timeout_seconds)
    log.info("stopped")


async def _start_grpc(server, service):
    from t2i_kd.serving.grpc_api import add_services

    add_services(server.library, service)
    await server.start()
    return lambda until: server.finish(_left(until))


async def _start_rest(settings, service, listener):
    from t2i_kd.serving.rest import make_app

    server = HttpServer(settings, make_app(service))
    await server.start(listener)
    return lambda until: server.finish()


async def _finish(servers, repository, seconds):
    """Ends all servers at once, then the model's queues, within one span of time."""
    until = asyncio.get_running_loop().time() + seconds
    await asyncio.gather(*(finish(until) for finish in servers))
    if not await asyncio.to_thread(repository.stop, _left(until)):
        log.warning("the model was still working after %g seconds", seconds)


def _left(until):
    return max(0.0, until - asyncio.get_running_loop().time())
