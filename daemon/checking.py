"""The command `check`: look at journal, PostgreSQL and S3 before a migration relies on them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.checking_endpoint import check_endpoint
from daemon.checking_journal import check_journal
from daemon.checking_postgres import check_postgres
from daemon.checking_s3 import check_s3
from daemon.findings import Finding, finding_lines, gravest
from daemon.permissions import grants_sql, iam_policy_json
from daemon.runtime import Runtime

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daemon.config import Config
    from daemon.errors import ExitCode

SUBJECT_WIDTH_MAX = 24
"""Longer subjects, such as a bucket of 63 characters, push their own line only."""


async def check_everything(
    config: Config, env: Mapping[str, str], write: Callable[[str], None], *, colour: bool, probe: bool = False
) -> ExitCode:
    """Check everything, write a line for each finding and then the smallest rights; return the worst's code.

    Changes nothing but the probe's object in each place written to, which is deleted again.

    Args:
        config: the configuration, known to be right by itself.
        env: the environment.
        write: takes each line as soon as it is known.
        colour: mark lines green, yellow and red.
        probe: find out what the endpoint really does, too, by a few more objects; and record it.
    """
    runtime = Runtime()
    findings: list[Finding] = []
    named = [
        text for source in config.sources for text in (f"source {source.name}", f"bucket {source.bucket}")
    ]
    width = min(SUBJECT_WIDTH_MAX, max(len(text) for text in ["postgres", *named]))

    def report(finding: Finding) -> None:
        findings.append(finding)
        write(finding_lines(finding, subject_width=width, colour=colour))

    check_journal(config.migration.journal, report, disk_reserve=config.migration.disk_reserve)
    await check_postgres(config, report, runtime=runtime)
    await check_s3(config, env, report, clock_us=runtime.now_us)
    if probe:
        await check_endpoint(config, env, report, clock_us=runtime.now_us)
    write(f"\n{grants_sql(config)}\n\n{iam_policy_json(config)}")
    return gravest(finding.exit_code for finding in findings)
