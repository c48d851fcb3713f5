"""Every current key with what became of it, page by page in the order of the plan: bounded memory at any number.

Each page is one short transaction, so a daemon goes on working. All pages tell of one moment, the head that was
fixed at the start: an outcome recorded later is left out, its key told as in flight.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from journal.events import Kind, decode, encode
from journal.lifecycle import OUTCOME_OF_CODE
from journal.verification_runs import VerificationRun, verification_runs

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

    from journal.reader import Reader

KEYS_PER_PAGE = 5000
"""Keys read in one transaction: some 50 ms, and some 10 MB."""
CACHED_OUTCOMES_MAX = 100_000
"""Outcomes of events kept for the next pages: keys settle about in the order of the plan, claim by claim."""
TIERS_WEAKEST_FIRST = ("receipts", "list", "head", "source", "content")
"""A stronger tier compares all that a weaker one does, or reads more of it; names are the journal's format."""

_RANK = {tier: rank for rank, tier in enumerate(TIERS_WEAKEST_FIRST)}
_COPIES = frozenset("SRP")
_WORDS = {code: outcome.value for code, outcome in OUTCOME_OF_CODE.items()}
_REMARKABLE = (
    Kind.ATTEMPT_FAILED.value,
    Kind.KEY_PARKED.value,
    Kind.FINDING_RECORDED.value,
    Kind.VERIFICATION_PROGRESSED.value,
    Kind.OUTCOMES_REVOKED.value,
)


class KeyRow(NamedTuple):
    """A planned key that no later plan replaces.

    Attributes:
        source: id.
        size: bytes copied, or planned where it is not settled.
        became: an outcome, or "parked", "in_flight", "waiting" (to be driven again), "unclaimed".
        attempts: failed ones on record, and the one that settled it.
        failure: class of the newest failure of a key that is not settled; `http_status`, `code` and `message` are
            its too.
        verified_tier: the strongest that found its object right; None if none did.
        finding: kind of the newest finding that nothing has refuted since; `finding_tier` is whose.
    """

    ordinal: int
    source: int
    row_key: str
    created_at: int | None
    size: int
    became: str
    md5: str
    etag: str | None
    version_id: str | None
    attempts: int
    failure: str | None
    http_status: int | None
    code: str | None
    message: str
    verified_tier: str | None
    finding: str | None
    finding_tier: str | None


@dataclass(frozen=True, slots=True)
class _Segment:
    source: int
    lo: int
    hi: int


class _Outcomes:
    """Rows of `outcomes_recorded`, decoded once and kept while they are likely to be asked for again."""

    def __init__(self) -> None:
        self._events: OrderedDict[int, dict[int, list[Any]]] = OrderedDict()
        self._rows = 0

    def of(self, connection: sqlite3.Connection, wanted: Mapping[int, set[int]]) -> dict[int, list[Any]]:
        """Return the rows by ordinal that `wanted` names by event."""
        found: dict[int, list[Any]] = {}
        unread = []
        for seq, ordinals in wanted.items():
            rows = self._events.get(seq)
            if rows is None:
                unread.append(seq)
                continue
            self._events.move_to_end(seq)
            found.update((ordinal, rows[ordinal]) for ordinal in ordinals)
        for seq, text in connection.execute(
            "SELECT e.seq, e.data FROM json_each(?) j CROSS JOIN event e ON e.seq = j.value",
            (encode(unread),),
        ):
            rows = {row[0]: row for row in decode(seq, text)}
            found.update((ordinal, rows[ordinal]) for ordinal in wanted[seq])
            self._keep(seq, rows)
        return found

    def _keep(self, seq: int, rows: dict[int, list[Any]]) -> None:
        self._events[seq] = rows
        self._rows += len(rows)
        while self._rows > CACHED_OUTCOMES_MAX:
            _, dropped = self._events.popitem(last=False)
            self._rows -= len(dropped)


def current_keys(
    reader: Reader, *, head_seq: int, planned_hi: int, keys_per_page: int = KEYS_PER_PAGE
) -> Iterator[list[KeyRow]]:
    """Yield every key of the plan up to `planned_hi` that no later plan up to there replaces, in the plan's order.

    Args:
        reader: of the journal.
        head_seq: the newest event to be told of.
        planned_hi: the highest ordinal planned by then.
        keys_per_page: most keys of one transaction.

    Raises:
        JournalError: as `Reader.read`.
    """
    segments, runs = reader.read(lambda connection: (_segments(connection), verification_runs(connection)))
    pages = _Pages(head_seq, planned_hi, [run for run in runs if run.finished_seq <= head_seq])
    for segment in segments:
        for lo in range(segment.lo, min(segment.hi, planned_hi) + 1, keys_per_page):
            hi = min(lo + keys_per_page - 1, segment.hi, planned_hi)
            yield reader.read(partial(pages.page, source=segment.source, lo=lo, hi=hi))


