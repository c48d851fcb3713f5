"""A TCP proxy on loopback that is slow, resets connections, or loses answers when told to."""

from __future__ import annotations

import struct
import threading
from enum import Enum
from typing import Self

import trio

RECEIVED_AT_ONCE = 65536
SLOW_SECONDS = 0.2
START_SECONDS_MAX = 10.0
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing sends RST and forgets what was not sent."""


class Weather(Enum):
    """How the network is.

    SLOW: each piece of an answer comes late. RESETTING: no connection lives. LOSING: requests arrive, and where the
    answer would come the connection is reset.
    """

    FAIR = "fair"
    SLOW = "slow"
    RESETTING = "resetting"
    LOSING = "losing"


class FlakyProxy:
    """Serves 127.0.0.1:`port` in a thread of its own, before another port."""

    def __init__(self, upstream_port: int) -> None:
        self._upstream_port = upstream_port
        self._weather = Weather.FAIR
        self._scopes: set[trio.CancelScope] = set()
        self._all = trio.CancelScope()
        self._started = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._thread = threading.Thread(target=trio.run, args=(self._serve,), daemon=True)
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._started.wait(START_SECONDS_MAX):
            raise RuntimeError("the proxy did not start")
        return self

    def __exit__(self, *_: object) -> None:
        if self._token is not None:
            self._token.run_sync_soon(self._all.cancel)
        self._thread.join(START_SECONDS_MAX)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def set(self, weather: Weather) -> None:
        """Change the weather, from any thread."""
        assert self._token is not None
        self._token.run_sync_soon(self._change, weather)

    def _change(self, weather: Weather) -> None:
        self._weather = weather
        if weather is Weather.RESETTING:
            for scope in self._scopes:
                scope.cancel()

    async def _serve(self) -> None:
        with self._all:
            async with trio.open_nursery() as nursery:
                (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
                self.port = int(listener.socket.getsockname()[1])
                self._token = trio.lowlevel.current_trio_token()
                self._started.set()
                await trio.serve_listeners(self._connected, [listener], handler_nursery=nursery)

    async def _connected(self, client: trio.SocketStream) -> None:
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                if self._weather is not Weather.RESETTING:
                    await self._between(client)
            except (OSError, trio.BrokenResourceError):
                pass  # either end is gone, and so the other has to be
            finally:
                self._scopes.discard(scope)
                client.socket.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_LINGER, _RESET)

    async def _between(self, client: trio.SocketStream) -> None:
        server = await trio.open_tcp_stream("127.0.0.1", self._upstream_port)
        async with server, trio.open_nursery() as nursery:
            nursery.start_soon(self._requests, client, server, nursery.cancel_scope)
            nursery.start_soon(self._answers, server, client, nursery.cancel_scope)

    async def _requests(
        self, client: trio.SocketStream, server: trio.SocketStream, both: trio.CancelScope
    ) -> None:
        while piece := await _received(client):
            await _sent(server, piece)
        both.cancel()

    async def _answers(
        self, server: trio.SocketStream, client: trio.SocketStream, both: trio.CancelScope
    ) -> None:
        while piece := await _received(server):
            if self._weather is Weather.LOSING:
                break
            if self._weather is Weather.SLOW:
                await trio.sleep(SLOW_SECONDS)
            await _sent(client, piece)
        both.cancel()


async def _received(stream: trio.SocketStream) -> bytes:
    """Return what came, nothing where the stream has ended in whatever way."""
    try:
        return bytes(await stream.receive_some(RECEIVED_AT_ONCE))
    except trio.BrokenResourceError:
        return b""


async def _sent(stream: trio.SocketStream, piece: bytes) -> None:
    try:
        await stream.send_all(piece)
    except trio.BrokenResourceError:
        return
