"""Estimate what a migration will move and cost, before anything is moved; pure."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from daemon.rows import Exclusions

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

LIST_KEYS_PER_REQUEST = 1000
"""Keys in one answer of ListObjectsV2 (Amazon S3 API Reference, `max-keys`)."""
PUT_DOLLARS_PER_1000 = 0.005
"""PUT requests, S3 Standard, us-east-1, list price (aws.amazon.com/s3/pricing)."""
LIST_DOLLARS_PER_1000 = 0.005
"""LIST requests, same page."""
GET_DOLLARS_PER_1000 = 0.0004
"""GET and HEAD requests, same page."""
STORAGE_DOLLARS_PER_GB_MONTH = 0.023
"""First 50 TB a month, same page; a GB there is 2**30 bytes."""


@dataclass(frozen=True, slots=True)
class SizeClass:
    """Rows whose size lies in [`low`, `high`], in bytes: a power of two up to just below the next."""

    low: int
    high: int
    rows: int
    size: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """What copying one source would mean, as one scan without side effects saw it.

    Attributes:
        seen: rows the scan returned, excluded ones included.
        excluded: rows left out, by reason.
        rows, size: rows to copy and the bytes of their values.
        largest: bytes of the largest value.
        histogram: size classes that have rows, smallest first.
        unusable: rows whose object key S3 servers would mangle or refuse; they would be parked.
        put_requests: one for each usable row, retries and comparisons with existing objects apart.
        head_requests: one for each usable row, where the endpoint doesn't honour If-None-Match; priced apart.
        list_requests: for one verification of the result alone.
    """

    seen: int
    excluded: dict[str, int]
    rows: int
    size: int
    largest: int
    histogram: tuple[SizeClass, ...]
    unusable: int
    unusable_example: str | None
    put_requests: int
    head_requests: int
    list_requests: int

    @property
    def put_dollars(self) -> float:
        """List price of the PUTs."""
        return self.put_requests * PUT_DOLLARS_PER_1000 / 1000

    @property
    def head_dollars(self) -> float:
        """List price of the HEADs, should they be needed."""
        return self.head_requests * GET_DOLLARS_PER_1000 / 1000

    @property
    def list_dollars(self) -> float:
        """List price of the LISTs of one verification."""
        return self.list_requests * LIST_DOLLARS_PER_1000 / 1000

    @property
    def storage_dollars_per_month(self) -> float:
        """List price of keeping the objects for a month."""
        return self.size / 2**30 * STORAGE_DOLLARS_PER_GB_MONTH


@dataclass(slots=True)
class Tally:
    """Adds up scanned ranges; bounded memory, whatever the number of rows."""

    seen: int = 0
    excluded: Exclusions = field(default_factory=Exclusions)
    largest: int = 0
    rows_by_class: Counter[int] = field(default_factory=Counter)
    size_by_class: Counter[int] = field(default_factory=Counter)
    unusable: int = 0
    unusable_example: str | None = None

    def add_sizes(self, sizes: Iterable[int]) -> None:
        """Count values of these sizes in bytes."""
        for size in sizes:
            power = size.bit_length()
            self.rows_by_class[power] += 1
            self.size_by_class[power] += size
            self.largest = max(self.largest, size)

    def add(self, other: Tally) -> None:
        """Add the counts of another tally."""
        self.seen += other.seen
        self.excluded.add(other.excluded)
        self.largest = max(self.largest, other.largest)
        self.rows_by_class.update(other.rows_by_class)
        self.size_by_class.update(other.size_by_class)
        self.unusable += other.unusable
        self.unusable_example = self.unusable_example or other.unusable_example

    def estimate(self) -> Estimate:
        """Turn the counts into requests and size classes."""
        rows = self.rows_by_class.total()
        usable = rows - self.unusable
        return Estimate(
            seen=self.seen,
            excluded=self.excluded.as_dict(),
            rows=rows,
            size=self.size_by_class.total(),
            largest=self.largest,
            histogram=_classes(self.rows_by_class, self.size_by_class),
            unusable=self.unusable,
            unusable_example=self.unusable_example,
            put_requests=usable,
            head_requests=usable,
            list_requests=-(-usable // LIST_KEYS_PER_REQUEST),
        )


def total(estimates: Sequence[Estimate]) -> Estimate:
    """Add estimates of several sources up; each is verified by listings of its own."""
    excluded: Counter[str] = Counter()
    rows: Counter[int] = Counter()
    sizes: Counter[int] = Counter()
    for estimate in estimates:
        excluded.update(estimate.excluded)
        for size_class in estimate.histogram:
            power = size_class.high.bit_length()
            rows[power] += size_class.rows
            sizes[power] += size_class.size
    return Estimate(
        seen=sum(one.seen for one in estimates),
        excluded=dict(excluded),
        rows=rows.total(),
        size=sizes.total(),
        largest=max((one.largest for one in estimates), default=0),
        histogram=_classes(rows, sizes),
        unusable=sum(one.unusable for one in estimates),
        unusable_example=next((one.unusable_example for one in estimates if one.unusable_example), None),
        put_requests=sum(one.put_requests for one in estimates),
        head_requests=sum(one.head_requests for one in estimates),
        list_requests=sum(one.list_requests for one in estimates),
    )


def _classes(rows: Mapping[int, int], sizes: Mapping[int, int]) -> tuple[SizeClass, ...]:
    return tuple(
        SizeClass(low=1 << power >> 1, high=(1 << power) - 1, rows=rows[power], size=sizes[power])
        for power in sorted(rows)
    )
