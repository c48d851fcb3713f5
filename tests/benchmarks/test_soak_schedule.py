"""A soak's faults are drawn from its seed alone, each where it belongs; its proxy does what each weather says."""

from __future__ import annotations

import socket
import threading
from itertools import pairwise

import pytest

from benchmarks.endurance.flaky_proxy import FlakyProxy, Weather
from benchmarks.endurance.schedule import AT_ONCE, Kind, Phase, faults, spans

HOURS = 60.0


def test_the_same_seed_draws_the_same_faults_and_another_one_others():
    time = spans(HOURS)
    assert faults(time, 3) == faults(time, 3) != faults(time, 4)


def test_every_kind_of_fault_is_drawn():
    assert {fault.kind for fault in faults(spans(HOURS), 3)} == set(Kind)


def test_nothing_is_done_in_a_calm_stretch_and_no_fault_outlasts_its_phase():
    time = spans(HOURS)
    for fault in faults(time, 3):
        (span,) = [one for one in time if one.begin <= fault.begin < one.end]
        assert span.phase is not Phase.CALM
        assert fault.end <= span.end


def test_what_a_daemon_must_outlive_comes_one_by_one_and_never_kills_it():
    outlived = [span for span in spans(HOURS) if span.phase is Phase.FAULTS]
    drawn = faults(outlived, 3)
    assert not {Kind.KILL, Kind.TERMINATE} & {fault.kind for fault in drawn}
    assert all(before.end <= after.begin for before, after in pairwise(drawn))


def test_two_faults_of_one_kind_never_overlap():
    last = dict.fromkeys(Kind, 0.0)
    for fault in faults(spans(HOURS), 3):
        assert fault.begin > last[fault.kind]
        last[fault.kind] = fault.end
        assert (fault.begin == fault.end) == (fault.kind in AT_ONCE)


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
            with client:
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
    with FlakyProxy(echo.port) as proxy:
        yield proxy


def connected(proxy):
    return socket.create_connection(("127.0.0.1", proxy.port), timeout=10)


@pytest.mark.parametrize("weather", [Weather.FAIR, Weather.SLOW])
def test_the_proxy_passes_on_what_it_does_not_lose(proxy, weather):
    proxy.set(weather)
    with connected(proxy) as client:
        client.sendall(b"asked")
        assert client.recv(100) == b"asked"


def test_an_answer_is_lost_after_the_request_has_arrived(proxy, echo):
    with connected(proxy) as client:
        client.sendall(b"before")
        assert client.recv(100) == b"before"
        echo.wait()
        proxy.set(Weather.LOSING)
        client.sendall(b"asked")
        with pytest.raises(ConnectionResetError):
            client.recv(100)
        echo.wait()
        assert echo.heard == [b"before", b"asked"]


def test_connections_that_are_there_are_reset_and_new_ones_too(proxy):
    with connected(proxy) as client:
        client.sendall(b"before")
        assert client.recv(100) == b"before"
        proxy.set(Weather.RESETTING)
        with pytest.raises(ConnectionResetError):
            client.recv(100)
    # It may come as early as in connect.
    with pytest.raises(ConnectionResetError), connected(proxy) as client:
        client.recv(100)
