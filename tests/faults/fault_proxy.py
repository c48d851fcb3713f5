"""A TCP proxy that does to connections what networks do: it refuses, resets, swallows, falls silent, slows, flips bits.

It knows no protocol, so it stands before PostgreSQL as before S3. Faults wait in a line: a connection that carries
a byte takes the first of them, which then counts the bytes of its direction and strikes after so many. Once it has
struck, the connection, if it is still open, takes the next.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Self

import trio

from daemon.demo.processes import free_ports

HOST = "127.0.0.1"
CHUNK_BYTES = 64 * 1024
READY_SECONDS = 10.0
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER on, for no time: closing sends RST in place of FIN."""


class Way(Enum):
    """A direction."""

    UP = auto()
    """From the client to the server."""
    DOWN = auto()


class Kind(Enum):
    RESET = auto()
    """`after` bytes arrive, then both ends see a reset."""
    LOSE = auto()
    """The server has answered; its answer is dropped and the connection closed."""
    STALL = auto()
    """`after` bytes arrive, then nothing either way, and the connection stays open until `heal`."""
    FLIP = auto()
    """The byte behind `after` others arrives with the bits of `amount` flipped."""
    DELAY = auto()
    """From then on each piece comes `amount` seconds late, until `heal`."""
    THROTTLE = auto()
    """From then on `amount` bytes a second, until `heal`."""


PIECES_A_SECOND = 20
"""In which a throttled connection delivers."""


@dataclass(frozen=True)
class Fault:
    """What happens to a connection; see `Kind`."""

    kind: Kind
    way: Way = Way.DOWN
    after: int = 0
    amount: float = 1


