"""A migration as Prometheus metrics; pure, from what the journal and this process say at one moment.

Nothing is kept between two scrapes: totals come from the journal each time, so that a restart is no reset.
"""

from __future__ import annotations

import platform
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry
from prometheus_client import exposition as text_format
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from daemon import __version__
from daemon.causes import AT_WORK, Cause
from daemon.metric_definitions import DEFINITIONS, MIGRATION, PREFIX
from journal.status import MigrationState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from prometheus_client.metrics_core import Metric

    from daemon.instruments import Histogram, Instruments
    from daemon.rendering_view import View
    from daemon.tunables import Tunables
    from journal.attempts import AttemptCounts
    from journal.sizes import JournalSizes
    from journal.status import MigrationStatus, SourceStatus

OPENMETRICS = "application/openmetrics-text"
"""Its media type (OpenMetrics 1.0, "Protocol Negotiation")."""
SLOW_DOWNS = tuple(cause for cause in Cause if cause not in AT_WORK)
"""Causes that are not the work itself."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the journal says, read for one scrape.

    Attributes:
        view: what `status` shows of it at that moment.
        attempts: every class of failed attempts.
    """

    status: MigrationStatus
    view: View
    attempts: tuple[AttemptCounts, ...]
    sizes: JournalSizes


@dataclass(frozen=True, slots=True)
class Observed:
    """What there is to export.

    Attributes:
        recorded: None while there is no journal yet.
        tunables: in force; None before the session has begun.
        concurrency: uploads that may be under way at once; None likewise.
        credentials_expire_us, deadline_us: microseconds since 1970-01-01 UTC.
        disk_reserve_bytes: below which the migration holds.
        heartbeat_age_seconds: None where nothing beats.
    """

    migration: str
    recorded: Recorded | None
    instruments: Instruments
    tunables: Tunables | None = None
    concurrency: int | None = None
    credentials_expire_us: int | None = None
    deadline_us: int | None = None
    disk_reserve_bytes: int | None = None
    heartbeat_age_seconds: float | None = None


def exposition(observed: Observed, accept: str) -> tuple[bytes, str]:
    """Return the metrics and their content type: OpenMetrics where `accept` names it, else Prometheus' text.

    The library's own negotiation raises on some values of Accept, and repeats others in its content type.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families(observed)))
    if any(one.partition(";")[0].strip().lower() == OPENMETRICS for one in accept.split(",")):
        return openmetrics.generate_latest(registry), openmetrics.CONTENT_TYPE_LATEST
    return text_format.generate_latest(registry), text_format.CONTENT_TYPE_PLAIN_0_0_4


class _Collected(Collector):
    def __init__(self, collected: Sequence[Metric]) -> None:
        self._collected = collected

    def collect(self) -> Iterable[Metric]:
        return self._collected


def families(observed: Observed) -> list[Metric]:
    """Return every metric of DEFINITIONS, in their order; one without a value has no sample."""
    made = _Families(observed.migration)
    made.gauge("build_info", 1, __version__, platform.python_version(), sqlite3.sqlite_version)
    for operation, histogram in observed.instruments.requests.items():
        made.histogram("request_seconds", histogram, operation)
    made.histogram("journal_commit_seconds", observed.instruments.commits)
    made.gauge("heartbeat_age_seconds", observed.heartbeat_age_seconds)
    made.gauge("journal_disk_reserve_bytes", observed.disk_reserve_bytes)
    made.time("deadline_timestamp_seconds", observed.deadline_us)
    made.time("credentials_expiry_timestamp_seconds", observed.credentials_expire_us)
    made.gauge("concurrency_limit", observed.concurrency)
    if observed.tunables is not None:
        made.gauge("concurrency_ceiling", observed.tunables.concurrency)
        made.gauge("rows_per_second_limit", observed.tunables.rows_per_second)
        made.gauge("bytes_per_second_limit", observed.tunables.bytes_per_second)
    if observed.recorded is not None:
        _recorded(made, observed.recorded)
    return made.all()


class _Families:
    """A family for each definition, and how values get into it: those that are None don't."""

    def __init__(self, migration: str) -> None:
        self._migration = migration
        self._gauges: dict[str, GaugeMetricFamily] = {}
        self._counters: dict[str, CounterMetricFamily] = {}
        self._histograms: dict[str, HistogramMetricFamily] = {}
        self._families: list[Metric] = []
        for one in DEFINITIONS:
            name, labels = PREFIX + one.name, [MIGRATION, *one.labels]
            if one.kind == "counter":
                self._families.append(counter := CounterMetricFamily(name, one.meaning, labels=labels))
                self._counters[one.name] = counter
            elif one.kind == "gauge":
                self._families.append(gauge := GaugeMetricFamily(name, one.meaning, labels=labels))
                self._gauges[one.name] = gauge
            else:
                self._families.append(histogram := HistogramMetricFamily(name, one.meaning, labels=labels))
                self._histograms[one.name] = histogram

    def all(self) -> list[Metric]:
        return self._families

    def gauge(self, name: str, value: float | None, *labels: str) -> None:
        if value is not None:
            self._gauges[name].add_metric([self._migration, *labels], value)

    def time(self, name: str, time_us: int | None, *labels: str) -> None:
        self.gauge(name, None if time_us is None else time_us / 1e6, *labels)

    def counter(self, name: str, value: float, *labels: str) -> None:
        self._counters[name].add_metric([self._migration, *labels], value)

    def histogram(self, name: str, histogram: Histogram, *labels: str) -> None:
        bounds = [*(str(bound) for bound in histogram.bounds), "+Inf"]
        self._histograms[name].add_metric(
            [self._migration, *labels],
            list(zip(bounds, histogram.cumulative(), strict=True)),
            histogram.sum_seconds,
        )


