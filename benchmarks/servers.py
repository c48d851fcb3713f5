"""Both ends of every arm: a PostgreSQL with the tables, and sinks as child processes on loopback."""

from __future__ import annotations

import hashlib
import os
import random
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measuring import python
from daemon.demo.postgres import EmbeddedPostgres
from daemon.demo.processes import ChildProcess, scrubbed
from daemon.demo.seaweed import EmbeddedSeaweed, Identity

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCESS_KEY = "benchmark"
SECRET_KEY = "benchmark-secret"
BUCKET = "blobs"
START_SECONDS_MAX = 30.0
READY_POLL_SECONDS = 0.02

POSTGRES = {"shared_buffers": "256MB", "max_wal_size": "4GB", "max_connections": "100"}
"""Durability stays off, as in the demo: these tables only serve to be read."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table of `id`, `n`, `created_at`, `value`.

    Attributes:
        size: of every value, in bytes; None: log-normal.
    """

    name: str
    rows: int
    size: int | None

    @property
    def etag(self) -> str:
        """The MD5 of every value, in hex; empty if they differ."""
        return "" if self.size is None else hashlib.md5(value_of(self.size)).hexdigest()


MIX_MEDIAN = 4096
MIX_SIGMA = 2.0
MIX_MAX = 8 * 1024 * 1024
"""Median 4 KiB, mean 30 KiB; one value in 360 is larger than 1 MiB."""


def mixed_sizes(rows: int) -> list[int]:
    """Return log-normal sizes in bytes, the same for the same number."""
    source = random.Random(20260114)
    return [
        max(1, min(MIX_MAX, round(MIX_MEDIAN * source.lognormvariate(0.0, MIX_SIGMA)))) for _ in range(rows)
    ]


def value_of(size: int) -> bytes:
    """Return bytes that don't compress, the same for the same size, as `_VALUE` makes them in the server."""
    blocks = (hashlib.sha512(f"{size}/{block}".encode()).digest() for block in range((size + 63) // 64))
    return b"".join(blocks)[:size]


_TABLE = """
create {logged} table {name} (id text primary key, n int not null, created_at timestamptz not null, value bytea);
alter table {name} alter column value set storage external;
"""
# 24 bytes of hexadecimal digits, without order, as content hashes have none.
_ID = "substr(md5('{name}/' || n), 1, 24)"
_CREATED = "timestamptz '2026-01-01' - n * interval '1 second'"
_VALUE = """(select substr(string_agg(sha512(convert_to({size} || '/' || block, 'UTF8')), ''::bytea order by block), 1, {size})
             from generate_series(0, ({size} + 63) / 64 - 1) block)"""


def fill(postgres: EmbeddedPostgres, table: Table) -> None:
    """Make the table."""
    insert = f"insert into {table.name} select {_ID.format(name=table.name)}, n, {_CREATED}, "
    statements = _TABLE.format(name=table.name, logged="unlogged")
    if table.size is not None:
        value = _VALUE.format(size=table.size)
        statements += f"{insert} v from generate_series(1, {table.rows}) n, {value} made(v);"
    else:
        sizes = ",".join(map(str, mixed_sizes(table.rows)))
        largest = _VALUE.format(size=MIX_MAX)
        statements += (
            f"{insert} substr(v, 1, size) from {largest} made(v), "
            f"unnest('{{{sizes}}}'::int[]) with ordinality given(size, n);"
        )
    postgres.sql(f"{statements} vacuum analyze {table.name};")


@contextmanager
def null_sink(
    directory: Path, *, etag: str = "", latency_ms: float = 0.0, certificate: Path | None = None
) -> Iterator[Sink]:
    """Start a null sink; `certificate` is a directory with sink.pem, sink.key and authority.pem.

    Raises:
        BackfillError: it ended early; the message quotes what it printed.
    """
    name = f"sink-{time.monotonic_ns()}"
    ready = directory / f"{name}.port"
    words: list[str | Path] = ["--ready", ready, "--etag", etag, "--latency", str(latency_ms)]
    if certificate is not None:
        words += ["--certificate", certificate / "sink.pem", "--key", certificate / "sink.key"]
    interpreter, *rest = python()
    with ChildProcess(
        [interpreter, *rest, "benchmarks.sink", *words],
        log=directory / f"{name}.log",
        env=client_environment(),
        cwd=Path(__file__).parent.parent,
    ) as process:
        deadline = time.monotonic() + START_SECONDS_MAX
        while not ready.exists():
            if process.wait(READY_POLL_SECONDS) is not None or time.monotonic() > deadline:
                raise process.ended_early()
        scheme = "http" if certificate is None else "https"
        yield Sink(f"{scheme}://127.0.0.1:{ready.read_text()}", process.pid, certificate)


@contextmanager
def weed() -> Iterator[Sink]:
    """Start `weed mini`, with a bucket."""
    with EmbeddedSeaweed([Identity(ACCESS_KEY, SECRET_KEY)], buckets=[BUCKET]) as server:
        yield Sink(server.endpoint, server.pid, None)


@dataclass(frozen=True, slots=True)
class Sink:
    """A server that takes objects.

    Attributes:
        certificate: a directory with authority.pem, where it speaks TLS.
    """

    endpoint: str
    pid: int
    certificate: Path | None


def client_environment() -> dict[str, str]:
    """Return the environment of every client: nothing in it leads anywhere but to loopback."""
    return {
        **scrubbed(os.environ),
        "AWS_ACCESS_KEY_ID": ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
        "AWS_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
