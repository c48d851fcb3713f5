from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from journal import maintenance
from journal.control_status import SAMPLES_SHOWN_MAX, Sample
from journal.entries import AttemptFailed
from journal.errors import IllegalTransition
from journal.log import Journal
from journal.reader import Reader
from journal.status import MigrationState
from tests.journal.journals import NOW_US, abandon, planned, reopen, settle, take

if TYPE_CHECKING:
    from journal.status import MigrationStatus

SECOND_US = 1_000_000


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return planned(tmp_path / "journal.db")[0]


def status(journal: Journal) -> MigrationStatus:
    with Reader.open(journal.path) as reader:
        return reader.status(now_us=NOW_US)


def test_a_pause_is_on_record_with_who_and_when_until_it_is_resumed(journal: Journal) -> None:
    assert journal.pause(who="alice@db1", now_us=NOW_US)
    found = status(journal)
    assert found.state is MigrationState.PAUSED
    assert found.pause is not None
    assert (found.pause.ts_us, found.pause.data) == (NOW_US, {"who": "alice@db1"})
    assert journal.resume(who="bob@db1", now_us=NOW_US)
    assert (status(journal).state, status(journal).pause) == (MigrationState.RUNNING, None)


def test_a_pause_outlives_the_process_that_took_it(journal: Journal) -> None:
    journal.pause(who="alice", now_us=NOW_US)
    abandon(journal)
    with reopen(journal.path) as again:
        assert again.paused
        again.start_session(now_us=NOW_US, facts={})
        assert status(again).state is MigrationState.PAUSED


def test_a_paused_migration_that_nobody_works_on_is_called_by_how_its_session_ended(journal: Journal) -> None:
    journal.pause(who="alice", now_us=NOW_US)
    journal.end_session(now_us=NOW_US, reason="drained", exit_code=143)
    journal.close()
    found = status(journal)
    assert found.state is MigrationState.STOPPED
    assert found.pause is not None


def test_pausing_twice_or_resuming_what_runs_records_nothing(journal: Journal) -> None:
    assert not journal.resume(who="alice", now_us=NOW_US)
    assert journal.pause(who="alice", now_us=NOW_US)
    seq = journal.statistics().head_seq
    assert not journal.pause(who="bob", now_us=NOW_US)
    assert journal.statistics().head_seq == seq


def test_what_an_operator_set_outlives_the_process(journal: Journal) -> None:
    assert journal.overrides == {}
    journal.set_tunables({"concurrency": 8}, {"concurrency": 8}, who="alice", now_us=NOW_US)
    changes = {"rows_per_second": None}
    journal.set_tunables(changes, {"concurrency": 8, **changes}, who="bob", now_us=NOW_US)
    abandon(journal)
    with reopen(journal.path) as again:
        assert again.overrides == {"concurrency": 8, "rows_per_second": None}
        found = status(again).tunables
        assert found is not None
        assert (found.data["who"], found.data["changes"]) == ("bob", changes)


def test_a_throttle_is_in_force_until_its_end_is_recorded_and_its_cost_adds_up(journal: Journal) -> None:
    for milliseconds in (1500, 500):
        journal.begin_throttle("replica_lag", detail="lag 12 s, expected at most 10 s", now_us=NOW_US)
        throttle = status(journal).throttle
        assert throttle is not None
        assert throttle.data["cause"] == "replica_lag"
        journal.end_throttle("replica_lag", detail="lag 1 s", milliseconds=milliseconds, now_us=NOW_US)
    found = status(journal)
    assert found.throttle is None
    (slow_down,) = found.slow_downs
    assert (slow_down.cause, slow_down.episodes, slow_down.ms, slow_down.last_detail) == (
        "replica_lag",
        2,
        2000,
        "lag 1 s",
    )


def test_a_throttle_of_a_dead_session_is_not_in_force_in_the_next(journal: Journal) -> None:
    journal.begin_throttle("query", detail="5 > 3", now_us=NOW_US)
    abandon(journal)
    with reopen(journal.path) as again:
        again.start_session(now_us=NOW_US, facts={})
        assert status(again).throttle is None


def test_a_sample_says_how_far_each_source_was_and_where_the_time_went(journal: Journal) -> None:
    take(journal, 1)
    journal.sample({"network": 14_000, "source": 1_000}, now_us=NOW_US)
    settle(journal, [1, 2], size=90)
    journal.sample({"network": 15_000}, now_us=NOW_US + SECOND_US)
    found = status(journal)
    first = Sample(NOW_US, 1, 0, 0, 0, {"network": 14_000, "source": 1_000})
    assert found.samples == (first, Sample(NOW_US + SECOND_US, 1, 2, 200, 180, {"network": 15_000}))
    assert found.first_samples == (first,)
    assert found.spent_ms == {"network": 29_000, "source": 1_000}


def test_a_status_holds_a_bounded_number_of_samples(journal: Journal) -> None:
    for second in range(SAMPLES_SHOWN_MAX + 5):
        journal.sample({}, now_us=NOW_US + second * SECOND_US)
    found = status(journal).samples
    assert len(found) == SAMPLES_SHOWN_MAX
    assert found[-1].ts_us == NOW_US + (SAMPLES_SHOWN_MAX + 4) * SECOND_US


def test_a_negative_duration_is_refused(journal: Journal) -> None:
    with pytest.raises(IllegalTransition, match="negative"):
        journal.sample({"network": -1}, now_us=NOW_US)


def test_the_newest_outcome_of_each_source_is_known(journal: Journal) -> None:
    take(journal, 1)
    assert status(journal).sources[0].last_outcome_us is None
    journal.sample({}, now_us=NOW_US + 1)
    settle(journal, [1])
    assert status(journal).sources[0].last_outcome_us == NOW_US


def test_only_attempts_that_another_followed_count_as_retries(journal: Journal) -> None:
    take(journal, 1)
    failed = AttemptFailed(1, "PUT", "server", "answered 500", retried=True)
    journal.record([failed, failed, failed._replace(retried=False)], now_us=NOW_US)
    retries = "SELECT operation, failure, count FROM retry"
    assert journal._connection.execute(retries).fetchall() == [("PUT", "server", 2)]


def test_projections_of_control_follow_from_the_log(journal: Journal) -> None:
    take(journal, 1)
    settle(journal, [1])
    journal.record([AttemptFailed(2, "PUT", "server", "answered 500")], now_us=NOW_US)
    journal.begin_throttle("query", detail="5 > 3", now_us=NOW_US)
    journal.end_throttle("query", detail="2 <= 3", milliseconds=10, now_us=NOW_US)
    journal.sample({"network": 3}, now_us=NOW_US)
    assert maintenance.check(journal.path) == []
    before = status(journal)
    journal.close()
    maintenance.rebuild(journal.path)
    assert maintenance.check(journal.path) == []
    after = status(journal)
    assert (after.samples, after.slow_downs, after.spent_ms) == (
        before.samples,
        before.slow_downs,
        before.spent_ms,
    )