def planned_until(connection: sqlite3.Connection) -> int:
    """Return the highest ordinal planned so far; 0 where nothing is."""
    return int(connection.execute("SELECT coalesce(max(ordinal), 0) FROM plan").fetchone()[0])


def _segments(connection: sqlite3.Connection) -> list[_Segment]:
    return [
        _Segment(*row)
        for row in connection.execute("SELECT source, lo, hi FROM segment WHERE lo IS NOT NULL ORDER BY lo")
    ]


class _Pages:
    def __init__(self, head_seq: int, planned_hi: int, runs: Sequence[VerificationRun]) -> None:
        self._head_seq = head_seq
        self._planned_hi = planned_hi
        self._runs = sorted(runs, key=lambda run: run.finished_seq)
        self._outcomes = _Outcomes()

    def page(self, connection: sqlite3.Connection, source: int, lo: int, hi: int) -> list[KeyRow]:
        head_seq = self._head_seq
        planned = connection.execute(
            "SELECT p.ordinal, p.row_key, p.created_at, p.size, o.code, o.seq FROM plan p"
            " LEFT JOIN outcome o ON o.ordinal = p.ordinal AND o.seq <= ?"
            " WHERE p.ordinal BETWEEN ? AND ? ORDER BY p.ordinal",
            (head_seq, lo, hi),
        ).fetchall()
        replaced = {
            row[0]
            for row in connection.execute(
                "SELECT supersedes FROM plan WHERE supersedes BETWEEN ? AND ? AND ordinal <= ?",
                (lo, hi, self._planned_hi),
            )
        }
        wanted: dict[int, set[int]] = {}
        for ordinal, _, _, _, _, seq in planned:
            if seq is not None:
                wanted.setdefault(seq, set()).add(ordinal)
        details = self._outcomes.of(connection, wanted)
        remarks = _remarks(connection, lo, hi, head_seq)
        unsettled = _Unsettled(connection, lo, hi) if len(details) < len(planned) else None
        covering = {seq: self._covering(source, seq) for seq in wanted}
        strongest = {seq: _strongest(run.tier for run in runs) for seq, runs in covering.items()}
        rows = []
        for ordinal, row_key, created_at, size, code, seq in planned:
            if ordinal in replaced:
                continue
            remark = remarks.get(ordinal)
            if seq is None:
                rows.append(_left(ordinal, source, row_key, created_at, size, remark or _NOTHING, unsettled))
                continue
            detail = details[ordinal]
            tier = strongest[seq] if code in _COPIES else None
            found = None
            attempts = 1
            if remark is not None:
                attempts += remark.attempts
                if code in _COPIES:
                    tier, found = _judged(remark, seq, covering[seq], self._runs)
            rows.append(
                KeyRow(
                    ordinal,
                    source,
                    row_key,
                    created_at,
                    detail[2],
                    _WORDS[code],
                    detail[3],
                    detail[4] if len(detail) > 4 else None,
                    detail[5] if len(detail) > 5 else None,
                    attempts,
                    None,
                    None,
                    None,
                    "",
                    tier,
                    *(found or (None, None)),
                )
            )
        return rows

    def _covering(self, source: int, outcome_seq: int) -> list[VerificationRun]:
        return [run for run in self._runs if run.covers(source, outcome_seq)]


class _Unsettled:
    """Where the keys of a range stand that have no outcome."""

    def __init__(self, connection: sqlite3.Connection, lo: int, hi: int) -> None:
        self._stragglers: dict[int, tuple[str, str | None]] = {
            ordinal: (state, failure)
            for ordinal, state, failure in connection.execute(
                "SELECT ordinal, state, failure FROM straggler WHERE ordinal BETWEEN ? AND ?", (lo, hi)
            )
        }
        self._frontiers = connection.execute(
            "SELECT lo, frontier FROM segment WHERE lo IS NOT NULL AND lo <= ? AND hi >= ?", (hi, lo)
        ).fetchall()

    def state(self, ordinal: int) -> tuple[str, str | None]:
        """Return what became of it so far, and why it is parked if it is."""
        straggler = self._stragglers.get(ordinal)
        if straggler is not None:
            state, failure = straggler
            return ("in_flight" if state == "claimed" else state), failure
        claimed = any(lo <= ordinal < frontier for lo, frontier in self._frontiers)
        return ("in_flight" if claimed else "unclaimed"), None


