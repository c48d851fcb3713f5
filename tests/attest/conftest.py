from __future__ import annotations

from collections.abc import Iterator
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
def copied(
    database: Database,
    s3_servers: RunningServers,
    invoke: cli.Invoke,
    write_config: cli.WriteConfig,
    tmp_path: Path,
) -> Iterator[Migration]:
    """Twenty rows, copied to weed; every command runs in this process."""
    with cli.in_this_process(database, invoke, write_config, tmp_path) as made:
        migration = made(s3_servers.get("weed"))
        assert migration("run").returncode == 0
        yield migration


@pytest.fixture
def verified(copied: Migration) -> Migration:
    """The same, verified as `verify` does it."""
    assert copied("verify").returncode == 0
    return copied
