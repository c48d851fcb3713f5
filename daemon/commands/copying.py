"""Commands that read the source and the bucket: check, plan, run, verify."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING

import click

from daemon.commands.options import config_option, load_config
from daemon.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from daemon.config import Config
    from daemon.ending import Ending
    from daemon.errors import ExitCode
    from daemon.verify_ends import VerifyOptions

_accept_source = click.option(
    "--accept-source",
    is_flag=True,
    help="Take a PostgreSQL server with another system identifier or timeline for the same data.",
)
_allow_seqscan = click.option(
    "--allow-seqscan", is_flag=True, help="Go on although fetching rows by key would scan the table."
)
_cutoff = click.option(
    "--cutoff-timestamp",
    metavar="TS",
    help="Copy rows created before TS, a time with its zone [migration.cutoff].",
)
_caches = click.option(
    "--cache-types", metavar="LIST", help="Layer caches, separated by commas [layer_cache.caches]."
)
log_format_option = click.option(
    "--log-format", type=click.Choice(["text", "json"]), help="How log lines are written [log.format]."
)
redact_keys_option = click.option(
    "--redact-keys", is_flag=True, help="Show keys in the log only as hashes [log.redact_keys]."
)


@click.command()
@config_option
@_cutoff
@_caches
@click.option("--grants", is_flag=True, help="Print only the smallest GRANTs for this configuration.")
@click.option("--iam", is_flag=True, help="Print only the smallest IAM policy for this configuration.")
@click.option("--probe", is_flag=True, help="Find out, and record, what the S3 endpoint really does.")
@click.option("--undo", is_flag=True, help="With --iam: and what `undo` needs besides.")
@click.pass_context
def check(
    ctx: click.Context,
    /,
    *,
    config_path: Path | None,
    cutoff_timestamp: str | None,
    cache_types: str | None,
    grants: bool,
    iam: bool,
    probe: bool,
    undo: bool,
) -> None:
    """Look at everything a migration needs, and change nothing but one probe object.

    Prints a line for each finding and exits with the code of the worst.
    """
    if undo and not iam:
        raise ConfigError(
            ["check: found --undo without --iam"], "`check --iam --undo` prints the rights of undo"
        )
    config = load_config(config_path, _scope(cutoff_timestamp, cache_types))
    if grants or iam:
        from daemon.permissions import grants_sql, iam_policy_json

        if grants:
            click.echo(grants_sql(config))
        if iam:
            click.echo(iam_policy_json(config, undo=undo))
        return
    import trio

    from daemon.checking import check_everything

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    ctx.exit(
        trio.run(
            functools.partial(check_everything, config, os.environ, click.echo, colour=colour, probe=probe)
        )
    )


@click.command()
@config_option
@_cutoff
@_caches
@click.option("--dry-run", "-n", is_flag=True, help="Count and estimate only; write nothing anywhere.")
@click.option("--reconcile", is_flag=True, help="Look once more at sources that are closed.")
@_accept_source
@_allow_seqscan
@log_format_option
@redact_keys_option
@click.pass_context
def plan(
    ctx: click.Context,
    /,
    *,
    config_path: Path | None,
    cutoff_timestamp: str | None,
    cache_types: str | None,
    log_format: str | None,
    redact_keys: bool,
    **flags: bool,
) -> None:
    """Decide which rows will be copied, and record it, without copying."""
    from daemon.config import PlanOptions

    overrides = _scope(cutoff_timestamp, cache_types) | log_overrides(log_format, redact_keys=redact_keys)

    def work(config: Config, ending: Ending) -> ExitCode:
        import trio

        from daemon import service

        return trio.run(service.plan, config, PlanOptions(**flags), ending)

    ctx.exit(concluded_by(config_path, overrides, work))


@click.command()
@config_option
@_accept_source
@_allow_seqscan
@click.option("--verify", is_flag=True, help="Verify against the bucket once every key is settled.")
@_cutoff
@_caches
@click.option("--key-batch-size", metavar="N", help="Keys claimed at once [upload.key_batch_size].")
@click.option(
    "--checkpoint-interval-secs",
    metavar="N",
    help="Seconds between progress lines [upload.checkpoint_interval_secs].",
)
@click.option(
    "--max-concurrent-uploads",
    metavar="N",
    help="Uploads at once for each layer cache, at most [upload.concurrency in all].",
)
@click.option("--max-duration", metavar="TIME", help="Drain after this time [limits.max_duration].")
@click.option("--max-bytes", metavar="SIZE", help="Claim no more bytes than this [limits.max_bytes].")
@click.option("--limit", metavar="N", help="Claim no more keys than this [limits.limit].")
@click.option(
    "--dry-run",
    "-n",
    is_flag=True,
    help="Say what it would do with the journal there is, and by which events; contact and change nothing.",
)
@click.option("--json", "as_json", is_flag=True, help="With --dry-run: print JSON, for programs.")
@log_format_option
@redact_keys_option
@click.pass_context
def run(
    ctx: click.Context,
    /,
    *,
    config_path: Path | None,
    cutoff_timestamp: str | None,
    cache_types: str | None,
    key_batch_size: str | None,
    checkpoint_interval_secs: str | None,
    max_concurrent_uploads: str | None,
    max_duration: str | None,
    max_bytes: str | None,
    limit: str | None,
    log_format: str | None,
    redact_keys: bool,
    dry_run: bool,
    as_json: bool,
    **flags: bool,
) -> None:
    """Copy every row of the plan, planning first if needed; the same command resumes.

    SIGTERM or the first Ctrl-C lets uploads end within upload.drain_deadline, the second stops at once.
    """
    from daemon.config import RunOptions

    if as_json and not dry_run:
        raise ConfigError(
            ["run: found --json without --dry-run"], "`status --json` tells of a running migration"
        )
    overrides = {
        **_scope(cutoff_timestamp, cache_types),
        "upload.key_batch_size": key_batch_size,
        "upload.checkpoint_interval_secs": checkpoint_interval_secs,
        "upload.concurrency_per_cache": max_concurrent_uploads,
        "limits.max_duration": max_duration,
        "limits.max_bytes": max_bytes,
        "limits.limit": limit,
        **log_overrides(log_format, redact_keys=redact_keys),
    }
    if dry_run:
        from daemon.commands.previewing import preview

        preview(load_config(config_path, overrides), as_json=as_json)
        return

    def work(config: Config, ending: Ending) -> ExitCode:
        import trio

        from daemon import service

        load = functools.partial(load_config, config_path, overrides)
        return trio.run(service.run, config, RunOptions(**flags), ending, load)

    ctx.exit(concluded_by(config_path, overrides, work))


@click.command()
@config_option
@_cutoff
@_caches
@click.option(
    "--tier",
    "tiers",
    type=click.Choice(["receipts", "list", "head", "source", "content"]),
    multiple=True,
    help="Look this way, at every key; repeatable. By default: list, then content for a sample.",
)
@click.option(
    "--sample",
    metavar="SIZE",
    help='Let head, source and content look at "0.1%" of the keys, at so many, or at "all".',
)
@click.option("--source", "sources", metavar="NAME", multiple=True, help="Only this source; repeatable.")
@click.option("--no-extra", is_flag=True, help="Fail also on objects in the bucket that no row accounts for.")
@click.option("--repair", is_flag=True, help="Let keys be driven again whose object is missing or differs.")
@click.option("--fresh", is_flag=True, help="Begin anew instead of taking up what was interrupted.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@log_format_option
@redact_keys_option
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    *,
    config_path: Path | None,
    cutoff_timestamp: str | None,
    cache_types: str | None,
    tiers: tuple[str, ...],
    sample: str | None,
    sources: tuple[str, ...],
    log_format: str | None,
    redact_keys: bool,
    **flags: bool,
) -> None:
    """Compare what was copied with the journal, the bucket and the table; change nothing but the journal.

    \b
    receipts  the journal alone: its chain, plan, counters, and a digest for every key
    list      the bucket's listing: every object's size, and its MD5 where the ETag is one
    head      every object's headers: our digest, migration and checksums
    source    the table: length and MD5 of every row, computed by PostgreSQL; rows the journal does not know
    content   every object's bytes against its row
    """  # noqa: D301 -- click's mark for lines to be left as they are
    overrides = _scope(cutoff_timestamp, cache_types) | log_overrides(log_format, redact_keys=redact_keys)

    def work(config: Config, ending: Ending) -> ExitCode:
        import trio

        from daemon import service

        options = _verify_options(config, tiers, sample, sources, **flags)
        return trio.run(service.verify, config, options, ending)

    ctx.exit(concluded_by(config_path, overrides, work))


def _verify_options(
    config: Config, tiers: tuple[str, ...], sample: str | None, sources: tuple[str, ...], **flags: bool
) -> VerifyOptions:
    """Return what the flags of `verify` ask for.

    Raises:
        ConfigError: what can't be meant, all of it at once.
    """
    from daemon.comparing import TierName
    from daemon.sampling import EVERY_KEY, parse_sample
    from daemon.verify_ends import DEFAULT_STEPS, VerifyOptions
    from daemon.verifying import Step

    steps = tuple(Step(TierName(tier)) for tier in tiers) or DEFAULT_STEPS
    asked = {step.tier for step in steps}
    sampled = {TierName.HEAD, TierName.SOURCE, TierName.CONTENT}
    configured = [spec.name for spec in config.sources]
    problems = [f"--tier {tier}: given twice" for tier in sorted(asked) if tiers.count(tier) > 1]
    problems += [
        f'--source: found "{name}"; expected one of {", ".join(configured)}'
        for name in sources
        if name not in configured
    ]
    size = None
    if sample is not None:
        try:
            size = parse_sample(sample)
        except ValueError as error:
            problems.append(f"--sample: {error}")
        if not asked & sampled:
            problems.append(
                "--sample: receipts and list look at every key; expected --tier head, source or content"
            )
    if flags["no_extra"] and not asked & {TierName.LIST, TierName.SOURCE}:
        problems.append("--no-extra: these tiers look for no other objects; expected --tier list or source")
    if flags["repair"] and asked == {TierName.RECEIPTS}:
        problems.append("--repair: receipts looks at no object; expected a tier that does")
    if problems:
        raise ConfigError(problems, "`backfillctl verify --help` tells what each tier looks at")
    if size is not None:
        steps = tuple(Step(step.tier, size if step.tier in sampled else EVERY_KEY) for step in steps)
    return VerifyOptions(steps, sources, **flags)


def concluded_by(
    config_path: Path | None, overrides: dict[str, object], work: Callable[[Config, Ending], ExitCode]
) -> ExitCode:
    """Do the work of a command in the frame that `daemon.ending.concluded` is; return the exit code."""
    from daemon.ending import concluded

    log_format = overrides.get("log.format") or os.environ.get("BACKFILL_LOG_FORMAT")
    load = functools.partial(load_config, config_path, overrides)
    return concluded(load, work, log_format=str(log_format or "text"))


def log_overrides(log_format: str | None, *, redact_keys: bool) -> dict[str, object]:
    """Return what these two flags override; a flag that is not given leaves the choice to the file."""
    return {"log.format": log_format, "log.redact_keys": redact_keys or None}


def _scope(cutoff_timestamp: str | None, cache_types: str | None) -> dict[str, object]:
    """Return what these two flags override; an empty name among the caches stays, to be refused as unknown."""
    names = cache_types.split(",") if cache_types and cache_types.strip() else []
    return {
        "migration.cutoff": cutoff_timestamp,
        "layer_cache.caches": None if cache_types is None else [name.strip() for name in names],
    }


COMMANDS = (check, plan, run, verify)
