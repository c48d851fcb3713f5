"""One planning pass: scan into the stage, sort there, seal what the plan lacks.

Every step is on disk before the next begins, so a pass continues wherever its process died: in the middle of a
sweep, between sorting and sealing, behind any sealed chunk. Only a snapshot that was cut short begins anew.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from daemon.errors import SourceUnfitError
from daemon.layouts import layout_of, object_key, suspect_row_keys_longer_than, unusable_reason
from daemon.log_events import LogEvent, log_event
from daemon.objects import PROBE_KEY_NAME
from daemon.planning import Change, Closing, Verdict, change_of, refuse_undecided_nulls
from daemon.rows import Exclusions
from daemon.scanning import Scanner
from journal.entries import PlannedRow
from journal.plan_log import CHUNK_KEYS_MAX
from journal.stage_file import discard_stage
from journal.staging import Stage, StageIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from daemon.config import SourceConfig
    from daemon.rows import SweptRange, TableFacts
    from daemon.runtime import Runtime
    from daemon.scanning import OnProgress, PlanSource, ScanLimits
    from journal.entries import OpenPass
    from journal.log import Journal
    from journal.staging import StagedRow

T = TypeVar("T")
Kind: TypeAlias = Literal["sweep", "snapshot"]


@dataclass(frozen=True, slots=True)
class Pass:
    """A pass that is open in the journal, with its stage.

    Attributes:
        source: the source's id in the journal.
        number: from 1; the first has nothing to be compared with.
        closes: why the source is closed once this pass is sealed; None if it is not.
    """

    spec: SourceConfig
    facts: TableFacts
    source: int
    number: int
    kind: Kind
    stage: Stage
    closes: Closing | None


class PassRunner:
    """Begins, resumes, runs and gives up passes; knows nothing of why there is one."""

    def __init__(self, journal: Journal, source: PlanSource, runtime: Runtime, limits: ScanLimits) -> None:
        self._journal = journal
        self._source = source
        self._runtime = runtime
        self._limits = limits

    async def begin(
        self,
        spec: SourceConfig,
        facts: TableFacts,
        source: int,
        kind: Kind,
        *,
        cutoff_us: int,
        closes: Closing | None,
    ) -> Pass:
        """Begin a pass with an empty stage.

        Raises:
            JournalError: the journal or its disk.
        """

        def begin() -> Pass:
            # The old stage goes first: a new journal's first pass must never find the stage of a deleted one.
            discard_stage(self._journal.path)
            number = self._journal.begin_pass(source, kind=kind, now_us=self._runtime.now_us())
            identity = self._identity(spec, source, number, cutoff_us)
            stage = Stage.create(self._journal.path, identity, memo=_memo(closes))
            return Pass(spec, facts, source, number, kind, stage, closes)

        return await self._call(begin)

    async def resume(
        self, spec: SourceConfig, facts: TableFacts, source: int, found: OpenPass, *, cutoff_us: int
    ) -> Pass:
        """Take up the pass that an earlier process left open.

        Raises:
            StageLost: its stage is gone, damaged, or made under other rules.
        """
        identity = self._identity(spec, source, found.number, cutoff_us)
        stage = await self._call(lambda: Stage.resume(self._journal.path, identity))
        kind: Kind = "sweep" if found.kind == "sweep" else "snapshot"
        return Pass(spec, facts, source, found.number, kind, stage, _recalled(stage.memo))

    async def run(self, current: Pass, *, cutoff_us: int, on_progress: OnProgress) -> None:
        """Carry the pass to its end, and close the source if that is what it is for.

        Raises:
            SourceUnfitError: keys or NULLs don't allow a plan; the pass is given up, nothing was sealed.
            StageLost: the stage is damaged; the pass is to be abandoned.
            UnreachableError, RefusedError, JournalError: the pass stays open, to be resumed.
        """
        try:
            await self._stage(current, cutoff_us, on_progress)
        except SourceUnfitError as unfit:
            await self.abandon(current.source, unfit.problem)
            raise
        finished = await self._call(current.stage.totals)
        unusable, example = await self._call(lambda: _count_unusable(current))
        await self._seal(current)
        await self._call(
            lambda: self._journal.seal_segment(
                current.source,
                excluded=finished.excluded,
                unusable=unusable,
                unusable_example=example,
                now_us=self._runtime.now_us(),
            )
        )
        await self._call(current.stage.discard)
        if unusable:
            log_event(
                LogEvent.KEYS_UNUSABLE,
                f"{current.spec.name}: {unusable} keys can't name objects and will be parked, such as {example!r}",
                source=current.spec.name,
                keys=() if example is None else (example,),
                number=unusable,
                row_key=example,
            )
        await self._tell_sealed(current, finished.excluded)
        closes = current.closes
        if closes is not None:
            proven = closes.verdict is Verdict.PROVEN
            await self._call(
                lambda: self._journal.close_source(
                    current.source, proof=closes.reason, proven=proven, now_us=self._runtime.now_us()
                )
            )
            log_event(
                LogEvent.SOURCE_CLOSED,
                f"{current.spec.name}: closed, {'' if proven else 'un'}proven: {closes.reason}",
                source=current.spec.name,
                proven=proven,
                reason=closes.reason,
            )

    async def _tell_sealed(self, current: Pass, excluded: Mapping[str, int]) -> None:
        counts = (await self._call(self._journal.counts))[current.spec.name]
        left_out = sum(excluded.values())
        log_event(
            LogEvent.PASS_SEALED,
            f"{current.spec.name}: pass {current.number} ({current.kind}) done: {counts.planned_rows} rows and "
            f"{counts.planned_bytes} bytes are planned now, {left_out} rows left out",
            source=current.spec.name,
            number=current.number,
            kind=current.kind,
            planned_rows=counts.planned_rows,
            planned_bytes=counts.planned_bytes,
            excluded_rows=left_out,
        )

    async def abandon(self, source: int, reason: str) -> None:
        """Give the open pass up: what it sealed stays planned, its stage goes."""
        log_event(LogEvent.PASS_ABANDONED, f"planning pass given up: {reason}", reason=reason)
        await self._call(
            lambda: self._journal.abandon_pass(source, reason=reason, now_us=self._runtime.now_us())
        )
        await self._call(lambda: discard_stage(self._journal.path))

    async def _stage(self, current: Pass, cutoff_us: int, on_progress: OnProgress) -> None:
        """Fill the stage and sort it, then look whether its rows can be planned at all."""
        stage = current.stage
        if not stage.is_sorted:
            await self._scan(current, cutoff_us, on_progress)
            await self._call(stage.sort)
        totals = await self._call(stage.totals)
        refuse_undecided_nulls(current.spec, Exclusions(**totals.excluded))
        if current.kind == "snapshot" and totals.repeated:
            raise SourceUnfitError(
                f"plan {current.spec.name}: {totals.repeated} rows repeat the key of another, such as {totals.repeated_key!r}, "
                f"expected ({', '.join(current.spec.key)}) to be unique",
                "name columns in source.key that identify a row",
            )

    async def _scan(self, current: Pass, cutoff_us: int, on_progress: OnProgress) -> None:
        scanner = Scanner(
            self._source,
            current.spec,
            cutoff_us=cutoff_us,
            limits=self._limits,
            random=self._runtime.random,
            on_progress=on_progress,
        )
        collector = _Staging(current.stage, self._runtime)
        if current.kind == "snapshot":
            await scanner.snapshot(current.facts, collector)
            return
        reached = await self._call(current.stage.progress)
        seen = (await self._call(current.stage.totals)).seen
        await scanner.sweep(current.facts, collector, reached=reached, seen=seen)

    async def _seal(self, current: Pass) -> None:
        """Seal what the stage holds and the plan lacks, from behind the last sealed row on."""
        if current.number > 1:
            await self._call(self._journal.build_key_index)
        _, last = await self._call(lambda: self._journal.sealed_rows_of_open_segment(current.source))
        place = 0 if last is None else await self._call(lambda: current.stage.position_of(last.row_key))
        waiting: list[PlannedRow] = []
        while True:
            count, rows = await self._call(partial(self._additions, current, place))
            if waiting and (count == 0 or len(waiting) + len(rows) > CHUNK_KEYS_MAX):
                await self._call(partial(self._seal_chunk, current.source, waiting))
                waiting = []
            if count == 0:
                return
            place += count
            waiting += rows

    def _additions(self, current: Pass, place: int) -> tuple[int, list[PlannedRow]]:
        """Return how many staged rows follow `place` on their page, and those that are to be planned."""
        page: Sequence[StagedRow] = current.stage.page(place, CHUNK_KEYS_MAX)
        if current.number == 1:
            return len(page), [PlannedRow(*row) for row in page]
        known = self._journal.latest(current.source, [row[0] for row in page])
        additions = []
        for row_key, created_at, size in page:
            before = known.get(row_key)
            if change_of(size, before) is not Change.NOTHING:
                additions.append(
                    PlannedRow(row_key, created_at, size, None if before is None else before.ordinal)
                )
        return len(page), additions

    def _seal_chunk(self, source: int, rows: Sequence[PlannedRow]) -> None:
        self._journal.seal_chunk(source, rows, now_us=self._runtime.now_us())

    def _identity(self, spec: SourceConfig, source: int, number: int, cutoff_us: int) -> StageIdentity:
        return StageIdentity(source, number, _scope(spec, cutoff_us), self._journal.order)

    async def _call(self, function: Callable[[], T]) -> T:
        return await self._runtime.journal_runner(function)


class _Staging:
    """Collects a scan into the stage."""

    def __init__(self, stage: Stage, runtime: Runtime) -> None:
        self._stage = stage
        self._run = runtime.journal_runner

    async def keep(self, swept: SweptRange) -> None:
        await self._run(
            lambda: self._stage.add(
                swept.rows,
                relation=swept.relation,
                filenode=swept.filenode,
                first_block=swept.first_block,
                next_block=swept.next_block,
                seen=swept.seen,
                excluded=swept.excluded.as_dict(),
            )
        )

    async def restart(self, relation: int) -> None:
        await self._run(lambda: self._stage.restart_relation(relation))


def _scope(spec: SourceConfig, cutoff_us: int) -> str:
    """Return a digest of all that decides which rows a scan yields and under which keys."""
    decisive = [
        *(spec.schema_name, spec.table_name, spec.key, spec.created_at, spec.created_at_zone, spec.value),
        *(spec.where, spec.null_created_at, spec.null_value, cutoff_us),
    ]
    return hashlib.sha256(json.dumps(decisive).encode()).hexdigest()


def _memo(closes: Closing | None) -> str:
    """Write down why the pass may close its source: the conditions held before its snapshot, not after a crash."""
    return json.dumps(None if closes is None else [closes.verdict, closes.reason])


def _recalled(memo: str) -> Closing | None:
    closes = json.loads(memo)
    return None if closes is None else Closing(Verdict(closes[0]), closes[1])


def _count_unusable(current: Pass) -> tuple[int, str | None]:
    """Count the staged keys that S3 servers would mangle or refuse as object keys; return one such row key."""
    layout = layout_of(current.spec)
    longer_than = suspect_row_keys_longer_than(layout)
    count, example, place = 0, None, 0
    while suspects := current.stage.suspects(longer_than=longer_than, reserved=PROBE_KEY_NAME, after=place):
        place = suspects[-1][0]
        unusable = [
            row_key for _, row_key in suspects if unusable_reason(object_key(layout, row_key)) is not None
        ]
        count += len(unusable)
        example = example or next(iter(unusable), None)
    return count, example
