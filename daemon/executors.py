"""Put together what copies, from the configuration: the same in the one process and in each of several."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from daemon.activity import Activity
from daemon.config import Config, SourceConfig
from daemon.fetching import CopySource, FetchPolicy
from daemon.instruments import Instruments
from daemon.layouts import layout_of
from daemon.rows import FetchedRow, TableFacts, Wanted
from daemon.runtime import Runtime
from daemon.uploader import Destination, Target, Uploader, UploadPolicy
from journal.entries import AttemptFailed


class ValueSource(Protocol):
    """PostgreSQL, as whoever reads values needs it."""

    async def fetch(
        self, spec: SourceConfig, facts: TableFacts, wanted: Sequence[Wanted]
    ) -> list[FetchedRow]:
        """Return the rows that still exist; raises Failure."""


def copy_sources(
    config: Config,
    end: ValueSource,
    *,
    ids: Mapping[str, int],
    tables: Mapping[str, TableFacts],
    destinations: Mapping[str, Destination],
    instruments: Instruments,
) -> list[CopySource]:
    """Return each source of `config`, ready to be copied; everything by its name, fetches timed."""

    async def fetch(spec: SourceConfig, wanted: Sequence[Wanted]) -> list[FetchedRow]:
        with instruments.request("FETCH"):
            return await end.fetch(spec, tables[spec.name], wanted)

    return [
        CopySource(
            id=ids[spec.name],
            name=spec.name,
            fetch=functools.partial(fetch, spec),
            layout=layout_of(spec),
            destination=destinations[spec.name],
        )
        for spec in config.sources
    ]


def fetch_policy(config: Config) -> FetchPolicy:
    """Return how often and how long failing fetches are borne."""
    return FetchPolicy(config.upload.max_attempts, config.upload.give_up_after)


def uploader_of(
    config: Config,
    target: Target,
    migration_id: str,
    activity: Activity,
    runtime: Runtime,
    *,
    record: Callable[[AttemptFailed], Awaitable[None]],
) -> Uploader:
    """Return what brings single rows into `target`, as the configuration says."""
    return Uploader(
        target,
        UploadPolicy(
            migration_id=migration_id,
            existing=config.s3.existing,
            max_attempts=config.upload.max_attempts,
            give_up_after=config.upload.give_up_after,
            etag_is_md5=config.s3.sse in {None, "AES256"},
        ),
        record=record,
        random=runtime.random,
        digest_runner=runtime.digest_runner,
        activity=activity,
    )
