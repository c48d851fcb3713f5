"""Deliberate breaks of the product, each of the kind that a tired engineer makes: the simulation must find every one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Break:
    """One edit of one file; `old` must stand in it exactly once."""

    name: str
    why: str
    file: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        """Edit the file under `root`.

        Raises:
            ValueError: the product has changed: the break must be written anew.
        """
        path = root / self.file
        text = path.read_text()
        if (found := text.count(self.old)) != 1:
            raise ValueError(f"{self.name}: its text stands {found} times in {self.file}, expected once")
        path.write_text(text.replace(self.old, self.new))


BREAKS = (
    Break(
        "checkpoint off by one",
        "The bisection takes the first unsettled key for a settled one.",
        "journal/checkpoint.py",
        "if key_at(middle) < bound:",
        "if key_at(middle) <= bound:",
    ),
    Break(
        "tie at the cutoff",
        "The printed cutoff leaves out the rows that tie with the checkpoint's.",
        "journal/checkpoint.py",
        "cutoff_us = position.created_at + 1",
        "cutoff_us = position.created_at",
    ),
    Break(
        "parked key passed",
        "A parked key no longer holds the checkpoint.",
        "journal/queries.py",
        '"SELECT min(ordinal) FROM straggler WHERE ordinal BETWEEN ? AND ?"',
        "\"SELECT min(ordinal) FROM straggler WHERE ordinal BETWEEN ? AND ? AND state <> 'parked'\"",
    ),
    Break(
        "claim after PUT",
        "A claim waits for the next group of outcomes to be committed.",
        "journal/appending.py",
        'self._connection.execute("BEGIN IMMEDIATE")\n            yield\n            self._commit()',
        "if not self._connection.in_transaction:\n"
        '                self._connection.execute("BEGIN IMMEDIATE")\n'
        "            before = len(self._projector.in_flight)\n"
        "            yield\n"
        "            if len(self._projector.in_flight) <= before:\n"
        "                self._commit()",
    ),
    Break(
        "ETag unchecked",
        "A PUT counts as stored whatever the server says that it stored.",
        "daemon/uploader.py",
        "if self._is_md5(receipt.etag, receipt.encryption) and receipt.etag != md5_hex:",
        "if self._is_md5(receipt.etag, receipt.encryption) and not receipt.etag:",
    ),
    Break(
        "outcome before the answer",
        "A PUT whose answer was lost counts as stored, since it was sent.",
        "daemon/uploader.py",
        "            except Failure as failure:\n",
        "            except Failure as failure:\n"
        '                if failure.operation == "PUT" and not failure.answered:\n'
        "                    return _settled(copied, Outcome.STORED, copied.md5.hex(), None)\n",
    ),
    Break(
        "garbage taken for an answer",
        "200 is enough, whoever gave it.",
        "daemon/bucket.py",
        "if not etag or answer.body:",
        "if not etag and not answer.body:",
    ),
    Break(
        "in-flight keys not recovered",
        "A session leaves what a dead one had claimed to whoever claimed it.",
        "journal/copy_log.py",
        "self._take_back(list(self._projector.in_flight), {}, now_us)",
        "self._take_back([], {}, now_us)",
    ),
    Break(
        "in-flight keys believed",
        "What a dead session had claimed counts as stored.",
        "journal/copy_log.py",
        "recovery = self._take_back(list(self._projector.in_flight), {}, now_us)",
        "from journal.lifecycle import Outcome\n"
        "        self._unrecovered = False\n"
        '        self.record([Settled(o, Outcome.STORED, 0, "", None, None) for o in self._projector.in_flight], now_us=now_us)\n'
        "        recovery = Recovery(0, 0, None)",
    ),
    Break(
        "frontier before recovered keys",
        "New keys are claimed before those that a dead session may have half done.",
        "journal/copy_log.py",
        "        alone = False\n        if not waiting:",
        "        alone = False\n"
        "        frontier = self._claim_frontier(source, room, bytes_max=bytes_max, now_us=now_us)\n"
        "        if frontier is not None:\n"
        "            return frontier\n"
        "        if not waiting:",
    ),
    Break(
        "suspect in company",
        "A key that three processes died with is driven while others are.",
        "journal/copy_log.py",
        "if alone and self.in_flight:",
        "if alone and room <= 0:",
    ),
    Break(
        "poison never parked",
        "A key that processes die with is recovered for ever.",
        "journal/copy_log.py",
        "state = 'claimed' AND recoveries >= ?\", RECOVERIES_MAX",
        "state = 'claimed' AND recoveries >= ?\", 10 * RECOVERIES_MAX",
    ),
    Break(
        "requeue keeps recoveries",
        "A requeued key is parked again at the first death, since its old ones still count.",
        "journal/projections.py",
        "SET state = 'waiting', recoveries = 0, failure = NULL",
        "SET state = 'waiting', failure = NULL",
    ),
    Break(
        "requeued keys never driven",
        "Only the frontier counts as work, not the keys that wait off it.",
        "journal/copy_log.py",
        "SELECT EXISTS (SELECT 1 FROM straggler WHERE source = :source AND state = 'waiting')",
        "SELECT EXISTS (SELECT 1 FROM straggler WHERE source = :source AND state = 'claimed')",
    ),
    Break(
        "claim window ignored",
        "A claim takes what it is asked for, however much is in flight.",
        "journal/copy_log.py",
        "room = min(limit, window - self.in_flight)",
        "room = min(limit, window)",
    ),
    Break(
        "drain without release",
        "A drained session ends with its keys still claimed.",
        "daemon/migration.py",
        "lambda journal, now_us: journal.release(journal.in_flight_ordinals(), now_us=now_us)",
        "lambda journal, now_us: journal.release([], now_us=now_us)",
    ),
    Break(
        "cancel shielded",
        "An upload under way is not cancelled, so that its answer is not lost.",
        "daemon/uploader.py",
        "with self._activity.at(Cause.NETWORK):",
        "with self._activity.at(Cause.NETWORK), trio.CancelScope(shield=True):",
    ),
    Break(
        "cancel swallowed",
        "A cancelled upload ends as a failed one.",
        "daemon/executing.py",
        "                finally:\n                    self._slots.give_back()",
        "                except trio.Cancelled:\n"
        '                    settled = Parked(upload.key.ordinal, "connection", "interrupted")\n'
        "                finally:\n"
        "                    self._slots.give_back()",
    ),
    Break(
        "second signal ignored",
        "A cancel does no more than the request before it.",
        "daemon/drain.py",
        "                governed.scope.cancel()",
        "                governed.scope.deadline = trio.current_time() + governed.grace",
    ),
    Break(
        "exit 0 with parked keys",
        "A session that ends with parked keys says that all is done.",
        "daemon/migration.py",
        "return Ended(ExitCode.PARKED,",
        "return Ended(ExitCode.DONE,",
    ),
    Break(
        "done when closed",
        "A drained session whose sources are closed says that all is done.",
        "daemon/migration.py",
        "if closed and await self._recorder.call(lambda journal, now_us: journal.complete(now_us=now_us)):",
        "if closed:",
    ),
    Break(
        "budget lost by a split",
        "A batch that is split after a failed fetch keeps its bytes.",
        "daemon/fetching.py",
        "        if rows is None:\n            self._budget.release(reserved)\n",
        "        if rows is None:\n",
    ),
    Break(
        "budget released twice",
        "The bytes of a row that has grown are given back twice.",
        "daemon/fetching.py",
        "            elif row.value is None:\n",
        "            elif row.value is None:\n                self._budget.release(key.size)\n",
    ),
    Break(
        "budget ignored",
        "A reservation is served as long as the budget is not yet full.",
        "daemon/budget.py",
        "while self.reserved and self.reserved + size > self.total:",
        "while self.reserved > self.total:",
    ),
    Break(
        "storm parks keys",
        "503 counts as an attempt of the key.",
        "daemon/retrying.py",
        "return self.answered and self.kind is not FailureClass.THROTTLED",
        "return self.answered",
    ),
    Break(
        "failed fetch means vanished",
        "A batch whose fetch failed is taken for rows that are gone.",
        "daemon/fetching.py",
        "                if failure.answered and len(keys) > 1:\n                    return None",
        "                if failure.answered and len(keys) > 1:\n                    return []",
    ),
    Break(
        "drained rows mean vanished",
        "A drain lets a fetch return what it has: nothing.",
        "daemon/fetching.py",
        "            if self._drain:\n                return None",
        "            if self._drain:\n                return []",
    ),
    Break(
        "412 means present",
        "An object that is there is the one that should be there.",
        "daemon/uploader.py",
        "        return await self._compare(copied, there)",
        "        return _settled(copied, Outcome.PRESENT, there.etag, there.version_id)",
    ),
    Break(
        "equal length means present",
        "A foreign object is compared by its size.",
        "daemon/uploader.py",
        "        if found == md5_hex:",
        "        if found == md5_hex or there.size == len(copied.value):",
    ),
    Break(
        "own object believed",
        "An object of ours is taken for recovered, whatever value of the row it holds.",
        "daemon/uploader.py",
        "if not copied.replacing and self._holds(copied, there):",
        "if not copied.replacing:",
    ),
    Break(
        "foreign object overwritten",
        "Where the policy is to compare, whoever comes last wins.",
        "daemon/uploader.py",
        'if self._policy.existing == "overwrite":',
        'if self._policy.existing != "skip":',
    ),
    Break(
        "PUT without a condition",
        "A PUT overwrites what is there.",
        "daemon/uploader.py",
        "return await self._put(copied, IF_ABSENT, Outcome.STORED)",
        "return await self._put(copied, UNCONDITIONAL, Outcome.STORED)",
    ),
    Break(
        "late commit missed",
        "Transactions from before the cutoff are waited for as long as late_grace, and no longer.",
        "daemon/planning.py",
        "    if writers.pids:\n",
        "    if writers.pids and left + late_grace >= 0:\n",
    ),
    Break(
        "closed by the first pass",
        "A sweep by blocks closes its source as one snapshot would.",
        "daemon/planner.py",
        "            closes = ONE_SNAPSHOT if spec.created_at is None else None\n",
        "            closes = ONE_SNAPSHOT\n",
    ),
    Break(
        "ties skipped on resuming",
        "Sealing goes on behind the last created_at that was sealed, not behind the last row.",
        "journal/staging.py",
        "            position = int(found[0])\n",
        "            (position,) = self._db.execute(\n"
        '                "select max(position) from sorted where created_at is ?", (found[2],)\n'
        "            ).fetchone()\n",
    ),
    Break(
        "batch lost after a failed snapshot",
        "The second snapshot of a pass goes on where the first was lost.",
        "daemon/scanning.py",
        "            await collector.restart(SNAPSHOT_RELATION)\n            self._seen = 0\n            try:",
        "            if not self._seen:\n"
        "                await collector.restart(SNAPSHOT_RELATION)\n"
        "            try:",
    ),
    Break(
        "changed row not planned again",
        "Closing looks for new keys only, not for those whose value has another length.",
        "daemon/planning.py",
        "and known.size != size:",
        "and known.size < 0:",
    ),
    Break(
        "reappeared row not planned again",
        "A key that vanished once is settled for ever.",
        "daemon/planning.py",
        "        return Change.REAPPEARED",
        "        return Change.NOTHING",
    ),
    Break(
        "chunk hash without dates",
        "The hash of a chunk leaves out created_at.",
        "journal/events.py",
        "for column in (created_at, sizes, supersedes):",
        "for column in (sizes, supersedes):",
    ),
    Break(
        "recovered counted as stored",
        "A counter differs from what the log says.",
        "journal/projections.py",
        "recovered = recovered + :R,",
        "recovered = recovered + :S,",
    ),
)
