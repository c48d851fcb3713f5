"""Commands that read the source and the bucket: check, plan, run, verify."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING

import click

from daemon.commands.options import config_option, load_config

if TYPE_CHECKING:
    from pathlib import Path

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


@click.command()
@config_option
@_cutoff
@_caches
@click.option("--grants", is_flag=True, help="Print only the smallest GRANTs for this configuration.")
@click.option("--iam", is_flag=True, help="Print only the smallest IAM policy for this configuration.")
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
) -> None:
    """Look at everything a migration needs, and change nothing but one probe object.

    Prints a line for each finding and exits with the code of the worst.
    """
    config = load_config(config_path, _scope(cutoff_timestamp, cache_types))
    if grants or iam:
        from daemon.permissions import grants_sql, iam_policy_json

        if grants:
            click.echo(grants_sql(config))
        if iam:
            click.echo(iam_policy_json(config))
        return
    import trio

    from daemon.checking import check_everything

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    ctx.exit(trio.run(functools.partial(check_everything, config, os.environ, click.echo, colour=colour)))


@click.command()
@config_option
@_cutoff
@_caches
@click.option("--dry-run", "-n", is_flag=True, help="Count and estimate only; write nothing anywhere.")
@click.option("--reconcile", is_flag=True, help="Look once more at sources that are closed.")
@_accept_source
@_allow_seqscan
@click.pass_context
def plan(
    ctx: click.Context,
    /,
    *,
    config_path: Path | None,
    cutoff_timestamp: str | None,
    cache_types: str | None,
    **flags: bool,
) -> None:
    """Decide which rows will be copied, and record it, without copying."""
    from daemon.config import PlanOptions

    config = load_config(config_path, _scope(cutoff_timestamp, cache_types))
    import trio

    from daemon import service

    ctx.exit(trio.run(service.plan, config, PlanOptions(**flags)))


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
    help="Uploads at once for each layer cache [upload.concurrency in all].",
)
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
    **flags: bool,
) -> None:
    """Copy every row of the plan, planning first if needed; the same command resumes.

    SIGTERM or the first Ctrl-C lets uploads end within upload.drain_deadline, the second stops at once.
    """
    from daemon.config import RunOptions

    overrides = {
        **_scope(cutoff_timestamp, cache_types),
        "upload.key_batch_size": key_batch_size,
        "upload.checkpoint_interval_secs": checkpoint_interval_secs,
        "upload.concurrency_per_cache": max_concurrent_uploads,
    }
    config = load_config(config_path, overrides)
    import trio

    from daemon import service

    ctx.exit(trio.run(service.run, config, RunOptions(**flags)))


@click.command()
@config_option
@_cutoff
@_caches
@click.option("--no-extra", is_flag=True, help="Fail also on objects in the bucket that no row accounts for.")
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    *,
    config_path: Path | None,
    cutoff_timestamp: str | None,
    cache_types: str | None,
    no_extra: bool,
) -> None:
    """List the bucket and compare it with the journal: every stored or present key, its size and MD5."""
    config = load_config(config_path, _scope(cutoff_timestamp, cache_types))
    import trio

    from daemon import service

    ctx.exit(trio.run(functools.partial(service.verify, config, no_extra=no_extra)))


def _scope(cutoff_timestamp: str | None, cache_types: str | None) -> dict[str, object]:
    """Return what these two flags override; an empty name among the caches stays, to be refused as unknown."""
    names = cache_types.split(",") if cache_types and cache_types.strip() else []
    return {
        "migration.cutoff": cutoff_timestamp,
        "layer_cache.caches": None if cache_types is None else [name.strip() for name in names],
    }


COMMANDS = (check, plan, run, verify)
