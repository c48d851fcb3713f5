"""Verify: one tier over every key that the journal answers for, or over a sample of them.

Reads the journal in pages and lets the tier look; changes neither journal nor bucket (guards I13) but for the
events that say what was found. A run that was interrupted is taken up again behind its last recorded progress.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

import trio

from daemon.comparing import Examples, Finding, FindingKind, Means, TierName, VerificationResult
from daemon.sampling import CONFIDENCE, EVERY_KEY, SampleSize
from daemon.tier_list import Latest
from daemon.tiers import Checked, Tier, VerifiedSource
from journal.events import Kind, StoredEvent
from journal.histories import ExpectedObject, ObjectPage
from journal.lifecycle import SETTLED
from journal.verification_runs import OpenRun, SampledKeys, VerificationRun

FINDINGS_PER_EVENT_MAX = 500
"""Findings in one event: a bucket that is wrong altogether must not cost a commit per key."""
PROGRESS_SECONDS = 5.0
"""Between two records of progress: what an interrupted run looks at once more."""
_OF_REPLACED_BYTES = frozenset({FindingKind.DIFFERING, FindingKind.ROW_CHANGED})


class Journal(Protocol):
    """The journal, as verification reads it (`journal.reader.Reader`)."""

    def objects(self, *, after_seq: int = 0, limit: int = ..., until_seq: int | None = None) -> ObjectPage:
        """Return a page of stored and present keys, in the order of their outcomes."""

    def draw(self, *, seed: int, keys: int, until_seq: int, sources: Sequence[int]) -> list[int]:
        """Return ordinals of a random sample of them."""

    def objects_of(self, ordinals: Sequence[int]) -> list[ExpectedObject]:
        """Return the objects of some keys."""

    def events(self, *, kinds: Sequence[str], after_seq: int) -> Iterator[StoredEvent]:
        """Yield events of some kinds behind one, in their order."""

    def head_seq(self) -> int:
        """Return the newest event's seq."""


class RecordNote(Protocol):
    """Writes one event; committed when it returns."""

    async def __call__(self, kind: Kind, data: Mapping[str, Any], /, *, source: int | None) -> int:
        """Return its seq; raise JournalError if it can't be written."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What is asked of a verification, as recorded with its beginning; a run is taken up again under the same one only.

    Attributes:
        tiers: all that the command goes through, in order.
        extra_fails: objects that no row accounts for are a mismatch, and named in the journal.
        who: the operator.
    """

    tiers: tuple[TierName, ...]
    sample: SampleSize = EVERY_KEY
    extra_fails: bool = False
    who: str = ""

    def as_data(self, sources: Sequence[VerifiedSource]) -> dict[str, Any]:
        """Return what two runs must share to be the same one."""
        share = self.sample.share
        return {
            "tiers": [tier.value for tier in self.tiers],
            "asked": None if self.sample == EVERY_KEY else str(share) if share else self.sample.keys,
            "sources": sorted(source.id for source in sources),
            "extra_fails": self.extra_fails,
        }


