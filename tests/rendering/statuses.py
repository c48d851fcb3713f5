"""Hand-made statuses: one of each situation an operator meets."""

from __future__ import annotations

import dataclasses

from journal.checkpoint import Checkpoint, Order, Position
from journal.entries import SourceCounts
from journal.lock import Owner
from journal.status import (
    FailureStatus,
    MigrationState,
    MigrationStatus,
    NoteStatus,
    ParkedStatus,
    PassStatus,
    SessionStatus,
    SourceStatus,
)

NOW_US = 1_768_450_000_000_000
CUTOFF_US = 1_768_404_645_123_456
HOUR_US = 3_600_000_000
HOSTILE_KEY = "evil\x1b[2J\nkey\u202e\\"
OWNER = Owner(4712, "db1", NOW_US - HOUR_US)
UNCLOSED = (
    "rows without created_at are not covered",
    "rows that appear until the source is closed are not covered",
)
RUNNING_COUNTS = SourceCounts(
    planned_rows=10_000_000,
    planned_bytes=43_056_431_923,
    stored=4_119_938,
    recovered=12,
    present=50,
    vanished=3,
    parked=3,
    in_flight=64,
    pending=2,
    unclaimed=5_879_928,
    stored_bytes=17_700_000_000,
    present_bytes=4_000,
    settled_bytes=17_700_004_000,
    excluded={"newer_than_cutoff": 12_345, "where": 3, "null_created_at": 0, "null_value": 0},
    unusable=2,
)
DONE_COUNTS = SourceCounts(
    planned_rows=20_000,
    planned_bytes=81_920_000,
    stored=20_000,
    stored_bytes=81_920_000,
    settled_bytes=81_920_000,
)


def source(name="cas", counts=RUNNING_COUNTS, **changed):
    fields = {
        "id": 1,
        "identity": {"table": "public.cas", "bucket": "blobs", "prefix": "cas/"},
        "checkpoint": Checkpoint(
            Position(CUTOFF_US - 1, HOSTILE_KEY), cutoff_us=CUTOFF_US, held_by_parked=3, notes=UNCLOSED
        ),
        "passes": (PassStatus(1, "sweep", "sealed", counts.planned_rows),),
        "closed": False,
        "closing_proof": None,
        "proven": False,
        "unusable_example": None,
        "probe": None,
        "failures": (),
        "parked": (),
    }
    return SourceStatus(name=name, counts=counts, **{**fields, **changed})


def closed(name, counts=DONE_COUNTS, **changed):
    return source(
        name,
        counts,
        **{
            "checkpoint": Checkpoint(
                Position(CUTOFF_US - 86_400_000_001, "k"),
                cutoff_us=CUTOFF_US - 86_400_000_000,
                complete=True,
                notes=("rows without created_at are not covered",),
            ),
            "closed": True,
            "proven": True,
            "closing_proof": "snapshot begun after every transaction older than the cutoff had ended",
            **changed,
        },
    )


def status(state, *sources, **changed):
    fields = {
        "name": "layer-cache",
        "created_us": NOW_US - 30 * HOUR_US,
        "cutoff_us": CUTOFF_US,
        "order": Order.NEWEST_FIRST,
        "owner": None,
        "session": SessionStatus(2, NOW_US - 5 * HOUR_US, {"pid": 4712, "host": "db1", "version": "0.1.0"}),
        "head_seq": 123_456,
        "last_event_us": NOW_US - 3_000_000,
        "completed_us": None,
        "halt": None,
        "probe": None,
        "server": None,
    }
    return MigrationStatus(state=state, sources=sources, **{**fields, **changed})


def ended(reason, exit_code, message=""):
    return SessionStatus(
        2, NOW_US - 5 * HOUR_US, {"pid": 4712, "host": "db1"}, NOW_US - HOUR_US, reason, exit_code, message
    )


