"""A real journal beside an in-memory bucket that can only be listed."""

from __future__ import annotations

import hashlib
from random import Random
from typing import TYPE_CHECKING

import trio
import trio.testing

from daemon.comparing import TierName
from daemon.layouts import Layout, object_key
from daemon.objects import ListedObject
from daemon.requesting import RequestPolicy
from daemon.tier_list import ListTier
from daemon.tiers import VerifiedSource
from daemon.verification import Scope, Verification
from journal.checkpoint import Order
from journal.entries import Parked, Settled
from journal.lifecycle import Outcome
from journal.log import Journal
from journal.reader import Reader

if TYPE_CHECKING:
    from pathlib import Path

    from daemon.comparing import VerificationResult

NOW_US = 1_768_400_000_000_000
SETTLED = {outcome.value: outcome for outcome in Outcome}


def value_of(row_key: str) -> bytes:
    return row_key.encode() * 3


def md5_of(row_key: str) -> str:
    return hashlib.md5(value_of(row_key), usedforsecurity=False).hexdigest()


class ListOnly:
    """A bucket whose listings come in an order of their own, a few keys a page."""

    def __init__(
        self, objects: dict[str, dict[str, tuple[int, str]]], *, page: int = 3, seed: int = 0
    ) -> None:
        self.objects = objects
        self.requests = 0
        self._page = page
        self._orders = {
            bucket: Random(seed).sample(sorted(keys), len(keys)) for bucket, keys in objects.items()
        }

    async def list_page(self, bucket, prefix, *, token):
        await trio.lowlevel.checkpoint()
        self.requests += 1
        keys = [key for key in self._orders[bucket] if key.startswith(prefix)]
        begin = int(token or 0)
        end = begin + self._page
        found = [ListedObject(key, *self.objects[bucket][key]) for key in keys[begin:end]]
        return found, str(end) if end < len(keys) else None

    async def refresh_credentials(self):
        await trio.lowlevel.checkpoint()


def write_journal(
    path: Path, sources: dict[str, dict[str, str]], *, etags: dict[str, str] | None = None
) -> Journal:
    """Make a journal in which each key of each source has come to the state named; return it open.

    States: an outcome, "parked", "in_flight" or "waiting".
    """
    journal = Journal.create(path, name="m", cutoff_us=NOW_US, order=Order.NEWEST_FIRST, now_us=NOW_US)
    journal.start_session(now_us=NOW_US, facts={})
    for name, keys in sources.items():
        source = journal.add_source(name, {"table": name}, now_us=NOW_US)
        journal.begin_pass(source, kind="sweep", now_us=NOW_US)
        rows = [(key, None, len(value_of(key)), None) for key in sorted(keys)]
        if rows:
            journal.seal_chunk(source, rows, now_us=NOW_US)
        journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
        settle(journal, source, keys, etags or {})
    journal.build_key_index()
    return journal


def settle(journal: Journal, source: int, states: dict[str, str], etags: dict[str, str]) -> None:
    claim = journal.claim(source, limit=10_000, window=20_000, now_us=NOW_US)
    ends: list[Settled | Parked] = []
    waiting = []
    for key in claim.keys if claim else ():
        state = states[key.row_key]
        if state in SETTLED:
            read = state in {"stored", "recovered", "present"}
            size = len(value_of(key.row_key)) if state != "vanished" else 0
            md5 = md5_of(key.row_key) if read else ""
            etag = etags.get(key.row_key) if read else None
            ends.append(Settled(key.ordinal, SETTLED[state], size, md5, etag))
        elif state == "parked":
            ends.append(Parked(key.ordinal, "foreign_object", "differs"))
        elif state == "waiting":
            waiting.append(key.ordinal)
    journal.record(ends, now_us=NOW_US)
    journal.release(waiting, now_us=NOW_US)


def verify(
    journal: Journal,
    lister: ListOnly,
    layouts: dict[str, Layout],
    *,
    bucket: str = "blobs",
    extra_fails: bool = False,
) -> VerificationResult:
    """Run one verification in virtual time."""

    async def run():
        with Reader.open(journal.path) as reader:
            tier = ListTier(journal.path, lister, journal.latest, policy())
            verification = Verification(
                tier,
                verified_sources(journal, layouts, bucket=bucket),
                reader,
                latest=journal.latest,
                record=recording(journal),
                scope=Scope((TierName.LIST,), extra_fails=extra_fails),
                seed=1,
            )
            return await verification.run()

    return trio.run(run, clock=trio.testing.MockClock(autojump_threshold=0))


def policy() -> RequestPolicy:
    return RequestPolicy(max_attempts=3, give_up_after=60.0, random=Random(1))


def recording(journal: Journal):
    """What a verification writes its events with."""

    async def record(kind, data, *, source):
        await trio.lowlevel.checkpoint()
        return journal.note(kind, data, now_us=NOW_US, source=source)

    return record


def verified_sources(
    journal: Journal, layouts: dict[str, Layout], *, bucket: str = "blobs"
) -> list[VerifiedSource]:
    counts = journal.counts()
    return [
        VerifiedSource(found.id, name, bucket, layouts[name], counts[name])
        for name, found in journal.sources.items()
    ]


def bucket_of(layout: Layout, keys) -> dict[str, tuple[int, str]]:
    """Return the objects of these row keys as they should be."""
    return {object_key(layout, key): (len(value_of(key)), md5_of(key)) for key in keys}
