"""The ancestor's defects, each by its number in the design: a session must not have them.

D1 and D2 are also shown beside a restatement of the ancestor's own rule, which loses rows on the same table.
D2 and D7 of planning, D5 of the configuration and D13 of object keys are tested where those live.
"""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from daemon.errors import ExitCode
from daemon.halting import MigrationHalted
from daemon.retrying import Failure, FailureClass
from tests.pipeline.rig import CUTOFF_US, Rig, source
from tests.s3_faults import answers

SECOND = 1_000_000


def ancestor_pages(rows, cutoff, *, page):
    """The ancestor's planning: newest first, the next page strictly older than the last row of this one."""
    seen = []
    while True:
        older = sorted((row for row in rows if row[1] < cutoff), key=lambda row: row[1], reverse=True)[:page]
        if not older:
            return seen
        seen += older
        cutoff = older[-1][1]


async def test_d1_a_stop_with_work_in_flight_loses_no_row(tmp_path, autojump_clock):
    rig = Rig(tmp_path, upload={"concurrency": 2, "drain_deadline": 0})
    rows = [(f"k{number:03}", CUTOFF_US - (number // 4 + 1) * SECOND) for number in range(200)]
    for key, created_at in rows:
        rig.table.insert(key, created_at, key.encode())
    stop_after = 37

    def stop(_name: str) -> None:
        if len(rig.objects()) >= stop_after:
            rig.drain.request("SIGTERM")

    rig.database.on_statement = stop
    first = await rig.session()
    assert first.exit_code is ExitCode.TERMINATED
    done = set(rig.objects())
    assert len(done) < len(rows)
    # The ancestor's rule: its logged checkpoint is the newest unfinished timestamp, resumed strictly below.
    unfinished = max(created_at for key, created_at in rows if f"t/{key}" not in done)
    resumed = {f"t/{key}" for key, _ in ancestor_pages(rows, unfinished, page=1000)}
    assert {f"t/{key}" for key, _ in rows} - done - resumed, "this stop would have cost the ancestor nothing"
    # From the printed checkpoint even the ancestor's rule misses nothing.
    (status,) = rig.status().sources
    if status.checkpoint.cutoff_us is not None:
        resumed = {f"t/{key}" for key, _ in ancestor_pages(rows, status.checkpoint.cutoff_us, page=1000)}
        assert {f"t/{key}" for key, _ in rows} - done <= resumed
    rig.database.on_statement = lambda _name: None
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert set(rig.objects()) == {f"t/{key}" for key, _ in rows}


async def test_d2_rows_that_tie_at_a_page_edge_are_all_copied(tmp_path, autojump_clock):
    rig = Rig(tmp_path, upload={"key_batch_size": 3})
    rows = [(f"k{number}", CUTOFF_US - SECOND) for number in range(10)]
    for key, created_at in rows:
        rig.table.insert(key, created_at)
    assert len(ancestor_pages(rows, CUTOFF_US, page=3)) < len(rows)
    await rig.session()
    assert len(rig.objects()) == len(rows)


async def test_d3_a_stopped_session_says_so_and_does_not_end_with_0(rig, autojump_clock):
    rig.table.insert("a", CUTOFF_US - SECOND)
    rig.database.on_statement = lambda name: rig.drain.request("SIGTERM") if name == "fetch" else None
    ended = await rig.session()
    assert ended.exit_code is ExitCode.TERMINATED
    assert "work left" in ended.reason
    assert rig.status().completed_us is None


async def test_d4_one_bad_row_parks_itself_and_stops_nothing_else(tmp_path, autojump_clock):
    rig = Rig(tmp_path, sources=(source("t"), source("u")))
    for name in "tu":
        for number in range(70):
            rig.tables[name].insert(f"k{number}", CUTOFF_US - SECOND, b"v")
    fetch = rig.database.fetch

    async def fetch_with_a_bad_row(spec, facts, wanted):
        if spec.name == "t" and any(one.row_key == "k5" for one in wanted):
            raise Failure(FailureClass.UNSUITABLE_VALUE, "FETCH", "missing chunk number 0 for toast value")
        return await fetch(spec, facts, wanted)

    rig.database.fetch = fetch_with_a_bad_row
    ended = await rig.session()
    assert ended.exit_code is ExitCode.PARKED
    assert (rig.counts("t").stored, rig.counts("t").parked, rig.counts("u").stored) == (69, 1, 70)
    (parked,) = rig.status().sources[0].parked
    assert (parked.example_key, parked.failure) == ("k5", "unsuitable_value")


async def test_d4_a_halt_names_its_cause_at_once_and_on_the_record(rig, autojump_clock):
    rig.table.insert("a", CUTOFF_US - SECOND)
    rig.fake.script(answers(404, "NoSuchBucket"), times=100, operation="PUT", key="t/a")
    with pytest.raises(ExceptionGroup) as raised:
        await rig.session()
    halt = raised.value.exceptions[0]
    while isinstance(halt, ExceptionGroup):
        halt = halt.exceptions[0]
    assert isinstance(halt, MigrationHalted)
    assert halt.exit_code is ExitCode.REFUSED
    assert rig.counts().parked == 0


async def test_d6_what_exists_is_not_taken_for_correct(rig, autojump_clock):
    rig.table.insert("truncated", CUTOFF_US - SECOND, b"the whole value")
    rig.fake.place("t/truncated", b"the whole")
    assert (await rig.session()).exit_code is ExitCode.PARKED


async def test_d8_a_new_object_costs_one_put_and_a_fetch_serves_many_rows(tmp_path, autojump_clock):
    rig = Rig(tmp_path, upload={"concurrency": 64})
    for number in range(500):
        rig.table.insert(f"k{number}", CUTOFF_US - SECOND)
    await rig.session()
    assert len(rig.requests("PUT")) == 500
    assert rig.requests("HEAD") == rig.requests("GET") == rig.requests("LIST") == []
    assert rig.database.statements.count("fetch") <= 500 / 64 * 3


async def test_d9_a_row_deleted_meanwhile_is_vanished_and_aborts_nothing(rig, autojump_clock):
    for number in range(10):
        rig.table.insert(f"k{number}", CUTOFF_US - SECOND)
    rig.database.on_statement = lambda name: rig.table.delete("k3") if name == "fetch" else None
    assert (await rig.session()).exit_code is ExitCode.DONE
    assert (rig.counts().stored, rig.counts().vanished) == (9, 1)


async def test_d9_without_the_right_to_list_new_keys_are_copied_all_the_same(rig, autojump_clock):
    rig.fake.denied.add("LIST")
    rig.table.insert("a", CUTOFF_US - SECOND)
    assert (await rig.session()).exit_code is ExitCode.DONE


async def test_d10_each_source_has_a_checkpoint_of_its_own(tmp_path, autojump_clock):
    rig = Rig(tmp_path, sources=(source("t"), source("u")))
    rig.tables["t"].insert("a", CUTOFF_US - SECOND)
    rig.tables["u"].insert("b", CUTOFF_US - 90 * SECOND)
    await rig.session()
    positions = {one.name: one.checkpoint.position.created_at for one in rig.status().sources}
    assert positions == {"t": CUTOFF_US - SECOND, "u": CUTOFF_US - 90 * SECOND}


async def test_d12_created_at_and_metadata_reach_the_object(rig, autojump_clock):
    rig.table.insert("a", CUTOFF_US - SECOND)
    fetch = rig.database.fetch

    async def fetch_with_metadata(spec, facts, wanted):
        rows = await fetch(spec, facts, wanted)
        for row in rows:
            row.metadata["serialization_lib"] = " postcard é "
        return rows

    rig.database.fetch = fetch_with_metadata
    await rig.session()
    metadata = rig.fake.stored("t/a").metadata
    assert metadata["created-at"] == f"{CUTOFF_US - SECOND} us"
    # HTTP would drop a bare blank at either end.
    assert " " not in metadata["serialization_lib"]
    assert unquote(metadata["serialization_lib"]) == " postcard é "


async def test_d13_non_ascii_keys_are_cut_by_characters(tmp_path, autojump_clock):
    rig = Rig(tmp_path, sources=(source("t", layout="tiered", prefix=""),))
    rig.table.insert("äöüßéñ-key", CUTOFF_US - SECOND)
    await rig.session()
    assert list(rig.objects()) == ["äö/üß/éñ/äöüßéñ-key"]


async def test_d3_a_source_that_was_added_and_never_planned_is_work_left(tmp_path, autojump_clock):
    rig = Rig(tmp_path)
    rig.table.insert("a", CUTOFF_US - SECOND)
    assert (await rig.session()).exit_code is ExitCode.DONE
    added = Rig(tmp_path, sources=(source("t"), source("u")))
    added.tables["u"].insert("b", CUTOFF_US - SECOND)
    added.fake = rig.fake
    added.stop_at_start = "SIGTERM"
    assert (await added.session()).exit_code is ExitCode.TERMINATED
