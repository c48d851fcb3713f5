"""One migration as an instance of the service: its table, its files on the machine, its unit."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.faults import raw_journal
from tests.faults.waiting import eventually
from tests.faults.worlds import PROBE, World
from tests.systemd.machine import Machine

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
PROGRAM = "/opt/backfillctl/bin/backfillctl"
HELD = 4
"""Uploads at once, and so the PUTs that a held proxy keeps waiting."""
PUT_SECONDS_MAX = 30.0
"""Well below s3.io_timeout, after which a PUT that waits is sent once more."""


def installation() -> list[str]:
    """README's commands that install the service, as they stand."""
    block = README.split("<!-- service -->", 1)[1].split("```", 2)[1]
    return [line for line in block.splitlines()[1:] if line.strip()]


@dataclass
class ServedWorld(World):
    """As on this side, but the journal is the machine's."""

    machine: Machine | None = None
    name: str = ""

    @property
    def journal(self) -> Path:
        assert self.machine is not None
        return self.machine.state_of(self.name) / "journal.db"


@dataclass
class Instance:
    """backfill@NAME on the machine."""

    machine: Machine
    name: str
    world: ServedWorld

    @property
    def unit(self) -> str:
        return f"backfill@{self.name}.service"

    def configure(self) -> None:
        """Write configuration and secrets as README says where to."""
        text = self.world.configure().read_text()
        text = text.replace('"journal.db"', f'"/var/lib/backfill/{self.name}/journal.db"')
        text, passwords = re.subn(r"postgresql://(\w+):\w+@", r"postgresql://\1@", text)
        assert passwords == 1
        self.write(f"/etc/backfill/{self.name}.toml", text, mode="0640")
        password = re.search(r":(\w+)@", self.world.dsn.removeprefix("postgresql:"))
        assert password is not None
        self.write(f"/etc/backfill/credentials/{self.name}.pgpass", f"*:*:*:*:{password[1]}\n")
        keys = f"aws_access_key_id = {self.world.server.access_key}\naws_secret_access_key = {self.world.server.secret_key}\n"
        self.write(f"/etc/backfill/credentials/{self.name}.aws", f"[default]\n{keys}")

    def write(self, path: str, text: str, *, mode: str = "0600") -> None:
        self.machine.path(path).write_text(text)
        self.machine.must("chmod", mode, path)

    def adjust(self, *lines: str) -> None:
        """Give the unit a drop-in."""
        directory = f"/etc/systemd/system/{self.unit}.d"
        self.machine.must("mkdir", "-p", directory)
        self.write(f"{directory}/test.conf", "[Service]\n" + "\n".join(lines) + "\n", mode="0644")
        self.machine.must("systemctl", "daemon-reload")

    def systemctl(self, verb: str) -> None:
        done = self.machine.run("systemctl", verb, self.unit)
        assert done.returncode == 0, done.stderr + self.log()

    def show(self, name: str) -> str:
        return self.machine.show(self.unit, name)

    def log(self) -> str:
        return self.machine.log_of(self.unit)

    def until_logged(self, text: str) -> None:
        """Wait until its log has this: a line reaches it some time after systemd has noticed what it says."""
        eventually(lambda: text in self.log(), f"{self.unit} logs {text!r}")

    def until_ended_with(self, code: int) -> None:
        """Wait until its last word is this code; systemd forgets the exit code of a unit that nobody refers to."""

        def last_word() -> str:
            return "".join([line for line in self.log().splitlines() if "; exit code " in line][-1:])

        eventually(lambda: last_word().endswith(f"exit code {code:d}"), f"{self.unit} ends with {code:d}")

    def hold(self) -> None:
        """Keep its PUTs waiting, but for the probe that the start waits for."""
        proxy = self.world.proxy
        assert proxy is not None
        proxy.hold(lambda key: not key.endswith(PROBE))

    def until_held(self, puts: int = HELD) -> None:
        """Wait until it waits for the answers to as many PUTs as it may have under way."""
        proxy = self.world.proxy
        assert proxy is not None
        eventually(lambda: len(proxy.waiting()) >= puts, f"{puts} PUTs wait", seconds=PUT_SECONDS_MAX)

    def until(self, name: str, value: str) -> None:
        """Wait until a property of the unit has this value."""

        def has() -> bool:
            self.shown = self.show(name)
            return self.shown == value

        try:
            eventually(has, f"{self.unit}: {name} is {value}")
        except AssertionError as late:
            raise AssertionError(f"{late}: it is {self.shown}; log:\n{self.log()}") from None

    def until_it_has_lasted(self, state: str, seconds: float) -> None:
        """Wait until the unit has been in this state, and the same process in it, for so long."""
        self.until("ActiveState", state)
        process = self.show("MainPID")
        since = int(self.show("StateChangeTimestampMonotonic")) / 1e6
        eventually(lambda: time.monotonic() - since > seconds, f"{seconds:g} s of {state}")
        assert (self.show("ActiveState"), self.show("MainPID")) == (state, process), self.log()

    def until_done(self) -> None:
        """Wait until it has copied everything and ended; compare table, journal and bucket."""
        self.until("ActiveState", "inactive")
        self.until_ended_with(0)
        self.world.assert_copied()

    def verify(self) -> None:
        """Let it compare bucket, table and journal."""
        secrets = f"/etc/backfill/credentials/{self.name}"
        env = {"AWS_SHARED_CREDENTIALS_FILE": f"{secrets}.aws", "PGPASSFILE": f"{secrets}.pgpass"}
        done = self.backfillctl("verify", env=env)
        assert done.returncode == 0, done.stdout + done.stderr

    def backfillctl(
        self, *words: str, user: str | None = None, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command on it, as root or another user."""
        config = f"/etc/backfill/{self.name}.toml"
        return self.machine.run(PROGRAM, *words, "-c", config, user=user, env=env)

    def events(self, kind: str) -> int:
        return raw_journal.count_of(self.world.journal, kind)
