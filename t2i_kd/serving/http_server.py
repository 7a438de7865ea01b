"""uvicorn, with bounds that it leaves to its user: on slow senders and slow readers, and on connections."""

import asyncio
import contextlib
import json
import socket
import sys

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from t2i_kd.errors import UserError
from t2i_kd.serving import asgi
from t2i_kd.serving.errors import UNAVAILABLE, RequestError
from t2i_kd.serving.strict_lines import StrictBuffer

KEEP_ALIVE_SECONDS = 5
LARGEST_HEADER = 1 << 15
# After an error that ends a connection, what its sender still sends is taken: closed before, it would reset the
# connection, and the error could be lost with it.
LINGER_SECONDS = 1.0
# Bytes that a client must take of an answer within --read_timeout_seconds.
SLOWEST_READER = 1 << 16


def listen(settings):
    """A socket bound to --host and --rest_api_port. Raises `UserError` when that cannot be had."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.rest_api_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        address = settings.address(settings.rest_api_port)
        raise UserError(f"--rest_api_port: {address} cannot be had: {error.strerror or error}") from None
    return listener


class HttpServer(uvicorn.Server):
    """Serves an ASGI application.

    Args:
        settings: `settings.Settings`.
        app: the application.
    """

    def __init__(self, settings, app):
        config = uvicorn.Config(
            asgi.answering_when_cancelled(app),
            http=_bounded_protocol(settings, app),
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="warning",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=settings.shutdown_timeout_seconds,
            h11_max_incomplete_event_size=LARGEST_HEADER,
        )
        super().__init__(config)

    async def start(self, listener):
        """Takes requests from now on. Args: listener: from `listen`."""
        self._task = asyncio.create_task(self.serve(sockets=[listener]))
        while not self.started and not self._task.done():
            await asyncio.sleep(0.01)

    async def finish(self):
        """Takes no more requests and answers those that have begun; what is not done in time hears so, where it can."""
        self.should_exit = True
        await self._task

    @contextlib.contextmanager
    def capture_signals(self):
        """Signals are handled once, for both protocols."""
        yield


def _bounded_protocol(settings, app):
    seconds, most = settings.read_timeout_seconds, settings.max_connections
    too_many = RequestError(UNAVAILABLE, f"too busy: {most} connections are open (--max_connections); try again later")
    crowded = asgi.refusing_all_but_probes(app, too_many)

    class BoundedProtocol(H11Protocol):
        """HTTP/1.1 that hangs up on who is slow to send a request's header or to take an answer.

        uvicorn itself bounds only the silence between two requests: whoever sends half a header, or does not take its
        answer, stays for ever. Its `limit_concurrency` answers what comes over it with plain text, probes too, so that
        a busy pod is taken for a dead one, and without the JSON and the `Retry-After` of TF Serving's clients.
        """

        _timer = None
        _untaken = 0
        _lingering = False

        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.conn._receive_buffer = StrictBuffer()

        def connection_made(self, transport):
            super().connection_made(transport)
            self._watch(seconds)
            if len(self.connections) > 2 * most:
                transport.abort()
            elif len(self.connections) > most:
                self.app = crowded

        def data_received(self, data):
            if self._lingering:
                return
            super().data_received(data)
            self._rest_while_answering()

        def send_400_response(self, message):
            reason = f"Malformed request: {str(sys.exc_info()[1])[:200]}"
            if self.cycle is not None:
                # Nobody waits for the rest of its body, nor for an answer beside this one.
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                body = json.dumps({"error": reason}).encode()
                headers = [("content-type", "application/json"), ("content-length", str(len(body)))]
                answer = h11.Response(
                    status_code=400, headers=[*headers, ("connection", "close")], reason="Bad Request"
                )
                for event in (answer, h11.Data(data=body), h11.EndOfMessage()):
                    self.transport.write(self.conn.send(event))
                self._lingering = True
                self.transport.write_eof()
                self.loop.call_later(LINGER_SECONDS, self.transport.close)
            else:
                self.transport.close()

        def on_response_complete(self):
            # Before super(), which may begin the next request of a pipeline.
            self._watch(KEEP_ALIVE_SECONDS + seconds)
            super().on_response_complete()
            self._rest_while_answering()

        def pause_writing(self):
            super().pause_writing()
            self._watch(seconds)

        def resume_writing(self):
            super().resume_writing()
            self._rest_while_answering()

        def connection_lost(self, error):
            self._timer.cancel()
            super().connection_lost(error)

        def _rest_while_answering(self):
            if self.cycle is not None and not self.cycle.response_complete and not self.flow.write_paused:
                self._timer.cancel()

        def _watch(self, limit):
            if self._timer is not None:
                self._timer.cancel()
            self._untaken = self.transport.get_write_buffer_size()
            self._timer = self.loop.call_later(limit, self._look)

        def _look(self):
            untaken = self.transport.get_write_buffer_size()
            taken = self._untaken - untaken
            if taken >= SLOWEST_READER or (taken and not untaken):
                self._watch(seconds)
            else:
                self.transport.abort()

    return BoundedProtocol
