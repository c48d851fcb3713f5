"""One migration of one table through real servers: its configuration, its daemon, its commands."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.measuring import ROOT, python
from benchmarks.servers import ACCESS_KEY, BUCKET, SECRET_KEY, client_environment
from daemon.demo.processes import ChildProcess
from daemon.demo.seaweed import EmbeddedSeaweed, Identity

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from daemon.demo.postgres import EmbeddedPostgres

PREFIX = "rows/"
CONNECTIONS = 4
FETCHERS = CONNECTIONS - 1
"""One connection plans."""
FETCH_BATCH = 64
COMMAND_SECONDS_MAX = 1800.0

# Logged, since an unlogged table is empty after a crash of the server. Seven rows share a created_at; one value in 61
# is empty, one in 397 has 64 KiB.
_TABLE = """
create table public.rows (id text primary key, created_at timestamptz not null, value bytea not null);
insert into public.rows
select substr(md5('rows/' || n), 1, 24), date_trunc('second', now()) - interval '1 day' - n / 7 * interval '1 second',
       case when n % 61 = 0 then ''::bytea
            when n % 397 = 0 then decode(repeat(md5(n::text), 4096), 'hex')
            else decode(repeat(md5(n::text), n % 8 + 1), 'hex') end
from generate_series(1, {rows}) n;
vacuum analyze public.rows;
"""


@contextmanager
def weed() -> Iterator[EmbeddedSeaweed]:
    """Start `weed mini` with the bucket, to be killed and restarted at will."""
    with EmbeddedSeaweed([Identity(ACCESS_KEY, SECRET_KEY)], buckets=[BUCKET]) as server:
        yield server


def fill(postgres: EmbeddedPostgres, rows: int) -> None:
    """Make the table."""
    for statement in _TABLE.format(rows=rows).split(";\n"):
        postgres.sql(statement)


def claim_window(concurrency: int) -> int:
    """Return how many keys may be in flight, which is the most that one death can repeat."""
    return 2 * concurrency + FETCHERS * FETCH_BATCH


@dataclass(frozen=True)
class Migration:
    """The table `rows` on its way to the bucket.

    Attributes:
        directory: configuration, journal, socket and log.
        endpoint: where objects are sent to: the server, or a proxy before it.
        concurrency: `upload.concurrency`.
        rows_per_second: None: as fast as it goes.
    """

    directory: Path
    dsn: str
    endpoint: str
    concurrency: int
    rows_per_second: int | None = None

    @property
    def journal(self) -> Path:
        return self.directory / "journal.db"

    @property
    def log(self) -> Path:
        return self.directory / "daemon.log"

    def configure(self, processes: int) -> Path:
        """Write the configuration."""
        lines = [
            "[migration]",
            'name = "endurance"',
            f'journal = "{self.journal}"',
            "[postgres]",
            f'dsn = "{self.dsn}?sslmode=disable"',
            f"connections = {CONNECTIONS}",
            'late_grace = "0s"',
            "[s3]",
            f'endpoint = "{self.endpoint}"',
            f'bucket = "{BUCKET}"',
            'addressing = "path"',
            "[upload]",
            f"concurrency = {self.concurrency}",
            f"processes = {processes}",
            *([f"[throttle]\nrows_per_second = {self.rows_per_second}"] if self.rows_per_second else []),
            "[[source]]",
            'name = "rows"',
            'table = "public.rows"',
            'key = "id"',
            'created_at = "created_at"',
            'value = "value"',
            f'prefix = "{PREFIX}"',
        ]
        path = self.directory / "migration.toml"
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n")
        return path

    def start(self, processes: int) -> ChildProcess:
        """Start `backfillctl run`."""
        command = [*python(), "daemon", "run", "-c", self.configure(processes)]
        return ChildProcess(command, log=self.log, env=client_environment(), cwd=ROOT)

    def command(self, *words: str) -> tuple[int, str]:
        """Run another command to its end; return its exit code and what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "daemon", *words, "-c", self.directory / "migration.toml"],
            env=client_environment(),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=COMMAND_SECONDS_MAX,
            check=False,
        )
        return done.returncode, done.stdout


def tell(line: str) -> None:
    """Say on standard error what just happened; standard output has the summary alone."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)
