"""Look at the server and the tables a configuration names: reach, version, rights, keys, types, indexes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from daemon.checking_throttle import check_throttle
from daemon.conninfo import connection_target
from daemon.errors import BackfillError, ExitCode
from daemon.findings import Finding, Level, failure, ok, warning
from daemon.rendering_units import count
from daemon.retrying import Failure
from daemon.settings_values import is_loopback
from daemon.source import open_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.config import Config, SourceConfig
    from daemon.runtime import Runtime
    from daemon.source import PostgresSource

_SKEW_US_WARNED = 5_000_000
"""Clocks this far apart make cutoffs and times in reports confusing; nothing depends on it."""

_INSISTING = {"require", "verify-ca", "verify-full"}


async def check_postgres(config: Config, report: Callable[[Finding], None], *, runtime: Runtime) -> None:
    """Report what is found at the server, and for each source at its table; reads only.

    Args:
        config: the configuration.
        report: takes each finding as soon as it is made.
        runtime: whose clock the server's is compared with.
    """
    try:
        async with open_source(
            config.postgres,
            migration=config.migration.name,
            give_up_after=0.0,
            random=runtime.random,
            throttle=config.throttle,
        ) as postgres:
            await _check_server(postgres, config, report, now_us=runtime.now_us)
            await check_throttle(config.throttle, postgres, report, now_us=runtime.now_us())
            for source in config.sources:
                await _check_source(postgres, source, report)
    except BackfillError as error:
        report(failure("postgres", error))
    except Failure as answer:
        report(_unanswered("postgres", answer))


async def _check_server(
    postgres: PostgresSource,
    config: Config,
    report: Callable[[Finding], None],
    *,
    now_us: Callable[[], int],
) -> None:
    server = await postgres.server()
    role = "standby" if server.in_recovery else "primary"
    version = f"{server.version // 10000}.{server.version % 10000}"
    report(ok("postgres", f"PostgreSQL {version} at {server.address}, database {server.database}, {role}"))
    mode = _sslmode(config.postgres.dsn)
    host = server.address.rpartition(":")[0]
    if mode not in _INSISTING and host and not is_loopback(host):
        hint = "add ?sslmode=verify-full to postgres.dsn, or set PGSSLMODE"
        report(warning("postgres", f"sslmode is {mode}, which does not insist on TLS", hint))
    skew_us = server.now_us - now_us()
    if abs(skew_us) > _SKEW_US_WARNED:
        text = f"the server's clock is {skew_us / 1_000_000:+.0f} s from this machine's"
        report(warning("postgres", text, "cutoffs go by the server's clock; set both clocks (NTP)"))
    cutoff_us = config.migration.cutoff_us if config.migration.cutoff_us is not None else server.now_us
    if cutoff_us > server.now_us:
        problem = (
            "migration.cutoff: it lies ahead of the server's clock; expected a time that has passed there"
        )
        report(Finding(Level.FAILURE, "postgres", problem, "set an earlier cutoff, or wait", ExitCode.USAGE))
    writers = await postgres.writers_before(cutoff_us)
    if not writers.visible:
        grace = config.postgres.late_grace
        if server.in_recovery:
            text, hint = (
                "a standby does not show the primary's transactions",
                "plan on the primary for a proof",
            )
        else:
            text, hint = (
                "pg_read_all_stats is not granted",
                "grant it, and late transactions are seen to have ended",
            )
        report(warning("postgres", f"{text}: late ones are waited for {grace:g} s, unproven", hint))


def _sslmode(dsn: str) -> str:
    """Return libpq's sslmode as the DSN, its service or PGSSLMODE have it."""
    target = connection_target(dsn, os.environ, Path.home())
    named = dict(parse_qsl(urlsplit(target.dsn).query)).get("sslmode")
    return named or os.environ.get("PGSSLMODE") or ("verify-full" if target.system_roots else "prefer")


async def _check_source(
    postgres: PostgresSource, source: SourceConfig, report: Callable[[Finding], None]
) -> None:
    subject = f"source {source.name}"
    try:
        facts = await postgres.describe(source)
        await postgres.check_fetch_plan(source, facts)
    except BackfillError as error:
        report(failure(subject, error))
    except Failure as answer:
        report(_unanswered(subject, answer))
    else:
        rows = (
            "an unknown number of rows"
            if facts.estimated_rows < 0
            else f"about {count(facts.estimated_rows)} rows"
        )
        unique = f"unique by {facts.unique}" if facts.unique else "uniqueness to be proven while planning"
        text = f"{facts.kind} {source.schema_name}.{source.table_name}: {rows}, {unique}"
        report(ok(subject, text))


def _unanswered(subject: str, answer: Failure) -> Finding:
    hint = "check that the server runs, and postgres.statement_timeout and lock_timeout"
    return Finding(Level.FAILURE, subject, answer.message, hint, ExitCode.UNREACHABLE)
