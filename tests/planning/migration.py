"""A migration for tests of planning: a real journal, a fake source, virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import trio

from daemon.config import SourceConfig
from daemon.planner import Planner, PlanSettings
from daemon.runtime import Runtime, in_loop
from daemon.scanning import PlanSource, ScanLimits
from journal.checkpoint import Order
from journal.entries import ClaimedKey, Settled
from journal.lifecycle import Outcome
from journal.log import Journal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CUTOFF_US = 1_700_000_000_000_000
SECOND_US = 1_000_000
SETTINGS = PlanSettings(late_grace=300.0, scan=ScanLimits(max_attempts=4, give_up_after=60.0))


def spec(name: str = "t", **settings: Any) -> SourceConfig:
    given = {"name": name, "schema_name": "public", "table_name": name, "bucket": "bucket", "key": ("id",)}
    return SourceConfig(**{**given, "value": "data", "created_at": "created_at", **settings})


def server_clock() -> int:
    """A clock that stands one second past the cutoff when virtual time begins."""
    return CUTOFF_US + SECOND_US + int(trio.current_time() * 1e6)


class CrashedError(Exception):
    """The process died here."""


@dataclass
class Migration:
    """A journal on disk that can be opened again and again."""

    path: Path
    order: Order = Order.NEWEST_FIRST
    cutoff_us: int | None = CUTOFF_US
    sources: tuple[SourceConfig, ...] = field(default_factory=lambda: (spec(),))

    @contextmanager
    def journal(self, *, kind: type[Journal] = Journal) -> Iterator[Journal]:
        if self.path.exists():
            opened = kind.open(self.path, now_us=1)
        else:
            opened = kind.create(self.path, name="test", cutoff_us=self.cutoff_us, order=self.order, now_us=1)
        try:
            for source in self.sources:
                if source.name not in opened.sources:
                    opened.add_source(source.name, {"table": source.table_name}, now_us=1)
            yield opened
        finally:
            opened.close()


def planner(
    journal: Journal,
    source: PlanSource,
    *,
    settings: PlanSettings = SETTINGS,
    on_wait: Callable[[str, str], None] | None = None,
) -> Planner:
    runtime = Runtime(now_us=lambda: 2, random=random.Random(1), journal_runner=in_loop)
    return Planner(journal, source, runtime, settings, on_wait=on_wait or (lambda _source, _reason: None))


def drive(
    journal: Journal, name: str, outcome: Callable[[ClaimedKey], Outcome] = lambda _key: Outcome.STORED
) -> list[ClaimedKey]:
    """Claim and settle every key of a source; return them in the order in which they were claimed."""
    source = journal.sources[name].id
    driven: list[ClaimedKey] = []
    while claim := journal.claim(source, limit=1000, window=100_000, now_us=3):
        driven += claim.keys
        journal.record(
            [Settled(key.ordinal, outcome(key), key.size, "0" * 32) for key in claim.keys], now_us=3
        )
    return driven
