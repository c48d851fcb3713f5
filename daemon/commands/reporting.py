"""The command that writes what a change ticket is closed with."""

from __future__ import annotations

from pathlib import Path

import click

from daemon.commands.options import config_option, find_journal, journal_option, now_us


@click.command()
@config_option
@journal_option
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    required=True,
    help="Where the four files go; made if it is not there.",
)
@click.option(
    "--level",
    type=click.Choice(["all", "errors"]),
    default="all",
    show_default=True,
    help="Which keys keys.csv.gz has.",
)
@click.option("--force", is_flag=True, help="Overwrite files in DIR that are no earlier report.")
def report(
    config_path: Path | None, journal_path: Path | None, output: Path, level: str, *, force: bool
) -> None:
    """Write a report from the journal: report.html, report.json, keys.csv.gz, manifest.json.

    At any time, also beside a daemon or after one has died; the journal is only read.
    """
    path = find_journal(config_path, journal_path)
    from daemon import rendering_units as units
    from daemon.report_keys import Level
    from daemon.reporting import write_report
    from journal.reader import Reader

    with Reader.open(path) as reader:
        written = write_report(reader, output, level=Level(level), force=force, now_us=now_us())
    for name, size in written.sizes.items():
        click.echo(f"{output / name}  {units.size(size)}")
    keys = units.plural(written.keys_written, "key")
    click.echo(f"{output / 'manifest.json'}  {keys} of {units.count(written.keys)} in keys.csv.gz")


COMMANDS = (report,)
"""What this module adds to the command line."""
