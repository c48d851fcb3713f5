"""`backfillctl demo`: a real migration between real servers, killed in the middle and compared byte for byte."""

from __future__ import annotations

import os
import secrets
import signal
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from daemon.demo import tables
from daemon.demo.comparing import DIFFERENCES_MAX, compare
from daemon.demo.looking_around import hints
from daemon.demo.operating import Answer, Operator
from daemon.demo.postgres import EmbeddedPostgres, wheel_binaries
from daemon.demo.processes import scrubbed
from daemon.demo.redriven import redriven
from daemon.demo.seaweed import EmbeddedSeaweed, Identity, wheel_binary
from daemon.demo.stopping import Stopped, Stops
from daemon.demo.telling import OUTPUT_COLUMNS, Telling
from daemon.errors import BackfillError, ExitCode
from daemon.rendering_units import size

if TYPE_CHECKING:
    from collections.abc import Mapping

    from journal.status import MigrationStatus

KILLED_AT = 0.4
"""The share of keys that are settled when the daemon is killed."""


def run(*, keep: bool) -> ExitCode:
    """Show everything once, on servers and in directories that are gone afterwards, also after Ctrl-C.

    Args:
        keep: when all is shown, leave the servers up until Ctrl-C, and say how to look around.

    Returns:
        0 if every object is what its row says, else 1; 130 or 143 if a signal ended it early.

    Raises:
        ConfigError: there are no servers for this platform.
        BackfillError: a step did not go as it must.
    """
    # Named before anything starts.
    wheel_binaries()
    wheel_binary()
    stops = Stops()
    demo = Demo(Telling(), stops)
    code: ExitCode | None = None
    with stops.installed():
        try:
            with ExitStack() as stack:
                try:
                    demo.start(stack)
                    code = demo.perform()
                    if keep:
                        demo.wait_for_stop()
                finally:
                    stops.hold_back_for_good()
                    demo.telling.line("\nstopping the servers and removing every file")
        except Stopped:
            kept = keep and code is not None
            if not kept:
                code = ExitCode.TERMINATED if stops.received is signal.SIGTERM else ExitCode.INTERRUPTED
    return ExitCode.FAILED if code is None else code


