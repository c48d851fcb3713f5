"""Load a migration's configuration: file, environment and flags into one frozen `Config`.

Precedence is flag, then BACKFILL_* variable, then file; AWS_* variables fill what all of these leave out.
Every problem is reported at once, since an operator who fixes a file wants to fix it once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from daemon import layer_cache
from daemon.errors import ConfigError
from daemon.settings_checks import (
    hook_problems,
    process_problems,
    relation_problems,
    source_problems,
    throttle_problems,
)
from daemon.settings_file import read_document
from daemon.settings_layers import Layers
from daemon.settings_metrics import MetricsConfig
from daemon.settings_models import (
    Config,
    ControlConfig,
    HooksConfig,
    LayerCacheSection,
    LimitsConfig,
    LogConfig,
    MaxFailures,
    MigrationConfig,
    MigrationSection,
    PostgresConfig,
    S3Config,
    S3Section,
    SourceConfig,
    SourceSection,
    UploadConfig,
)
from daemon.settings_problems import section_problems, shown
from daemon.settings_throttle import ThrottleConfig
from daemon.settings_values import timestamp_text
from journal.checkpoint import Order

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = [
    "Config",
    "HooksConfig",
    "LimitsConfig",
    "MaxFailures",
    "MetricsConfig",
    "MigrationConfig",
    "Order",
    "PlanOptions",
    "PostgresConfig",
    "RunOptions",
    "S3Config",
    "SourceConfig",
    "ThrottleConfig",
    "UploadConfig",
    "free_settings",
    "identity",
    "load",
]

_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What the flags of `run` decide for one session.

    Attributes:
        accept_source: take a changed PostgreSQL system identifier or timeline for the same data.
        allow_seqscan: plan although fetching by key shows no index.
        verify: verify once every key is settled.
    """

    accept_source: bool = False
    allow_seqscan: bool = False
    verify: bool = False


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the flags of `plan` decide.

    Attributes:
        dry_run: count and estimate only; nothing is written anywhere.
        reconcile: look once more at sources that are closed.
        accept_source, allow_seqscan: as in RunOptions.
    """

    dry_run: bool = False
    reconcile: bool = False
    accept_source: bool = False
    allow_seqscan: bool = False


def load(path: Path, env: Mapping[str, str], overrides: Mapping[str, Any], *, now_us: int) -> Config:
    """Read and check the configuration.

    Args:
        path: a TOML file; a relative `migration.journal` in it is relative to the file.
        env: the environment; BACKFILL_<SECTION>_<KEY> stands for a scalar key, AWS_* as in the AWS CLI.
        overrides: TOML path to value from flags, by the paths of `settings_layers.FLAGS`; None is not given.
        now_us: microseconds since 1970 UTC; a cutoff after it is refused.

    Raises:
        ConfigError: with every problem found.
    """
    layers = Layers(read_document(path), path.absolute().parent)
    layers.apply_environment(env)
    layers.apply_flags(overrides)
    layers.fill_from_aws(env)
    problems = layers.problems

    migration = _section(layers, MigrationSection, "migration")
    postgres = _section(layers, PostgresConfig, "postgres")
    s3 = _section(layers, S3Section, "s3")
    cached = _cached_sources(layers)
    layers.spread_concurrency(len(cached))
    upload = _section(layers, UploadConfig, "upload")
    throttle = _section(layers, ThrottleConfig, "throttle")
    limits = _section(layers, LimitsConfig, "limits") or LimitsConfig()
    hooks = _section(layers, HooksConfig, "hooks") or HooksConfig()
    log = _section(layers, LogConfig, "log") or LogConfig()
    metrics = _section(layers, MetricsConfig, "metrics") or MetricsConfig()
    control = _section(layers, ControlConfig, "control") or ControlConfig()
    sources = [*_own_sources(layers, s3), *cached]

    problems += relation_problems(migration, postgres, s3, upload, now_us=now_us)
    problems += throttle_problems(throttle, postgres)
    problems += process_problems(upload, postgres, throttle)
    problems += source_problems(sources, s3)
    problems += hook_problems(hooks, env.get("PATH"))
    if not sources and not problems:
        problems.append("source: none; expected a [[source]] for each table, or [layer_cache]")
    if problems or migration is None or postgres is None or s3 is None or upload is None or throttle is None:
        raise ConfigError(problems, f"correct {path}; `backfillctl init` writes a sample to compare with")
    if postgres.auth == "rds-iam" and postgres.region is None:
        postgres = postgres.model_copy(update={"region": s3.region})
    return Config(
        migration=MigrationConfig(
            cutoff_us=migration.cutoff,
            deadline_us=migration.deadline,
            **{
                **migration.model_dump(exclude={"cutoff", "deadline"}),
                "journal": migration.journal.absolute(),
            },
        ),
        postgres=postgres,
        s3=S3Config(**s3.model_dump()),
        upload=upload,
        throttle=throttle,
        limits=limits,
        hooks=hooks,
        log=log,
        metrics=metrics,
        control=ControlConfig(socket=control.socket and control.socket.absolute()),
        sources=tuple(sources),
    )


def identity(
    config: Config, source: SourceConfig, database: str, *, cutoff_us: int | None = None
) -> dict[str, str | bool | list[str] | None]:
    """Return the fingerprint that resuming compares: what decides which rows go where, under which name.

    Args:
        config: the configuration.
        source: one of its sources.
        database: as the server names it; host names change in a failover and are no part of it.
        cutoff_us: the cutoff in force, where the journal fixed one because the file names none.
    """
    cutoff = config.migration.cutoff_us if config.migration.cutoff_us is not None else cutoff_us
    return {
        "database": database,
        "table": f"{source.schema_name}.{source.table_name}",
        "key": list(source.key),
        "created_at": source.created_at,
        "value": source.value,
        "where": source.where,
        "cutoff": None if cutoff is None else timestamp_text(cutoff),
        "bucket": source.bucket,
        "endpoint_host": config.s3.endpoint_host,
        "prefix": source.prefix,
        "layout": source.layout,
        "reverse_key": source.reverse_key,
    }


def free_settings(config: Config) -> dict[str, Any]:
    """Return what may change between sessions and is recorded when it does: JSON values, no secret."""
    free_in_source = {"created_at_zone", "null_created_at", "null_value", "content_type", "metadata"}
    deadline_us = config.migration.deadline_us
    return {
        "order": config.migration.order.value,
        "deadline": None if deadline_us is None else timestamp_text(deadline_us),
        "postgres": config.postgres.model_dump(mode="json", exclude={"dsn"}),
        "s3": config.s3.model_dump(mode="json", exclude={"endpoint", "bucket"}),
        "upload": {
            **config.upload.model_dump(mode="json", exclude={"max_failures"}),
            "max_failures": str(config.upload.max_failures),
        },
        "throttle": {
            **config.throttle.model_dump(mode="json", exclude={"timetable"}),
            "timetable": None if config.throttle.timetable is None else str(config.throttle.timetable),
        },
        "limits": config.limits.model_dump(mode="json"),
        "metrics": config.metrics.model_dump(mode="json"),
        "sources": {
            source.name: source.model_dump(mode="json", include=free_in_source) for source in config.sources
        },
    }


def _section(layers: Layers, model: type[_Model], name: str) -> _Model | None:
    try:
        return model.model_validate(layers.document[name])
    except ValidationError as failure:
        layers.problems += section_problems(failure, model, name, layers.origins)
        return None


def _cached_sources(layers: Layers) -> list[SourceConfig]:
    if not layers.names_caches:
        return []
    section = _section(layers, LayerCacheSection, "layer_cache")
    if section is None:
        return []
    problems = layer_cache.problems_in(section)
    layers.problems += problems
    return [] if problems else layer_cache.sources(section)


def _own_sources(layers: Layers, s3: S3Section | None) -> list[SourceConfig]:
    listed = layers.document.get("source", [])
    if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
        layers.problems.append(
            f"source: found {shown(listed)}; expected sections in double brackets, [[source]]"
        )
        return []
    sources = []
    for number, entry in enumerate(listed, start=1):
        name = entry.get("name")
        place = f'source "{name}"' if isinstance(name, str) else f"source no. {number}"
        try:
            section = SourceSection.model_validate(entry)
        except ValidationError as failure:
            layers.problems += section_problems(failure, SourceSection, place, {})
            continue
        bucket = section.bucket or (s3.bucket if s3 else None)
        if bucket is not None:
            sources.append(section.resolve(bucket))
        elif s3 is not None:
            layers.problems.append(f"{place}.bucket: missing; expected it here or as s3.bucket")
    return sources
