"""Check how settings relate to each other, where each is right by itself; pure."""

from __future__ import annotations

import shutil
from collections import Counter
from itertools import combinations
from typing import TYPE_CHECKING

from daemon.settings_values import timestamp_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from daemon.settings_models import (
        HooksConfig,
        MigrationSection,
        PostgresConfig,
        S3Section,
        SourceConfig,
        UploadConfig,
    )
    from daemon.settings_throttle import ThrottleConfig

CONNECTIONS_MIN_WITH_READINGS = 3
"""One each for planning, fetches and readings."""


def relation_problems(
    migration: MigrationSection | None,
    postgres: PostgresConfig | None,
    s3: S3Section | None,
    upload: UploadConfig | None,
    *,
    now_us: int,
) -> list[str]:
    """Return the problems between keys of whole sections; a section that is None failed by itself."""
    problems = []
    if migration and migration.cutoff is not None and migration.cutoff > now_us:
        problems.append(
            f"migration.cutoff: found {timestamp_text(migration.cutoff)}; expected a time that has passed, now "
            f"it is {timestamp_text(now_us)}"
        )
    if postgres and postgres.lock_timeout > postgres.statement_timeout:
        problems.append(
            f'postgres.lock_timeout: found "{postgres.lock_timeout:g}s"; expected at most '
            f'postgres.statement_timeout, "{postgres.statement_timeout:g}s"'
        )
    if s3 and s3.kms_key_id is not None and s3.sse not in {"aws:kms", "aws:kms:dsse"}:
        problems.append('s3.kms_key_id: set without KMS encryption; expected s3.sse = "aws:kms" beside it')
    if s3 and upload and upload.give_up_after < s3.io_timeout:
        problems.append(
            f'upload.give_up_after: found "{upload.give_up_after:g}s"; expected at least s3.io_timeout, '
            f'"{s3.io_timeout:g}s", or one slow answer ends the migration'
        )
    return problems


def process_problems(
    upload: UploadConfig | None, postgres: PostgresConfig | None, throttle: ThrottleConfig | None
) -> list[str]:
    """Return what keeps `upload.processes` from having a connection each to fetch over."""
    if upload is None or postgres is None or throttle is None or upload.processes == "auto":
        return []
    fetching = throttle.fetch_connections(postgres.connections)
    if upload.processes <= fetching:
        return []
    expected = postgres.connections + upload.processes - fetching
    problem = (
        f"upload.processes: found {upload.processes}, but only {fetching} of postgres.connections = "
        f"{postgres.connections} fetch; expected postgres.connections = {expected} or more, one for each process"
    )
    return [problem]


def throttle_problems(throttle: ThrottleConfig | None, postgres: PostgresConfig | None) -> list[str]:
    """Return the problems between the keys of `[throttle]`, and of its readings with `postgres.connections`."""
    if throttle is None:
        return []
    problems = []
    pairs = (
        ("replica_lag", "replica_lag_hibernate", '"{:g}s"'),
        ("active_sessions", "active_sessions_hibernate", "{:g}"),
        ("query_threshold", "query_hibernate", "{:g}"),
    )
    for lower_key, upper_key, form in pairs:
        lower, upper = getattr(throttle, lower_key), getattr(throttle, upper_key)
        if upper is not None and lower is None:
            problems.append(
                f"throttle.{upper_key}: set without throttle.{lower_key}; expected both or neither"
            )
        elif upper is not None and upper <= lower:
            problems.append(
                f"throttle.{upper_key}: found {form.format(upper)}; expected more than throttle.{lower_key}, "
                f"{form.format(lower)}"
            )
    if (throttle.query is None) != (throttle.query_threshold is None):
        problems.append(
            "throttle.query: set without throttle.query_threshold; expected the number above which to throttle"
            if throttle.query_threshold is None
            else "throttle.query_threshold: set without throttle.query; expected the query that it is about"
        )
    if throttle.timetable is None and "timetable_zone" in throttle.model_fields_set:
        problems.append("throttle.timetable_zone: set without throttle.timetable; expected both or neither")
    if throttle.reads and postgres and postgres.connections < CONNECTIONS_MIN_WITH_READINGS:
        problems.append(
            f"postgres.connections: found {postgres.connections}; expected at least "
            f"{CONNECTIONS_MIN_WITH_READINGS} with readings in [throttle], which have one to themselves"
        )
    return problems


def hook_problems(hooks: HooksConfig, search_path: str | None) -> list[str]:
    """Return the hooks whose program can't be run: wrong now, rather than at the end of a night.

    `search_path` is PATH, for programs that are named without a directory.
    """
    problems = []
    for name in ("on_complete", "on_parked", "on_halt"):
        command = getattr(hooks, name)
        if command is None:
            continue
        program = command[0]
        if "/" in program and not program.startswith("/"):
            problems.append(
                f'hooks.{name}: found "{program}"; expected the absolute path of a program, or a name in PATH'
            )
        elif shutil.which(program, path=search_path) is None:
            problems.append(f'hooks.{name}: found "{program}"; expected a program that exists and may be run')
    return problems


def source_problems(sources: Sequence[SourceConfig], s3: S3Section | None) -> list[str]:
    """Return what is wrong within each source and between them: names, places that overlap."""
    problems: list[str] = []
    for source in sources:
        problems += _own_problems(source)
        if s3 and s3.addressing == "virtual" and "." in source.bucket:
            problems.append(
                f'source "{source.name}".bucket: found "{source.bucket}"; expected no dot in it with '
                's3.addressing = "virtual": it has to be one label of a host name'
            )
    for name, times in Counter(source.name for source in sources).items():
        if times > 1:
            problems.append(f'source "{name}": {times} sources have this name; expected one')
    for one, other in combinations(sources, 2):
        if one.bucket == other.bucket and _nested(one.prefix, other.prefix):
            problems.append(
                f'source "{one.name}" and source "{other.name}": prefixes "{one.prefix}" and "{other.prefix}" in '
                f'bucket "{one.bucket}" overlap; expected neither to begin with the other'
            )
    return problems


def _own_problems(source: SourceConfig) -> list[str]:
    place = f'source "{source.name}"'
    problems = []
    if source.created_at is None:
        problems += [
            f"{place}.{key}: set without created_at; expected both or neither"
            for key in ("created_at_zone", "null_created_at")
            if getattr(source, key) is not None
        ]
    if source.value in source.key:
        problems.append(
            f'{place}.value: found "{source.value}", a key column; expected the column of the bytes'
        )
    return problems


def _nested(one: str, other: str) -> bool:
    return one.startswith(other) or other.startswith(one)
