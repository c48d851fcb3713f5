"""One migration of real tables to a real bucket, driven by a real daemon process that tests may harm."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self

from daemon.demo.processes import ChildProcess
from tests.faults import raw_journal
from tests.faults.bucket_view import BucketView, Listed
from tests.faults.counting_proxy import CountingProxy
from tests.faults.raw_journal import Ledger
from tests.faults.waiting import eventually
from tests.s3_servers import S3Server, fresh_prefix

ROOT = Path(__file__).parents[2]
PROBE = ".backfill-probe"
EXIT_SECONDS_MAX = 90.0
"""A whole migration of these sizes took 3 s here."""


class Row(NamedTuple):
    created_us: int
    md5: str
    size: int


@dataclass(frozen=True)
class Table:
    """A source of the migration: table, source and prefix share the name."""

    name: str
    layout: str = "flat"
    where: str | None = None

    def object_key(self, prefix: str, row_key: str) -> str:
        tiers = ""
        if self.layout == "tiered":
            cut = [row_key[at : at + 2] for at in (0, 2, 4) if at + 2 <= len(row_key)]
            tiers = "".join(f"{tier.replace('/', '_')}/" for tier in cut)
        return f"{prefix}{self.name}/{tiers}{row_key}"


class Daemon:
    """`backfillctl run` as a process of its own, with its output in a file."""

    def __init__(self, command: list[str], *, log: Path, env: Mapping[str, str], cwd: Path) -> None:
        self._begin = log.stat().st_size if log.exists() else 0
        self._process = ChildProcess(command, log=log, env=env, cwd=cwd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, number: signal.Signals) -> None:
        self._process.send(number)

    def kill(self) -> bool:
        """SIGKILL it; whether it was still running."""
        self._process.send(signal.SIGKILL)
        return self._process.wait(EXIT_SECONDS_MAX) == -signal.SIGKILL

    def running(self) -> bool:
        return self._process.returncode is None

    def exit_code(self, seconds: float = EXIT_SECONDS_MAX) -> int:
        """Its exit code, within `seconds`."""
        code = self._process.wait(seconds)
        assert code is not None, f"still running after {seconds:g} s; it printed:\n{self.output()}"
        assert "Traceback" not in self.output(), self.output()
        return code

    def output(self) -> str:
        with self._process.log.open("rb") as log:
            log.seek(self._begin)
            return log.read().decode()


MADE: list[World] = []
"""The worlds of the test that runs, whose secrets must not be left behind."""


@dataclass
class World:
    """Tables of one database, a bucket, perhaps a proxy before it, and a journal in a directory of its own.

    Attributes:
        journal_directory: where the journal is, if not beside the configuration.
        wrapper: the command that runs the daemon's, such as a tracer; empty for none.
        variables: what the environment of every command has besides.
    """

    directory: Path
    dsn: str
    sql: Callable[[str], str]
    server: S3Server
    tables: list[Table]
    proxy: CountingProxy | None = None
    endpoint: str | None = None
    postgres: dict[str, Any] = field(default_factory=dict)
    upload: dict[str, Any] = field(default_factory=dict)
    s3: dict[str, Any] = field(default_factory=dict)
    throttle: dict[str, Any] = field(default_factory=dict)
    prefix: str = field(default_factory=fresh_prefix)
    cutoff: str | None = None
    secret_key: str | None = None
    control_socket: Path | None = None
    journal_directory: Path | None = None
    wrapper: list[str] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        MADE.append(self)

    @property
    def journal(self) -> Path:
        return (self.journal_directory or self.directory) / "journal.db"

    @property
    def bucket(self) -> BucketView:
        return BucketView(
            self.server.port, self.server.bucket, self.server.access_key, self.server.secret_key
        )

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "AWS_ACCESS_KEY_ID": self.server.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key or self.server.secret_key,
            **self.variables,
        }

    def configure(self) -> Path:
        """Write the configuration file."""
        lines = [
            "[migration]",
            'name = "faults"',
            f'journal = "{self.journal if self.journal_directory else self.journal.name}"',
            *([f"cutoff = {self.cutoff}"] if self.cutoff else []),
            "[postgres]",
            f'dsn = "{self.dsn}"',
            'late_grace = "0s"',
            *(f"{key} = {json.dumps(value)}" for key, value in self.postgres.items()),
            "[s3]",
            f'endpoint = "{self.endpoint or (self.proxy or self.server).endpoint}"',
            f'bucket = "{self.server.bucket}"',
            *(f"{key} = {json.dumps(value)}" for key, value in self.s3.items()),
            *([f'[control]\nsocket = "{self.control_socket}"'] if self.control_socket else []),
            "[upload]",
            *(f"{key} = {json.dumps(value)}" for key, value in self.upload.items()),
            *(["[throttle]"] if self.throttle else []),
            *(f"{key} = {json.dumps(value)}" for key, value in self.throttle.items()),
        ]
        for table in self.tables:
            lines += [
                "[[source]]",
                f'name = "{table.name}"',
                f'table = "public.{table.name}"',
                'key = "id"',
                'created_at = "created_at"',
                'value = "data"',
                f'prefix = "{self.prefix}{table.name}/"',
                f'layout = "{table.layout}"',
                *([f'where = "{table.where}"'] if table.where else []),
            ]
        path = self.directory / "backfill.toml"
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n")
        return path

    def daemon(self, *flags: str) -> Daemon:
        """Start `backfillctl run`."""
        program = [sys.executable, "-m", "daemon", "run", "-c", str(self.configure()), *flags]
        command = [*self.wrapper, *program]
        return Daemon(command, log=self.directory / "daemon.log", env=self.environment, cwd=self.directory)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run any other command to its end."""
        return subprocess.run(
            [sys.executable, "-m", "daemon", *arguments, "-c", str(self.configure())],
            env=self.environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=EXIT_SECONDS_MAX,
            check=False,
        )

    def status(self) -> dict[str, Any]:
        done = self.command("status", "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def ledger(self) -> Ledger:
        return raw_journal.read(self.journal)

    def rows(self, table: Table, condition: str = "true") -> dict[str, Row]:
        """What PostgreSQL has, by row key."""
        listed = self.sql(
            "set timezone = 'UTC'; select id, (extract(epoch from created_at) * 1000000)::bigint, md5(data),"
            f" octet_length(data) from public.{table.name} where {condition}"
        )
        cells = [line.split("|") for line in listed.splitlines()]
        return {key: Row(int(created), md5, int(size)) for key, created, md5, size in cells}

    def object_key(self, source: str, row_key: str) -> str:
        table = next(table for table in self.tables if table.name == source)
        return table.object_key(self.prefix, row_key)

    def objects(self) -> dict[str, Listed]:
        """What is in the bucket but for the probe."""
        found = self.bucket.listing(self.prefix)
        return {key: listed for key, listed in found.items() if not key.endswith(PROBE)}

    def new_journal(self) -> None:
        """Forget the journal and all beside it."""
        for path in self.journal.parent.glob("journal.db*"):
            path.unlink()

    def until_recorded(self, daemon: Daemon, kind: str, *, after_seq: int = 0, count: int = 1) -> None:
        """Wait until the daemon has recorded `count` events of `kind`."""

        def recorded() -> bool:
            assert daemon.running(), f"ended before {kind}:\n{daemon.output()}"
            return raw_journal.count_of(self.journal, kind, after_seq=after_seq) >= count

        eventually(recorded, f"{count} events {kind}")

    def until_settled(self, daemon: Daemon, keys: int) -> None:
        """Wait until the daemon has settled so many keys."""

        def settled() -> bool:
            assert daemon.running(), f"ended before {keys} keys were settled:\n{daemon.output()}"
            return raw_journal.settled_in(self.journal) >= keys

        eventually(settled, f"{keys} keys settled")

    def until_held(self, daemon: Daemon, puts: int) -> None:
        """Wait until the proxy keeps so many PUTs waiting."""
        proxy = self.proxy
        assert proxy is not None

        def held() -> bool:
            assert daemon.running(), f"ended before {puts} PUTs:\n{daemon.output()}"
            return len(proxy.waiting()) >= puts

        eventually(held, f"{puts} PUTs wait in the proxy")

    def assert_copied(self) -> None:
        """Every row of every table is settled, and its object there byte for byte, and nothing else is."""
        ledger = self.ledger()
        expected: dict[str, Row] = {}
        for table in self.tables:
            rows = self.rows(table)
            planned = {plan.row_key for plan in ledger.plan.values() if plan.source == table.name}
            assert planned == set(rows)
            expected |= {self.object_key(table.name, key): row for key, row in rows.items()}
        assert set(ledger.outcomes) == set(ledger.plan)
        assert {outcome.code for outcome in ledger.outcomes.values()} <= set("SRP")
        assert ledger.closed == {table.name for table in self.tables}
        listed = self.objects()
        assert set(listed) == set(expected)
        assert {key: (one.size, one.etag) for key, one in listed.items()} == {
            key: (row.size, row.md5) for key, row in expected.items()
        }

    def fill(self, table: Table, rows: int) -> None:
        """Create a table: seven rows to a created_at, a few empty, a few of 200 kB, odd characters in the keys."""
        self.sql(
            f"""create table public.{table.name} (id text primary key, created_at timestamptz, data bytea);
            insert into public.{table.name}
            select n || case n % 5 when 0 then ' a+b%20~ü' when 1 then '/x=y&z' else '-row' end,
              timestamptz '2024-05-01 12:00Z' + (n / 7) * interval '1.000001 s',
              case when n % 61 = 0 then '' when n % 397 = 0 then convert_to(repeat('0123456789', 20000) || n, 'UTF8')
                else convert_to(repeat('v' || n || ' ', 1 + n % 40), 'UTF8') end
            from generate_series(1, {rows}) n;
            analyze public.{table.name}"""
        )


def is_row(key: str) -> bool:
    """Whether the object is a row's, and not the probe's, without which no session begins."""
    return not key.endswith(PROBE)


def fresh_name(stem: str) -> str:
    return f"{stem}_{secrets.token_hex(3)}"
