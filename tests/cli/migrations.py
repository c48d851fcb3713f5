"""One migration of a real table to a real bucket, driven as an operator would: a config file and commands."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from daemon.demo.seaweed import signed_request
from daemon.errors import ExitCode
from tests.conftest import Database
from tests.s3_servers import BUCKET, S3Server, fresh_prefix

TABLE = "create table attachments (id text primary key, at timestamptz, data bytea, note text)"
ROWS = "insert into attachments select n, now() - interval '1 day', convert_to(n::text, 'UTF8') from generate_series(1, 20) n"
SCREEN_LINES = 24


@dataclass
class Migration:
    """Twenty rows of public.attachments; `changes` replaces values of the config, `sections` adds to it."""

    database: Database
    server: S3Server
    command: Callable[..., subprocess.CompletedProcess[str]]
    write_config: Callable[[str], Path]
    directory: Path
    prefix: str = field(default_factory=fresh_prefix)
    changes: dict[str, str] = field(default_factory=dict)
    sections: dict[str, str] = field(default_factory=dict)

    def config(self) -> Path:
        values = {
            "name": "blobs",
            "dsn": self.database.dsn,
            "endpoint": self.server.endpoint,
            "bucket": BUCKET,
            "table": "public.attachments",
            "key": "id",
            "value": "data",
            "created_at": "at",
            "source": "attachments",
            "metadata": "[]",
            "journal": "journal.db",
            "prefix": self.prefix,
            **self.changes,
        }
        return self.write_config(
            f"""
            [migration]
            name = "{values["name"]}"
            journal = "{values["journal"]}"
            {self.sections.get("migration", "")}
            [postgres]
            dsn = "{values["dsn"]}"
            late_grace = "0s"
            [s3]
            endpoint = "{values["endpoint"]}"
            bucket = "{values["bucket"]}"
            {self.sections.get("s3", "")}
            [upload]
            {self.sections.get("upload", "")}
            [[source]]
            name = "{values["source"]}"
            table = "{values["table"]}"
            key = "{values["key"]}"
            created_at = "{values["created_at"]}"
            value = "{values["value"]}"
            prefix = "{values["prefix"]}"
            metadata = {values["metadata"]}
            {self.sections.get("source", "")}
            """
        )

    def __call__(self, command: str, *flags: str, **env: str) -> subprocess.CompletedProcess[str]:
        words = command.split()
        done = self.command(*words, "-c", self.config(), *flags, env={**self.server.environment(), **env})
        assert "Traceback" not in done.stderr, done.stderr
        assert self.server.secret_key not in done.stdout + done.stderr
        return done

    def listing(self) -> str:
        """The raw listing of what is under the prefix."""
        path = f"/{BUCKET}?list-type=2&prefix={self.prefix.replace('/', '%2F')}"
        status, body = signed_request(
            self.server.port,
            "GET",
            path,
            access_key=self.server.access_key,
            secret_key=self.server.secret_key,
        )
        assert status == 200
        return body.decode()

    def files(self) -> dict[str, bytes]:
        """Every file beside the config, the journal's lock apart."""
        return {
            path.name: path.read_bytes()
            for path in self.directory.iterdir()
            if path.is_file() and path.suffix not in {".toml", ".lock"}
        }

    @contextmanager
    def untouched(self) -> Iterator[None]:
        """Fail if the block changes a file of the migration, or what is in the bucket."""
        files, listing = self.files(), self.listing()
        yield
        assert self.files() == files
        assert self.listing() == listing

    @property
    def journal(self) -> Path:
        return self.directory / "journal.db"


def refused(done: subprocess.CompletedProcess[str], code: ExitCode) -> str:
    """The message of a refusal: its exit code, one screen, with what to do."""
    assert done.returncode == code, done.stderr
    assert "error: " in done.stderr
    assert "hint: " in done.stderr
    assert len(done.stderr.splitlines()) < SCREEN_LINES
    return done.stderr