class Verification:
    """One run of one tier.

    The caller holds the journal's lock: nothing is stored or re-planned meanwhile.

    Attributes:
        done, of: keys looked at, of how many, while it runs.
    """

    def __init__(
        self,
        tier: Tier,
        sources: Sequence[VerifiedSource],
        journal: Journal,
        *,
        latest: Latest,
        record: RecordNote,
        scope: Scope,
        seed: int,
        follows: int | None = None,
        told: Callable[[Verification], None] = lambda _: None,
    ) -> None:
        """Prepare.

        Args:
            tier: how keys are looked at.
            sources: every source to be verified.
            journal: what must be in the bucket.
            latest: tells the newest plan of some row keys.
            record: writes an event.
            scope: what was asked for; a sample only if its `sample` says so.
            seed: of the sample's draw.
            follows: id of the run before this one in the same command.
            told: called after each batch.
        """
        self.tier = tier
        self.done = 0
        self.of = sum(source.expected for source in sources)
        self._sources = {source.id: source for source in sources}
        self._journal = journal
        self._latest = latest
        self._record = record
        self._scope = scope
        self._seed = seed
        self._follows = follows
        self._told = told
        self._run = 0
        self._right: Counter[Means] = Counter()
        self._found: Counter[FindingKind] = Counter()
        self._examples = Examples()
        self._recorded_at = trio.current_time()
        self._right_ordinals: list[int] = []

    async def run(self, interrupted: OpenRun | None = None) -> VerificationResult:
        """Look at every key, and record what was found.

        Args:
            interrupted: the run of this tier and scope that is taken up again.

        Raises:
            RefusedError, UnreachableError, BackfillError: from the tier.
            JournalError: from reading the journal or writing an event.
        """
        begun = trio.current_time()
        if interrupted is None:
            data = await self._begin()
        else:
            data = interrupted.data
            self._run = interrupted.seq
        sample = data["sample"]
        async with self.tier.ready(self._run, list(self._sources.values())) as goes_on:
            progress = interrupted.progress if interrupted is not None and goes_on else None
            cursor = self._take_up(progress) if progress else 0
            if sample is None:
                await self._look_at_all(cursor, data["until_seq"])
                for source in self._sources.values():
                    async with aclosing(self.tier.others(source)) as others:
                        async for findings in others:
                            await self._tell(source, findings)
            else:
                self.of = sample["keys"]
                await self._look_at_sample(cursor, sample, data["until_seq"])
            drawn = None if sample is None else SampledKeys(sample["keys"], sample["of"])
            result = self._result(drawn, trio.current_time() - begun)
            # Inside the block: what the tier keeps for an interrupted run must not go before this is on record.
            await self._record(
                Kind.VERIFICATION_FINISHED, _finished_data(result, data, result.bound), source=None
            )
        return result

    async def _begin(self) -> dict[str, Any]:
        until_seq = self._journal.head_seq()
        sample = None
        drawn = self._scope.sample.drawn(self.of)
        if drawn < self.of:
            sample = {"keys": drawn, "of": self.of, "seed": self._seed}
        data = {
            "tier": self.tier.name.value,
            "until_seq": until_seq,
            "sample": sample,
            "who": self._scope.who,
            "follows": self._follows,
            **self._scope.as_data(list(self._sources.values())),
        }
        self._run = await self._record(Kind.VERIFICATION_STARTED, data, source=None)
        return data

    def _take_up(self, progress: Mapping[str, Any]) -> int:
        """Go on with the counts and examples of the part that was done; return where that ended."""
        counts = progress["counts"]
        self.done = counts["checked"]
        self._right = Counter({Means(word): number for word, number in counts["right"].items()})
        self._found = Counter({FindingKind(word): number for word, number in counts["found"].items()})
        names = {source.id: source.name for source in self._sources.values()}
        for finding in recorded_findings(self._journal, self._run, names):
            self._examples.add(finding)
        return int(progress["after_seq"])

    async def _look_at_all(self, after_seq: int | None, until_seq: int) -> None:
        while after_seq is not None:
            page = self._journal.objects(after_seq=after_seq, limit=self.tier.batch_keys, until_seq=until_seq)
            after_seq = page.next_after_seq
            await self._look_at(page.objects)
            if after_seq is not None:
                await self._note_progress(after_seq)

    async def _look_at_sample(self, cursor: int, sample: Mapping[str, Any], until_seq: int) -> None:
        ordinals = self._journal.draw(
            seed=sample["seed"], keys=sample["keys"], until_seq=until_seq, sources=list(self._sources)
        )
        for first in range(cursor, len(ordinals), self.tier.batch_keys):
            rows = self._journal.objects_of(ordinals[first : first + self.tier.batch_keys])
            wrong = await self._look_at(rows)
            self._right_ordinals = sorted({row.ordinal for row in rows} - wrong)
            await self._note_progress(first + self.tier.batch_keys, at_once=True)

    async def _look_at(self, rows: Sequence[ExpectedObject]) -> set[int]:
        """Let the tier look at some keys; return those that are in a finding."""
        wrong: set[int] = set()
        for source in self._sources.values():
            own = [row for row in rows if row.source == source.id]
            for first in range(0, len(own), self.tier.batch_keys):
                checked = await self.tier.check(source, own[first : first + self.tier.batch_keys])
                wrong.update(each.ordinal for each in checked.findings if each.ordinal is not None)
                await self._take(source, checked)
        return wrong

    async def _take(self, source: VerifiedSource, checked: Checked) -> None:
        findings = self._not_being_replaced(source, checked.findings)
        self._right.update(checked.right)
        self.done += checked.right.total() + len({each.ordinal for each in findings})
        await self._tell(source, findings)
        self._told(self)

    def _not_being_replaced(self, source: VerifiedSource, findings: list[Finding]) -> list[Finding]:
        """Leave out objects whose row has changed and is planned again: the new bytes may have arrived already.

        They count as unsettled, as the later plan of their key does.
        """
        doubtful = [each.row_key or "" for each in findings if each.kind in _OF_REPLACED_BYTES]
        if not doubtful:
            return findings
        latest = self._latest(source.id, doubtful)
        return [
            each
            for each in findings
            if each.kind not in _OF_REPLACED_BYTES
            or (known := latest[each.row_key or ""]).ordinal == each.ordinal
            or known.state in SETTLED
        ]

    async def _tell(self, source: VerifiedSource, findings: Sequence[Finding]) -> None:
        """Count findings, keep the first as examples, and put them on record."""
        for finding in findings:
            self._found[finding.kind] += finding.number
            self._examples.add(finding)
        recorded = [
            each for each in findings if each.kind is not FindingKind.EXTRA or self._scope.extra_fails
        ]
        for first in range(0, len(recorded), FINDINGS_PER_EVENT_MAX):
            batch = recorded[first : first + FINDINGS_PER_EVENT_MAX]
            data = {
                "run": self._run,
                "tier": self.tier.name.value,
                "findings": [[each.kind.value, each.ordinal, each.object_key, each.detail] for each in batch],
                "ordinals": sorted({each.ordinal for each in batch if each.ordinal is not None}),
            }
            await self._record(Kind.FINDING_RECORDED, data, source=source.id)

    async def _note_progress(self, cursor: int, *, at_once: bool = False) -> None:
        if not at_once and trio.current_time() - self._recorded_at < PROGRESS_SECONDS:
            return
        self._recorded_at = trio.current_time()
        data: dict[str, Any] = {
            "run": self._run,
            "tier": self.tier.name.value,
            "after_seq": cursor,
            "counts": {"checked": self.done, "right": dict(self._right), "found": dict(self._found)},
        }
        if self._right_ordinals:
            data["ordinals"] = self._right_ordinals
            self._right_ordinals = []
        await self._record(Kind.VERIFICATION_PROGRESSED, data, source=None)

    def _result(self, sample: SampledKeys | None, seconds: float) -> VerificationResult:
        counts = [source.counts for source in self._sources.values()]
        return VerificationResult(
            tier=self.tier.name.value,
            run=self._run,
            sample=sample,
            checked=self.done,
            right=dict(self._right),
            found=dict(self._found),
            unsettled=sum(each.planned_rows - each.settled for each in counts),
            skipped=sum(each.skipped for each in counts),
            extra_fails=self._scope.extra_fails,
            examples=self._examples.all(),
            seconds=seconds,
        )


