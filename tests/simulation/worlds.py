"""What a seed stands for: tables, objects that are there already, a configuration, and how rough the weather is."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from unittest.mock import patch

import daemon.fetching
import daemon.passes
import daemon.pipeline
import daemon.recorder
import daemon.scanning
from daemon.config import (
    Config,
    MaxFailures,
    MigrationConfig,
    PostgresConfig,
    S3Config,
    SourceConfig,
    ThrottleConfig,
    UploadConfig,
)
from daemon.rows import INFINITY_US, MINUS_INFINITY_US
from journal.checkpoint import Order
from tests.planning.fake_source import FakeTable
from tests.s3_fake import ENDPOINT, REGION
from tests.simulation.weather import Weather, drawn_weather, theme_of

START_US = 1_700_000_000_000_000
SECOND_US = 1_000_000


@dataclass(frozen=True)
class Scale:
    """The program's own batch sizes, made small so that small tables have many batches."""

    fetch_batch: int
    chunk: int
    range_blocks: int
    batch_rows: int
    group: int

    @contextmanager
    def applied(self) -> Iterator[None]:
        with ExitStack() as stack:
            for module, name, value in (
                (daemon.fetching, "FETCH_BATCH_KEYS_MAX", self.fetch_batch),
                (daemon.pipeline, "FETCH_BATCH_KEYS_MAX", self.fetch_batch),
                (daemon.passes, "CHUNK_KEYS_MAX", self.chunk),
                (daemon.scanning, "RANGE_BLOCKS_FIRST", self.range_blocks),
                (daemon.scanning, "RANGE_ROWS_TARGET", self.batch_rows),
                (daemon.recorder, "GROUP_MAX", self.group),
            ):
                assert hasattr(module, name)
                stack.enter_context(patch.object(module, name, value))
            yield


@dataclass
class Row:
    key: str
    created_at: int | None
    value: bytes | None
    in_where: bool = True


@dataclass
class World:
    """One migration and all that surrounds it at its beginning.

    Attributes:
        foreign: (bucket, object key) to the bytes that someone else put there, and its encryption.
        visible: other sessions' transactions can be seen, so closing can be proven.
    """

    seed: int
    config: Config
    scale: Scale
    weather: Weather
    rows: dict[str, list[Row]]
    tables: dict[str, FakeTable]
    foreign: dict[tuple[str, str], tuple[bytes, str | None]] = field(default_factory=dict)
    conditions: str = "atomic"
    versioned: bool = False
    visible: bool = True


def object_key(spec: SourceConfig, row_key: str) -> str:
    """Name the object of a row, by the rule of the documentation rather than by the program's code."""
    name = "/".join(json.loads(row_key)) if len(spec.key) > 1 else row_key
    if spec.layout == "tiered":
        for width in (6, 4, 2):
            if len(name) >= width:
                name = "".join(f"{name[at : at + 2].replace('/', '_')}/" for at in range(0, width, 2)) + name
                break
    return spec.prefix + name


def effective(spec: SourceConfig, value: bytes | None) -> bytes | None:
    """Return the bytes that a row's value stands for; None where the row is left out."""
    return b"" if value is None and spec.null_value == "empty" else value