def _recorded(made: _Families, recorded: Recorded) -> None:
    status = recorded.status
    for source in status.sources:
        _source(made, source)
    for line in recorded.view.sources:
        made.gauge("eta_seconds", line.speed.eta_seconds, line.name)
    for one in recorded.attempts:
        labels = (one.source, one.operation, one.failure)
        made.counter("failed_attempts_total", one.failed, *labels)
        made.counter("retries_total", one.retried, *labels)
    for cause in Cause:
        made.counter("spent_seconds_total", status.spent_ms.get(cause, 0) / 1000, cause)
    episodes = {one.cause: one.episodes for one in status.slow_downs}
    for cause in SLOW_DOWNS:
        made.counter("throttled_seconds_total", status.spent_ms.get(cause, 0) / 1000, cause)
        made.counter("slow_downs_total", episodes.get(cause, 0), cause)
    for state in MigrationState:
        made.gauge("state", int(status.state is state), state)
    made.gauge("paused", int(status.pause is not None))
    made.time("cutoff_timestamp_seconds", status.cutoff_us)
    if status.session is not None:
        made.time("session_start_timestamp_seconds", status.session.started_us)
        made.gauge("session", status.session.number)
    made.gauge("journal_bytes", recorded.sizes.file)
    made.gauge("journal_wal_bytes", recorded.sizes.wal)
    made.gauge("journal_disk_free_bytes", recorded.sizes.free)
    for verified in recorded.view.verified:
        made.gauge("verification_mismatches", verified.mismatches, verified.tier)
        made.time("verified_timestamp_seconds", verified.finished_us, verified.tier)


def _source(made: _Families, source: SourceStatus) -> None:
    counts, name = source.counts, source.name
    made.gauge("planned_rows", counts.planned_rows, name)
    made.gauge("planned_bytes", counts.planned_bytes, name)
    for outcome in ("stored", "recovered", "present", "skipped", "vanished"):
        made.counter("outcomes_total", getattr(counts, outcome), name, outcome)
    made.counter("copied_bytes_total", counts.stored_bytes, name)
    made.counter("present_bytes_total", counts.present_bytes, name)
    made.gauge("settled_planned_bytes", counts.settled_bytes, name)
    made.gauge("in_flight", counts.in_flight, name)
    made.gauge("parked", counts.parked, name)
    made.gauge("waiting", counts.pending + counts.unclaimed, name)
    for reason, rows in counts.excluded.items():
        made.gauge("excluded_rows", rows, name, reason)
    checkpoint = source.checkpoint
    made.time(
        "checkpoint_timestamp_seconds",
        checkpoint.floor_us if checkpoint.cutoff_us is None else checkpoint.cutoff_us,
        name,
    )
    made.gauge("closed", int(source.closed), name)
    made.time("last_progress_timestamp_seconds", source.last_outcome_us, name)
