"""A server that lists and takes objects, and lets nobody read them: no proof, no GO."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.demo.seaweed import EmbeddedSeaweed, Identity
from tests.cli import conftest as cli
from tests.cli.migrations import Migration
from tests.conftest import Database
from tests.s3_servers import ACCESS_KEY, BUCKET, SECRET_KEY, Capabilities, S3Server

BLIND = Identity("looker-key", "looker-secret", actions=("List", "Write"))
AS_BLIND = {"AWS_ACCESS_KEY_ID": BLIND.access_key, "AWS_SECRET_ACCESS_KEY": BLIND.secret_key}

clean_env = cli.clean_env
invoke = cli.invoke
write_config = cli.write_config


@pytest.fixture(scope="module")
def weed() -> Iterator[S3Server]:
    identities = [Identity(ACCESS_KEY, SECRET_KEY), BLIND]
    with EmbeddedSeaweed(identities, buckets=[BUCKET]) as running:
        yield S3Server("weed", running.endpoint, Capabilities(), port=running.port)


@pytest.fixture(params=[15, 20])
def listed_only(
    request: pytest.FixtureRequest,
    weed: S3Server,
    database: Database,
    invoke: cli.Invoke,
    write_config: cli.WriteConfig,
    tmp_path: Path,
) -> Iterator[Migration]:
    """So many rows, copied, and verified by their listing."""
    with cli.in_this_process(database, invoke, write_config, tmp_path) as made:
        migration = made(weed)
        database.sql(f"delete from attachments where id::int > {request.param}")
        assert migration("run").returncode == 0
        assert migration("verify --tier list").returncode == 0
        yield migration


def test_a_verification_that_may_read_nothing_ends_as_refused(listed_only: Migration) -> None:
    done = listed_only("verify --tier content", **AS_BLIND)
    assert done.returncode == 6
    assert "s3:GetObject" in done.stdout + done.stderr


def test_there_is_no_go_but_by_a_tier_that_reads_no_bytes(listed_only: Migration) -> None:
    listed_only("verify --tier content", **AS_BLIND)
    done = listed_only("attest --json", **AS_BLIND)
    failed = {each["subject"] for each in json.loads(done.stdout)["conditions"] if not each["met"]}
    assert (done.returncode, failed) == (4, {"verified by content"})
    assert listed_only("attest --require-tier list", **AS_BLIND).returncode == 0
