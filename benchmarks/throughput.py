"""Run the scenarios: every round runs each arm once, in an order that rotates from round to round."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

from benchmarks import arms
from benchmarks.arms import Bench, Sample
from benchmarks.measuring import CommandFailed
from benchmarks.scenarios import FROM_FILES, Arm, Kind, Scenario
from benchmarks.servers import Sink, client_environment, fill, mixed_sizes, null_sink, weed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

T = TypeVar("T")


@dataclass
class Measured:
    """All rounds of one scenario.

    Attributes:
        samples: by arm, in rounds; an arm that failed has fewer than there were rounds.
        failures: by arm, what it said.
    """

    scenario: Scenario
    samples: dict[str, list[Sample]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def mean_bytes(self) -> float:
        """The mean size of the table's values."""
        table = self.scenario.table
        return statistics.mean(mixed_sizes(table.rows)) if table.size is None else table.size


def rotated(items: Sequence[T], turn: int) -> list[T]:
    """Return `items` begun `turn` further on, so that none is always first or always behind the same one."""
    start = turn % len(items)
    return [*items[start:], *items[:start]]


def measure(bench: Bench, scenario: Scenario, rounds: int, tell: Callable[[str], None]) -> Measured:
    """Make the table, start the sinks, run every arm in every round; an arm that fails is left out after that."""
    measured = Measured(scenario, {arm.name: [] for arm in scenario.arms})
    table = scenario.table
    fill(bench.postgres, table)
    try:
        with ExitStack() as stack:
            plain, encrypted = _sinks(bench, scenario, stack)
            for turn in range(rounds):
                one_round = Round(bench, scenario, plain, encrypted)
                try:
                    for arm in rotated(scenario.arms, turn):
                        if arm.name in measured.failures:
                            continue
                        try:
                            sample = one_round.sample(arm)
                        except (CommandFailed, AssertionError) as failure:
                            measured.failures[arm.name] = str(failure)
                            tell(f"{scenario.name}: {arm.name} FAILED: {failure}")
                            continue
                        measured.samples[arm.name].append(sample)
                        tell(
                            f"{scenario.name}, round {turn + 1}: {arm.name}: {sample.rate:,.0f} objects/s, "
                            f"{sample.cpu_ms:.3f} ms CPU, {sample.peak_mb:.0f} MB"
                        )
                finally:
                    one_round.close()
    finally:
        bench.postgres.sql(f"drop table {table.name}")
    return measured


def _sinks(bench: Bench, scenario: Scenario, stack: ExitStack) -> tuple[Sink, Sink | None]:
    if scenario.is_real:
        return stack.enter_context(weed()), None
    etag = scenario.table.etag
    plain = stack.enter_context(null_sink(bench.directory, etag=etag, latency_ms=scenario.latency_ms))
    if not any(arm.is_encrypted for arm in scenario.arms):
        return plain, None
    certificate = certified(bench)
    return plain, stack.enter_context(null_sink(bench.directory, etag=etag, certificate=certificate))


def certified(bench: Bench) -> Path:
    """Return a directory with a certificate for 127.0.0.1 and its authority."""
    place = bench.directory / bench.fresh()
    place.mkdir()
    subprocess.run([*bench.peers.script("certificate"), place], check=True, env=client_environment())
    return place


class Round:
    """One round of a scenario: the files that copiers read are exported once in it, when the first needs them."""

    def __init__(self, bench: Bench, scenario: Scenario, plain: Sink, encrypted: Sink | None) -> None:
        self._bench = bench
        self._scenario = scenario
        self._plain = plain
        self._encrypted = encrypted
        self._exports: dict[int, tuple[Path, Sample]] = {}

    def close(self) -> None:
        """Remove the files."""
        for place, _ in self._exports.values():
            shutil.rmtree(place)

    def sample(self, arm: Arm) -> Sample:
        """Measure one arm.

        Raises:
            CommandFailed: a process failed.
            AssertionError: not all objects arrived, by the arm's own count.
        """
        bench, table, connections = self._bench, self._scenario.table, self._scenario.connections
        rows = arm.rows or table.rows
        if arm.kind in FROM_FILES:
            files, exported = self._exported(rows)
            if arm.kind is Kind.RCLONE:
                return arms.rclone(bench, files, self._plain, rows=rows, connections=connections)
            alone = arms.s5cmd(bench, files, self._plain, rows=rows, connections=connections)
            return alone if arm.kind is Kind.S5CMD else arms.exported_before(alone, exported)
        if arm.kind is Kind.OURS:
            sink = self._encrypted if arm.is_encrypted else self._plain
            assert sink is not None
            return arms.ours(bench, table, sink, rows=rows, connections=connections, processes=arm.processes)
        script = {Kind.OBSTORE: "obstore_put", Kind.BOTO3: "boto3_put"}.get(arm.kind, "aioboto3_put")
        return arms.scripted(
            bench,
            script,
            table,
            self._plain,
            rows=rows,
            connections=connections,
            head=arm.kind is Kind.HEAD_PUT,
        )

    def _exported(self, rows: int) -> tuple[Path, Sample]:
        if rows not in self._exports:
            self._exports[rows] = arms.export(self._bench, self._scenario.table, rows=rows)
            # Else the files reach the disk during the next arm, at its cost.
            os.sync()
        return self._exports[rows]
