"""Describe a source's table: ask the catalogue, judge, and let the server try the statements to come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from daemon import catalogue
from daemon.errors import RefusedError, SourceUnfitError
from daemon.retrying import Failure, FailureClass
from daemon.row_queries import RowQueries

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from contextlib import AbstractAsyncContextManager

    from daemon.config import SourceConfig
    from daemon.rows import TableFacts


class Session(Protocol):
    """One connection to PostgreSQL; see daemon/source.py."""

    backend_pid: int

    @property
    def where(self) -> str:
        """Which server, for messages."""

    async def fetch(
        self, sql: str, *arguments: Any, operation: str, local: Mapping[str, str] | None = None
    ) -> list[Any]:
        """Run one statement and return its rows; raises Failure or BackfillError."""

    async def value(self, sql: str, *arguments: Any, operation: str) -> Any:
        """Run one statement and return its first row's first column."""

    def scan(
        self, sql: str, *arguments: Any, operation: str
    ) -> AbstractAsyncContextManager[AsyncIterator[list[Any]]]:
        """Read through a cursor in one snapshot, batch by batch."""


async def describe(session: Session, spec: SourceConfig) -> TableFacts:
    """Return what the catalogue says of the source's table; none of its rows is read.

    Whether keys hold a NULL is left to the scans, which see every row anyway.

    Raises:
        SourceUnfitError: lists everything that keeps the source from being migrated.
        RefusedError: the same, where all that is missing are rights.
        Failure: the server did not answer all questions, or not these.
    """
    try:
        return await _describe(session, spec)
    except LookupError as error:
        problem = (
            f"describe from PostgreSQL at {session.where}: the answer is garbled (a column has another name)"
        )
        raise Failure(FailureClass.GARBLED, "DESCRIBE", problem) from error


async def _describe(session: Session, spec: SourceConfig) -> TableFacts:
    async def rows(sql: str, *arguments: Any) -> list[Any]:
        return await session.fetch(sql, *arguments, operation="DESCRIBE")

    judgement = catalogue.judgement_of(spec)
    (asked,) = await rows(catalogue.ASKED)
    relations = await rows(catalogue.RELATION, spec.schema_name, spec.table_name)
    relation = relations[0] if relations else None
    catalogue.judge_relation(relation, judgement, database=asked["database"], user=asked["user"])
    columns: dict[str, Any] = {}
    if relation is not None:
        columns = {column["name"]: column for column in await rows(catalogue.COLUMNS, relation["oid"])}
        catalogue.judge_columns(spec, columns, judgement, user=asked["user"])
    if spec.created_at_zone is not None and not await _known_zone(session, spec.created_at_zone):
        judgement.unfit_for(
            f"the server knows no time zone {spec.created_at_zone!r}", "name one of pg_timezone_names"
        )
    judgement.raise_if_any()
    assert relation is not None
    indexes = await rows(catalogue.UNIQUE_INDEXES, relation["oid"])
    heaps = await rows(catalogue.HEAPS, relation["oid"])
    facts = catalogue.table_facts(spec, relation, columns, indexes, heaps, version=asked["version"])
    queries = RowQueries(spec, facts, utf8=asked["encoding"] == "UTF8")
    await _try(session, queries)
    return facts


async def _known_zone(session: Session, zone: str) -> bool:
    try:
        await session.fetch(catalogue.ZONE, zone, operation="DESCRIBE")
    except Failure as failure:
        if failure.kind is not FailureClass.UNSUITABLE_VALUE:
            raise
        return False
    return True


async def _try(session: Session, queries: RowQueries) -> None:
    """Let the server parse `where` and check every right, at no cost."""
    cutoff = [0] if queries.dated else []
    spec = queries.spec
    try:
        await session.fetch(f"{queries.scan()} LIMIT 0", *cutoff, operation="DESCRIBE")
    except (RefusedError, SourceUnfitError) as error:
        fragment = f" (where = {spec.where!r})" if spec.where else ""
        problem = f'source "{spec.name}" ({queries.table.sql}): it can\'t be read{fragment}: {error.problem}'
        raise type(error)(problem, error.hint) from error


def null_keys_error(count: int, queries: RowQueries) -> SourceUnfitError:
    """Return the refusal of a source with `count` rows that have no key."""
    spec = queries.spec
    condition = " AND ".join(f'"{name}" IS NOT NULL' for name in spec.key)
    return SourceUnfitError(
        f'source "{spec.name}" ({queries.table.sql}): {count} rows have a NULL in their key ({", ".join(spec.key)})',
        f"leave them out: source.where = '{condition}', or name other key columns",
    )
