"""A table in memory that changes while it is read, behind the same Protocols as PostgreSQL.

It has what planning can stumble over: blocks, row versions that move, relations that are rewritten, transactions
that commit late, prepared transactions, a clock, a standby's replay. Nothing in it knows how planning works.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field, replace

import trio

from daemon.config import SourceConfig
from daemon.errors import SourceUnfitError
from daemon.retrying import Failure
from daemon.rows import (
    Exclusions,
    FetchedRow,
    RowDigest,
    ServerFacts,
    SweptRange,
    SweptRow,
    TableFacts,
    Wanted,
)

SCAN_BATCH_ROWS = 5


@dataclass(eq=False)
class Version:
    """One version of a row in its slot; invisible until its transaction commits, gone once it is deleted."""

    key: str | None
    created_at: int | None
    value: bytes | None
    in_where: bool = True
    visible: bool = True


@dataclass
class Heap:
    filenode: int
    blocks: list[list[Version | None]] = field(default_factory=list)


class FakeTable:
    """Rows in heaps of `rows_per_block`; the first relation takes inserts unless another is named."""

    def __init__(
        self, *, relations: Sequence[int] = (16384,), rows_per_block: int = 2, unique: bool = True
    ) -> None:
        self.rows_per_block = rows_per_block
        self.unique = unique
        self.sweepable = True
        self.heaps = {relation: Heap(filenode=relation + 1000) for relation in relations}

    def insert(
        self,
        key: str | None,
        created_at: int | None,
        value: bytes | None = b"v",
        *,
        relation: int | None = None,
        in_where: bool = True,
        visible: bool = True,
    ) -> Version:
        version = Version(key, created_at, value, in_where, visible)
        self._place(version, next(iter(self.heaps)) if relation is None else relation)
        return version

    def delete(self, key: str) -> None:
        for heap in self.heaps.values():
            for block in heap.blocks:
                for slot, version in enumerate(block):
                    if version is not None and version.visible and version.key == key:
                        block[slot] = None

    def update(self, key: str, *, to_front: bool = False, **changes: object) -> None:
        """Write a new version, at the end or in the first free slot; the old one disappears."""
        (relation, old) = next(
            (relation, version) for relation, version in self._visible() if version.key == key
        )
        self.delete(key)
        self._place(replace(old, **changes), relation, to_front=to_front)

    def rewrite(self, relation: int | None = None) -> None:
        """As VACUUM FULL or CLUSTER do: a new file, rows compacted, here in the opposite order."""
        heap = self.heaps[next(iter(self.heaps)) if relation is None else relation]
        live = [version for block in heap.blocks for version in block if version is not None]
        heap.filenode += 100_000
        heap.blocks = []
        for version in reversed(live):
            self._append(heap, version)

    def copied(self) -> dict[int, Heap]:
        """Return the heaps as they are now; later changes don't show in them."""
        return {
            relation: Heap(heap.filenode, [list(block) for block in heap.blocks])
            for relation, heap in self.heaps.items()
        }

    def versions(self) -> list[Version]:
        """Every row that a snapshot taken now shows."""
        return [version for _, version in self._visible()]

    def _visible(self) -> list[tuple[int, Version]]:
        return [
            (relation, version)
            for relation, heap in self.heaps.items()
            for block in heap.blocks
            for version in block
            if version is not None and version.visible
        ]

    def _place(self, version: Version, relation: int, *, to_front: bool = False) -> None:
        heap = self.heaps[relation]
        if to_front:
            for block in heap.blocks:
                if None in block:
                    block[block.index(None)] = version
                    return
        self._append(heap, version)

    def _append(self, heap: Heap, version: Version) -> None:
        if not heap.blocks or len(heap.blocks[-1]) >= self.rows_per_block:
            heap.blocks.append([])
        heap.blocks[-1].append(version)


@dataclass(frozen=True)
class FakeWriters:
    now_us: int
    visible: bool
    pids: tuple[int, ...]
    prepared: tuple[str, ...]
    in_recovery: bool
    replay_us: int | None


@dataclass
class Transaction:
    """An open transaction: its rows take their slots at once and appear together at the commit."""

    table: FakeTable
    pid: int
    started_us: int
    versions: list[Version] = field(default_factory=list)
    gid: str | None = None
    ended: bool = False

    def insert(self, key: str, created_at: int, value: bytes = b"v") -> None:
        self.versions.append(self.table.insert(key, created_at, value, visible=False))

    def prepare(self, gid: str) -> None:
        self.gid = gid

    def commit(self) -> None:
        for version in self.versions:
            version.visible = True
        self.ended = True

    def abort(self) -> None:
        """End without a trace: what it wrote stays invisible."""
        self.ended = True


