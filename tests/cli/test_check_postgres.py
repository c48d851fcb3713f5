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


class TestThrottle:
    """What `check` says of [throttle]."""

    @staticmethod
    def found(check: Checked, lines: str, dsn: str | None = None) -> list[Finding]:
        check.database.sql(TABLE)
        found = check(dsn, source=f"[throttle]\n{lines}\n")
        return [finding for finding in found if finding.subject == "throttle"]

    def test_nothing_is_said_of_what_is_not_configured(self, check: Checked) -> None:
        assert self.found(check, "rows_per_second = 5") == []

    def test_each_reading_is_told_with_its_thresholds(self, check: Checked) -> None:
        lines = (
            'active_sessions = 40\nactive_sessions_hibernate = 80\nquery = "select 1.5"\nquery_threshold = 2'
        )
        found = self.found(check, lines)
        assert [finding.level for finding in found] == [Level.OK, Level.OK]
        assert found[0].text.endswith("; throttles above 40, hibernates above 80")
        assert found[1].text == "throttle.query 1.5; throttles above 2"

    def test_a_lag_that_no_standby_can_show_is_yellow(self, check: Checked) -> None:
        (found,) = self.found(check, 'replica_lag = "10s"')
        assert found.level is Level.WARNING
        assert found.text == "replica lag 0 s; throttles above 10 s: no standby is connected"
        assert "throttle.replica_lag" in found.hint

    def test_a_value_above_its_threshold_is_yellow(self, check: Checked) -> None:
        (found,) = self.found(check, 'query = "select 3"\nquery_threshold = 2')
        assert found.level is Level.WARNING
        assert "would wait now" in found.hint

    @pytest.mark.parametrize(
        ("query", "problem"),
        [
            ("selec", "syntax error"),
            ("select 1 where false", "it returned no row"),
            ("select null::int", "it returned NULL"),
            ("select 1/0", "DivisionByZeroError"),
        ],
    )
    def test_a_query_that_can_not_be_read_is_red_and_named(
        self, check: Checked, query: str, problem: str
    ) -> None:
        (found,) = self.found(check, f'query = "{query}"\nquery_threshold = 2')
        assert (found.level, found.exit_code) == (Level.FAILURE, ExitCode.USAGE)
        assert "throttle.query" in found.text
        assert problem in found.text
        assert found.hint

    def test_a_missing_right_is_red_and_names_the_grant(self, check: Checked, reader: str) -> None:
        (found,) = self.found(check, "active_sessions = 5", reader)
        assert (found.level, found.exit_code) == (Level.FAILURE, ExitCode.REFUSED)
        assert "GRANT pg_read_all_stats" in found.hint

    def test_the_timetable_is_told_as_it_is_now(self, check: Checked) -> None:
        (found,) = self.found(check, 'timetable = "00:00,20M"')
        assert found.text.startswith("timetable: 20.0 MiB/s until ")
