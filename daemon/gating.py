"""PostgreSQL behind the controls: planning reads nothing new while an operator or a throttle holds it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from daemon.drain import Drain

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from daemon.config import SourceConfig
    from daemon.controls import Controls
    from daemon.planning import Writers
    from daemon.rows import Exclusions, ServerFacts, SweptRange, SweptRow, TableFacts
    from daemon.scanning import PlanSource


class GatedSource:
    """A PlanSource whose reads of tables wait until new work may begin; looks at the catalogue do not.

    A snapshot that has begun is read to its end: held back in the middle it would keep PostgreSQL from cleaning
    up for as long as the hold lasts.
    """

    def __init__(self, source: PlanSource, controls: Controls, drain: Drain) -> None:
        self._source = source
        self._controls = controls
        self._drain = drain

    async def server(self) -> ServerFacts:
        """As `PlanSource`."""
        return await self._source.server()

    async def describe(self, spec: SourceConfig) -> TableFacts:
        """As `PlanSource`."""
        return await self._source.describe(spec)

    async def check_fetch_plan(self, spec: SourceConfig, facts: TableFacts) -> None:
        """As `PlanSource`."""
        await self._source.check_fetch_plan(spec, facts)

    async def sweep_range(
        self,
        spec: SourceConfig,
        facts: TableFacts,
        *,
        relation: int,
        first_block: int,
        next_block: int | None,
        cutoff_us: int,
    ) -> SweptRange:
        """As `PlanSource`, once new work may begin."""
        await self._controls.wait_until_open(self._drain)
        return await self._source.sweep_range(
            spec,
            facts,
            relation=relation,
            first_block=first_block,
            next_block=next_block,
            cutoff_us=cutoff_us,
        )

    @asynccontextmanager
    async def scan(
        self, spec: SourceConfig, facts: TableFacts, *, cutoff_us: int
    ) -> AsyncIterator[AsyncIterator[tuple[list[SweptRow], Exclusions, int]]]:
        """As `PlanSource`, once new work may begin."""
        await self._controls.wait_until_open(self._drain)
        async with self._source.scan(spec, facts, cutoff_us=cutoff_us) as batches:
            yield batches

    async def writers_before(self, cutoff_us: int) -> Writers:
        """As `PlanSource`."""
        return await self._source.writers_before(cutoff_us)
