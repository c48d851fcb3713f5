"""A proxy before an S3 server: it counts what the server has answered, and can keep PUTs waiting.

A request goes on only once it is whole, so that a client killed in the middle of a body leaves nothing behind,
and it is counted before the client hears of it, so that no answer is ever missed.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Self
from urllib.parse import unquote

from tests.faults.waiting import eventually


@dataclass(frozen=True)
class Exchange:
    """One request that the server has answered; `key` is the object's, without the bucket."""

    method: str
    key: str
    status: int
    md5: str


class CountingProxy:
    """Serves 127.0.0.1:`port`, a thread for each connection, each with a connection of its own to the server."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._lock = threading.Lock()
        self._gate = threading.Condition()
        self._held: Callable[[str], bool] | None = None
        self._passing = 0
        self._late = False
        self._waiting: Counter[str] = Counter()
        self._open = 0
        self._exchanges: list[Exchange] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port = int(self._listener.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        # shutdown wakes the accept that close alone would leave hanging.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._acceptor.join(10)
        for thread in self._threads:
            thread.join(10)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def exchanges(self) -> list[Exchange]:
        """Every exchange so far, once no request of a client is on its way to the server."""
        eventually(lambda: self._open == 0, "the proxy is quiet")
        with self._lock:
            return list(self._exchanges)

    def puts_answered(self) -> int:
        with self._lock:
            return sum(one.method == "PUT" and one.status // 100 == 2 for one in self._exchanges)

    def hold(self, key: Callable[[str], bool] = lambda _key: True, *, after: int = 0) -> None:
        """Keep PUTs of such keys waiting from now on, but for the first `after` of them."""
        with self._gate:
            self._held, self._passing = key, after

    def release(self, *, late: bool = False) -> None:
        """Let go what waits; requests whose client is gone by now only if they are to arrive late."""
        with self._gate:
            self._held = None
            self._late = late
            self._gate.notify_all()

    def waiting(self) -> list[str]:
        """The keys of the PUTs that wait, sorted."""
        with self._gate:
            return sorted(self._waiting.elements())

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(client,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with (
            client,
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", self._upstream_port)) as server,
        ):
            server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with client.makefile("rb") as requests, server.makefile("rb") as answers:
                while (head := _head(requests)) is not None:
                    body = _body(head, requests)
                    if body is None:
                        return
                    with self._lock:
                        self._open += 1
                    try:
                        if not self._exchange(head, body, client, server, answers):
                            return
                    finally:
                        with self._lock:
                            self._open -= 1

    def _exchange(
        self, head: bytes, body: bytes, client: socket.socket, server: socket.socket, answers: BinaryIO
    ) -> bool:
        """Pass one request on and its answer back; False if the connection is of no more use."""
        method, target, _ = head.split(b" ", 2)
        name = unquote(target.partition(b"?")[0].decode()).removeprefix("/").partition("/")[2]
        if method == b"PUT" and not self._admitted(name, client):
            return False
        server.sendall(head + body)
        answer = _head(answers)
        if answer is None:
            return False
        content = b"" if method == b"HEAD" else _body(answer, answers)
        if content is None:
            return False
        status = int(answer.split(b" ", 2)[1])
        with self._lock:
            digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
            self._exchanges.append(Exchange(method.decode(), name, status, digest))
        client.sendall(answer + content)
        return True

    def _admitted(self, key: str, client: socket.socket) -> bool:
        """Wait while `key` is held; False if it is not to go on, since its client went away meanwhile."""
        with self._gate:
            if self._held is None or not self._held(key):
                return True
            if self._passing > 0:
                self._passing -= 1
                return True
            self._waiting[key] += 1
            # One that waits is not on its way to the server.
            with self._lock:
                self._open -= 1
            try:
                while self._held is not None and self._held(key):
                    self._gate.wait()
            finally:
                with self._lock:
                    self._open += 1
                self._waiting[key] -= 1
        try:
            gone = not client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            gone = False
        except ConnectionResetError:
            gone = True
        return self._late or not gone


def _head(stream: BinaryIO) -> bytes | None:
    """The start line and headers with the empty line after them; None at the stream's end."""
    lines = []
    while line := stream.readline():
        lines.append(line)
        if line == b"\r\n":
            return b"".join(lines)
    return None


def _body(head: bytes, stream: BinaryIO) -> bytes | None:
    """The body that belongs to `head`, as it came; None if the stream ended inside it."""
    headers = {}
    for line in head.split(b"\r\n")[1:-2]:
        name, _, value = line.partition(b":")
        headers[name.strip().lower()] = value.strip()
    if headers.get(b"transfer-encoding", b"").lower() == b"chunked":
        return _chunks(stream)
    length = int(headers.get(b"content-length", b"0"))
    body = stream.read(length)
    return body if len(body) == length else None


def _chunks(stream: BinaryIO) -> bytes | None:
    parts = []
    while line := stream.readline():
        size = int(line.split(b";")[0], 16)
        content = stream.read(size + 2)
        if len(content) < size + 2:
            return None
        parts += [line, content]
        if size == 0:
            return b"".join(parts)
    return None
