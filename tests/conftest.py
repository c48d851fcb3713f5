"""Fixtures that every test directory shares: real servers on loopback, in an environment that names no other."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from daemon.demo.postgres import EmbeddedPostgres
from daemon.demo.processes import scrubbed
from tests.s3_servers import RunningServers

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLEAN = scrubbed(os.environ)
for _name in set(os.environ) - set(_CLEAN):
    del os.environ[_name]

DEBIAN_BINARIES = Path("/usr/lib/postgresql/15/bin")


OPTIONS = {
    "kills": (25, "SIGKILLs of a real daemon in tests/faults/test_sigkill.py"),
    "flips": (1, "bits flipped in each class of bytes of a journal; 150 in each of a stage for each"),
    "syscalls-step": (24, "kill the daemon before each Nth of its system calls that write; 1: before each"),
    "power-cuts": (12, "power cuts under real file systems"),
    "seeds": (2000, "worlds to simulate"),
    "from": (0, "the first world's seed"),
}
"""How much of what could go on for ever is done: the default is CI's."""


def pytest_addoption(parser: pytest.Parser) -> None:
    for name, (default, meaning) in OPTIONS.items():
        parser.addoption(
            f"--{name}", type=int, default=default, metavar="N", help=f"{meaning} (default: {default})"
        )


@pytest.fixture(scope="session")
def kills(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.getoption("kills"))


@pytest.fixture(scope="session")
def flips(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.getoption("flips"))


@pytest.fixture(scope="session")
def syscalls_step(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.getoption("syscalls_step"))


@pytest.fixture(scope="session")
def power_cuts(pytestconfig: pytest.Config) -> int:
    return int(pytestconfig.getoption("power_cuts"))


@dataclass(frozen=True)
class Database:
    """A fresh database of an embedded server."""

    server: EmbeddedPostgres
    name: str

    @property
    def dsn(self) -> str:
        return self.server.dsn(self.name)

    def dsn_of(self, user: str, password: str) -> str:
        return self.server.dsn(self.name, user=user, password=password)

    def sql(self, statements: str) -> str:
        return self.server.sql(statements, self.name)


def fresh_database(server: EmbeddedPostgres) -> Database:
    name = f"test_{secrets.token_hex(4)}"
    server.sql(f"create database {name} template template0")
    return Database(server, name)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[EmbeddedPostgres]:
    """One embedded PostgreSQL per test process; use `database` unless the test is about the server itself."""
    with EmbeddedPostgres() as server:
        yield server


@pytest.fixture
def database(postgres_server: EmbeddedPostgres) -> Iterator[Database]:
    """A database of the test's own, dropped with every connection to it."""
    fresh = fresh_database(postgres_server)
    yield fresh
    postgres_server.sql(f"drop database {fresh.name} with (force)")


@pytest.fixture
def disposable_postgres() -> Iterator[EmbeddedPostgres]:
    """A server of the test's own, to freeze, kill and restart."""
    with EmbeddedPostgres() as server:
        yield server


@pytest.fixture(scope="session")
def s3_servers() -> Iterator[RunningServers]:
    """The S3 servers of a test process, each started when it is first wanted."""
    servers = RunningServers()
    yield servers
    servers.close()


@pytest.fixture(scope="session")
def debian_binaries() -> Path:
    """The programs of Debian's PostgreSQL, which unlike the wheel's has TLS and ICU."""
    if not (DEBIAN_BINARIES / "postgres").exists():
        pytest.skip(f"NOT TESTED: PostgreSQL with TLS and ICU, apt package postgresql-15 ({DEBIAN_BINARIES})")
    return DEBIAN_BINARIES
