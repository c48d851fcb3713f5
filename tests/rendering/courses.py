"""Statuses of a migration that has gone on for a while: its samples, and where its time went."""

from __future__ import annotations

import dataclasses

from daemon.rendering_units import moment
from journal.checkpoint import Checkpoint
from journal.control_status import Sample, SlowDown
from journal.entries import SourceCounts
from journal.status import MigrationState, NoteStatus, PassStatus, SessionStatus
from tests.rendering.statuses import NOW_US, OWNER, source, status

SECOND_US = 1_000_000
STEP_SECONDS = 15
SIZE = 1000
SEALED = (PassStatus(1, "sweep", "sealed", 100_000),)


class Course:
    """Plays a session, sample by sample, up to NOW_US; sources share one pace unless told otherwise."""

    def __init__(self, *names: str, planned: int = 100_000, began_seconds: float = 0) -> None:
        self.names = names or ("cas",)
        self.planned = planned
        self.at_us = 0
        self.settled = dict.fromkeys(self.names, 0)
        self.samples: list[Sample] = []
        self.spent: dict[str, int] = {}
        self.began_us = 0

    def sample(self, **spent_ms: int) -> Course:
        for cause, ms in spent_ms.items():
            self.spent[cause] = self.spent.get(cause, 0) + ms
        self.samples += [
            Sample(self.at_us, number, rows, rows * SIZE, rows * SIZE, spent_ms)
            for number, rows in enumerate(self.settled.values(), 1)
        ]
        return self

    def session(self) -> Course:
        """Begin a session here: its first sample accounts for nothing."""
        self.began_us = self.at_us
        return self.sample()

    def work(self, seconds: int, rows_per_second: float, cause: str = "network") -> Course:
        for _ in range(seconds // STEP_SECONDS):
            self.pass_time(STEP_SECONDS)
            for name in self.names:
                self.settled[name] += round(rows_per_second * STEP_SECONDS)
            self.sample(**{cause: STEP_SECONDS * 1000})
        return self

    def pass_time(self, seconds: float) -> Course:
        self.at_us += round(seconds * SECOND_US)
        return self

    def status(self, *, ended=False, **changed):
        """Return the status at NOW_US, where the course has come to."""
        shift = NOW_US - self.at_us
        shown = [dataclasses.replace(one, ts_us=one.ts_us + shift) for one in self.samples]
        began = SessionStatus(2, self.began_us + shift, {"pid": 4712, "host": "db1"})
        if ended:
            began = dataclasses.replace(began, ended_us=NOW_US, reason="drained", exit_code=143)
        sources = [
            source(
                name,
                SourceCounts(
                    planned_rows=self.planned,
                    planned_bytes=self.planned * SIZE,
                    stored=self.settled[name],
                    stored_bytes=self.settled[name] * SIZE,
                    settled_bytes=self.settled[name] * SIZE,
                    in_flight=64,
                ),
                id=number,
                checkpoint=Checkpoint(notes=("nothing is settled yet",)),
                passes=SEALED,
            )
            for number, name in enumerate(self.names, 1)
        ]
        fields = {
            "owner": None if ended else OWNER,
            "session": began,
            "samples": tuple(shown[-80 * len(self.names) :]),
            "first_samples": tuple(shown[: len(self.names)]),
            "spent_ms": dict(sorted(self.spent.items(), key=lambda item: -item[1])),
        }
        return status(
            MigrationState.STOPPED if ended else MigrationState.RUNNING, *sources, **{**fields, **changed}
        )


def _day() -> Course:
    """31 hours: the source's standby lagged twelve times, and somebody paused it for a night."""
    course = Course("cas", "workspace_snapshots", "rebase_batches", planned=3_000_000)
    course.spent = {"network": 19 * 3_600_000, "replica_lag": 7 * 3_600_000, "operator": 5 * 3_600_000,
                    "source": 400_000, "other": 900}  # fmt: skip
    course.settled = {"cas": 2_100_000, "workspace_snapshots": 2_900_000, "rebase_batches": 3_000_000}
    course.session()
    course.names = ("cas", "workspace_snapshots")
    course.work(900, 30).work(60, 12)
    course.names = ("cas", "workspace_snapshots", "rebase_batches")
    return course


LAG = SlowDown("replica_lag", 12, 7 * 3_600_000, NOW_US - 300 * SECOND_US, "replay lag 2.1 s, limit 10 s")
PAUSE = NoteStatus(NOW_US - 5400 * SECOND_US, {"who": "alice (uid 1000)"})
LAGGING = NoteStatus(
    NOW_US - 90 * SECOND_US, {"cause": "replica_lag", "detail": "replay lag 12.4 s, limit 10 s"}
)
HALVED = NoteStatus(
    NOW_US - 42 * SECOND_US, {"from": 47, "to": 23, "cause": "s3_slow_down", "ceiling": 64, "cuts": 1}
)
TUNED = NoteStatus(
    NOW_US - 7200 * SECOND_US,
    {
        "who": "bob (uid 1001)",
        "changes": {"concurrency": 16},
        "overrides": {"concurrency": 16, "rows_per_second": None, "bytes_per_second": 20 * 1024**2},
    },
)


def _due(seconds: int) -> NoteStatus:
    return NoteStatus(NOW_US - 600 * SECOND_US, {"deadline": moment(NOW_US + seconds * SECOND_US)})


COURSES = {
    "going": _day().status(slow_downs=(LAG,), tunables=TUNED),
    "throttled": _day().status(slow_downs=(LAG,), throttle=LAGGING),
    "paused": dataclasses.replace(_day().status(pause=PAUSE), state=MigrationState.PAUSED),
    "stopped_while_paused": _day().status(ended=True, pause=PAUSE, slow_downs=(LAG,)),
    "adapted": Course("cas").session().work(600, 40).status(concurrency=HALVED),
    "single": Course("cas").session().work(600, 40).status(),
    "early": Course("cas").session().work(600, 40).status(settings=_due(3600)),
    "late": Course("cas").session().work(600, 40).status(settings=_due(600)),
    "overdue": Course("cas").session().work(600, 40).status(settings=_due(-60)),
    "begun": Course("cas", "b").session().pass_time(0.2).status(),
}