class FaultProxy:
    """Serves 127.0.0.1:`port` from a thread of its own, each connection with one of its own to the server.

    Attributes:
        struck: how many faults have struck.
    """

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._serve,), daemon=True)
        self._connections: set[_Connection] = set()
        self._line: deque[Fault] = deque()
        self._always: Fault | None = None
        self._listener: trio.SocketListener | None = None
        (self.port,) = free_ports(1)
        self.struck = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(READY_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._within(self._nursery.cancel_scope.cancel)
        self._thread.join(READY_SECONDS)

    @property
    def endpoint(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def waiting(self) -> int:
        """How many faults no connection has taken yet."""
        return len(self._line)

    def strike(self, *faults: Fault) -> None:
        """Put faults at the end of the line; open connections take them too."""
        self._within(lambda: self._line.extend(faults))

    def strike_all(self, fault: Fault) -> None:
        """Do this to every connection, now and later, again and again, until `heal`."""

        def begin() -> None:
            self._always = fault

        self._within(begin)

    def refuse(self) -> None:
        """Cut every connection, and let nobody connect until `heal`."""

        def refuse() -> None:
            if self._listener is not None:
                self._listener.socket.close()
                self._listener = None
            for connection in self._connections:
                connection.cut()

        self._within(refuse)

    def heal(self) -> None:
        """Forget every fault, let go what has stalled, and listen again."""

        def heal() -> None:
            self._line.clear()
            self._always = None
            for connection in self._connections:
                connection.heal()
            if self._listener is None:
                self._listen()

        self._within(heal)

    def next_fault(self) -> Fault | None:
        """Take what stands first in the line."""
        return self._line.popleft() if self._line else self._always

    def _within(self, change: Callable[[], object]) -> None:
        """Make a change in the proxy's own thread, and wait until it is made."""
        made = threading.Event()

        def make() -> None:
            try:
                change()
            finally:
                made.set()

        self._token.run_sync_soon(make)
        assert made.wait(READY_SECONDS)

    async def _serve(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self._nursery:
            self._listen()
            self._ready.set()
            await trio.sleep_forever()

    def _listen(self) -> None:
        listener = socket.create_server((HOST, self.port), backlog=256)
        listener.setblocking(False)
        self._listener = trio.SocketListener(trio.socket.from_stdlib_socket(listener))
        self._nursery.start_soon(self._accept, self._listener)

    async def _accept(self, listener: trio.SocketListener) -> None:
        async with listener:
            while True:
                try:
                    client = await listener.accept()
                except trio.ClosedResourceError:
                    return
                self._nursery.start_soon(self._carry, client)

    async def _carry(self, client: trio.SocketStream) -> None:
        async with client:
            try:
                server = await trio.open_tcp_stream(HOST, self._upstream_port)
            except OSError:
                _reset(client)
                return
            async with server:
                if self._listener is None:  # refused meanwhile
                    _reset(client)
                    return
                connection = _Connection(self, client, server)
                self._connections.add(connection)
                try:
                    await connection.carry()
                finally:
                    self._connections.remove(connection)


class _Connection:
    """Both halves of one connection, and the fault that it has taken."""

    def __init__(self, proxy: FaultProxy, client: trio.SocketStream, server: trio.SocketStream) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._scope = trio.CancelScope()
        self._fault: Fault | None = None
        self._left = 0
        self._striking = False
        self._healed = trio.Event()
        self._stalled = False

    async def carry(self) -> None:
        with self._scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump, self._client, self._server, Way.UP)
                nursery.start_soon(self._pump, self._server, self._client, Way.DOWN)

    def cut(self, *, reset: bool = True) -> None:
        """End the connection, by a reset or as if the other end had closed it."""
        if reset:
            _reset(self._client)
            _reset(self._server)
        self._scope.cancel()

    def heal(self) -> None:
        """Carry everything as it comes."""
        self._fault, self._stalled = None, False
        healed, self._healed = self._healed, trio.Event()
        healed.set()

    async def _pump(self, source: trio.SocketStream, sink: trio.SocketStream, way: Way) -> None:
        try:
            while chunk := await source.receive_some(CHUNK_BYTES):
                await self._pass_on(bytes(chunk), sink, way)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            self.cut()
        self.cut(reset=False)

    async def _pass_on(self, chunk: bytes, sink: trio.SocketStream, way: Way) -> None:
        while chunk:
            if self._stalled:
                await self._healed.wait()
            if self._fault is None and (fault := self._proxy.next_fault()) is not None:
                self._fault, self._left, self._striking = fault, fault.after, False
            fault = self._fault
            if fault is None or fault.way is not way:
                await sink.send_all(chunk)
                return
            before, chunk = chunk[: self._left], chunk[self._left :]
            self._left -= len(before)
            if fault.kind is not Kind.LOSE or not chunk:
                await sink.send_all(before)
            if chunk and self._fault is fault:
                chunk = await self._strike(fault, chunk, sink)

    async def _strike(self, fault: Fault, chunk: bytes, sink: trio.SocketStream) -> bytes:
        """Do it; return what is still to be passed on."""
        if not self._striking:
            self._proxy.struck += 1
            self._striking = True
        match fault.kind:
            case Kind.RESET | Kind.LOSE:
                self.cut(reset=fault.kind is Kind.RESET)
                await trio.lowlevel.checkpoint()
            case Kind.STALL:
                self._stalled = True
            case Kind.FLIP:
                self._fault = None
                await sink.send_all(bytes([chunk[0] ^ int(fault.amount)]))
                return chunk[1:]
            case Kind.DELAY:
                await self._late(fault.amount)
                await sink.send_all(chunk)
                return b""
            case Kind.THROTTLE:
                size = max(1, int(fault.amount / PIECES_A_SECOND))
                await sink.send_all(chunk[:size])
                await self._late(1 / PIECES_A_SECOND)
                return chunk[size:]
        return chunk

    async def _late(self, seconds: float) -> None:
        with trio.move_on_after(seconds):
            await self._healed.wait()


def _reset(stream: trio.SocketStream) -> None:
    """Let the stream, once it is closed, end with a reset."""
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
