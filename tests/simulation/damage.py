"""Damage done to a bucket after the end, and a verification that must find exactly that and change nothing (I13)."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from functools import partial
from random import Random
from typing import TYPE_CHECKING

import daemon.service
from daemon.comparing import TierName
from daemon.ending import Ending
from daemon.errors import ExitCode
from daemon.log_lines import Style
from daemon.logs import StderrLog
from daemon.service import stoppable
from daemon.verify_ends import VerifyOptions
from daemon.verifying import Step
from tests.simulation.observer import ensure
from tests.simulation.s3_end import PROBE
from tests.simulation.worlds import object_key

if TYPE_CHECKING:
    from tests.simulation.simulation import Simulation

READING = {"LIST", "HEAD", "GET"}


async def damaged_and_repaired(simulation: Simulation) -> bool:
    """Damage, verify, verify and repair; return whether anything is to be driven again."""
    rng = Random(f"damage {simulation.world.seed}")
    done = _damage(simulation, rng)
    before = _whole(simulation)
    state, outcome = dict(simulation.observer.state), dict(simulation.observer.outcome)
    seen, first = len(simulation.s3.seen), len(simulation.observer.events)
    code = await _verified(simulation, VerifyOptions(steps=(Step(TierName.LIST),), no_extra=True))
    found = _found(simulation, first)
    ensure(found == done, f"verification found {found}, the damage is {done}")
    ensure((code is ExitCode.MISMATCH) is bool(done), f"verification of {done} ended with {code.name}")
    ensure(_whole(simulation) == before, "verification changed the bucket")
    sent = {request.operation for request in simulation.s3.seen[seen:]}
    ensure(sent <= READING, f"verification sent {sent - READING}")
    unchanged = (simulation.observer.state, simulation.observer.outcome) == (state, outcome)
    ensure(unchanged, "verification changed what became of keys")
    for bucket, key in [place for place in before if place[1].endswith("nobody's")]:
        del simulation.s3.buckets[bucket][key]
    wrong = done["missing"] + done["differing"]
    await _verified(simulation, VerifyOptions(steps=(Step(TierName.LIST),), repair=True))
    ensure(len(simulation.observer.unsettled - _unsettled(state)) == wrong, "repair took other outcomes back")
    simulation.reached["damage repaired"] += wrong
    return wrong > 0


def _damage(simulation: Simulation, rng: Random) -> Counter[str]:
    observer, done = simulation.observer, Counter[str]()
    specs = {observer.source_ids[spec.name]: spec for spec in simulation.world.config.sources}
    ours = [
        (specs[source].bucket, object_key(specs[source], key))
        for (source, key), ordinal in observer.newest().items()
        if observer.state[ordinal] == "settled" and observer.outcome[ordinal].code in "SR"
    ]
    for bucket, key in rng.sample(ours, min(len(ours), rng.randint(0, 4))):
        versions = simulation.s3.buckets[bucket][key]
        kind = rng.choice(["missing", "differing"])
        if kind == "missing":
            del simulation.s3.buckets[bucket][key]
        else:
            stored = versions[-1]
            versions[-1] = replace(stored, body=stored.body + b"!", etag="0" * 32)
        done[kind] += 1
    if rng.random() < 0.5:
        spec = rng.choice(list(specs.values()))
        simulation.s3.place(f"{spec.prefix}nobody's", b"extra", spec.bucket)
        done["extra"] += 1
    planned = {
        (specs[source].bucket, object_key(specs[source], row_key))
        for (source, row_key), ordinal in observer.newest().items()
        if ordinal not in observer.outcome or observer.outcome[ordinal].code != "V"
    }
    done["extra"] += sum(
        (spec.bucket, key) not in planned and not key.endswith((PROBE, "nobody's"))
        for spec in specs.values()
        for key in simulation.s3.objects(spec.bucket)
        if key.startswith(spec.prefix)
    )
    done = +done
    for kind, count in done.items():
        simulation.reached[f"damage {kind}"] += count
    return done


async def _verified(simulation: Simulation, options: VerifyOptions) -> ExitCode:
    ending = Ending(StderrLog(Style.TEXT))
    work = partial(daemon.service._verify, simulation.world.config, options, ending)
    return await stoppable(work, ending, grace_seconds=0)


def _found(simulation: Simulation, first: int) -> Counter[str]:
    finished = [event for event in simulation.observer.events[first:] if event[2] == "verification_finished"]
    ensure(len(finished) == 1, f"{len(finished)} verifications finished")
    told = json.loads(finished[0][5])
    return +Counter({kind: told[kind] for kind in ("missing", "differing", "extra")})


def _whole(simulation: Simulation) -> dict[tuple[str, str], list[bytes]]:
    return {
        (bucket, key): [stored.body for stored in versions]
        for bucket, keys in simulation.s3.buckets.items()
        for key, versions in keys.items()
    }


def _unsettled(state: dict[int, str]) -> set[int]:
    return {ordinal for ordinal, found in state.items() if found != "settled"}