def running():
    cas = source(
        unusable_example="a//\x07b",
        parked=(
            ParkedStatus("foreign_object", 2, HOSTILE_KEY, "another object is under 'cas/evil': MD5 differs"),
            ParkedStatus(
                "metadata_too_large",
                1,
                "żółć/日本語/" + "k" * 120,
                "metadata takes 2100 bytes, S3 takes 2048",
            ),
        ),
        failures=(
            FailureStatus("PUT", "server", 1_204, "ab12cd", NOW_US - 60_000_000, "500 Internal Error"),
        ),
        probe={"bucket": "blobs", "conditional": "ignored", "deletable": True, "key": "cas/.backfill-probe"},
    )
    snapshots = source(
        "workspace_snapshots",
        SourceCounts(planned_rows=30_000, planned_bytes=9_000_000_000, unclaimed=30_000),
        id=2,
        checkpoint=Checkpoint(notes=("the plan is not sealed yet",)),
        passes=(PassStatus(1, "sweep", "open", 30_000),),
    )
    return status(MigrationState.RUNNING, cas, snapshots, owner=OWNER)


def killed():
    return status(MigrationState.KILLED, source(counts=RUNNING_COUNTS))


def drained():
    return status(
        MigrationState.STOPPED,
        source(),
        session=ended("drained on SIGTERM with work left; the same command resumes", 143),
    )


def halted():
    message = "PUT failed for good: 403 AccessDenied on bucket blobs"
    return status(
        MigrationState.HALTED,
        source(),
        session=ended("halted", 6, message),
        halt=NoteStatus(NOW_US - HOUR_US, {"message": message, "exit_code": 6}),
    )


def fresh():
    return status(MigrationState.STOPPED, session=None, cutoff_us=None)


def complete(*, verified=None, mismatch=0):
    last = {
        "tier": "list", "checked": 40_000, "by_md5": 39_990 - mismatch, "by_size": 10, "missing": mismatch,
        "differing": 0, "extra": 7, "unsettled": 0, "skipped": 0, "exit_code": 4 if mismatch else 0,
    }  # fmt: skip
    return status(
        MigrationState.COMPLETE,
        closed("cas"),
        closed("rebase_batches", id=2),
        session=ended("every key is settled", 0),
        completed_us=NOW_US - 2 * HOUR_US,
        verifications=() if verified is None else (NoteStatus(verified, last),),
    )


def caches_with_parked():
    names = ["cas", "workspace_snapshots", "encrypted_secrets", "rebase_batches", "change_batches",
             "split_snapshot_subgraphs", "split_snapshot_supergraphs", "split_snapshot_rebase_batches"]  # fmt: skip
    held = SourceCounts(planned_rows=20_000, planned_bytes=81_920_000, stored=19_999, parked=1)
    sources = [closed(name, id=number) for number, name in enumerate(names, 1)]
    sources[1] = source(
        names[1],
        held,
        id=2,
        checkpoint=Checkpoint(
            Position(CUTOFF_US - 1, "k"), cutoff_us=CUTOFF_US, held_by_parked=1, notes=UNCLOSED[:1]
        ),
        closed=True,
        closing_proof="late_grace waited for; pg_stat_activity is not readable",
        parked=(
            ParkedStatus(
                "foreign_object", 1, "ab12", "another object is under 'ab12': 3 bytes, the row has 5"
            ),
        ),
    )
    return status(
        MigrationState.COMPLETE_WITH_PARKED,
        *sources,
        session=ended("ended with 1 parked keys", 3),
        owner=None,
    )


def oldest_first():
    mirrored = Checkpoint(Position(CUTOFF_US, "k"), floor_us=CUTOFF_US - 1, notes=UNCLOSED)
    return status(
        MigrationState.STOPPED,
        source(checkpoint=mirrored),
        order=Order.OLDEST_FIRST,
        session=ended("drained on SIGTERM with work left; the same command resumes", 143),
    )


ALL = {
    "running": running(),
    "stalled": dataclasses.replace(running(), last_event_us=NOW_US - HOUR_US),
    "killed": killed(),
    "drained": drained(),
    "halted": halted(),
    "fresh": fresh(),
    "complete": complete(),
    "complete_verified": complete(verified=NOW_US - HOUR_US),
    "complete_mismatch": complete(verified=NOW_US - HOUR_US, mismatch=3),
    "caches_with_parked": caches_with_parked(),
    "oldest_first": oldest_first(),
}
