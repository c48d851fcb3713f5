"""An undo that dies at every commit and at every request in turn, and is begun again."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from random import Random

import httpx
import pytest
import trio

from daemon import deleting
from daemon.deleting import Deletion, DeletionPolicy, UndoneSource
from daemon.drain import Drain
from daemon.judging import migration_mark
from daemon.layouts import Layout
from daemon.requesting import RequestPolicy
from daemon.undo import UndoOptions, created_in, recorded
from daemon.undoing import Scope
from journal.checkpoint import Order
from journal.entries import Parked, Settled
from journal.events import Kind
from journal.lifecycle import Outcome
from journal.log import Journal
from journal.reader import Reader
from tests.s3_fake import FakeS3
from tests.s3_servers import BUCKET, fake_server
from tests.simulation.crashing import Crashed, journal_in, unsynced

NOW_US = 1_768_400_000_000_000
STATES = ["stored", "recovered", "present", "replaced", "foreign", "gone", "vanished", "parked", "superseded"]
OURS = {"stored", "recovered", "superseded"}


@dataclass
class DyingProcess:
    """Dies at the commit, or request, of this number: before it takes effect, or after."""

    kind: str = ""
    number: int = -1
    after: bool = False
    dead: bool = False
    broken: bool = False
    seen: Counter[tuple[str, bool]] = field(default_factory=Counter)

    def passes(self, kind: str, *, after: bool) -> None:
        if (kind, after) == (self.kind, self.after) and self.seen[kind, after] == self.number:
            self.dead = True
            raise Crashed
        self.seen[kind, after] += 1

    def before_commit(self) -> None:
        self.passes("commit", after=False)

    def after_commit(self, _connection) -> None:
        self.passes("commit", after=True)

    def touched_when_broken(self, statement: str) -> None:
        raise AssertionError(statement)

    def ends_broken(self) -> None:
        raise AssertionError("no disk fails here")


class DyingTransport(httpx.AsyncBaseTransport):
    def __init__(self, fake: FakeS3, process: DyingProcess) -> None:
        self._fake = fake
        self._process = process

    async def handle_async_request(self, request):
        if self._process.dead:
            raise Crashed
        self._process.passes("request", after=False)
        answer = await self._fake.handle_async_request(request)
        self._process.passes("request", after=True)
        return answer


def value_of(key: str) -> bytes:
    return key.encode() * 3


def md5(body: bytes) -> str:
    return hashlib.md5(body).hexdigest()


class World:
    """A journal of keys in chosen states, and the bucket that goes with it."""

    def __init__(self, path, states: dict[str, str], *, versioned: bool) -> None:
        self.path = path
        self.states = states
        self.fake = FakeS3(lambda: NOW_US, Random(3), buckets=[BUCKET])
        self.fake.versioned = versioned
        with unsynced():
            journal = Journal.create(
                path, name="m", cutoff_us=NOW_US, order=Order.NEWEST_FIRST, now_us=NOW_US
            )
            self.identifier = journal.migration_id
            self._copy(journal)
            journal.close()
        for key, state in states.items():
            if state in {"replaced", "foreign"}:
                self.fake.place(key, b"another" if state == "replaced" else value_of(key), BUCKET)
            elif state == "gone":
                self.fake.buckets[BUCKET].pop(key)
        self.fake.place("extra", b"nobody's", BUCKET)
        self.kept = {
            key: body for key, body in self.fake.objects(BUCKET).items() if states.get(key) not in OURS
        }
        if versioned:
            # What lies beneath the version that goes is there again, as S3 has it.
            self.kept |= {key: value_of(key) for key, state in states.items() if state == "superseded"}

    def _put(self, key: str, body: bytes) -> str | None:
        self.fake.place(key, body, BUCKET, x_amz_meta_backfill_migration=migration_mark(self.identifier))
        return self.fake.stored(key, BUCKET).version_id

    def _copy(self, journal: Journal) -> None:
        journal.start_session(now_us=NOW_US, facts={})
        source = journal.add_source("a", {"table": "a"}, now_us=NOW_US)
        journal.begin_pass(source, kind="sweep", now_us=NOW_US)
        journal.seal_chunk(source, [(key, None, 3, None) for key in sorted(self.states)], now_us=NOW_US)
        journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
        ordinals = self._settle(journal, source, again=False)
        twice = [key for key in sorted(self.states) if self.states[key] == "superseded"]
        if twice:
            journal.begin_pass(source, kind="sweep", now_us=NOW_US)
            rows = [(key, None, 4, ordinals[key]) for key in twice]
            journal.seal_chunk(source, rows, now_us=NOW_US)
            journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
            self._settle(journal, source, again=True)

    def _settle(self, journal: Journal, source: int, *, again: bool) -> dict[str, int]:
        claim = journal.claim(source, limit=1000, window=1000, now_us=NOW_US)
        assert claim is not None
        entries = []
        for key in claim.keys:
            state, body = self.states[key.row_key], value_of(key.row_key) + b"!" * again
            if state == "vanished":
                entries.append(Settled(key.ordinal, Outcome.VANISHED, 0))
            elif state == "present":
                self.fake.place(key.row_key, body, BUCKET)
                version = self.fake.stored(key.row_key, BUCKET).version_id
                entries.append(Settled(key.ordinal, Outcome.PRESENT, len(body), md5(body), None, version))
            elif state == "parked":
                entries.append(Parked(key.ordinal, "rejected", "no"))
            else:
                outcome = Outcome.RECOVERED if state == "recovered" else Outcome.STORED
                version = self._put(key.row_key, body)
                entries.append(Settled(key.ordinal, outcome, len(body), md5(body), None, version))
        journal.record(entries, now_us=NOW_US)
        return {key.row_key: key.ordinal for key in claim.keys}

    def undo(self, process: DyingProcess) -> bool:
        """One process that undoes everything; tells whether it lived to its end."""
        with unsynced():
            journal = journal_in(process).open(self.path, now_us=NOW_US)
            try:
                trio.run(self._undo, journal, process)
            except* Crashed:
                assert process.dead
            finally:
                if process.dead:
                    journal.vanish()
                else:
                    journal.close()
        return not process.dead

    async def _undo(self, journal: Journal, process: DyingProcess) -> None:
        async def record(write):
            await trio.lowlevel.checkpoint()
            return write(journal, NOW_US)

        drain = Drain()
        with Reader.open(self.path) as reader:
            deletion = Deletion(
                [UndoneSource(1, "a", BUCKET, Layout())],
                fake_server(self.fake).bucket_over(
                    DyingTransport(self.fake, process), clock_us=lambda: NOW_US
                ),
                DeletionPolicy(self.identifier, 2, 60.0, RequestPolicy(3, 5.0, Random(1))),
                record=record,
                who="op",
                now_us=lambda: NOW_US,
                drain=drain,
            )
            created = created_in(reader, Scope(frozenset({1})), reader.head_seq())
            await recorded(deletion, created, record, UndoOptions(confirmed=True), "op", drain)

    def check_claims(self) -> None:
        """What the journal says that we created is there, but for what others took away before."""
        objects = self.fake.objects(BUCKET)
        with Reader.open(self.path) as reader:
            for one in reader.objects().objects:
                if self.states[one.row_key] not in {"gone", "replaced"}:
                    assert md5(objects[one.row_key]) == one.md5, one

    def check_end(self) -> None:
        assert self.fake.objects(BUCKET) == self.kept
        with Reader.open(self.path) as reader:
            claimed = {one.row_key for one in reader.objects().objects}
            assert claimed == {k for k, s in self.states.items() if s in {"present", "replaced", "foreign"}}
            recorded_gone = {
                ordinal
                for event in reader.events(kinds=[Kind.OBJECTS_DELETED])
                for ordinal in event.data["ordinals"]
            }
            undone = {
                ordinal
                for event in reader.events(kinds=[Kind.OUTCOMES_REVOKED])
                for ordinal in event.data["ordinals"]
            }
        assert recorded_gone == undone


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(deleting, "FIRST_BATCH", 3)
    monkeypatch.setattr(deleting, "BATCH", 4)


def states_of(seed: int) -> dict[str, str]:
    random = Random(seed)
    chosen = [*STATES, *random.choices(STATES, k=4)] if seed == 0 else random.choices(STATES, k=6)
    return {f"k{number:02d}": state for number, state in enumerate(chosen)}


@pytest.mark.parametrize("versioned", [False, True], ids=["plain", "versioned"])
@pytest.mark.parametrize("kind", ["commit", "request"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_death_at_any_point_costs_nothing_and_the_next_undo_ends_it(tmp_path, versioned, kind, after):
    for number in count():
        directory = tmp_path / str(number)
        directory.mkdir()
        world = World(directory / "journal.db", states_of(0), versioned=versioned)
        lived = world.undo(DyingProcess(kind, number, after))
        world.check_claims()
        if lived:
            assert number >= {"commit": 8, "request": 13}[kind]
            break
        assert world.undo(DyingProcess())
        world.check_end()


@pytest.mark.parametrize("seed", range(1, 31))
def test_any_mixture_of_keys_dies_twice_and_is_undone(tmp_path, seed):
    random = Random(seed)
    world = World(tmp_path / "journal.db", states_of(seed), versioned=bool(seed % 2))
    for _ in range(2):
        world.undo(
            DyingProcess(random.choice(["commit", "request"]), random.randrange(20), random.random() < 0.5)
        )
        world.check_claims()
    assert world.undo(DyingProcess())
    world.check_claims()
    world.check_end()


def test_the_fake_really_is_left_alone_by_a_second_undo(tmp_path):
    world = World(tmp_path / "journal.db", states_of(0), versioned=False)
    world.undo(DyingProcess())
    requests = len(world.fake.seen)
    assert world.undo(DyingProcess())
    assert {seen.operation for seen in world.fake.seen[requests:]} == {"LIST", "HEAD"}
    world.check_end()
