"""Faults done to the real thing: signals to the daemon and its processes, servers killed and started, sessions cut."""

from __future__ import annotations

import contextlib
import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.endurance.migration import Migration, tell
from benchmarks.endurance.sampling import upload_processes
from benchmarks.endurance.schedule import Fault, Kind
from daemon.demo.processes import descendants
from journal.lock import owner_of
from tests.faults import fault_proxy

if TYPE_CHECKING:
    from daemon.demo.postgres import EmbeddedPostgres
    from daemon.demo.processes import ChildProcess
    from daemon.demo.seaweed import EmbeddedSeaweed

CONCURRENCIES = (4, 16, 32, 64)
SLOW = fault_proxy.Fault(fault_proxy.Kind.DELAY, amount=0.2)
LOSING = fault_proxy.Fault(fault_proxy.Kind.LOSE)
_CUT = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'backfill%'"


@dataclass
class Injector:
    """Begins faults and ends them; of two that concern the network, the one that ends first ends both."""

    migration: Migration
    postgres: EmbeddedPostgres
    server: EmbeddedSeaweed
    proxy: fault_proxy.FaultProxy
    _frozen: dict[Fault, list[int]] = field(default_factory=dict)

    def begin(self, fault: Fault, daemon: ChildProcess) -> bool:
        """Begin a fault; return whether there was anything to do it to."""
        if daemon.returncode is not None:
            return False
        match fault.kind:
            case Kind.KILL:
                daemon.send(signal.SIGKILL)
            case Kind.TERMINATE:
                # Before it holds the journal, it may not yet have come to listen to signals.
                owner = owner_of(self.migration.journal)
                if owner is None or owner.pid != daemon.pid:
                    return False
                daemon.send(signal.SIGTERM)
            case Kind.FREEZE:
                # By pid: upload processes of a daemon that is killed meanwhile have to wake up too.
                self._frozen[fault] = [daemon.pid, *descendants(daemon.pid)]
                return _signal(self._frozen[fault], signal.SIGSTOP)
            case Kind.KILL_UPLOADER:
                pids = upload_processes(daemon.pid)
                return _signal(pids[int(fault.choice * len(pids)) :][:1], signal.SIGKILL)
            case Kind.CUT_SESSIONS:
                return self.sql(_CUT)
            case Kind.KILL_POSTGRES:
                self.postgres.kill()
            case Kind.KILL_S3:
                self.server.kill()
            case Kind.PAUSE:
                return self._command("pause")
            case Kind.SET:
                return self._command(
                    "set", f"concurrency={CONCURRENCIES[int(fault.choice * len(CONCURRENCIES))]}"
                )
            case Kind.SLOW | Kind.LOSE_ANSWERS:
                self.proxy.strike_all(SLOW if fault.kind is Kind.SLOW else LOSING)
            case Kind.REFUSE:
                self.proxy.refuse()
        return True

    def end(self, fault: Fault) -> bool:
        """End a fault; return whether it is over, else it is to be tried again."""
        match fault.kind:
            case Kind.FREEZE:
                _signal(self._frozen.pop(fault), signal.SIGCONT)
            case Kind.KILL_POSTGRES:
                self.postgres.start()
            case Kind.KILL_S3:
                self.server.start()
            case Kind.PAUSE:
                return self._command("resume")
            case Kind.SET:
                return self._command("set", "concurrency=config")
            case Kind.SLOW | Kind.REFUSE | Kind.LOSE_ANSWERS:
                self.proxy.heal()
        return True

    def sql(self, statements: str) -> bool:
        """Run statements where there is a server to run them; return whether there was."""
        if not self.postgres.running:
            return False
        self.postgres.sql(statements)
        return True

    def _command(self, *words: str) -> bool:
        code, said = self.migration.command(*words)
        if code != 0:
            tell(f"{' '.join(words)} ended with {code}: {said.strip()[-300:]}")
        return code == 0


def _signal(pids: list[int], number: signal.Signals) -> bool:
    sent = False
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
            sent = True
    return sent
