from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from daemon.cli import cli
from tests.cli.migrations import ROWS, TABLE, Migration
from tests.conftest import Database
from tests.s3_servers import RunningServers, S3Server

SMALLEST = """\
[migration]
name = "blobs"
journal = "journal.db"
[s3]
endpoint = "http://127.0.0.1:9"
bucket = "blobs"
[[source]]
name = "attachments"
table = "public.attachments"
key = "id"
value = "data"
"""

Invoke = Callable[..., Result]
WriteConfig = Callable[[str], Path]


@pytest.fixture
def write_config(tmp_path: Path) -> WriteConfig:
    def write(text: str) -> Path:
        path = tmp_path / "backfill.toml"
        path.write_text(text)
        path.chmod(0o600)
        return path

    return write


@pytest.fixture
def smallest(write_config: WriteConfig) -> Path:
    return write_config(SMALLEST)


@pytest.fixture
def clean_env(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("AWS_", "BACKFILL_", "PG")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def invoke(clean_env: None) -> Invoke:
    """The CLI in this process; an exception that it does not turn into a message fails the test."""

    def run(*arguments: str | Path, env: Mapping[str, str] | None = None) -> Result:
        result = CliRunner().invoke(cli, [str(one) for one in arguments], env=env, prog_name="backfillctl")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def backfillctl(clean_env: None, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """The CLI as a process of its own."""

    def run(*arguments: str | Path, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "daemon", *map(str, arguments)],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **(env or {})},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def weed(s3_servers: RunningServers) -> S3Server:
    return s3_servers.get("weed")


@pytest.fixture
def migration(
    database: Database,
    weed: S3Server,
    backfillctl: Callable[..., subprocess.CompletedProcess[str]],
    write_config: WriteConfig,
    tmp_path: Path,
) -> Migration:
    database.sql(f"{TABLE}; {ROWS}; analyze attachments")
    return Migration(database, weed, backfillctl, write_config, tmp_path)


@contextmanager
def in_this_process(
    database: Database, invoke: Invoke, write_config: WriteConfig, tmp_path: Path
) -> Iterator[Callable[[S3Server], Migration]]:
    """Yield what makes a migration whose commands run in this process; logging is put back at the end."""

    def command(*arguments: str | Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
        result = invoke(*arguments, env=env)
        return subprocess.CompletedProcess(arguments, result.exit_code, result.stdout, result.stderr)

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    database.sql(f"{TABLE}; {ROWS}; analyze attachments")
    yield lambda server: Migration(database, server, command, write_config, tmp_path)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def inside(
    database: Database, weed: S3Server, invoke: Invoke, write_config: WriteConfig, tmp_path: Path
) -> Iterator[Migration]:
    """As the one of a process of its own, but every command runs in this one: ten times as fast."""
    with in_this_process(database, invoke, write_config, tmp_path) as made:
        yield made(weed)
