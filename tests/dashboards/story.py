"""A migration's life as Prometheus sees it: throttled, paused, killed, halted, with a parked key, mended, verified."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from daemon.demo.seaweed import signed_request
from daemon.errors import ExitCode
from tests.conftest import Database
from tests.dashboards.faulty_proxy import FaultyProxy
from tests.dashboards.prometheus import Prometheus
from tests.faults.waiting import eventually
from tests.faults.worlds import Daemon
from tests.s3_servers import S3Server, fresh_prefix

ROOT = Path(__file__).parents[2]
NAME = "dashboards"
SOURCES = {"attachments": 1200, "thumbnails": 300}
"""Rows by source; each has a few more that the plan excludes."""
FOREIGN, PRESENT, LOST = "attachments/11", "attachments/12", "thumbnails/13"
"""Object keys: of somebody else's object, of one with the right bytes, and of one that the proxy loses."""
SESSIONS = 4
ROWS_PER_SECOND = 40
SOON = timedelta(minutes=12)
"""When the credentials expire."""


@dataclass(frozen=True)
class Life:
    """What there is to look at afterwards: the Prometheus that saw it, and the seconds from which to which."""

    prometheus: Prometheus
    begin: float
    end: float

    def over(self, expression: str) -> list[list[float]]:
        return self.prometheus.over(expression, self.begin, self.end)


