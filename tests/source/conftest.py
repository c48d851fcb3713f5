"""Sources over the embedded server: short timeouts, no patience unless asked for, deterministic jitter."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from random import Random
from typing import Any

import pytest

from daemon.config import PostgresConfig, SourceConfig
from daemon.source import PostgresSource, open_source

CUTOFF_US = 4_102_444_800_000_000
"""2100-01-01."""


def spec(table: str = "t", **changes: Any) -> SourceConfig:
    fields = {
        "name": "things",
        "schema_name": "public",
        "table_name": table,
        "key": ("id",),
        "created_at": "created_at",
        "value": "data",
        "bucket": "blobs",
        **changes,
    }
    return SourceConfig(**fields)


@dataclass(frozen=True)
class Opening:
    """Opens sources on one database."""

    dsn: str

    def __call__(
        self, dsn: str | None = None, *, give_up_after: float = 0.0, **settings: Any
    ) -> AbstractAsyncContextManager[PostgresSource]:
        config = PostgresConfig(dsn=dsn or self.dsn, **settings)
        return open_source(config, migration="test", give_up_after=give_up_after, random=Random(1))


@pytest.fixture
def opening(database) -> Opening:
    return Opening(database.dsn)
