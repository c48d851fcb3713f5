from __future__ import annotations

import platform
import sqlite3
from pathlib import Path

import prometheus_client.openmetrics.parser as openmetrics
import prometheus_client.parser as classic
import pytest

from daemon import __version__
from daemon.causes import AT_WORK, Cause
from daemon.instruments import COMMIT_BOUNDS, OPERATIONS, Instruments
from daemon.metric_definitions import DEFINITIONS, PREFIX
from daemon.metrics import Observed, Recorded, exposition
from daemon.rendering_view import view
from daemon.tunables import Tunables
from journal.events import Kind
from journal.reader import Reader
from journal.sizes import JournalSizes, sizes_of
from journal.status import MigrationState
from tests.metrics.journals import NOW_US, SECOND_US, eventful

LABELS = list(dict.fromkeys(label for one in DEFINITIONS for label in one.labels))
README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
OPENMETRICS = "text/html;q=0.1, Application/OpenMetrics-Text; version=abc;q=0.9"


def recorded(path) -> Recorded:
    with Reader.open(path) as reader:
        status = reader.status(now_us=NOW_US)
        return Recorded(
            status, view(status, now_us=NOW_US), reader.attempts(), JournalSizes(4096, 8192, 1_000_000)
        )


def samples(observed: Observed) -> dict[tuple[str, ...], float]:
    """The value of each sample, by name and the values of its labels beside the migration's."""
    text, content_type = exposition(observed, "")
    assert content_type.startswith("text/plain")
    found = {}
    for family in classic.text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            assert sample.labels.pop("migration") == "blobs"
            labels = sorted(sample.labels, key=[*LABELS, "le"].index)
            found[sample.name.removeprefix(PREFIX), *(sample.labels[label] for label in labels)] = (
                sample.value
            )
    return found


@pytest.fixture
def journal(tmp_path):
    with eventful(tmp_path / "journal.db") as journal:
        yield journal


def test_every_metric_from_the_record_has_the_journals_value(journal):
    found = samples(Observed("blobs", recorded(journal.path), Instruments()))
    expected = {
        ("planned_rows", "a"): 12,
        ("planned_rows", "b"): 3,
        ("planned_bytes", "a"): 1200,
        ("outcomes_total", "a", "stored"): 2,
        ("outcomes_total", "a", "recovered"): 1,
        ("outcomes_total", "a", "present"): 1,
        ("outcomes_total", "a", "skipped"): 1,
        ("outcomes_total", "a", "vanished"): 1,
        ("outcomes_total", "b", "stored"): 0,
        ("copied_bytes_total", "a"): 270,
        ("present_bytes_total", "a"): 90,
        ("settled_planned_bytes", "a"): 600,
        ("in_flight", "a"): 2,
        ("parked", "a"): 1,
        ("waiting", "a"): 3,
        ("excluded_rows", "a", "where"): 2,
        ("failed_attempts_total", "a", "PUT", "server"): 2,
        ("failed_attempts_total", "a", "PUT", "rejected"): 1,
        ("retries_total", "a", "PUT", "server"): 2,
        ("retries_total", "a", "PUT", "rejected"): 0,
        ("spent_seconds_total", "network"): 500.25,
        ("spent_seconds_total", "replica_lag"): 61.75,
        ("throttled_seconds_total", "replica_lag"): 61.75,
        ("throttled_seconds_total", "operator"): 0,
        ("slow_downs_total", "replica_lag"): 1,
        ("slow_downs_total", "operator"): 0,
        ("cutoff_timestamp_seconds",): NOW_US / 1e6,
        ("closed", "a"): 0,
        ("journal_bytes",): 4096,
        ("journal_wal_bytes",): 8192,
        ("journal_disk_free_bytes",): 1_000_000,
        ("session_start_timestamp_seconds",): NOW_US / 1e6 - 600,
        ("session",): 1,
        ("last_progress_timestamp_seconds", "a"): NOW_US / 1e6 - 4,
        ("state", "running"): 1,
        ("state", "paused"): 0,
        ("paused",): 0,
        ("verification_mismatches", "list"): 3,
        ("verified_timestamp_seconds", "list"): NOW_US / 1e6,
    }
    assert {key: found.get(key) for key in expected} == expected
    assert {key[2] for key in found if key[0] == "failed_attempts_total"} == {"PUT"}


