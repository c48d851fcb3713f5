from __future__ import annotations

import pytest
import trio

from daemon.checking_postgres import check_postgres
from daemon.config import load
from daemon.errors import ExitCode
from daemon.findings import Finding, Level
from daemon.runtime import Runtime, wall_clock_us
from tests.conftest import Database

from .conftest import SMALLEST, WriteConfig

TABLE = "create table attachments (id bigint primary key, at timestamptz, data bytea)"


class Checked:
    """Runs the check against a database with the smallest config, changed as a test needs."""

    def __init__(self, database: Database, write_config: WriteConfig) -> None:
        self.database = database
        self._write_config = write_config

    def __call__(self, dsn: str | None = None, *, source: str = "", **replaced: str) -> list[Finding]:
        text = SMALLEST + source
        for old, new in replaced.items():
            assert f"\n{old} = " in text
            lines = [f"{old} = {new}" if line.startswith(f"{old} = ") else line for line in text.splitlines()]
            text = "\n".join(lines) + "\n"
        text += f'[postgres]\ndsn = "{dsn or self.database.dsn}"\n'
        config = load(self._write_config(text), {}, {}, now_us=wall_clock_us())
        found: list[Finding] = []

        async def main() -> None:
            await check_postgres(config, found.append, runtime=Runtime())

        trio.run(main)
        return found


@pytest.fixture
def check(database: Database, write_config: WriteConfig, clean_env: None) -> Checked:
    return Checked(database, write_config)


@pytest.fixture
def reader(database: Database) -> str:
    """The DSN of a role without any right but to connect."""
    role = f"reader_{database.name}"
    database.sql(f"create role {role} login password 'hunter2'")
    return database.dsn_of(role, "hunter2")


def failures(found: list[Finding]) -> list[Finding]:
    return [finding for finding in found if finding.level is Level.FAILURE]


def test_a_table_that_fits_is_green_with_its_estimated_rows(check: Checked) -> None:
    check.database.sql(
        f"{TABLE}; insert into attachments select n from generate_series(1, 500) n; analyze attachments"
    )
    found = check()
    assert [finding.level for finding in found] == [Level.OK, Level.OK]
    assert f"database {check.database.name}, primary" in found[0].text
    assert "about 500 rows, unique by public.attachments_pkey" in found[1].text


def test_without_pg_read_all_stats_it_is_yellow(check: Checked, reader: str) -> None:
    check.database.sql(f"{TABLE}; grant select on attachments to public")
    found = check(reader)
    assert [finding.level for finding in found] == [Level.OK, Level.WARNING, Level.OK]
    assert "pg_read_all_stats is not granted" in found[1].text


def test_a_missing_table_is_a_config_error(check: Checked) -> None:
    (failed,) = failures(check())
    assert (failed.subject, failed.exit_code) == ("source attachments", ExitCode.USAGE)
    assert "no such table" in failed.text


def test_a_missing_column_is_a_config_error(check: Checked) -> None:
    check.database.sql(TABLE)
    (failed,) = failures(check(value='"dat"'))
    assert failed.exit_code == ExitCode.USAGE
    assert "no column 'dat'" in failed.text


def test_no_right_to_select_is_refused(check: Checked, reader: str) -> None:
    check.database.sql(TABLE)
    (failed,) = failures(check(reader))
    assert failed.exit_code == ExitCode.REFUSED
    assert "SELECT" in failed.text
    assert "GRANT SELECT" in failed.hint


def test_row_level_security_that_would_hide_rows_is_refused(check: Checked, reader: str) -> None:
    check.database.sql(
        f"{TABLE}; alter table attachments enable row level security; grant select on attachments to public"
    )
    (failed,) = failures(check(reader))
    assert failed.exit_code == ExitCode.REFUSED
    assert "row-level security would hide rows" in failed.text


def test_a_key_without_an_index_is_a_config_error(check: Checked) -> None:
    check.database.sql("create table attachments (id text, data bytea)")
    (failed,) = failures(check())
    assert failed.exit_code == ExitCode.USAGE
    assert "index" in failed.text


def test_a_value_of_a_type_that_cannot_be_copied_is_a_config_error(check: Checked) -> None:
    check.database.sql("create table attachments (id bigint primary key, data jsonb)")
    (failed,) = failures(check())
    assert failed.exit_code == ExitCode.USAGE
    assert "jsonb" in failed.text


def test_every_source_is_checked_though_one_fails(check: Checked) -> None:
    check.database.sql(TABLE)
    second = (
        SMALLEST.partition("[[source]]")[2]
        .replace('"attachments"', '"others"')
        .replace("public.attachments", "public.none")
    )
    found = check(source=f'prefix = "a/"\n[[source]]{second}prefix = "b/"\n')
    assert {finding.subject: finding.level for finding in found[1:]} == {
        "source attachments": Level.OK,
        "source others": Level.FAILURE,
    }


def test_a_wrong_password_is_refused_and_not_shown(check: Checked, reader: str) -> None:
    (failed,) = check(reader.replace("hunter2", "hunter3"))
    assert failed.exit_code == ExitCode.REFUSED
    assert "hunter" not in f"{failed}"


def test_a_server_that_nobody_runs_is_unreachable(check: Checked) -> None:
    (failed,) = check("postgresql://reader@127.0.0.1:9/app")
    assert failed.exit_code == ExitCode.UNREACHABLE
    assert "postgres.dsn" in failed.hint
