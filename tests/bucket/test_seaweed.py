from __future__ import annotations

import contextlib
import importlib.metadata
import secrets
import stat
import sys
from pathlib import Path

import pytest

from daemon.demo.seaweed import ALL_ACTIONS, EmbeddedSeaweed, Identity, wheel_binary
from daemon.errors import BackfillError, ExitCode

OPERATOR = Identity("AKIAOPERATOR", "operator-canary")
READER = Identity("AKIAREADER", "reader-canary", ("Read", "List"))


@pytest.fixture(scope="module")
def weed():
    with EmbeddedSeaweed([OPERATOR, READER], buckets=["photos"]) as server:
        yield server


needs_proc = pytest.mark.skipif(sys.platform != "linux", reason="NOT TESTED: reads /proc")


def listening_ports(pid):
    """Local ports of the sockets that `pid` listens on, with the addresses they are bound to."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        # A running server opens and closes connections while we look; those it listens on stay.
        with contextlib.suppress(FileNotFoundError):
            target = str(descriptor.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.add((address, int(port, 16)))
    return found


def test_a_bucket_takes_and_gives_back_an_object(weed):
    assert weed.request("PUT", "/photos/a%20b", b"body")[0] == 200
    assert weed.request("GET", "/photos/a%20b") == (200, b"body")


@needs_proc
def test_it_listens_on_loopback_only_and_on_no_port_that_was_not_chosen(weed):
    found = listening_ports(weed.pid)
    assert {address for address, _ in found} == {"0100007F"}
    # One of the chosen ports was once not open when looked at, cause unknown; what must hold is the other half.
    assert weed.port in {port for _, port in found} <= set(weed._ports)


def test_a_bucket_that_nobody_made_does_not_come_into_being(weed):
    assert weed.request("PUT", "/nobody-made-it/a", b"body")[0] == 404
    assert weed.request("HEAD", "/nobody-made-it")[0] == 404


def test_starting_leaves_no_bucket_behind(weed):
    assert b"backfill-ready" not in weed.request("GET", "/")[1]


@needs_proc
def test_the_secrets_are_readable_by_their_owner_only_and_not_in_the_arguments(weed):
    assert stat.S_IMODE((weed.directory / "s3.json").stat().st_mode) == 0o600
    assert "canary" not in Path(f"/proc/{weed.pid}/cmdline").read_text()
    assert "canary" not in weed.log.read_text()
    assert "canary" not in repr(OPERATOR) + repr(weed)


def test_an_identity_can_do_no_more_than_its_actions():
    with EmbeddedSeaweed([OPERATOR, READER], buckets=["photos"]) as server:
        server.request("PUT", "/photos/a", b"body")
        server._identities = (READER,)
        assert server.request("GET", "/photos/a") == (200, b"body")
        assert server.request("PUT", "/photos/b", b"body")[0] == 403


def test_a_killed_server_starts_again_on_its_port_with_what_it_acknowledged():
    with EmbeddedSeaweed([OPERATOR], buckets=["photos"]) as server:
        bodies = {f"/photos/{number}": secrets.token_bytes(200) for number in range(20)}
        for target, body in bodies.items():
            assert server.request("PUT", target, body)[0] == 200
        port = server.port
        server.kill()
        with pytest.raises(BackfillError, match="not running"):
            _ = server.pid
        server.start()
        assert server.port == port
        assert {target: server.request("GET", target)[1] for target in bodies} == bodies


def test_nothing_is_left_on_disk_or_in_tmp():
    before = {path.name for path in Path("/tmp").glob("seaweedfs-*")}
    with EmbeddedSeaweed([OPERATOR]) as server:
        directory = server.directory
        ports = {str(port) for port in server._ports}
    assert not directory.exists()
    left = {path.name for path in Path("/tmp").glob("seaweedfs-*")} - before
    assert not {name for name in left if ports & set(name.removesuffix(".sock").split("-"))}


def test_a_server_that_can_not_start_is_told_with_its_last_words(monkeypatch):
    monkeypatch.setattr("daemon.demo.seaweed._SWITCHES", ("-no.such.switch",))
    with (
        pytest.raises(BackfillError, match=r"(?s)weed ended with exit code 2; it printed:.*Example Usage"),
        EmbeddedSeaweed([OPERATOR]),
    ):
        pass


def test_a_refused_bucket_is_told():
    with EmbeddedSeaweed([OPERATOR]) as server, pytest.raises(BackfillError, match="InvalidBucketName"):
        server.create_bucket("no")


def test_a_platform_without_the_wheel_is_named_with_exit_code_2(monkeypatch):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "files", missing)
    monkeypatch.setattr("platform.platform", lambda: "Plan9-mips")
    with pytest.raises(BackfillError, match="Plan9-mips") as caught:
        wheel_binary()
    assert caught.value.exit_code == ExitCode.USAGE


def test_by_default_an_identity_may_do_everything():
    assert OPERATOR.actions == ALL_ACTIONS
