"""Lay environment and flags over a config file's document: flag, then variable, then file; pure."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin

from daemon.settings_file import journal_variable
from daemon.settings_metrics import MetricsConfig
from daemon.settings_models import (
    ControlConfig,
    HooksConfig,
    LayerCacheSection,
    LimitsConfig,
    LogConfig,
    MigrationSection,
    PostgresConfig,
    S3Section,
    UploadConfig,
)
from daemon.settings_problems import shown, unknown_key
from daemon.settings_throttle import ThrottleConfig
from daemon.settings_values import whole_number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

SECTIONS: dict[str, type[BaseModel]] = {
    "migration": MigrationSection,
    "postgres": PostgresConfig,
    "s3": S3Section,
    "upload": UploadConfig,
    "throttle": ThrottleConfig,
    "limits": LimitsConfig,
    "log": LogConfig,
    "hooks": HooksConfig,
    "metrics": MetricsConfig,
    "control": ControlConfig,
    "layer_cache": LayerCacheSection,
}
FLAGS = {
    "migration.cutoff": "--cutoff-timestamp",
    "migration.journal": "--journal",
    "layer_cache.caches": "--cache-types",
    "upload.key_batch_size": "--key-batch-size",
    "upload.checkpoint_interval_secs": "--checkpoint-interval-secs",
    "upload.concurrency_per_cache": "--max-concurrent-uploads",
    "limits.max_duration": "--max-duration",
    "limits.max_bytes": "--max-bytes",
    "limits.limit": "--limit",
    "log.format": "--log-format",
    "log.redact_keys": "--redact-keys",
}
"""What flags may override, by TOML path; the last is no key of the file: it counts uploads per cache."""
REGION_ELSEWHERE = "us-east-1"
"""The region that servers other than AWS take unless told another (`weed`, MinIO and rclone all do)."""


class Layers:
    """A document under construction.

    Attributes:
        document: the sections as they stand; none is missing, `source` apart.
        origins: `section.key` to the flag or variable that set it.
        problems: what was wrong with names and places so far.
        concurrency_per_cache: what --max-concurrent-uploads said; None if it was not given.
    """

    def __init__(self, document: Mapping[str, Any], directory: Path) -> None:
        self.document: dict[str, Any] = dict(document)
        self.origins: dict[str, str] = {}
        self.problems: list[str] = []
        self.concurrency_per_cache: int | None = None
        known = [*SECTIONS, "source"]
        for name in document:
            if name not in known:
                self.problems.append(unknown_key(name, name, known))
        for name in SECTIONS:
            section = document.get(name, {})
            if not isinstance(section, dict):
                self.problems.append(f"{name}: found {shown(section)}; expected a section, [{name}]")
            self.document[name] = dict(section) if isinstance(section, dict) else {}
        for name, key in (("migration", "journal"), ("control", "socket")):
            path = self.document[name].get(key)
            if isinstance(path, str) and path:
                # Of an unknown user's home the model says that it is no path.
                with contextlib.suppress(RuntimeError):
                    self.document[name][key] = str(directory / Path(path).expanduser())

    @property
    def names_caches(self) -> bool:
        """Whether the file, a variable or a flag asks for layer caches at all."""
        return bool(self.document["layer_cache"])

    def apply_environment(self, env: Mapping[str, str]) -> None:
        """Set what BACKFILL_<SECTION>_<KEY> says; a section's variable without such a key is a problem."""
        variables = {
            f"BACKFILL_{section.upper()}_{key.upper()}": (section, key)
            for section, model in SECTIONS.items()
            for key in model.model_fields
        }
        prefixes = tuple(f"BACKFILL_{section.upper()}_" for section in SECTIONS)
        for name in sorted(env):
            if name in variables:
                section, key = variables[name]
                if get_origin(SECTIONS[section].model_fields[key].annotation) in {list, dict}:
                    self.problems.append(f"{name}: {section}.{key} is no single value; set it in the file")
                elif env[name]:
                    self._set(section, key, env[name], name)
            elif name.startswith(prefixes):
                prefix = next(one for one in prefixes if name.startswith(one))
                known = [variable for variable in variables if variable.startswith(prefix)]
                self.problems.append(unknown_key(name, name, known))
        journal = journal_variable(env)
        if journal is not None:
            self._set("migration", "journal", env[journal], journal)

    def apply_flags(self, overrides: Mapping[str, Any]) -> None:
        """Set what flags say, by the paths of `FLAGS`; None is a flag not given."""
        for path, value in overrides.items():
            if value is None:
                continue
            section, _, key = path.partition(".")
            if key == "concurrency_per_cache":
                number = _whole(value)
                if isinstance(number, int) and number >= 1:
                    self.concurrency_per_cache = number
                else:
                    self.problems.append(
                        f"{FLAGS[path]}: found {shown(value)}; expected a whole number from 1"
                    )
            else:
                self._set(section, key, value, FLAGS[path])

    def fill_from_aws(self, env: Mapping[str, str]) -> None:
        """Take endpoint and region from AWS_* where nothing else names them, as the AWS CLI does."""
        s3 = self.document["s3"]
        ignored = env.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true"
        endpoints = () if ignored else ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
        for key, names in (("endpoint", endpoints), ("region", ("AWS_REGION", "AWS_DEFAULT_REGION"))):
            for name in names:
                if key not in s3 and env.get(name):
                    self._set("s3", key, env[name], name)
        if "region" not in s3:
            if "endpoint" in s3:
                s3["region"] = REGION_ELSEWHERE
            else:
                self.problems.append('s3.region: missing; expected the bucket\'s region, such as "eu-west-1"')

    def spread_concurrency(self, caches: int) -> None:
        """Set `upload.concurrency` to what --max-concurrent-uploads gives to `caches` caches together."""
        if self.concurrency_per_cache is None:
            return
        if caches:
            total = self.concurrency_per_cache * caches
            self._set("upload", "concurrency", total, f"--max-concurrent-uploads times {caches} caches")
        elif not self.names_caches:
            self.problems.append(
                "--max-concurrent-uploads: counts per layer cache; set upload.concurrency instead"
            )

    def _set(self, section: str, key: str, value: Any, origin: str) -> None:
        kind = SECTIONS[section].model_fields[key].annotation
        if kind is int or int in get_args(kind):
            value = _whole(value)
        elif kind is bool and value in {"true", "false"}:
            value = value == "true"
        self.document[section][key] = value
        self.origins[f"{section}.{key}"] = origin


def _whole(value: object) -> object:
    """Return an int for a text of digits, anything else as it is: the model then says what is allowed."""
    found = whole_number(value) if isinstance(value, str) else None
    return value if found is None else found
