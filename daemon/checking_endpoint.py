"""The survey that `check --probe` makes, and its place in the journal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from daemon.endpoints import open_bucket
from daemon.errors import BackfillError
from daemon.findings import Finding, failure, ok, warning
from daemon.operators import operator
from daemon.retrying import Failure
from daemon.survey_findings import survey_findings
from daemon.surveying import Survey, survey
from journal.errors import JournalError
from journal.events import Kind
from journal.filesystem import is_there
from journal.log import Journal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from daemon.config import Config


async def check_endpoint(
    config: Config, env: Mapping[str, str], report: Callable[[Finding], None], *, clock_us: Callable[[], int]
) -> None:
    """Report what the endpoint really does, and record it where there is a journal that nobody holds.

    Args:
        config: the configuration.
        env: the environment, for proxy variables and AWS_CA_BUNDLE.
        report: takes each finding as soon as it is made.
        clock_us: wall clock, microseconds since 1970-01-01 UTC.
    """
    surveys: dict[str, Survey] = {}
    try:
        async with open_bucket(config, env, clock_us=clock_us) as bucket:
            for source in config.sources:
                try:
                    found = await survey(bucket, source.bucket, source.prefix, now_us=clock_us)
                except Failure as answer:
                    text = f"not surveyed: {answer.message}"
                    report(warning(f"bucket {source.bucket}", text, "run `check --probe` again"))
                    continue
                surveys[source.name] = found
                for finding in survey_findings(found):
                    report(finding)
    except BackfillError as error:
        report(failure("s3", error))
    if surveys:
        _record(config, surveys, report, now_us=clock_us())


def _record(
    config: Config, surveys: Mapping[str, Survey], report: Callable[[Finding], None], *, now_us: int
) -> None:
    path = config.migration.journal
    if not is_there(path):
        report(ok("journal", "there is none yet: what the endpoint does is not on record"))
        return
    try:
        with Journal.open(path, now_us=now_us, wait_seconds=0.0) as journal:
            for name, found in surveys.items():
                record = journal.sources.get(name)
                if record is None or record.identity.get("bucket") not in {None, found.bucket}:
                    continue
                data: dict[str, Any] = {**found.as_data(), "who": operator()}
                journal.note(Kind.ENDPOINT_PROBED, data, source=record.id, now_us=now_us)
    except JournalError as error:
        report(warning("journal", f"what the endpoint does is not on record: {error.problem}", error.hint))
    else:
        report(ok("journal", "what the endpoint does is on record"))
