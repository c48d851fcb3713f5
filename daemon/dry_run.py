"""Scan a source as planning would, and write nothing anywhere."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.estimating import Estimate, Tally
from daemon.layouts import Layout, layout_of, object_key, unusable_reason
from daemon.planning import checked_cutoff, refuse_undecided_nulls
from daemon.scanning import OnProgress, PlanSource, ScanLimits, Scanner, no_progress

if TYPE_CHECKING:
    from random import Random

    from daemon.config import SourceConfig
    from daemon.rows import SweptRange


async def dry_run(
    source: PlanSource,
    spec: SourceConfig,
    *,
    cutoff_us: int | None,
    limits: ScanLimits,
    random: Random,
    on_progress: OnProgress = no_progress,
) -> Estimate:
    """Say what copying a source means; a row that moves meanwhile may be counted twice or not at all.

    Args:
        source: PostgreSQL.
        spec: the source.
        cutoff_us: as recorded or configured; None: the server's clock.
        limits: how long scans bear failures.
        random: source of jitter.
        on_progress: as for `Planner.plan_source`.

    Raises:
        SourceUnfitError, ConfigError, UnreachableError, RefusedError: where planning would refuse.
    """
    facts = await source.describe(spec)
    settled = checked_cutoff(cutoff_us, now_us=(await source.server()).now_us)
    tallies = _Tallies(layout_of(spec))
    scanner = Scanner(source, spec, cutoff_us=settled, limits=limits, random=random, on_progress=on_progress)
    if facts.relations:
        await scanner.sweep(facts, tallies, reached={}, seen=0)
    else:
        await scanner.snapshot(facts, tallies)
    total = tallies.total()
    refuse_undecided_nulls(spec, total.excluded)
    return total.estimate()


class _Tallies:
    """Adds a scan up, relation by relation, and keeps no row."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._by_relation: dict[int, Tally] = {}

    async def keep(self, swept: SweptRange) -> None:
        tally = self._by_relation.setdefault(swept.relation, Tally())
        tally.seen += swept.seen
        tally.excluded.add(swept.excluded)
        tally.add_sizes(row.size for row in swept.rows)
        for row in swept.rows:
            if unusable_reason(object_key(self._layout, row.row_key)) is not None:
                tally.unusable += 1
                tally.unusable_example = row.row_key

    async def restart(self, relation: int) -> None:
        self._by_relation.pop(relation, None)

    def total(self) -> Tally:
        total = Tally()
        for tally in self._by_relation.values():
            total.add(tally)
        return total
