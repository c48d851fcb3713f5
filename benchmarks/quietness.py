"""How much of the machine others took while an arm ran: what its rate is worth.

Seconds of CPU, from /proc: those of all cores, less those of the client, the sink and PostgreSQL.
"""

from __future__ import annotations

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def machine_cpu_seconds() -> float:
    """Return what all cores have worked since boot, for whomever, and what a hypervisor took of them."""
    first = Path("/proc/stat").read_text(encoding="ascii").partition("\n")[0]
    user, nice, system, _idle, _wait, irq, softirq, steal = map(int, first.split()[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def process_cpu_seconds(pid: int) -> float:
    """Return what `pid` and the children that it has reaped have used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return sum(map(int, fields[11:15])) / TICKS


def others_cores(machine: float, client: float, servers: float, wall: float) -> float:
    """Return how many cores others kept busy on average, from CPU seconds during `wall` seconds.

    The parts are read at slightly different moments, hence never less than none.
    """
    return max(0.0, (machine - client - servers) / wall)
