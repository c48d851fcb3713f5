"""The tables as they change, and what every row has ever been: the checker's source of truth."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from daemon.config import SourceConfig
from tests.planning.fake_source import FakeSource, Heap, Transaction
from tests.simulation.worlds import SECOND_US, START_US, World, effective, size_of, value_of


@dataclass(frozen=True)
class Was:
    """From `since` (virtual seconds) on, the row's value was this; None: it was not there."""

    since: float
    value: bytes | None


class History:
    """Changes tables, and remembers.

    Attributes:
        snapshots: per source, when the last snapshot scan began and what it showed of rows in scope.
        uncovered: (source, row key) of rows that no proof of closing covers: inserted after the cutoff with an
            old created_at, as only clients that set it themselves can do, or left out until an update.
    """

    def __init__(self, world: World, source: FakeSource, now: Callable[[], float]) -> None:
        self._world = world
        self._source = source
        self._now = now
        self._rng = Random(f"history {world.seed}")
        self._specs = {spec.name: spec for spec in world.config.sources}
        self._was: dict[tuple[str, str], list[Was]] = {}
        self._serial = 0
        self._left = world.weather.changes
        self._gone: list[tuple[str, str, int | None]] = []
        self.late: list[tuple[str, Transaction]] = []
        self.snapshots: dict[str, tuple[float, dict[str, bytes]]] = {}
        self.uncovered: set[tuple[str, str]] = set()
        self._tail: deque[dict[str, dict[int, Heap]]] = deque(maxlen=4)
        for name, rows in world.rows.items():
            for row in rows:
                self._note(name, row.key, row.value, since=-1.0)
        for _ in range(world.weather.late if self._specs else 0):
            spec = self._any_spec()
            self.late.append((spec.name, source.begin(spec.table_name, started_us=START_US - 60 * SECOND_US)))

    # What checkers ask

    def values(self, source: str, key: str, *, since: float = -1.0) -> set[bytes]:
        """Return every value that the row has had since that moment."""
        known = self._was.get((source, key), [])
        ends = [was.since for was in known[1:]] + [float("inf")]
        return {
            was.value for was, end in zip(known, ends, strict=True) if was.value is not None and end > since
        }

    def was_absent(self, source: str, key: str, *, since: float = -1.0) -> bool:
        known = self._was.get((source, key), [])
        ends = [was.since for was in known[1:]] + [float("inf")]
        return any(was.value is None and end > since for was, end in zip(known, ends, strict=True))

    def now_there(self, spec: SourceConfig, cutoff_us: int) -> set[str]:
        return self._source.in_scope(spec, cutoff_us)

    @property
    def largest(self) -> int:
        return max((len(was.value) for known in self._was.values() for was in known if was.value), default=0)

    def snapshot_begins(self, spec: SourceConfig, cutoff_us: int) -> None:
        there = self._source.in_scope(spec, cutoff_us)
        table = self._world.tables[spec.table_name]
        rows = {v.key: effective(spec, v.value) or b"" for v in table.versions() if v.key in there}
        self.snapshots[spec.name] = (self._now(), rows)

    # What happens

    def change(self) -> str | None:
        """Change something, if changes are left; return what."""
        if self._left <= 0:
            return None
        self._left -= 1
        if self._world.weather.failovers:
            self._tail.append({name: table.copied() for name, table in self._world.tables.items()})
        spec = self._any_spec()
        table = self._world.tables[spec.table_name]
        keys = [version.key for version in table.versions()]
        kind = self._rng.choice(
            ["insert", "update", "update", "update_same_length", "delete", "move", "rewrite", "reinsert"]
        )
        late = [transaction for _, transaction in self.late if not transaction.ended]
        if late and self._rng.random() < 0.4:
            return self._change_late()
        match kind:
            case "insert":
                key = self._new_key(spec)
                created_us = START_US + int(self._now() * 1e6)
                value = self._value(spec)
                table.insert(key, created_us, value)
                self._note(spec.name, key, value)
                # Created this very moment: in scope only where the cutoff is not fixed yet.
            case "reinsert" if self._gone:
                name, key, created_us = self._gone.pop(self._rng.randrange(len(self._gone)))
                if key in self._now_of(name):
                    # A failover has brought it back.
                    return None
                value = self._value(self._specs[name])
                self._world.tables[self._specs[name].table_name].insert(key, created_us, value)
                self._note(name, key, value)
                self.uncovered.add((name, key))
            case "rewrite":
                table.rewrite(self._rng.choice(list(table.heaps)))
            case "update" | "update_same_length" | "delete" | "move" if keys:
                self._change_row(kind, spec, self._rng.choice(keys))
            case _:
                return None
        return kind

    def fail_over(self) -> bool:
        """Go on with a standby that lacks the last changes, or none; return whether it lacks any.

        Transactions that are open end with their server.
        """
        for _, transaction in self.late:
            if not transaction.ended:
                transaction.abort()
        if not self._tail or self._rng.random() < 0.2:
            return False
        before = {name: self._now_of(name) for name in self._specs}
        for name, heaps in self._rng.choice(list(self._tail)).items():
            self._world.tables[name].heaps = heaps
        self._tail.clear()
        for name in self._specs:
            now = self._now_of(name)
            for key in before[name].keys() - now.keys():
                self._note_absent(name, key)
            for key, value in now.items():
                if before[name].get(key, self) != value:
                    self._note(name, key, value)
        return True

    def _now_of(self, name: str) -> dict[str, bytes | None]:
        table = self._world.tables[self._specs[name].table_name]
        return {version.key: version.value for version in table.versions() if version.key is not None}

    def end_late_transactions(self) -> None:
        for name, transaction in self.late:
            if not transaction.ended:
                self._commit(name, transaction)

    def _change_row(self, kind: str, spec: SourceConfig, key: str) -> None:
        table = self._world.tables[spec.table_name]
        front = self._rng.random() < 0.5
        row = next(version for version in table.versions() if version.key == key)
        match kind:
            case "delete":
                self._gone.append((spec.name, key, row.created_at))
                table.delete(key)
                self._note_absent(spec.name, key)
            case "move":
                table.update(key, to_front=front)
            case _:
                size = len(row.value or b"") if kind == "update_same_length" else None
                value = self._value(spec, size)
                if effective(spec, row.value) is None:
                    self.uncovered.add((spec.name, key))
                table.update(key, to_front=front, value=value)
                self._note(spec.name, key, value)

    def _change_late(self) -> str:
        name, transaction = self._rng.choice([one for one in self.late if not one[1].ended])
        if len(transaction.versions) < 3 and self._rng.random() < 0.7:
            spec = self._specs[name]
            created_us = START_US - SECOND_US * self._rng.randint(6, 50)
            transaction.insert(self._new_key(spec), created_us, self._value(spec))
            return "late_insert"
        self._commit(name, transaction)
        return "late_commit"

    def _commit(self, name: str, transaction: Transaction) -> None:
        transaction.commit()
        for version in transaction.versions:
            assert version.key is not None
            self._note(name, version.key, version.value)

    def _any_spec(self) -> SourceConfig:
        return self._rng.choice(list(self._specs.values()))

    def _new_key(self, spec: SourceConfig) -> str:
        self._serial += 1
        return f'["new","{self._serial}"]' if len(spec.key) > 1 else f"new-{self._serial}"

    def _value(self, spec: SourceConfig, size: int | None = None) -> bytes:
        if size is None:
            # Never empty: a value that comes back after another would hide which of the two was copied.
            size = max(40, size_of(self._rng, self._world.config.upload.max_in_flight))
        self._serial += 1
        return value_of(self._rng, f"{spec.name}/v{self._serial}", size)

    def _note(self, name: str, key: str, value: bytes | None, *, since: float | None = None) -> None:
        now = self._now() if since is None else since
        self._was.setdefault((name, key), []).append(Was(now, effective(self._specs[name], value)))

    def _note_absent(self, name: str, key: str) -> None:
        self._was[name, key].append(Was(self._now(), None))