def recorded_findings(journal: Journal, run: int, names: Mapping[int, str]) -> Iterator[Finding]:
    """Yield what a run has put on record, as far as it concerns the sources of these names by id."""
    for event in journal.events(kinds=[Kind.FINDING_RECORDED.value], after_seq=run):
        source = names.get(event.source or 0)
        if event.data["run"] == run and source is not None:
            for kind, ordinal, object_key, detail in event.data["findings"]:
                yield Finding(FindingKind(kind), source, object_key, ordinal=ordinal, detail=detail)


def recorded_result(journal: Journal, run: VerificationRun, names: Mapping[int, str]) -> VerificationResult:
    """Return what a finished run found, as it returned it then."""
    examples = Examples()
    for finding in recorded_findings(journal, run.seq, names):
        examples.add(finding)
    data = run.data
    return VerificationResult(
        tier=run.tier,
        run=run.seq,
        sample=run.sample,
        checked=data["checked"],
        right={Means(word): number for word, number in data["right"].items()},
        found={FindingKind(word): number for word, number in data["counts"].items()},
        unsettled=data["unsettled"],
        skipped=data["skipped"],
        extra_fails=data["extra_fails"],
        examples=examples.all(),
        seconds=(run.finished_us - run.started_us) / 1e6,
    )


def _finished_data(
    result: VerificationResult, started: Mapping[str, Any], bound: float | None
) -> dict[str, Any]:
    return {
        "run": result.run,
        "tier": result.tier,
        "until_seq": started["until_seq"],
        "sources": started["sources"],
        "sample": started["sample"],
        "checked": result.checked,
        "right": {means.value: number for means, number in result.right.items()},
        "by_md5": result.by_digest,
        "by_size": result.by_size,
        "missing": result.number(FindingKind.MISSING),
        "differing": result.number(FindingKind.DIFFERING),
        "extra": result.number(FindingKind.EXTRA),
        "extra_fails": result.extra_fails,
        "unsettled": result.unsettled,
        "skipped": result.skipped,
        "counts": {kind.value: number for kind, number in result.found.items()},
        "bound": None if bound is None else {"rate": bound, "confidence": CONFIDENCE},
        "exit_code": int(result.exit_code),
    }
