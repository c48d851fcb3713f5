"""The null sink's process: one thread, epoll, and as few Python instructions for a request as will do.

Why not nginx: it can't delay an answer, remember a probe or compute an ETag, and it answers before it has read the
body. What that would save is little: for a 4 KiB PUT, nginx took 16 to 23 us CPU with obstore as the client and 38 to
41 with s5cmd (which sends a request in several packets), this sink 20 to 28 and 46 to 53, and the rates of both
clients were the same within noise (three interleaved runs on 2 cores).

    python -m benchmarks.sink --ready FILE [--etag HEX] [--latency MS] [--certificate FILE --key FILE]

FILE then holds its port on 127.0.0.1. It ends with its parent.
"""

from __future__ import annotations

import argparse
import select
import socket
import ssl
import time
from collections import deque
from pathlib import Path

from benchmarks.sink_protocol import CONTINUE, Exchange, NotUnderstood, Shelf

RECEIVED_AT_ONCE = 256 * 1024
BACKLOG = 1024


class Connection:
    """A client's socket, plain or TLS, and where its exchange stands."""

    __slots__ = ("exchange", "is_shaking_hands", "socket")

    def __init__(self, accepted: socket.socket, shelf: Shelf, tls: ssl.SSLContext | None) -> None:
        accepted.setblocking(False)
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.exchange = Exchange(shelf)
        self.is_shaking_hands = tls is not None
        self.socket = (
            accepted
            if tls is None
            else tls.wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
        )


class Sink:
    """Accepts, reads, answers; each answer `latency` seconds after the last byte of its request."""

    def __init__(
        self, listener: socket.socket, shelf: Shelf, *, latency: float, tls: ssl.SSLContext | None
    ) -> None:
        self._listener = listener
        self._shelf = shelf
        self._latency = latency
        self._tls = tls
        self._poll = select.epoll()
        self._poll.register(listener.fileno(), select.EPOLLIN)
        self._connections: dict[int, Connection] = {}
        self._due: deque[tuple[float, int, Connection, bytes]] = deque()
        self._view = memoryview(bytearray(RECEIVED_AT_ONCE))

    def serve(self) -> None:
        listening = self._listener.fileno()
        while True:
            timeout = -1.0
            if self._due:
                timeout = 0.0
                # epoll_wait counts whole milliseconds and would answer late by half of one; select does not.
                wait = self._due[0][0] - time.perf_counter()
                if wait > 0:
                    select.select([self._poll.fileno()], (), (), wait)
            for descriptor, _ in self._poll.poll(timeout):
                if descriptor == listening:
                    self._accept()
                else:
                    self._readable(descriptor, self._connections[descriptor])
            if self._due:
                self._send_due()

    def _accept(self) -> None:
        accepted, _ = self._listener.accept()
        connection = Connection(accepted, self._shelf, self._tls)
        self._connections[connection.socket.fileno()] = connection
        self._poll.register(connection.socket.fileno(), select.EPOLLIN)

    def _readable(self, descriptor: int, connection: Connection) -> None:
        # A TLS record that is already in OpenSSL's buffer wakes nobody, so TLS reads until there is no more.
        try:
            while True:
                if connection.is_shaking_hands:
                    connection.socket.do_handshake()  # type: ignore[union-attr]
                    connection.is_shaking_hands = False
                count = connection.socket.recv_into(self._view)
                if not count:
                    self._drop(descriptor, connection)
                    return
                answer = connection.exchange.take(self._view[:count])
                if answer is not None:
                    if self._latency:
                        self._due.append(
                            (time.perf_counter() + self._latency, descriptor, connection, answer)
                        )
                    else:
                        connection.socket.send(answer)
                elif connection.exchange.wants_continue:
                    connection.exchange.wants_continue = False
                    connection.socket.send(CONTINUE)
                if self._tls is None:
                    return
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except NotUnderstood as error:
            print(f"dropped a connection: {error}", flush=True)
            self._drop(descriptor, connection)
        except OSError:
            self._drop(descriptor, connection)

    def _send_due(self) -> None:
        now = time.perf_counter()
        while self._due and self._due[0][0] <= now:
            _, descriptor, connection, answer = self._due.popleft()
            if self._connections.get(descriptor) is connection:
                try:
                    connection.socket.send(answer)
                except OSError:
                    self._drop(descriptor, connection)

    def _drop(self, descriptor: int, connection: Connection) -> None:
        del self._connections[descriptor]
        self._poll.unregister(descriptor)
        connection.socket.close()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ready", type=Path, required=True)
    parser.add_argument("--etag", default="", help="of every object, where all bodies are equal")
    parser.add_argument("--latency", type=float, default=0.0, help="milliseconds")
    parser.add_argument("--certificate", type=Path)
    parser.add_argument("--key", type=Path)
    options = parser.parse_args()
    tls = None
    if options.certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(options.certificate, options.key)
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(BACKLOG)
    partial = options.ready.with_suffix(".partial")
    partial.write_text(str(listener.getsockname()[1]))
    partial.replace(options.ready)
    shelf = Shelf(options.etag.encode() or None)
    Sink(listener, shelf, latency=options.latency / 1e3, tls=tls).serve()


if __name__ == "__main__":
    main()
