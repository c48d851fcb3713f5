"""Which arms meet where: tables, sinks, connections, and how many rows each arm moves in a round.

Counts are such that a fast arm takes about three seconds; slow ones move fewer rows, and rates are per object.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from benchmarks.servers import Table

KIB = 1024
MIB = 1024 * KIB
LATENCY_MS = 30.0


class Kind(StrEnum):
    """What an arm runs; `benchmarks.arms` has a function for each."""

    OURS = "ours"
    OBSTORE = "asyncpg + obstore"
    HEAD_PUT = "ancestor's pattern (HEAD, SELECT, PUT; aioboto3)"
    PUT = "asyncpg + aioboto3, PUT only"
    BOTO3 = "asyncpg + boto3 threads"
    S5CMD = "s5cmd alone"
    EXPORT_S5CMD = "export + s5cmd"
    RCLONE = "rclone alone"


FROM_FILES = frozenset({Kind.S5CMD, Kind.EXPORT_S5CMD, Kind.RCLONE})


@dataclass(frozen=True, slots=True)
class Arm:
    """One line of a table.

    Attributes:
        rows: moved in each round; None: all of the table.
        processes: of ours.
        is_encrypted: through TLS.
    """

    kind: Kind
    rows: int | None = None
    processes: int = 1
    is_encrypted: bool = False

    @property
    def name(self) -> str:
        """How tables and JSON call it, unique in its scenario."""
        if self.is_encrypted:
            return f"{self.kind} through TLS"
        return f"{self.kind}, {self.processes} processes" if self.processes > 1 else self.kind.value


@dataclass(frozen=True, slots=True)
class Scenario:
    """One table of results: the same rows to the same sink by every arm.

    Attributes:
        group: what `--only` calls it, together with others.
        name: unique.
        latency_ms: of the null sink.
        is_real: the sink is `weed mini`.
    """

    group: str
    name: str
    title: str
    table: Table
    arms: tuple[Arm, ...]
    connections: int = 64
    latency_ms: float = 0.0
    is_real: bool = False


_SMALL = Table("small", 24_000, 4 * KIB)
_MANY = Table("many", 48_000, 4 * KIB)
"""For arms whose processes take a second to start, which counts."""
_SIXTY_FOUR = Table("sixty_four", 4000, 64 * KIB)
_LARGE = Table("large", 600, MIB)
_MIX = Table("mix", 8000, None)
_BEST = (Arm(Kind.OURS), Arm(Kind.OBSTORE), Arm(Kind.S5CMD))

SCENARIOS = (
    Scenario(
        "4k",
        "4k",
        "4 KiB, null sink, 64 connections",
        _SMALL,
        (
            *_BEST,
            Arm(Kind.OURS, processes=2),
            Arm(Kind.EXPORT_S5CMD),
            Arm(Kind.RCLONE, 12_000),
            Arm(Kind.BOTO3, 1600),
            Arm(Kind.PUT, 1600),
            Arm(Kind.HEAD_PUT, 1200),
        ),
    ),
    Scenario("sizes", "64k", "64 KiB, null sink, 64 connections", _SIXTY_FOUR, _BEST),
    Scenario("sizes", "1m", "1 MiB, null sink, 64 connections", _LARGE, _BEST),
    Scenario(
        "sizes",
        "mix",
        "log-normal sizes (median 4 KiB, mean 30 KiB, largest 8 MiB), null sink, 64 connections",
        _MIX,
        _BEST,
    ),
    Scenario(
        "weed",
        "weed",
        "4 KiB, weed mini, 64 connections",
        _SMALL,
        (
            Arm(Kind.OURS, 6000),
            Arm(Kind.OBSTORE, 6000),
            Arm(Kind.S5CMD, 6000),
            Arm(Kind.PUT, 1000),
            Arm(Kind.HEAD_PUT, 1000),
        ),
        is_real=True,
    ),
    Scenario(
        "latency",
        "latency-64",
        "4 KiB, null sink with 30 ms of latency, 64 connections",
        _SMALL,
        (Arm(Kind.OURS, 10_000), Arm(Kind.OBSTORE, 10_000), Arm(Kind.HEAD_PUT, 2000)),
        latency_ms=LATENCY_MS,
    ),
    Scenario(
        "tls",
        "tls",
        "4 KiB, null sink, plain and behind TLS, 64 connections",
        _SMALL,
        (Arm(Kind.OURS), Arm(Kind.OURS, is_encrypted=True)),
    ),
    Scenario(
        "processes",
        "processes",
        "4 KiB, null sink with 30 ms of latency, 256 connections",
        _MANY,
        (
            Arm(Kind.OURS),
            Arm(Kind.OURS, processes=2),
            Arm(Kind.OURS, processes=3),
            Arm(Kind.OBSTORE),
        ),
        connections=256,
        latency_ms=LATENCY_MS,
    ),
)

QUICK_SHARE = 8


def quick(scenario: Scenario) -> Scenario:
    """Return the scenario with an eighth of its rows: it runs all paths, and its rates mean nothing."""
    arms = tuple(
        replace(arm, rows=None if arm.rows is None else arm.rows // QUICK_SHARE) for arm in scenario.arms
    )
    table = replace(scenario.table, rows=scenario.table.rows // QUICK_SHARE)
    return replace(scenario, arms=arms, table=table)
