from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli import conftest as cli
from tests.cli.migrations import Migration
from tests.conftest import Database
from tests.s3_servers import RunningServers

clean_env = cli.clean_env
invoke = cli.invoke
write_config = cli.write_config


@pytest.fixture
def migration_on(
    database: Database,
    s3_servers: RunningServers,
    invoke: cli.Invoke,
    write_config: cli.WriteConfig,
    tmp_path: Path,
) -> Iterator[Callable[[str], Migration]]:
    """Makes a finished migration of twenty rows to the server of this name; every command runs in this process."""
    with cli.in_this_process(database, invoke, write_config, tmp_path) as made:

        def finished(server: str) -> Migration:
            migration = made(s3_servers.get(server))
            done = migration("run")
            assert done.returncode == 0, done.stderr
            return migration

        yield finished
