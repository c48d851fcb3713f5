"""Both ends as a whole session needs them, and the look at them before anything is written."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

from daemon.config import Config
from daemon.contact import first_contact
from daemon.credentials import CredentialProvider
from daemon.errors import SourceUnfitError
from daemon.executors import ValueSource
from daemon.probing import ProbeFinding
from daemon.rows import ServerFacts, TableFacts
from daemon.runtime import Runtime
from daemon.scanning import PlanSource
from daemon.uploader import Target


class SourceEnd(PlanSource, ValueSource, Protocol):
    """PostgreSQL, as a whole session needs it."""


class TargetEnd(Target, Protocol):
    """The bucket, as a whole session needs it."""

    @property
    def credentials(self) -> CredentialProvider:
        """Whose requests these are."""

    async def probe(self, bucket: str, prefix: str) -> ProbeFinding:
        """Find out what conditional PUTs are worth there; raises Failure."""


@dataclass(frozen=True)
class Survey:
    """Both ends, looked at before anything is written.

    Attributes:
        server: which PostgreSQL server answers.
        tables: what each source's table is, by source name.
        probes: what conditional PUTs are worth in each bucket; empty where no bucket was asked.
    """

    server: ServerFacts
    tables: dict[str, TableFacts]
    probes: dict[str, ProbeFinding]


async def survey(
    config: Config,
    source: PlanSource,
    target: TargetEnd | None,
    runtime: Runtime,
    *,
    allow_seqscan: bool,
) -> Survey:
    """Look at the server, at every source's table, and probe each bucket, if there is a target.

    Nothing is changed but the probe object, which is deleted again where that is allowed.

    Raises:
        SourceUnfitError: with the problems of all sources together.
        MigrationHalted, UnreachableError, RefusedError: an end does not answer, or refuses.
    """
    server = await source.server()
    tables: dict[str, TableFacts] = {}
    problems: list[SourceUnfitError] = []
    for spec in config.sources:
        try:
            facts = await source.describe(spec)
            if not allow_seqscan:
                await source.check_fetch_plan(spec, facts)
        except SourceUnfitError as unfit:
            problems.append(unfit)
        else:
            tables[spec.name] = facts
    if problems:
        hints = list(dict.fromkeys(problem.hint for problem in problems if problem.hint))
        raise SourceUnfitError("\n".join(problem.problem for problem in problems), "\n        ".join(hints))
    return Survey(server, tables, {} if target is None else await probe_buckets(config, target, runtime))


async def probe_buckets(config: Config, target: TargetEnd, runtime: Runtime) -> dict[str, ProbeFinding]:
    """Find out what conditional PUTs are worth in each bucket; leaves nothing behind where it may delete.

    Raises:
        MigrationHalted: the endpoint does not answer, or refuses.
    """
    findings: dict[str, ProbeFinding] = {}
    for spec in config.sources:
        if spec.bucket not in findings:
            findings[spec.bucket] = await first_contact(
                f"bucket {spec.bucket}",
                functools.partial(target.probe, spec.bucket, spec.prefix),
                max_attempts=config.upload.max_attempts,
                give_up_after=config.upload.give_up_after,
                random=runtime.random,
                patient=runtime.patient,
                refresh=target.refresh_credentials,
            )
    return findings
