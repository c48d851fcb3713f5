"""Verify by listing: every stored or present key is in the bucket with its size and, where it can be told, MD5.

Reads the journal and lists the bucket, 1000 keys a request; changes neither (guards I13) but for the events
that say what was found. Memory is bounded: the listing goes to a file (`daemon.verification_stage`), the
journal is read in pages.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import trio

from daemon.budget import Silence
from daemon.comparing import EXAMPLES_MAX, Finding, FindingKind, Means, VerificationResult, compare
from daemon.errors import BackfillError, ConfigError, ExitCode, RefusedError, UnreachableError
from daemon.layouts import object_key, row_key_of
from daemon.log_events import LogEvent, log_event
from daemon.objects import PROBE_KEY_NAME
from daemon.retrying import Decision, Disposition, Failure, FailureClass, decide
from daemon.verification_stage import ListingStage
from journal.events import Kind
from journal.lifecycle import SETTLED, KeyState

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from random import Random

    from daemon.layouts import Layout
    from daemon.objects import ListedObject
    from journal.entries import Known, SourceCounts
    from journal.reader import ExpectedObject, ObjectPage


TIER = "list"
"""The name of this tier in events."""
EXPECTED_PAGE = 5000
"""Outcomes read from the journal at once."""
FINDINGS_PER_EVENT_MAX = 500
"""Findings in one event: a bucket that is wrong altogether must not cost a commit per key."""
LISTED_PER_LINE = 100_000
"""A log line each time so many objects were listed."""
_OF_A_PLANNED_KEY = frozenset({KeyState.PLANNED, KeyState.IN_FLIGHT, KeyState.PARKED, KeyState.SKIPPED})
"""States in which an object under the key is accounted for, although nobody compared it."""


class Lister(Protocol):
    """The bucket, as verification needs it: it can only be listed."""

    async def list_page(
        self, bucket: str, prefix: str, *, token: str | None
    ) -> tuple[list[ListedObject], str | None]:
        """Return a page of the objects under `prefix` and the next token, None on the last; raises Failure."""

    async def refresh_credentials(self) -> None:
        """Fetch credentials anew."""


class Expected(Protocol):
    """The journal, as verification reads it (`journal.reader.Reader`)."""

    def objects(self, *, after_seq: int = 0, limit: int = EXPECTED_PAGE) -> ObjectPage:
        """Return a page of stored and present keys, in the order of their outcomes."""


class RecordNote(Protocol):
    """Writes one event; committed when it returns."""

    async def __call__(self, kind: Kind, data: Mapping[str, Any], /, *, source: int | None) -> None:
        """Raise JournalError if it can't be written."""


@dataclass(frozen=True, slots=True)
class VerifiedSource:
    """Where the objects of one source are; no two sources have the same or nested (bucket, prefix)."""

    id: int
    name: str
    bucket: str
    layout: Layout
    counts: SourceCounts


@dataclass(frozen=True, slots=True)
class ListingPolicy:
    """How failed LIST requests are retried: `upload.max_attempts`, `upload.give_up_after` (s), and the jitter."""

    max_attempts: int
    give_up_after: float
    random: Random


