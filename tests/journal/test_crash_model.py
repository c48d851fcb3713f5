"""The journal against a plain model of what it promises, through any calls, crashes at any commit, and reopenings."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, assume, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from journal import maintenance
from journal.checkpoint import Order, sort_key
from journal.entries import Parked, PlannedRow, Settled
from journal.lifecycle import RECOVERIES_MAX, KeyState, Outcome, Trigger, advance
from journal.reader import Reader
from tests.journal.journals import MD5, NOW_US
from tests.journal.test_failures import Crash, CrashingJournal

WINDOW = 6
LIMIT = 4


@dataclass
class Key:
    """What the model knows of one planned key."""

    source: int
    row: PlannedRow
    state: KeyState = KeyState.PLANNED
    recoveries: int = 0
    off_frontier: bool = False
    outcome: Outcome | None = None


@dataclass
class Model:
    """Keys by ordinal; nothing else is worth remembering."""

    keys: dict[int, Key] = field(default_factory=dict)

    def in_flight(self, source: int | None = None) -> list[int]:
        return [
            ordinal
            for ordinal, key in self.keys.items()
            if key.state is KeyState.IN_FLIGHT and source in {None, key.source}
        ]

    def move(self, ordinal: int, trigger: Trigger | Outcome) -> None:
        key = self.keys[ordinal]
        key.state = advance(key.state, trigger)
        if trigger in {Trigger.RECOVER, Trigger.RELEASE, Trigger.PARK}:
            key.off_frontier = True
        if trigger is Trigger.RECOVER:
            key.recoveries += 1
        if trigger is Trigger.REQUEUE:
            key.recoveries = 0
        if isinstance(trigger, Outcome):
            key.outcome = trigger


class JournalMachine(RuleBasedStateMachine):
    """Each rule does one thing to the journal and, if it was committed, to the model."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="journal-model-"))
        self.path = self.directory / "journal.db"
        self.model = Model()
        self.serial = 0

    def teardown(self) -> None:
        self.journal.close()
        assert maintenance.check(self.path) == []
        shutil.rmtree(self.directory)

    @initialize(order=st.sampled_from(Order))
    def create(self, order: Order) -> None:
        self.order = order
        self.journal = CrashingJournal.create(
            self.path, name="model", cutoff_us=None, order=order, now_us=NOW_US
        )
        self.journal.start_session(now_us=NOW_US, facts={})
        for name in ("a", "b"):
            self.journal.add_source(name, {"table": name}, now_us=NOW_US)
        self.journal.build_key_index()

    @rule(
        source=st.sampled_from([1, 2]),
        times=st.lists(st.one_of(st.none(), st.integers(0, 3)), min_size=1, max_size=9),
        chunk=st.integers(1, 4),
    )
    def plan(self, source: int, times: list[int | None], chunk: int) -> None:
        fresh = []
        for created_at in times:
            self.serial += 1
            fresh.append(PlannedRow(f"k{self.serial % 7}-{self.serial}", created_at, self.serial % 5))
        fresh.sort(key=lambda row: sort_key(self.order, row.created_at, row.row_key))
        self.journal.begin_pass(source, kind="sweep", now_us=NOW_US)
        for first in range(0, len(fresh), chunk):
            self.journal.seal_chunk(source, fresh[first : first + chunk], now_us=NOW_US)
        self.journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
        for row in fresh:
            self.model.keys[len(self.model.keys) + 1] = Key(source, row)

    @rule(source=st.sampled_from([1, 2]), limit=st.integers(1, LIMIT))
    def claim(self, source: int, limit: int) -> None:
        held = self.model.in_flight()
        claim = self.journal.claim(source, limit=limit, window=WINDOW, now_us=NOW_US)
        waiting = [
            ordinal
            for ordinal, key in self.model.keys.items()
            if key.source == source and key.state is KeyState.PLANNED
        ]
        if claim is None:
            poison_somewhere = any(key.recoveries >= RECOVERIES_MAX for key in self.model.keys.values())
            assert not waiting or len(held) >= WINDOW or poison_somewhere
            return
        taken = [key.ordinal for key in claim.keys]
        assert len(taken) <= limit
        assert set(taken) <= set(waiting)
        assert [(k.row_key, k.created_at, k.size, k.recoveries) for k in claim.keys] == [
            (*self.model.keys[ordinal].row[:3], self.model.keys[ordinal].recoveries) for ordinal in taken
        ]
        off_frontier = [ordinal for ordinal in waiting if self.model.keys[ordinal].off_frontier]
        if off_frontier:
            assert set(taken) <= set(off_frontier), "the frontier moves after what was given back"
        else:
            assert taken == waiting[: len(taken)]
        if claim.alone:
            assert (len(taken), held) == (1, [])
        else:
            assert all(self.model.keys[ordinal].recoveries < RECOVERIES_MAX for ordinal in [*taken, *held])
        for ordinal in taken:
            self.model.move(ordinal, Trigger.CLAIM)

    @precondition(lambda self: self.model.in_flight())
    @rule(data=st.data())
    def record(self, data: st.DataObject) -> None:
        ended = data.draw(st.lists(st.sampled_from(self.model.in_flight()), unique=True, min_size=1))
        outcomes = [data.draw(st.sampled_from([*Outcome, None])) for _ in ended]
        entries = [
            Parked(ordinal, "rejected", "no")
            if outcome is None
            else Settled(ordinal, outcome, ordinal % 3, MD5)
            for ordinal, outcome in zip(ended, outcomes, strict=True)
        ]
        self.journal.record(entries, now_us=NOW_US)
        for ordinal, outcome in zip(ended, outcomes, strict=True):
            self.model.move(ordinal, outcome or Trigger.PARK)

    @precondition(lambda self: self.model.in_flight())
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        given_back = data.draw(st.lists(st.sampled_from(self.model.in_flight()), unique=True))
        self.journal.release(given_back, now_us=NOW_US)
        for ordinal in given_back:
            self.model.move(ordinal, Trigger.RELEASE)

    @rule(source=st.sampled_from([1, 2]))
    def requeue(self, source: int) -> None:
        parked = [
            ordinal
            for ordinal, key in self.model.keys.items()
            if key.source == source and key.state is KeyState.PARKED
        ]
        assert self.journal.requeue(source=source, who="op", now_us=NOW_US) == len(parked)
        for ordinal in parked:
            self.model.move(ordinal, Trigger.REQUEUE)

    @rule(after=st.booleans(), settle=st.booleans(), cut_power=st.booleans())
    def crash_at_the_next_commit(self, after: bool, settle: bool, cut_power: bool) -> None:
        """Die before or after a commit; what the disk then holds is the journal, as a copy or as it is."""
        held = self.model.in_flight()
        assume(held if settle else not held)
        self.journal.left, self.journal.after = 1, after
        try:
            if settle:
                self.journal.record([Settled(held[0], Outcome.STORED, 1, MD5)], now_us=NOW_US)
            else:
                self.journal.note("settings_changed", {}, now_us=NOW_US)
        except Crash:
            if settle and after:
                self.model.move(held[0], Outcome.STORED)
        self._die(cut_power)

    @rule(cut_power=st.booleans())
    def kill_between_commits(self, cut_power: bool) -> None:
        self._die(cut_power)

    def _die(self, cut_power: bool) -> None:
        if cut_power:
            # The files as they are on disk while the writer still has them open: no closing checkpoint helps.
            copy = Path(tempfile.mkdtemp(prefix="journal-model-"))
            for file in self.directory.iterdir():
                if not file.name.endswith("-shm"):
                    shutil.copyfile(file, copy / file.name)
            self.journal.close()
            shutil.rmtree(self.directory)
            self.directory, self.path = copy, copy / "journal.db"
        else:
            self.journal.close()
        self.journal = CrashingJournal.open(self.path, now_us=NOW_US, wait_seconds=0)
        self.journal.start_session(now_us=NOW_US, facts={})
        recovery = self.journal.recover(now_us=NOW_US)
        poison = [
            key
            for key in map(self.model.keys.get, self.model.in_flight())
            if key.recoveries >= RECOVERIES_MAX
        ]
        assert (recovery.recovered, recovery.parked) == (
            len(self.model.in_flight()) - len(poison),
            len(poison),
        )
        for ordinal in self.model.in_flight():
            poisoned = self.model.keys[ordinal].recoveries >= RECOVERIES_MAX
            self.model.move(ordinal, Trigger.PARK if poisoned else Trigger.RECOVER)

    @invariant()
    def states_agree(self) -> None:
        if not hasattr(self, "journal"):
            return
        assert self.journal.in_flight == len(self.model.in_flight()) <= WINDOW
        for source in (1, 2):
            mine = {ordinal: key for ordinal, key in self.model.keys.items() if key.source == source}
            known = self.journal.latest(source, [key.row.row_key for key in mine.values()])
            assert {found.ordinal: found.state for found in known.values()} == {
                ordinal: key.state for ordinal, key in mine.items()
            }

    @invariant()
    def counts_and_checkpoint_agree(self) -> None:
        if not hasattr(self, "journal"):
            return
        with Reader.open(self.path) as reader:
            status = reader.status(now_us=NOW_US)
        for source in status.sources:
            keys = [key for key in self.model.keys.values() if key.source == source.id]
            counts = source.counts
            assert counts.planned_rows == len(keys)
            assert counts.settled == sum(key.outcome is not None for key in keys)
            assert counts.parked == sum(key.state is KeyState.PARKED for key in keys)
            assert counts.in_flight == len(self.model.in_flight(source.id))
            assert counts.pending + counts.unclaimed == sum(key.state is KeyState.PLANNED for key in keys)
            places = {id(key): sort_key(self.order, key.row.created_at, key.row.row_key) for key in keys}
            unsettled = [places[id(key)] for key in keys if key.outcome is None]
            before = [place for place in places.values() if not unsettled or place < min(unsettled)]
            position = source.checkpoint.position
            found = None if position is None else sort_key(self.order, position.created_at, position.row_key)
            assert found == max(before, default=None)
            restarted = [key for key in keys if key.outcome is None and key.row.created_at is not None]
            if source.checkpoint.cutoff_us is not None:
                assert all(key.row.created_at < source.checkpoint.cutoff_us for key in restarted)
            if source.checkpoint.floor_us is not None:
                assert all(key.row.created_at > source.checkpoint.floor_us for key in restarted)


JournalMachine.TestCase.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestJournalAgainstItsModel = JournalMachine.TestCase