def test_every_metric_from_this_process_has_its_value():
    instruments = Instruments()
    instruments.requests["PUT"].observe(0.02)
    instruments.requests["PUT"].observe(99)
    instruments.commits.observe(0.004)
    found = samples(
        Observed(
            "blobs",
            None,
            instruments,
            concurrency=9,
            tunables=Tunables(16, rows_per_second=500, bytes_per_second=2**20),
            credentials_expire_us=NOW_US,
            deadline_us=NOW_US + SECOND_US,
            disk_reserve_bytes=2**30,
            heartbeat_age_seconds=1.5,
        )
    )
    expected = {
        ("concurrency_limit",): 9,
        ("concurrency_ceiling",): 16,
        ("rows_per_second_limit",): 500,
        ("bytes_per_second_limit",): 2**20,
        ("credentials_expiry_timestamp_seconds",): NOW_US / 1e6,
        ("deadline_timestamp_seconds",): NOW_US / 1e6 + 1,
        ("journal_disk_reserve_bytes",): 2**30,
        ("heartbeat_age_seconds",): 1.5,
        ("build_info", __version__, platform.python_version(), sqlite3.sqlite_version): 1,
        ("request_seconds_count", "PUT"): 2,
        ("request_seconds_sum", "PUT"): 99.02,
        ("request_seconds_bucket", "PUT", "0.01"): 0,
        ("request_seconds_bucket", "PUT", "0.025"): 1,
        ("request_seconds_bucket", "PUT", "60.0"): 1,
        ("request_seconds_bucket", "PUT", "+Inf"): 2,
        ("journal_commit_seconds_bucket", "0.0025"): 0,
        ("journal_commit_seconds_bucket", "0.005"): 1,
        ("journal_commit_seconds_count",): 1,
    }
    assert {key: found.get(key) for key in expected} == expected


def test_what_does_not_apply_is_absent_and_not_zero():
    names = {key[0] for key in samples(Observed("blobs", None, Instruments()))}
    assert names == {
        "build_info",
        *(f"request_seconds_{part}" for part in ("bucket", "count", "sum")),
        *(f"journal_commit_seconds_{part}" for part in ("bucket", "count", "sum")),
    }


def test_a_checkpoint_and_an_eta_are_absent_until_there_is_one(journal):
    found = samples(Observed("blobs", recorded(journal.path), Instruments()))
    status = recorded(journal.path).status
    by_name = {source.name: source for source in status.sources}
    assert ("last_progress_timestamp_seconds", "b") not in found
    assert ("eta_seconds", "b") not in found
    assert by_name["a"].checkpoint.cutoff_us is not None
    assert found["checkpoint_timestamp_seconds", "a"] == by_name["a"].checkpoint.cutoff_us / 1e6


def test_an_eta_is_the_one_that_status_shows(journal):
    journal.claim(1, limit=100, window=100, now_us=NOW_US)
    found = recorded(journal.path)
    speed = next(line.speed for line in found.view.sources if line.name == "a")
    assert samples(Observed("blobs", found, Instruments())).get(("eta_seconds", "a")) == speed.eta_seconds


def test_every_cause_state_and_operation_is_there_from_the_start(journal):
    found = samples(Observed("blobs", recorded(journal.path), Instruments()))
    assert {key[1] for key in found if key[0] == "spent_seconds_total"} == set(Cause)
    assert {key[1] for key in found if key[0] == "throttled_seconds_total"} == set(Cause) - AT_WORK
    assert {key[1] for key in found if key[0] == "state"} == set(MigrationState)
    assert sum(value for key, value in found.items() if key[0] == "state") == 1
    assert {key[1] for key in found if key[0] == "request_seconds_count"} == set(OPERATIONS)