def value_of(rng: Random, label: str, size: int) -> bytes:
    """Return `size` bytes that no other value shares (unless too few)."""
    text = f"{label}:{rng.getrandbits(48):012x}:".encode()
    return (text * (size // len(text) + 1))[:size]


def make_world(seed: int, journal: Path) -> World:
    """Draw a world."""
    rng = Random(f"world {seed}")
    budget = rng.choice([2_000, 5_000, 20_000])
    sources = [_source(rng, number) for number in range(rng.randint(1, 3))]
    rows = {spec.name: _rows(rng, spec, budget) for spec in sources}
    sse = rng.choices([None, "AES256", "aws:kms"], [8, 1, 1])[0]
    existing = rng.choices(["compare", "overwrite", "skip"], [7, 2, 1])[0]
    theme = theme_of(seed)
    config = Config(
        migration=MigrationConfig(
            name=f"sim-{seed}",
            journal=journal,
            cutoff_us=rng.choice([None, START_US - 5 * SECOND_US]),
            order=rng.choice([Order.NEWEST_FIRST, Order.OLDEST_FIRST]),
        ),
        postgres=PostgresConfig(connections=rng.randint(2, 4), late_grace=20.0, statement_timeout=10.0),
        s3=S3Config(endpoint=ENDPOINT, region=REGION, bucket="bucket", existing=existing, sse=sse),
        upload=UploadConfig(
            concurrency=rng.choice([1, 2, 4, 8]),
            max_attempts=rng.choice([3, 8]),
            max_failures=rng.choice([MaxFailures(count=100), MaxFailures(count=4)]),
            give_up_after=rng.choice([20.0, 300.0]),
            drain_deadline=rng.choice([0.0, 0.05, 1.0, 30.0]),
            key_batch_size=rng.choice([1, 5, 30, 1000]),
            checkpoint_interval_secs=rng.choice([20, 3600, 3600, 3600, 3600]),
        ),
        sources=tuple(sources),
    )
    # The smallest budget that a configuration may name, 1 MiB, would need values of megabytes.
    upload = config.upload.model_copy(update={"max_in_flight": budget})
    throttle = ThrottleConfig(
        active_sessions=5, active_sessions_hibernate=20, check_interval=1.0, hibernate=10.0
    )
    config = config.model_copy(
        update={"upload": upload, "throttle": throttle if theme == "throttle" else config.throttle}
    )
    return World(
        seed=seed,
        config=config,
        scale=Scale(
            fetch_batch=rng.choice([2, 5, 16, 64]),
            chunk=rng.choice([3, 7, 20, 10_000]),
            range_blocks=rng.choice([1, 2, 8]),
            batch_rows=rng.choice([6, 20, 50_000]),
            group=rng.choice([2, 10, 1000]),
        ),
        weather=drawn_weather(rng, theme),
        rows=rows,
        tables={spec.table_name: _table(rng, rows[spec.name]) for spec in sources},
        foreign=_foreign(rng, sources, rows),
        conditions="atomic"
        if theme == "race"
        else rng.choices(["atomic", "ignored", "refused"], [8, 1, 1])[0],
        versioned=rng.random() < 0.15,
        visible=rng.random() < 0.85,
    )


def _source(rng: Random, number: int) -> SourceConfig:
    return SourceConfig(
        name=f"s{number}",
        schema_name="public",
        table_name=f"t{number}",
        bucket=rng.choice(["bucket", "bucket", "other"]),
        key=rng.choice([("id",), ("id",), ("tenant", "id")]),
        created_at=rng.choices(["created_at", None], [6, 1])[0],
        value="data",
        where=rng.choice([None, None, "wanted"]),
        null_created_at=rng.choice(["include", "exclude"]),
        null_value=rng.choice(["exclude", "empty"]),
        prefix=f"p{number}/",
        layout=rng.choice(["flat", "tiered"]),
    )


_ODD_NAMES = ("a b", "50%", "1+1", "naïve", "日本", "~x", "q?r=s", "semi;colon", "'quoted\"")


def _row_key(rng: Random, spec: SourceConfig, number: int) -> str:
    name = (
        f"{rng.choice(_ODD_NAMES)}{number}" if rng.random() < 0.1 else f"{number * 7919 % 9973:04x}-{number}"
    )
    if len(spec.key) > 1:
        # Only characters that percent-encoding leaves alone: the rule for composite keys has tests of its own.
        return json.dumps([f"t{number % 3}", f"{number * 7919 % 9973:04x}-{number}"], separators=(",", ":"))
    return f"un//usable{number}" if rng.random() < 0.008 else name


def size_of(rng: Random, budget: int) -> int:
    """Draw the size of a value: mostly small, some as large as the budget, a few larger."""
    draw = rng.random()
    if draw < 0.05:
        return 0
    if draw < 0.85:
        return rng.randint(40, 400)
    if draw < 0.97:
        return rng.randint(budget // 4, budget)
    return rng.randint(budget + 1, 2 * budget)


def _rows(rng: Random, spec: SourceConfig, budget: int) -> list[Row]:
    rows = []
    ties = rng.choice([1, 3, 30])
    for number in range(
        rng.choice([0, rng.randint(1, 12), rng.randint(1, 12), rng.randint(10, 60), rng.randint(60, 100)])
    ):
        created_at: int | None = START_US - SECOND_US * (10 + number // ties)
        draw = rng.random()
        if draw < 0.05:
            created_at = None
        elif draw < 0.06:
            created_at = MINUS_INFINITY_US
        elif draw < 0.07:
            created_at = INFINITY_US
        elif draw < 0.10:
            created_at = START_US + 3600 * SECOND_US
        value = value_of(rng, f"{spec.name}/{number}", size_of(rng, budget))
        rows.append(
            Row(
                _row_key(rng, spec, number),
                created_at,
                None if rng.random() < 0.03 else value,
                in_where=rng.random() > 0.05,
            )
        )
    rng.shuffle(rows)
    return rows


def _table(rng: Random, rows: list[Row]) -> FakeTable:
    relations = rng.choice([(16384,), (16384,), (16384, 16400)])
    table = FakeTable(relations=relations, rows_per_block=rng.randint(1, 4))
    table.sweepable = rng.random() < 0.85
    for row in rows:
        table.insert(
            row.key, row.created_at, row.value, relation=rng.choice(relations), in_where=row.in_where
        )
    return table


def _foreign(
    rng: Random, sources: list[SourceConfig], rows: dict[str, list[Row]]
) -> dict[tuple[str, str], tuple[bytes, str | None]]:
    found: dict[tuple[str, str], tuple[bytes, str | None]] = {}
    share = rng.choice([0.0, 0.1, 0.3])
    for spec in sources:
        for row in rows[spec.name]:
            value = effective(spec, row.value)
            if value is None or "//" in row.key or rng.random() >= share:
                continue
            there = rng.choices([value, value[: len(value) // 2], b"x" * len(value)], [3, 1, 1])[0]
            encryption = rng.choice([None, None, "aws:kms"])
            found[spec.bucket, object_key(spec, row.key)] = (there, encryption)
    return found
