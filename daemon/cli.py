"""`backfillctl`: the commands, and the one place where a failure becomes a message and an exit code."""

from __future__ import annotations

import errno
import io
import os
import resource
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from daemon import __version__
from daemon.commands import (
    attesting,
    controlling,
    copying,
    journalling,
    reading,
    reporting,
    starting,
    undoing,
)
from daemon.error_text import error_text, expected, is_output_failure, unexpected
from daemon.errors import BackfillError, ExitCode
from daemon.findings import exit_code_of, gravest
from journal.errors import JournalError

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Commands(click.Group):
    """The group that turns every expected failure into one screen of text; the rest stays a traceback."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        with _guarded_output():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _guarded_output():
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (BackfillError, JournalError, BaseExceptionGroup) as error:
            surprises = unexpected(error)
            if surprises and all(map(is_output_failure, surprises)):
                raise surprises[0] from None
            if surprises:
                raise
            failures = expected(error)
            ctx.exit(_tell(failures) if failures else _interrupted())
        except KeyboardInterrupt:
            ctx.exit(_interrupted())


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="backfillctl")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Move blobs out of PostgreSQL into S3, resume after any interruption, and prove that it is complete.

    Begin with `backfillctl demo`, or with `init`, `check`, `plan`, `run`, `status`, `verify`.
    """
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        click.echo("\nerror: no command given", err=True)
        ctx.exit(ExitCode.USAGE)


for _module in (starting, copying, reading, controlling, journalling, undoing, attesting, reporting):
    for _command in _module.COMMANDS:
        cli.add_command(_command)


def main() -> None:
    """Run `backfillctl` with this process's arguments and exit."""
    # A core file would hold passwords, keys and rows. The hard limit stays: prlimit(1) allows one where it is wanted.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A key that the terminal's encoding lacks is shown escaped; it must not end the command.
            stream.reconfigure(errors="backslashreplace")
    cli(prog_name="backfillctl")


@contextmanager
def _guarded_output() -> Iterator[None]:
    """Write out what the block printed; exit 1 if standard output does not take it.

    Flushed here, because what the interpreter fails to flush at its end is a traceback and exit code 120.
    """
    try:
        try:
            yield
        except click.exceptions.Exit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    except OSError as failure:
        if not is_output_failure(failure):
            raise
        # What is still buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if failure.errno != errno.EPIPE:
            click.echo(
                f"error: write standard output: {(failure.strerror or str(failure)).lower()}", err=True
            )
        raise click.exceptions.Exit(ExitCode.FAILED) from failure


def _tell(failures: list[BackfillError | JournalError]) -> ExitCode:
    """Print each failure, its hint after it, and return the gravest exit code."""
    for failure in failures:
        click.echo(error_text(failure), err=True)
    return gravest(exit_code_of(failure) for failure in failures)


def _interrupted() -> ExitCode:
    click.echo("error: interrupted\nhint: the same command continues where this one stopped", err=True)
    return ExitCode.INTERRUPTED
