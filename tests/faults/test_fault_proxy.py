"""The proxy of the fault tests does what each of its faults says."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from tests.faults.fault_proxy import Fault, FaultProxy, Kind, Way


class Echo:
    """A server that answers whatever comes with the same bytes, and remembers them."""

    def __init__(self):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heard = []
        self._arrived = threading.Semaphore(0)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client, contextlib.suppress(ConnectionError):
                while piece := client.recv(100):
                    self.heard.append(piece)
                    self._arrived.release()
                    client.sendall(piece)

    def wait(self):
        assert self._arrived.acquire(timeout=10)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def echo():
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo):
    with FaultProxy(echo.port) as proxy:
        yield proxy


def connected(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


def received(client, size):
    """So many bytes, or fewer where the connection ends."""
    found = b""
    while len(found) < size and (piece := client.recv(size - len(found))):
        found += piece
    return found


@pytest.mark.parametrize(
    "fault", [None, Fault(Kind.DELAY, amount=0.05), Fault(Kind.THROTTLE, amount=1000)], ids=str
)
def test_what_is_only_slow_arrives_whole(proxy, fault):
    if fault is not None:
        proxy.strike_all(fault)
    with connected(proxy) as client:
        client.sendall(b"asked" * 10)
        assert received(client, 50) == b"asked" * 10


def test_an_answer_is_lost_after_the_request_has_arrived(proxy, echo):
    with connected(proxy) as client:
        client.sendall(b"before")
        assert received(client, 6) == b"before"
        echo.wait()
        proxy.strike_all(Fault(Kind.LOSE))
        client.sendall(b"asked")
        assert client.recv(100) == b""
        echo.wait()
        assert echo.heard == [b"before", b"asked"]
    proxy.heal()
    with connected(proxy) as client:
        client.sendall(b"after")
        assert received(client, 5) == b"after"


def test_connections_that_are_there_are_cut_and_new_ones_refused_until_it_heals(proxy):
    with connected(proxy) as client:
        client.sendall(b"before")
        assert received(client, 6) == b"before"
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    with pytest.raises(ConnectionRefusedError):
        connected(proxy)
    proxy.heal()
    with connected(proxy) as client:
        client.sendall(b"after")
        assert received(client, 5) == b"after"


@pytest.mark.parametrize("way", list(Way))
def test_a_reset_comes_after_so_many_bytes_of_its_direction(proxy, echo, way):
    proxy.strike(Fault(Kind.RESET, way, after=3))
    with connected(proxy) as client:
        client.sendall(b"asked")
        with pytest.raises(ConnectionResetError):
            received(client, 5)
    echo.wait()
    assert b"".join(echo.heard) == (b"ask" if way is Way.UP else b"asked")
    assert proxy.struck == 1


def test_the_byte_behind_so_many_arrives_with_its_bits_flipped_and_no_other(proxy):
    proxy.strike(Fault(Kind.FLIP, Way.UP, after=2, amount=0x01))
    with connected(proxy) as client:
        client.sendall(b"aaaaa")
        assert received(client, 5) == b"aa`aa"


def test_a_stalled_connection_stays_open_and_goes_on_once_healed(proxy):
    proxy.strike(Fault(Kind.STALL, Way.DOWN, after=2))
    with connected(proxy) as client:
        client.sendall(b"asked")
        assert received(client, 2) == b"as"
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
        client.settimeout(10)
        proxy.heal()
        assert received(client, 3) == b"ked"