@dataclass
class Story:
    """One migration of two tables, and the acts of its operator."""

    directory: Path
    database: Database
    server: S3Server
    proxy: FaultyProxy
    prometheus: Prometheus
    port: int
    prefix: str

    def configure(self, *, throttled: bool) -> Path:
        rates = (
            f'[throttle]\nrows_per_second = {ROWS_PER_SECOND}\nbytes_per_second = "1MiB"' if throttled else ""
        )
        tables = "".join(
            f"""
            [[source]]
            name = "{source}"
            table = "public.{source}"
            key = "id"
            created_at = "at"
            null_created_at = "exclude"
            value = "data"
            prefix = "{self.prefix}{source}/"
            """
            for source in SOURCES
        )
        path = self.directory / "backfill.toml"
        path.touch(mode=0o600)
        path.write_text(
            f"""
            [migration]
            name = "{NAME}"
            journal = "journal.db"
            deadline = 2020-01-01T00:00:00Z
            disk_reserve = "64MiB"
            [postgres]
            dsn = "{self.database.dsn}"
            late_grace = "0s"
            [s3]
            endpoint = "{self.proxy.endpoint}"
            bucket = "{self.server.bucket}"
            [upload]
            concurrency = 4
            max_failures = 5
            [metrics]
            port = {self.port}
            linger = "60s"
            {rates}
            {tables}
            """
        )
        return path

    @property
    def environment(self) -> dict[str, str]:
        """With credentials from a program, since only such credentials say when they expire."""
        told = {
            "Version": 1,
            "AccessKeyId": self.server.access_key,
            "SecretAccessKey": self.server.secret_key,
            "Expiration": (datetime.now(UTC) + SOON).isoformat(),
        }
        (self.directory / "credentials.json").write_text(json.dumps(told))
        config = self.directory / "aws.ini"
        config.write_text(f"[default]\ncredential_process = cat {self.directory / 'credentials.json'}\n")
        return {**os.environ, "PYTHONPATH": str(ROOT), "AWS_CONFIG_FILE": str(config)}

    def fill(self) -> None:
        for source, rows in SOURCES.items():
            self.database.sql(
                f"create table {source} (id text primary key, at timestamptz, data bytea);"
                f" insert into {source} select n, timestamptz '2024-05-01Z' + n * interval '1 min',"
                f" convert_to(repeat('v' || n, n % 500), 'UTF8') from generate_series(1, {rows}) n;"
                f" insert into {source} values ('undated', null, 'x'); analyze {source}"
            )
        self.object("PUT", FOREIGN, b"somebody else's")
        self.object("PUT", PRESENT, b"v12" * 12)

    def object(self, method: str, key: str, body: bytes = b"") -> None:
        """Act on an object behind the migration's back."""
        status, _ = signed_request(
            self.server.port,
            method,
            f"/{self.server.bucket}/{self.prefix}{key}",
            body=body,
            access_key=self.server.access_key,
            secret_key=self.server.secret_key,
        )
        assert status // 100 == 2

    @contextmanager
    def running(self, *flags: str, throttled: bool = False) -> Iterator[Daemon]:
        command = [
            sys.executable,
            "-m",
            "daemon",
            "run",
            "-c",
            str(self.configure(throttled=throttled)),
            *flags,
        ]
        with Daemon(
            command, log=self.directory / "daemon.log", env=self.environment, cwd=self.directory
        ) as daemon:
            yield daemon

    def type(self, *arguments: str) -> str:
        """Type a command as the operator does; return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "daemon", *arguments, "-c", str(self.directory / "backfill.toml")],
            env=self.environment,
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def until(self, daemon: Daemon, expression: str, what: str) -> None:
        """Wait until Prometheus has seen something of a daemon that runs."""

        def seen() -> bool:
            assert daemon.running(), f"ended before {what}:\n{daemon.output()}"
            return bool(self.prometheus.now(expression))

        eventually(seen, what)

    def until_state(self, daemon: Daemon, state: str, *, session: int) -> None:
        """Wait until Prometheus has seen a state of a session; before it begins, a daemon shows the one before."""
        expression = f'backfill_state{{state="{state}"}} == 1 and on () backfill_session == {session}'
        self.until(daemon, expression, f"Prometheus saw it {state} in session {session}")

    def leaves_with(self, daemon: Daemon, code: ExitCode) -> None:
        """End the lingering of a daemon."""
        daemon.send(signal.SIGTERM)
        assert daemon.exit_code() == code
        self.prometheus.until("up == 0", "Prometheus has seen it leave")

    def play(self) -> None:
        self.fill()
        with self.running(throttled=True) as daemon:
            self.until_state(daemon, "running", session=1)
            self.type("pause")
            self.until_state(daemon, "paused", session=1)
            eventually(
                lambda: "operator" in self.type("events", "--kind", "throttle_began"),
                "the pause is on record as a slow-down",
            )
            self.type("resume")
            # Time is accounted for, and an ETA given, every 15 seconds.
            self.until(
                daemon, 'backfill_throttled_seconds_total{cause="rate_limit"} > 0', "a throttled second"
            )
            self.until(daemon, "backfill_eta_seconds", "an ETA")
            assert daemon.kill()
        self.prometheus.until("up == 0", "Prometheus has seen it vanish")
        with self.running(throttled=True) as daemon:
            self.until_state(daemon, "running", session=2)
            self.proxy.refusing = True
            self.until_state(daemon, "halted", session=2)
            self.leaves_with(daemon, ExitCode.REFUSED)
        self.proxy.refusing = False
        with self.running() as daemon:
            self.until_state(daemon, "complete_with_parked", session=3)
            self.leaves_with(daemon, ExitCode.PARKED)
        self.object("DELETE", FOREIGN)
        self.type("requeue", "--all")
        with self.running("--verify") as daemon:
            firing = 'ALERTS{alertname="BackfillVerificationMismatch", alertstate="firing"}'
            self.until(daemon, firing, "an alert about mismatches")
            self.until(daemon, 'backfill_verified_timestamp_seconds{tier="content"}', "it has read a sample")
            # A signal would cut what follows the last record of it.
            eventually(lambda: "status page and metrics stay" in daemon.output(), "its session has ended")
            self.leaves_with(daemon, ExitCode.MISMATCH)


@contextmanager
def lived(directory: Path, database: Database, server: S3Server, *, port: int) -> Iterator[Life]:
    """Yield what Prometheus has seen of a migration's life; it is over."""
    begin = time.time()
    with (
        FaultyProxy(server.port, lost=LOST) as proxy,
        Prometheus(directory, target=port, rules=ROOT / "dashboards" / "backfillctl.rules.yml") as prometheus,
    ):
        Story(directory, database, server, proxy, prometheus, port, fresh_prefix()).play()
        yield Life(prometheus, begin, time.time())
