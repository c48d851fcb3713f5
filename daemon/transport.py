"""The one door to S3: an httpx transport on trio streams with an O(1) pool of kept connections.

httpx's shared pool scans every connection on each request and leaks slots when cancelled under contention;
here a request takes a slot, pops the connection used last, and gives both back whatever happens.

Nothing is sent twice here, not even when the server closed a kept connection just as it was reused: only the
caller knows whether a request may be repeated, and only its retry is recorded. Redirects aren't followed and
proxies aren't spoken to (`daemon.proxies`).
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import httpx
import trio

from daemon.dialing import Connect, close_now, connect_problem, open_stream
from daemon.http_connection import Connection, Timeouts
from daemon.http_request import wire_request

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Awaitable

IDLE_SECONDS_MAX = 30.0
"""Kept connections are dropped after this; below the 60 s after which AWS load balancers drop them unasked."""


@dataclass(frozen=True)
class Statistics:
    """A snapshot of the pool: `opened` and `requests` since the start, `idle` and `in_use` connections now."""

    opened: int
    requests: int
    idle: int
    in_use: int


@dataclass
class _Origin:
    """Kept connections to one scheme, host and port; the one used last is on the right."""

    host: str
    port: int
    tls: ssl.SSLContext | None
    idle: deque[Connection] = field(default_factory=deque)


class S3Transport(httpx.AsyncBaseTransport):
    """Sends requests over at most `connections_max` connections and streams their answers.

    Takes ordinary requests with a body in memory, and cheap ones: a shared URL with
    `extensions={"target": raw path and query}`, a raw header list, `stream=httpx.ByteStream(body)`. Either
    must carry Host, and Content-Length where there is a body or the method is PUT or POST.

    Request extensions: `target` (bytes), `timeout` (as httpx has it: connect, read, write, pool in seconds).

    An answer whose body has arrived with its head gives its connection back at once, and has the extension `whole`:
    its headers as they arrived, and its body. Of any other the caller reads the body to its end, or closes it with
    `await response.aclose()`, cancelled or not.
    """

    def __init__(
        self,
        *,
        connections_max: int,
        connect_timeout: float = 10.0,
        io_timeout: float = 60.0,
        ssl_context: ssl.SSLContext | None = None,
        connect: Connect = open_stream,
    ) -> None:
        """Make a transport with no connection yet.

        Args:
            connections_max: bound on open connections, kept ones included; further requests wait in order.
            connect_timeout: seconds to connect and shake hands.
            io_timeout: seconds without progress in sending or receiving.
            ssl_context: for https URLs (`daemon.dialing.tls_context`); without one they are refused.
            connect: opens streams.
        """
        self._connections_max = connections_max
        self._timeouts = Timeouts(connect=connect_timeout, read=io_timeout, write=io_timeout)
        self._tls = ssl_context
        self._connect = connect
        self._slots = trio.Semaphore(connections_max)
        self._origins: dict[tuple[bytes, bytes, int | None], _Origin] = {}
        self._open = 0
        self._opened = 0
        self._requests = 0
        self._closed = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send `request` and return its answer, its head complete.

        Raises:
            httpx.LocalProtocolError: the request can't be sent as it is; nothing was.
            httpx.ConnectError, httpx.ConnectTimeout: no connection; nothing was sent.
            httpx.PoolTimeout: no slot within `timeout["pool"]`; nothing was sent.
            httpx.WriteError, httpx.WriteTimeout, httpx.ReadError, httpx.ReadTimeout: no answer; the server may
                have done what was asked.
            httpx.RemoteProtocolError: an answer that isn't one, or that ends too soon.
        """
        wire = wire_request(request)
        origin = self._origin_of(request.url)
        timeouts = self._timeouts_of(request)
        await self._take_slot(timeouts.slot)
        connection: Connection | None = None
        try:
            connection = await self._checkout(origin, timeouts.connect)
            self._requests += 1
            await connection.exchange(wire, timeouts)
        except BaseException:
            await self._give_back(origin, connection, whole=False)
            raise
        parser = connection.parser
        body: httpx.ByteStream | _AnswerBody
        extensions: dict[str, Any] = {"http_version": b"HTTP/1.1", "reason_phrase": parser.reason}
        if parser.complete:
            whole = parser.take_body()
            body = httpx.ByteStream(whole)
            extensions["whole"] = (parser.headers, whole)
            await self._give_back(origin, connection, whole=True)
        else:
            body = _AnswerBody(connection, timeouts.read, partial(self._give_back, origin, connection))
        return httpx.Response(parser.status, headers=parser.headers, stream=body, extensions=extensions)

    def statistics(self) -> Statistics:
        """Return the pool's figures as they are now."""
        idle = sum(len(origin.idle) for origin in self._origins.values())
        return Statistics(self._opened, self._requests, idle, self._open - idle)

    async def aclose(self) -> None:
        """Close the kept connections now, and those in use as soon as their answers end."""
        self._closed = True
        for origin in self._origins.values():
            while origin.idle:
                await self._close(origin.idle.pop())

    async def _give_back(self, origin: _Origin, connection: Connection | None, *, whole: bool) -> None:
        """Keep or close a connection that a request is done with, and free its slot.

        Args:
            origin: where it leads.
            connection: None if none was opened.
            whole: the answer was read to its end.
        """
        try:
            if connection is None:
                return
            if whole and connection.parser.keep_alive and not self._closed:
                connection.idle_since = trio.current_time()
                origin.idle.append(connection)
            else:
                await self._close(connection)
        finally:
            self._slots.release()

    async def _take_slot(self, seconds: float) -> None:
        try:
            self._slots.acquire_nowait()  # no checkpoint: sending the request is one
        except trio.WouldBlock:
            with trio.move_on_after(seconds):
                await self._slots.acquire()
                return
            raise httpx.PoolTimeout(
                f"no connection free for {seconds:g} s: all {self._connections_max} are in use"
            ) from None

    async def _checkout(self, origin: _Origin, connect_timeout: float) -> Connection:
        """Return a connection that the caller owns: the one used last, or a new one."""
        if self._closed:
            raise httpx.LocalProtocolError("the transport is closed")
        while origin.idle:
            connection = origin.idle.pop()
            expired = trio.current_time() - connection.idle_since > IDLE_SECONDS_MAX
            if not expired and not connection.went_stale():
                return connection
            await self._close(connection)
        surplus = self._oldest_idle() if self._open >= self._connections_max else None
        self._open += 1
        try:
            if surplus is not None:
                await self._close(surplus)
            return Connection(await self._dial(origin, connect_timeout))
        except BaseException:
            self._open -= 1
            raise

    def _oldest_idle(self) -> Connection:
        """Take the connection idle for longest; there is one: the slot held here has no connection yet."""
        origins = [origin for origin in self._origins.values() if origin.idle]
        return min(origins, key=lambda origin: origin.idle[0].idle_since).idle.popleft()

    async def _dial(self, origin: _Origin, seconds: float) -> trio.abc.Stream:
        where = f"connect to {origin.host} port {origin.port}"
        try:
            with trio.move_on_after(seconds):
                stream = await self._connect(origin.host, origin.port, origin.tls)
                self._opened += 1
                return stream
        except (OSError, trio.BrokenResourceError) as error:
            raise httpx.ConnectError(f"{where}: {connect_problem(error)}") from error
        raise httpx.ConnectTimeout(f"{where}: no connection within {seconds:g} s")

    async def _close(self, connection: Connection) -> None:
        self._open -= 1
        await close_now(connection.stream)

    def _origin_of(self, url: httpx.URL) -> _Origin:
        key = (url.raw_scheme, url.raw_host, url.port)
        origin = self._origins.get(key)
        if origin is None:
            if url.scheme not in {"http", "https"} or not url.host:
                raise httpx.UnsupportedProtocol(
                    f"expected an http or https URL with a host, found {url.scheme}"
                )
            if url.scheme == "https" and self._tls is None:
                raise httpx.UnsupportedProtocol("an https URL needs a transport with an ssl_context")
            port = url.port or (443 if url.scheme == "https" else 80)
            tls = self._tls if url.scheme == "https" else None
            origin = self._origins[key] = _Origin(url.raw_host.decode("ascii"), port, tls)
        return origin

    def _timeouts_of(self, request: httpx.Request) -> Timeouts:
        given = request.extensions.get("timeout")
        if given is None:
            return self._timeouts
        seconds = {name: float("inf") if value is None else float(value) for name, value in given.items()}
        return Timeouts(
            connect=seconds.get("connect", self._timeouts.connect),
            read=seconds.get("read", self._timeouts.read),
            write=seconds.get("write", self._timeouts.write),
            slot=seconds.get("pool", self._timeouts.slot),
        )


class _GiveBack(Protocol):
    """Keeps or closes the connection of an answer."""

    def __call__(self, *, whole: bool) -> Awaitable[None]: ...


class _AnswerBody(httpx.AsyncByteStream):
    """The rest of an answer; owns its connection until read to the end or closed."""

    def __init__(self, connection: Connection, read_timeout: float, give_back: _GiveBack) -> None:
        self._connection = connection
        self._read_timeout = read_timeout
        self._give_back: _GiveBack | None = give_back

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parser = self._connection.parser
        if self._give_back is None:
            raise httpx.StreamClosed
        try:
            while True:
                part = parser.take_body()
                if part:
                    yield part
                if parser.complete:
                    break
                await self._connection.receive(self._read_timeout)
        except BaseException:
            await self.aclose()
            raise
        await self._end(whole=True)

    async def aclose(self) -> None:
        await self._end(whole=False)

    async def _end(self, *, whole: bool) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is not None:
            await give_back(whole=whole)
