"""Go through the tiers that a verification was asked for: take up what was interrupted, escalate, repair."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from random import Random

from daemon.comparing import REPAIRABLE, TierName, VerificationResult
from daemon.log_events import LogEvent, log_event
from daemon.recorder import Recorder
from daemon.sampling import EVERY_KEY, SampleSize
from daemon.tiers import Tier, VerifiedSource
from daemon.verification import Scope, Verification, recorded_result
from daemon.verification_stage import discard_listing
from journal.entries import Revocation
from journal.events import Kind
from journal.log import Journal
from journal.reader import Reader
from journal.verification_runs import OpenRun, open_run, verification_runs

REPAIRED_PER_CALL = 10_000
"""Keys whose outcome is revoked at once."""


@dataclass(frozen=True, slots=True)
class Step:
    """One tier, over every key or a sample."""

    tier: TierName
    sample: SampleSize = EVERY_KEY


@dataclass(frozen=True, slots=True)
class Verifier:
    """What verifications of one journal have in common.

    Attributes:
        sources: to be verified.
        tiers: makes each tier, when it is its turn.
        extra_fails: as in `Scope`.
        who: the operator.
        fresh: what was interrupted is begun anew.
        told: called as a run gets on.
    """

    recorder: Recorder
    reader: Reader
    sources: Sequence[VerifiedSource]
    tiers: Mapping[TierName, Callable[[], Tier]]
    random: Random
    extra_fails: bool
    who: str
    fresh: bool = False
    told: Callable[[Verification], None] = lambda _: None

    async def verify(self, steps: Sequence[Step]) -> list[VerificationResult]:
        """Go through `steps`; a sample with a mismatch is followed by every key.

        Raises:
            RefusedError, UnreachableError, BackfillError: an end that does not answer.
            JournalError: the journal.
        """
        interrupted, left = self._interrupted(steps)
        if interrupted is None:
            discard_listing(self.recorder.journal.path)
        results = [] if interrupted is None else self._before(interrupted)
        for step in left:
            result = await self._run(step, steps, interrupted, results)
            interrupted = None
            results.append(result)
            if result.sample is not None and result.exit_code:
                log_event(
                    LogEvent.VERIFICATION_ESCALATED,
                    f"{step.tier}: the sample has a mismatch: every key is looked at",
                    tier=step.tier.value,
                    checked=result.checked,
                )
                results.append(await self._run(replace(step, sample=EVERY_KEY), steps, None, results))
        return results

    async def _run(
        self,
        step: Step,
        steps: Sequence[Step],
        interrupted: OpenRun | None,
        before: Sequence[VerificationResult],
    ) -> VerificationResult:
        verification = Verification(
            self.tiers[step.tier](),
            self.sources,
            self.reader,
            latest=self.recorder.journal.latest,
            record=self.recorder.note,
            scope=self._scope(step, steps),
            seed=self.random.getrandbits(32),
            follows=before[-1].run if before else None,
            told=self.told,
        )
        return await verification.run(interrupted)

    def _scope(self, step: Step, steps: Sequence[Step]) -> Scope:
        return Scope(tuple(each.tier for each in steps), step.sample, self.extra_fails, self.who)

    def _interrupted(self, steps: Sequence[Step]) -> tuple[OpenRun | None, Sequence[Step]]:
        """Return the run to take up, and what is left to do from it on; tiers before it are finished."""
        found = self.reader.read(open_run)
        if found is None or found.outdated or self.fresh:
            return None, steps
        for place, step in enumerate(steps):
            for scope in (self._scope(step, steps), self._scope(replace(step, sample=EVERY_KEY), steps)):
                asked = {"tier": step.tier.value, **scope.as_data(self.sources)}
                if {name: found.data.get(name) for name in asked} == asked:
                    log_event(
                        LogEvent.VERIFICATION_TAKEN_UP,
                        f"{step.tier}: taking up the verification that was interrupted (event {found.seq})",
                        tier=step.tier.value,
                        run=found.seq,
                    )
                    return found, [replace(step, sample=scope.sample), *steps[place + 1 :]]
        return None, steps

    def _before(self, interrupted: OpenRun) -> list[VerificationResult]:
        """Return what the finished runs of the same command found before it was interrupted."""
        names = {source.id: source.name for source in self.sources}
        runs = {run.seq: run for run in self.reader.read(verification_runs)}
        results = []
        follows = interrupted.data.get("follows")
        while follows in runs:
            results.append(recorded_result(self.reader, runs[follows], names))
            follows = runs[follows].follows
        return results[::-1]


async def repair(recorder: Recorder, reader: Reader, runs: Sequence[int], *, who: str) -> int:
    """Let every key be driven again whose object or row these runs found wrong; return how many.

    Raises:
        JournalError: the journal; what was revoked before stays so, and the next repair does the rest.
    """

    def revoke(ordinals: Sequence[int], journal: Journal, now_us: int) -> None:
        message = "found wrong by a verification"
        journal.revoke(ordinals, Revocation.REPAIR, message=message, who=who, now_us=now_us)

    repaired = 0
    wrong = _wrong(reader, runs)
    while part := set(islice(wrong, REPAIRED_PER_CALL)):
        # Two tiers name the same key, and so does a run that looked at it again after an interruption.
        left = [row.ordinal for row in reader.objects_of(sorted(part))]
        if left:
            await recorder.call(partial(revoke, left))
        repaired += len(left)
    return repaired


def _wrong(reader: Reader, runs: Sequence[int]) -> Iterator[int]:
    found = reader.events(kinds=[Kind.FINDING_RECORDED.value], after_seq=min(runs, default=0))
    for event in found:
        if event.data["run"] in runs:
            for kind, ordinal, _, _ in event.data["findings"]:
                if ordinal is not None and kind in REPAIRABLE:
                    yield ordinal