class _Remark:
    """What is on record about a single key, beside its outcome."""

    __slots__ = ("attempts", "findings", "newest", "parked", "sampled")

    def __init__(self) -> None:
        self.attempts = 0
        self.newest: dict[str, Any] | None = None
        self.parked: dict[str, Any] | None = None
        self.findings: list[tuple[int, dict[str, Any]]] = []
        self.sampled: list[tuple[int, str]] = []


_NOTHING = _Remark()


def _remarks(connection: sqlite3.Connection, lo: int, hi: int, head_seq: int) -> dict[int, _Remark]:
    by_event: dict[int, list[int]] = {}
    for ordinal, seq in connection.execute(
        "SELECT ordinal, seq FROM key_event WHERE ordinal BETWEEN ? AND ? AND seq <= ?", (lo, hi, head_seq)
    ):
        by_event.setdefault(seq, []).append(ordinal)
    remarks: dict[int, _Remark] = {}
    if not by_event:
        return remarks
    for seq, kind, text in connection.execute(
        "SELECT e.seq, e.kind, e.data FROM json_each(?) j CROSS JOIN event e ON e.seq = j.value"
        " WHERE e.kind IN (SELECT value FROM json_each(?)) ORDER BY e.seq",
        (encode(sorted(by_event)), json.dumps(_REMARKABLE)),
    ):
        data = decode(seq, text)
        kinds = (
            {finding[1]: finding[0] for finding in data.get("findings", ())}
            if kind == Kind.FINDING_RECORDED
            else {}
        )
        for ordinal in by_event[seq]:
            remark = remarks.setdefault(ordinal, _Remark())
            if kind == Kind.ATTEMPT_FAILED:
                remark.attempts += 1
                remark.newest = data
            elif kind == Kind.KEY_PARKED:
                remark.parked = data
            elif kind == Kind.OUTCOMES_REVOKED:
                remark.parked = {"message": data.get("message", "")}
            elif kind == Kind.FINDING_RECORDED and ordinal in kinds:
                remark.findings.append(
                    (seq, {"run": data.get("run"), "tier": data.get("tier", "list"), "kind": kinds[ordinal]})
                )
            elif kind == Kind.VERIFICATION_PROGRESSED:
                remark.sampled.append((seq, data.get("tier", "")))
    return remarks


def _left(
    ordinal: int,
    source: int,
    row_key: str,
    created_at: int | None,
    size: int,
    remark: _Remark,
    unsettled: _Unsettled | None,
) -> KeyRow:
    assert unsettled is not None
    became, failure = unsettled.state(ordinal)
    attempt = remark.newest or {}
    if failure is not None and attempt.get("failure") != failure:
        # What it is parked for is no failed attempt: the status of an earlier one would mislead.
        attempt = {}
    message = (remark.parked or {}).get("message") if became == "parked" else attempt.get("message")
    return KeyRow(
        ordinal,
        source,
        row_key,
        created_at,
        size,
        became,
        "",
        None,
        None,
        remark.attempts,
        failure or attempt.get("failure"),
        attempt.get("http_status"),
        attempt.get("code"),
        str(message or ""),
        None,
        None,
        None,
    )


def _judged(
    remark: _Remark, outcome_seq: int, covering: Sequence[VerificationRun], runs: Sequence[VerificationRun]
) -> tuple[str | None, tuple[str, str] | None]:
    """Return the strongest tier that found a copied key right, and the newest finding that still stands.

    A finding stands until a later run of the same tier or a stronger one finds the key right.
    """
    findings = [(seq, found) for seq, found in remark.findings if seq > outcome_seq]
    clean = [
        (run.finished_seq, run.tier)
        for run in covering
        if not any(_of_run(seq, found, run, runs) for seq, found in findings)
    ] + [(seq, tier) for seq, tier in remark.sampled if seq > outcome_seq]
    tier = _strongest(tier for _, tier in clean)
    for seq, found in reversed(findings):
        refuted = any(
            later > seq and _RANK.get(clean_tier, -1) >= _RANK.get(found["tier"], -1)
            for later, clean_tier in clean
        )
        if not refuted:
            return tier, (str(found["kind"]), str(found["tier"]))
    return tier, None


def _of_run(
    seq: int, found: Mapping[str, Any], run: VerificationRun, runs: Sequence[VerificationRun]
) -> bool:
    """Say whether a finding is of `run`; those of an earlier program don't name it, and lie before its end."""
    if found["run"] is not None:
        return bool(found["run"] == run.seq)
    before = max((one.finished_seq for one in runs if one.finished_seq < run.finished_seq), default=0)
    return before < seq < run.finished_seq


def _strongest(tiers: Iterator[str]) -> str | None:
    return max((tier for tier in tiers if tier in _RANK), key=_RANK.__getitem__, default=None)