class Demo:
    """The story, step by step.

    Attributes:
        telling: where it is told.
    """

    def __init__(self, telling: Telling, stops: Stops) -> None:
        self.telling = telling
        self._stops = stops
        self._identity = Identity("demo", secrets.token_hex(20))

    def start(self, stack: ExitStack) -> None:
        """Start what is needed; `stack` takes it away again."""
        say = self.telling
        say.line("backfillctl demo: everything stays on 127.0.0.1 and in temporary directories.")
        say.step("Start a PostgreSQL and an S3 server (SeaweedFS) of our own")
        begun = time.monotonic()
        with self._stops.held_back():
            made = tempfile.TemporaryDirectory(prefix="backfill-demo-")
            self._directory = Path(stack.enter_context(made)).resolve()
        with self._stops.held_back():
            self._postgres = stack.enter_context(EmbeddedPostgres())
        with self._stops.held_back():
            self._seaweed = stack.enter_context(EmbeddedSeaweed([self._identity], buckets=tables.buckets()))
        say.say(
            f"PostgreSQL listens on port {self._postgres.port}, S3 on port {self._seaweed.port}, "
            f"after {time.monotonic() - begun:.1f} s. Files are in {self._directory}."
        )
        self._operator = Operator(
            self._directory, {**scrubbed(os.environ), **_quiet(), **self._secrets()}, self._stops
        )

    def perform(self) -> ExitCode:
        """Fill, kill, resume, mend, verify, compare, attest; return 0 if every object is what its row says."""
        self._fill()
        killed = self._kill_in_the_middle()
        self._resume()
        self._mend()
        self._verify()
        code = self._compare()
        self._count_repetitions(killed)
        self._attest()
        return code

    def wait_for_stop(self) -> None:
        """Say how to look around, and wait for Ctrl-C.

        Raises:
            Stopped: always; it is the only way out.
        """
        say = self.telling
        say.step("Look around; Ctrl-C here ends the servers and removes everything")
        for line in hints(
            directory=self._directory,
            secrets=self._secrets(),
            bucket=tables.buckets()[0],
            postgres=self._postgres,
            seaweed=self._seaweed,
        ):
            say.line(f"   {line}")
        while True:
            signal.pause()

    def _fill(self) -> None:
        say = self.telling
        say.step("Fill nine tables, and put some objects where their copies will go")
        filled = tables.fill(self._postgres)
        whole, cut = tables.objects_before(self._postgres)
        for one in (*whole, cut):
            status, body = self._seaweed.request("PUT", f"/{one.bucket}/{one.key}", one.value)
            if status != 200:
                raise BackfillError(
                    f"PUT {one.bucket}/{one.key}: expected 200, found {status}: {body[:500]!r}"
                )
        say.say(
            f"{filled.rows:,} rows, {size(filled.bytes)} of values: eight layer-cache tables and one with a "
            "composite key; ties in created_at, empty and NULL values, keys that are not ASCII, values of some "
            f"MiB. {len(whole)} objects are there already and right, one was cut short: somebody has tried "
            "before."
        )
        self._configure("compare")
        say.command("backfillctl init; edit backfill.toml")
        say.output(
            "\n".join(
                line
                for line in (self._directory / "backfill.toml").read_text().splitlines()
                if not line.startswith((" ", "caches"))
            )
        )

    def _kill_in_the_middle(self) -> MigrationStatus:
        say = self.telling
        say.step(f"Run the daemon, and SIGKILL it when {KILLED_AT:.0%} of the keys are settled")
        say.command("backfillctl run -c backfill.toml")
        killed = self._operator.run_and_kill(
            "run", "-c", self._path("backfill.toml"), journal=self._directory / "journal.db", share=KILLED_AT
        )
        settled = sum(source.counts.settled for source in killed.sources)
        planned = sum(source.counts.planned_rows for source in killed.sources)
        in_flight = sum(source.counts.in_flight for source in killed.sources)
        say.say(
            f"Killed with {settled:,} of {planned:,} keys settled and {in_flight:,} in flight: claimed, and "
            "nobody knows what became of them. The journal tells all of this without the daemon:"
        )
        say.command("backfillctl status -c backfill.toml")
        say.output(self._expect(ExitCode.DONE, "status").output)
        return killed

    def _resume(self) -> None:
        say = self.telling
        say.step("Resume: the same command again")
        say.command("backfillctl run -c backfill.toml")
        ended = self._expect(ExitCode.PARKED, "run")
        say.output(_summary(ended))
        say.say(
            "Exit code 3: everything is copied but the one key whose object was cut short. It is not ours, so "
            "it is neither overwritten nor taken for right: the key is parked for an operator to decide."
        )

    def _mend(self) -> None:
        say = self.telling
        say.step("Decide that the row is right, and let the parked key be driven again")
        self._configure("overwrite")
        say.say('In backfill.toml, existing = "compare" becomes existing = "overwrite".')
        say.command("backfillctl requeue --all -c backfill.toml")
        say.output(self._expect(ExitCode.DONE, "requeue", "--all").output)
        say.command("backfillctl run -c backfill.toml")
        say.output(_summary(self._expect(ExitCode.DONE, "run")))

    def _verify(self) -> None:
        say = self.telling
        say.step("Verify: list every object, and read a sample of them beside their rows")
        say.command("backfillctl verify --no-extra -c backfill.toml")
        say.output(
            "\n".join(
                line
                for line in self._expect(ExitCode.DONE, "verify", "--no-extra").output.splitlines()
                if " INFO " not in line
            )
        )

    def _compare(self) -> ExitCode:
        say = self.telling
        say.step("Trust nobody: read every row and every object, compare every byte")
        begun = time.monotonic()
        found = compare(self._seaweed.port, self._identity, tables.expected_objects(self._postgres))
        say.say(
            f"{found.objects:,} rows through psql against {found.objects:,} objects through S3, "
            f"{size(found.bytes)} in {time.monotonic() - begun:.1f} s: "
            f"{len(found.differences) or 'no'} differences."
        )
        for difference in found.differences[:DIFFERENCES_MAX]:
            say.output(difference)
        return ExitCode.FAILED if found.differences else ExitCode.DONE

    def _count_repetitions(self, killed: MigrationStatus) -> None:
        say = self.telling
        say.step("What the kill cost, by the journal's events")
        cost = redriven(self._directory / "journal.db")
        in_flight = sum(source.counts.in_flight for source in killed.sources)
        if cost.recovered != in_flight:
            raise BackfillError(
                f"{in_flight} keys were in flight at the kill, expected as many to be recovered, found {cost.recovered}"
            )
        say.say(
            f"{cost.recovered:,} keys in flight were driven again. {cost.stored:,} had not reached the bucket. "
            f"{cost.sent_twice:,} had: these uploads were repeated, the server refused each because its object "
            f"was there, and the daemon knew it for its own. {cost.otherwise:,} ended in another way (present "
            f"before, for example). Requests that failed and were made again: {cost.failed_attempts:,}."
        )

    def _attest(self) -> None:
        say = self.telling
        say.step("May the tables be dropped?")
        say.command("backfillctl attest -c backfill.toml")
        verdict, _, rest = self._expect(ExitCode.DONE, "attest").output.partition("GO: ")[2].partition("\n")
        say.output("\n".join([f"GO: {verdict}", *_conditions(rest, of="attachments:", besides="verified")]))
        say.say(
            "So it says of each of the nine tables, with a digest over every key and the SQL that would empty them. "
            "It runs none of it."
        )

    def _configure(self, existing: str) -> None:
        path = self._directory / "backfill.toml"
        path.touch(mode=0o600)
        path.write_text(
            tables.configuration(
                postgres_port=self._postgres.port, endpoint=self._seaweed.endpoint, existing=existing
            )
        )

    def _expect(self, exit_code: ExitCode, *words: str) -> Answer:
        """Run a command with the configuration; any other exit code than `exit_code` ends the demo."""
        answer = self._operator.backfillctl(*words, "-c", self._path("backfill.toml"))
        if answer.exit_code != exit_code:
            raise BackfillError(
                f"backfillctl {' '.join(words)}: expected exit code {exit_code}, found {answer.exit_code}; "
                f"it printed:\n{answer.output}"
            )
        return answer

    def _path(self, name: str) -> str:
        return str(self._directory / name)

    def _secrets(self) -> dict[str, str]:
        return {
            "PGPASSWORD": self._postgres.password,
            "AWS_ACCESS_KEY_ID": self._identity.access_key,
            "AWS_SECRET_ACCESS_KEY": self._identity.secret_key,
        }


def _conditions(verdict: str, *, of: str, besides: str) -> list[str]:
    """Return the conditions of a verdict whose subjects begin with one of two words, whole."""
    shown: list[str] = []
    kept = False
    for line in verdict.splitlines():
        if line.startswith("ok"):
            kept = line.removeprefix("ok").lstrip().startswith((of, besides))
        elif not line.startswith(" "):
            kept = False
        if kept:
            shown.append(line)
    return shown


def _quiet() -> Mapping[str, str]:
    """Return variables that keep the user's own AWS files, colours and terminal width out of it."""
    return {
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "COLUMNS": str(OUTPUT_COLUMNS),
        "NO_COLOR": "1",
    }


def _summary(session: Answer) -> str:
    """Return what a session said that was no progress: its warnings, and its last line, which sums it up."""
    lines = session.output.rstrip().splitlines()
    return "\n".join([*(line for line in lines[:-1] if " INFO " not in line), *lines[-1:]])