def test_a_restart_is_no_reset_of_totals_but_of_histograms(journal):
    before = samples(Observed("blobs", recorded(journal.path), Instruments()))
    journal.end_session(now_us=NOW_US, reason="drained", exit_code=143)
    journal.start_session(now_us=NOW_US + SECOND_US, facts={})
    after = samples(Observed("blobs", recorded(journal.path), Instruments()))
    totals = [key for key in before if key[0].endswith("_total")]
    assert len(totals) > 40
    assert {key: after[key] for key in totals} == {key: before[key] for key in totals}
    assert after["session",] == 2
    assert after["journal_commit_seconds_count",] == 0


@pytest.mark.parametrize(
    ("data", "mismatches"),
    [
        ({"missing": 2, "differing": 1, "extra": 7}, 3),
        ({"missing": 2, "differing": 1, "extra": 7, "extra_fails": True}, 10),
        ({"counts": {"missing": 2, "row_changed": 5, "foreign": 1, "extra": 7}, "missing": 2}, 8),
        ({"counts": {"row_deleted": 9, "unreadable": 3}}, 0),
    ],
    ids=["an extra object is none", "unless asked for", "every kind that fails", "what is told, no more"],
)
def test_mismatches_are_what_a_verification_fails_by(journal, data, mismatches):
    journal.note(Kind.VERIFICATION_FINISHED, {"tier": "source", **data}, now_us=NOW_US)
    found = samples(Observed("blobs", recorded(journal.path), Instruments()))
    assert found["verification_mismatches", "source"] == mismatches


def test_a_clean_sample_does_not_hide_what_another_tier_found(journal):
    for data in ({"tier": "list", "missing": 3}, {"tier": "content", "missing": 0}):
        journal.note(Kind.VERIFICATION_FINISHED, data, now_us=NOW_US)
    found = samples(Observed("blobs", recorded(journal.path), Instruments()))
    assert found["verification_mismatches", "list"] == 3
    assert found["verification_mismatches", "content"] == 0


def test_openmetrics_is_served_to_who_asks_for_it_and_parses(journal):
    text, content_type = exposition(Observed("blobs", recorded(journal.path), Instruments()), OPENMETRICS)
    assert content_type.startswith("application/openmetrics-text")
    parsed = {family.name for family in openmetrics.text_string_to_metric_families(text.decode())}
    assert parsed == {PREFIX + one.name.removesuffix("_total") for one in DEFINITIONS}


def test_names_follow_the_conventions_of_prometheus():
    for one in DEFINITIONS:
        assert one.name.endswith("_total") == (one.kind == "counter"), one.name
        assert one.meaning.endswith("."), one.name
        assert "migration" not in one.labels, one.name
    assert len({one.name for one in DEFINITIONS}) == len(DEFINITIONS)


def test_a_duration_on_a_bound_counts_as_at_most_it():
    instruments = Instruments()
    instruments.commits.observe(COMMIT_BOUNDS[2])
    assert instruments.commits.cumulative()[:4] == [0, 0, 1, 1]


async def test_a_block_that_fails_is_not_timed(autojump_clock):
    instruments = Instruments()
    with pytest.raises(OSError, match="gone"), instruments.request("PUT"):
        raise OSError("gone")
    assert instruments.requests["PUT"].cumulative()[-1] == 0


def test_a_journals_sizes_are_those_of_its_files(journal):
    found = sizes_of(journal.path)
    assert found.file == journal.path.stat().st_size
    assert found.wal == journal.path.with_name("journal.db-wal").stat().st_size
    assert found.free > 0
    assert sizes_of(journal.path.with_name("none.db")).file == 0


def test_the_readme_lists_every_metric_with_its_labels_and_meaning():
    rows = [f"| {one.name} | {one.kind} | {', '.join(one.labels)} | {one.meaning} |" for one in DEFINITIONS]
    table = README.split("| metric | kind |")[1].split("\n\n")[0].splitlines()[2:]
    assert table == rows
