"""What the long runs read from a journal's raw events: which death left which keys, and what was uploaded twice."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing

from benchmarks.endurance.journal_facts import TakenBack, read

EVENTS = [
    ("session_started", {}),
    ("cutoff_fixed", {"cutoff_us": 1_700_000_000_000_000}),
    ("attempt_failed", {"ordinal": 3, "failure": "connection"}),
    ("keys_recovered", {"ordinals": [4], "process": "upload process 1 (pid 7), killed by SIGKILL"}),
    ("outcomes_recorded", [[3, "R", 1, "", None], [4, "S", 1, ""], [5, "V", None, None]]),
    ("session_started", {}),
    ("keys_recovered", {"ordinals": [1, 2]}),
    ("outcomes_recorded", [[1, "R", 1, ""], [6, "R", 1, ""]]),
    ("key_parked", {"ordinal": 2, "failure": "process_died"}),
]


def test_deaths_failures_and_repeats_are_read_from_the_events(tmp_path):
    path = tmp_path / "journal.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("create table event (seq integer primary key, kind text, data text)")
        rows = [(kind, json.dumps(data)) for kind, data in EVENTS]
        connection.executemany("insert into event (kind, data) values (?, ?)", rows)
    facts = read(path)
    assert facts.cutoff_us == 1_700_000_000_000_000
    assert facts.sessions == 2
    assert facts.taken_back == [
        TakenBack(1, "upload process 1 (pid 7), killed by SIGKILL", {4}),
        TakenBack(2, None, {1, 2}),
    ]
    assert facts.outcomes == {"R": 3, "S": 1, "V": 1}
    assert (facts.failed, facts.repeated, facts.unexplained) == ({3}, {1, 3, 6}, {6})
    assert (facts.causes, facts.parked) == ({"connection": 1}, {"process_died": 1})
