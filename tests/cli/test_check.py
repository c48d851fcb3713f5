from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.errors import ExitCode
from tests.conftest import Database
from tests.s3_servers import BUCKET, RunningServers, S3Server, fresh_prefix

from .conftest import Invoke, WriteConfig


@pytest.fixture(scope="module")
def weed() -> Iterator[S3Server]:
    servers = RunningServers()
    yield servers.get("weed")
    servers.close()


@pytest.fixture
def config(database: Database, weed: S3Server, write_config: WriteConfig) -> Path:
    database.sql("create table attachments (id bigint primary key, data bytea)")
    return write_config(
        f"""
        [migration]
        name = "blobs"
        journal = "journal.db"
        [postgres]
        dsn = "{database.dsn}"
        [s3]
        endpoint = "{weed.endpoint}"
        bucket = "{BUCKET}"
        [[source]]
        name = "attachments"
        table = "public.attachments"
        key = "id"
        value = "data"
        prefix = "{fresh_prefix()}"
        """
    )


def test_everything_good_is_green_with_the_rights_needed_and_exits_0(
    invoke: Invoke, config: Path, weed: S3Server
) -> None:
    result = invoke("check", "-c", config, env=weed.environment())
    assert result.exit_code == 0, result.output
    findings, grants, policy = result.stdout.split("\n\n")
    assert [line.split()[:2] for line in findings.splitlines()] == [
        ["ok", "journal"],
        ["ok", "journal"],
        ["ok", "postgres"],
        ["ok", "source"],
        ["ok", "bucket"],
        ["ok", "bucket"],
    ]
    assert "GRANT SELECT ON TABLE" in grants
    assert json.loads(policy)["Version"] == "2012-10-17"
    assert len(result.stdout.splitlines()) < 40
    assert "\x1b" not in result.stdout
    assert weed.secret_key not in result.output
    assert sorted(path.name for path in config.parent.iterdir()) == ["backfill.toml"]


def test_the_worst_finding_decides_the_exit_code_and_the_others_are_still_shown(
    invoke: Invoke, config: Path, weed: S3Server
) -> None:
    result = invoke(
        "check", "-c", config, env={**weed.environment(), "AWS_SECRET_ACCESS_KEY": "wrong-secret"}
    )
    assert result.exit_code == ExitCode.REFUSED
    assert "ok    source attachments" in result.stdout
    assert f"FAIL  bucket {BUCKET}" in result.stdout
    assert "wrong-secret" not in result.output


def test_the_rights_alone_need_no_server(invoke: Invoke, smallest: Path) -> None:
    assert invoke("check", "-c", smallest, "--grants").stdout.startswith("-- the smallest grants")
    assert "s3:PutObject" in json.dumps(json.loads(invoke("check", "-c", smallest, "--iam").stdout))