@dataclass
class FakeSource:
    """The whole source API over fake tables, keyed by table name.

    Attributes:
        clock_us: the server's clock.
        latency: virtual seconds that every statement takes.
        on_statement: called with a statement's name before it runs: the place to change tables or to fail.
        statements: names of the statements executed, in order.
    """

    tables: dict[str, FakeTable]
    clock_us: Callable[[], int]
    latency: float = 0.0
    visible: bool = True
    in_recovery: bool = False
    replay_us: int | None = None
    on_statement: Callable[[str], None] = lambda _name: None
    transactions: list[Transaction] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)

    def begin(self, table: str, *, started_us: int) -> Transaction:
        transaction = Transaction(self.tables[table], len(self.transactions) + 1, started_us)
        self.transactions.append(transaction)
        return transaction

    async def server(self) -> ServerFacts:
        await self._execute("server")
        return ServerFacts(
            "7300000000000000000", 1, 180000, "fake", "loopback", self.in_recovery, self.clock_us()
        )

    async def describe(self, spec: SourceConfig) -> TableFacts:
        await self._execute("describe")
        table = self._table(spec)
        blocks = {relation: len(heap.blocks) for relation, heap in table.heaps.items()}
        return TableFacts(
            oid=1,
            kind="table" if table.sweepable else "view",
            relations=tuple(blocks) if table.sweepable else (),
            blocks=blocks if table.sweepable else {},
            key_types=("text",) * len(spec.key),
            value_type="bytea",
            created_at_type="timestamp with time zone" if spec.created_at else None,
            unique="fake_pkey" if table.unique else None,
            estimated_rows=-1,
        )

    async def check_fetch_plan(self, spec: SourceConfig, facts: TableFacts) -> None:
        await self._execute("check_fetch_plan")

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
        await self._execute("sweep_range")
        heap = self._table(spec).heaps.get(relation, Heap(filenode=0))
        found = [
            version
            for block in heap.blocks[first_block:next_block]
            for version in block
            if version is not None and version.visible
        ]
        rows, excluded = _sorted_out(found, spec, cutoff_us)
        return SweptRange(relation, heap.filenode, first_block, next_block, len(found), rows, excluded)

    def scan(
        self, spec: SourceConfig, facts: TableFacts, *, cutoff_us: int
    ) -> AbstractAsyncContextManager[AsyncIterator[tuple[list[SweptRow], Exclusions, int]]]:
        return self._scan(spec, cutoff_us)

    @asynccontextmanager
    async def _scan(
        self, spec: SourceConfig, cutoff_us: int
    ) -> AsyncIterator[AsyncIterator[tuple[list[SweptRow], Exclusions, int]]]:
        await self._execute("snapshot")
        seen = [replace(version) for version in self._table(spec).versions()]

        async def batches() -> AsyncIterator[tuple[list[SweptRow], Exclusions, int]]:
            for first in range(0, len(seen), SCAN_BATCH_ROWS):
                await self._execute("scan_batch")
                batch = seen[first : first + SCAN_BATCH_ROWS]
                yield (*_sorted_out(batch, spec, cutoff_us), len(batch))

        yield batches()

    async def writers_before(self, cutoff_us: int) -> FakeWriters:
        await self._execute("writers_before")
        open_ones = [one for one in self.transactions if not one.ended]
        return FakeWriters(
            now_us=self.clock_us(),
            visible=self.visible and not self.in_recovery,
            pids=tuple(
                one.pid
                for one in open_ones
                if self.visible and one.gid is None and one.started_us < cutoff_us
            ),
            prepared=tuple(one.gid for one in open_ones if one.gid is not None),
            in_recovery=self.in_recovery,
            replay_us=self.replay_us,
        )

    async def fetch(
        self, spec: SourceConfig, facts: TableFacts, wanted: Sequence[Wanted]
    ) -> list[FetchedRow]:
        await self._execute("fetch")
        rows = {version.key: version for version in self._table(spec).versions()}
        found = []
        for one in wanted:
            version = rows.get(one.row_key)
            if version is None or (version.value is None and spec.null_value != "empty"):
                continue
            value = version.value or b""
            created_at = None if version.created_at is None else f"{version.created_at} us"
            fits = len(value) <= one.reserved
            found.append(FetchedRow(one.row_key, len(value), value if fits else None, created_at))
        return found

    async def row_digests(
        self, spec: SourceConfig, facts: TableFacts, row_keys: Sequence[str], *, with_sha256: bool
    ) -> dict[str, RowDigest]:
        await self._execute("row_digests")
        asked = set(row_keys)
        return {
            version.key: RowDigest(
                version.key,
                len(version.value),
                hashlib.md5(version.value, usedforsecurity=False).hexdigest(),
                hashlib.sha256(version.value).hexdigest() if with_sha256 else "",
            )
            for version in self._table(spec).versions()
            if version.key in asked and version.value is not None
        }

    async def count(self, spec: SourceConfig, cutoff_us: int) -> int:
        await self._execute("count")
        return len(self.in_scope(spec, cutoff_us))

    def in_scope(self, spec: SourceConfig, cutoff_us: int) -> set[str]:
        """Row keys that belong to the migration by its rule, told by the table alone: the tests' own checker."""
        return {row.row_key for row in _sorted_out(self._table(spec).versions(), spec, cutoff_us)[0]}

    def _table(self, spec: SourceConfig) -> FakeTable:
        return self.tables[spec.table_name]

    async def _execute(self, name: str) -> None:
        await trio.sleep(self.latency)
        self.statements.append(name)
        self.on_statement(name)


def fails(kind_of_failure: Failure, *, on: str, times: int = 1) -> Callable[[str], None]:
    """Return an `on_statement` that raises for the first `times` statements named `on`."""
    left = times

    def on_statement(name: str) -> None:
        nonlocal left
        if name == on and left:
            left -= 1
            raise kind_of_failure

    return on_statement


def _sorted_out(
    versions: Sequence[Version], spec: SourceConfig, cutoff_us: int
) -> tuple[list[SweptRow], Exclusions]:
    rows: list[SweptRow] = []
    excluded = Exclusions()
    for version in versions:
        created_at = version.created_at if spec.created_at else None
        if spec.where and not version.in_where:
            excluded.where += 1
        elif spec.created_at and created_at is None and spec.null_created_at != "include":
            excluded.null_created_at += 1
        elif created_at is not None and created_at >= cutoff_us:
            excluded.newer_than_cutoff += 1
        elif version.value is None and spec.null_value != "empty":
            excluded.null_value += 1
        elif version.key is None:
            raise SourceUnfitError(f"plan {spec.name}: 1 row has a NULL in its key")
        else:
            rows.append(SweptRow(version.key, created_at, len(version.value or b"")))
    return rows, excluded