class Verification:
    """One verification by listing of some sources against one journal.

    The caller holds the journal's lock: nothing is stored or re-planned meanwhile.
    """

    def __init__(
        self,
        sources: Sequence[VerifiedSource],
        expected: Expected,
        lister: Lister,
        *,
        latest: Callable[[int, Sequence[str]], Mapping[str, Known]],
        record: RecordNote,
        policy: ListingPolicy,
        extra_fails: bool,
    ) -> None:
        """Prepare.

        Args:
            sources: every source of the journal.
            expected: pages of what must be in the bucket.
            lister: the bucket.
            latest: tells the newest plan of some row keys of a source (`Journal.latest`; needs its index).
            record: writes an event.
            policy: for failed requests.
            extra_fails: objects that no row accounts for are a mismatch, and named in the journal.
        """
        self._sources = {source.id: source for source in sources}
        self._expected = expected
        self._lister = lister
        self._latest = latest
        self._record = record
        self._policy = policy
        self._extra_fails = extra_fails
        self._means: Counter[Means] = Counter()
        self._found: Counter[FindingKind] = Counter()
        self._examples: list[Finding] = []

    async def run(self, journal: Path) -> VerificationResult:
        """List, compare, and record what was found; the listing is staged beside the file `journal`.

        Raises:
            RefusedError: the bucket may not be listed, or is not there.
            UnreachableError: the endpoint did not answer.
            BackfillError: it answered nothing of use, however often it was asked.
            JournalError: from reading the journal or writing an event.
        """
        begun = trio.current_time()
        await self._record(
            Kind.VERIFICATION_STARTED, {"tier": TIER, "extra_fails": self._extra_fails}, source=None
        )
        with ListingStage(journal) as stage:
            for source in self._sources.values():
                await self._list(stage, source)
            await self._compare(stage)
            for source in self._sources.values():
                await self._sift_leftovers(stage, source)
        counts = [source.counts for source in self._sources.values()]
        missing, differing = self._found[FindingKind.MISSING], self._found[FindingKind.DIFFERING]
        result = VerificationResult(
            checked=self._means.total() + missing + differing,
            by_md5=self._means[Means.MD5],
            by_size=self._means[Means.SIZE],
            missing=missing,
            differing=differing,
            extra=self._found[FindingKind.EXTRA],
            unsettled=sum(each.planned_rows - each.settled for each in counts),
            skipped=sum(each.skipped for each in counts),
            extra_fails=self._extra_fails,
            examples=tuple(self._examples),
            seconds=trio.current_time() - begun,
        )
        await self._record(Kind.VERIFICATION_FINISHED, _finished_data(result), source=None)
        return result

    async def _list(self, stage: ListingStage, source: VerifiedSource) -> None:
        listed = 0
        token: str | None = None
        while True:
            objects, token = await _list_page(
                self._lister,
                source.bucket,
                source.layout.prefix,
                token,
                subject=source.name,
                policy=self._policy,
            )
            stage.add(source.id, objects)
            before, listed = listed, listed + len(objects)
            if listed // LISTED_PER_LINE > before // LISTED_PER_LINE:
                log_event(
                    LogEvent.BUCKET_LISTED,
                    f"{source.name}: listed {listed} objects so far",
                    source=source.name,
                    bucket=source.bucket,
                    objects=listed,
                    complete=False,
                )
            if token is None:
                break
        stage.mark(source.id, [source.layout.prefix + PROBE_KEY_NAME])
        log_event(
            LogEvent.BUCKET_LISTED,
            f"{source.name}: listed {listed} objects of bucket {source.bucket}",
            source=source.name,
            bucket=source.bucket,
            objects=listed,
            complete=True,
        )

    async def _compare(self, stage: ListingStage) -> None:
        after_seq: int | None = 0
        while after_seq is not None:
            page = self._expected.objects(after_seq=after_seq, limit=EXPECTED_PAGE)
            for source in self._sources.values():
                rows = [row for row in page.objects if row.source == source.id]
                await self._tell(source, self._compare_rows(stage, source, rows))
            after_seq = page.next_after_seq
            await trio.lowlevel.checkpoint()

    def _compare_rows(
        self, stage: ListingStage, source: VerifiedSource, rows: Sequence[ExpectedObject]
    ) -> list[Finding]:
        keys = {row.ordinal: object_key(source.layout, row.row_key) for row in rows}
        listed = stage.find(source.id, keys.values())
        stage.mark(source.id, listed)
        missing: list[Finding] = []
        differing: list[Finding] = []
        for row in rows:
            key = keys[row.ordinal]
            if key not in listed:
                missing.append(Finding(FindingKind.MISSING, source.name, key, row.ordinal, row.row_key))
                continue
            means, difference = compare(listed[key], size=row.size, md5=row.md5, etag=row.etag)
            if difference:
                differing.append(
                    Finding(FindingKind.DIFFERING, source.name, key, row.ordinal, row.row_key, difference)
                )
            else:
                self._means[means] += 1
        return missing + self._not_being_replaced(source, differing)

    def _not_being_replaced(self, source: VerifiedSource, differing: list[Finding]) -> list[Finding]:
        """Leave out objects whose row has changed and is planned again: the new bytes may have arrived already.

        They count as unsettled, as the later plan of their key does.
        """
        if not differing:
            return []
        latest = self._latest(source.id, [finding.row_key or "" for finding in differing])
        return [
            finding
            for finding in differing
            if (known := latest[finding.row_key or ""]).ordinal == finding.ordinal or known.state in SETTLED
        ]

    async def _sift_leftovers(self, stage: ListingStage, source: VerifiedSource) -> None:
        """Tell objects that no row accounts for from those under keys that are planned, but were not compared."""
        for page in stage.leftovers(source.id):
            row_keys = {item.key: row_key for item in page if (row_key := _row_key(source, item)) is not None}
            planned = self._latest(source.id, list(row_keys.values()))
            accounted = {row_key for row_key, known in planned.items() if known.state in _OF_A_PLANNED_KEY}
            findings = [
                Finding(FindingKind.EXTRA, source.name, item.key, detail=f"{item.size} bytes")
                for item in page
                if row_keys.get(item.key) not in accounted
            ]
            await self._tell(source, findings)
            await trio.lowlevel.checkpoint()

    async def _tell(self, source: VerifiedSource, findings: Sequence[Finding]) -> None:
        """Count findings, keep the first as examples, and put them on record."""
        for finding in findings:
            self._found[finding.kind] += 1
            if self._found[finding.kind] <= EXAMPLES_MAX:
                self._examples.append(finding)
        recorded = [each for each in findings if each.kind is not FindingKind.EXTRA or self._extra_fails]
        for first in range(0, len(recorded), FINDINGS_PER_EVENT_MAX):
            batch = recorded[first : first + FINDINGS_PER_EVENT_MAX]
            await self._record(Kind.FINDING_RECORDED, _finding_data(batch), source=source.id)


def _row_key(source: VerifiedSource, item: ListedObject) -> str | None:
    try:
        return row_key_of(source.layout, item.key)
    except ValueError:
        return None


def _finding_data(findings: Sequence[Finding]) -> dict[str, Any]:
    ordinals = [finding.ordinal for finding in findings if finding.ordinal is not None]
    return {
        "tier": TIER,
        "findings": [
            [finding.kind.value, finding.ordinal, finding.object_key, finding.detail] for finding in findings
        ],
        "ordinals": [*ordinals],
    }


def _finished_data(result: VerificationResult) -> dict[str, Any]:
    return {
        "tier": TIER,
        "checked": result.checked,
        "by_md5": result.by_md5,
        "by_size": result.by_size,
        "missing": result.missing,
        "differing": result.differing,
        "extra": result.extra,
        "extra_fails": result.extra_fails,
        "unsettled": result.unsettled,
        "skipped": result.skipped,
        "exit_code": int(result.exit_code),
    }


async def _list_page(
    lister: Lister, bucket: str, prefix: str, token: str | None, *, subject: str, policy: ListingPolicy
) -> tuple[list[ListedObject], str | None]:
    """Return one page and the token of the next, tried again as `policy` says.

    Raises:
        RefusedError: the bucket may not be listed, or is not there.
        UnreachableError: the endpoint did not answer.
        BackfillError: it answered nothing of use, however often it was asked.
    """
    silence = Silence()
    answers = failures = 0
    refreshed = False
    while True:
        try:
            return await lister.list_page(bucket, prefix, token=token)
        except Failure as failure:
            failures += 1
            answers += failure.counted
            if failure.counted:
                silence.broken()
            decision = decide(
                failure,
                answers=answers,
                failures=failures,
                max_attempts=policy.max_attempts,
                silent_seconds=0.0 if failure.counted else silence.unanswered(trio.current_time()),
                give_up_after=policy.give_up_after,
                jitter=policy.random.random(),
                refreshed=refreshed,
            )
            if decision.disposition is not Disposition.RETRY:
                raise _given_up(f"list bucket {bucket} for source {subject}", failure, decision) from failure
            log_event(
                LogEvent.LIST_FAILED,
                f"{subject}: LIST failed, trying again: {failure.message}",
                source=subject,
                failure=failure.kind.value,
                http_status=failure.http_status,
                request_id=failure.request_id,
            )
            if failure.kind in {FailureClass.FORBIDDEN, FailureClass.EXPIRED_CREDENTIALS}:
                await lister.refresh_credentials()
                refreshed = True
        await trio.sleep(decision.delay)


def _given_up(operation: str, failure: Failure, decision: Decision) -> BackfillError:
    problem = f"{operation}: {failure.message}"
    if decision.disposition is Disposition.PARK:
        return BackfillError(problem, "run `backfillctl check`; the listing answered nothing of use")
    if decision.exit_code is ExitCode.UNREACHABLE:
        return UnreachableError(
            problem, "check s3.endpoint and the network, then run `backfillctl verify` again"
        )
    if decision.exit_code is ExitCode.REFUSED:
        return RefusedError(problem, "`backfillctl check --iam` prints the rights needed (s3:ListBucket)")
    return ConfigError([problem], "check s3.region and s3.endpoint")
