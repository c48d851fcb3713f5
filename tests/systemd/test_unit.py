"""The unit as a file: systemd accepts it, the sandbox holds, and what README and the code say of it is so."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from daemon.config import UploadConfig
from daemon.errors import ExitCode
from daemon.session import STOP_SECONDS
from tests.systemd.instances import installation

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd" / "backfill@.service"
EXPOSURE_MAX = 15
"""Ten times the figure that `systemd-analyze security` prints."""
TEXT = UNIT.read_text(encoding="utf-8")

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="NOT TESTED: systemd-analyze, apt package systemd"
)


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["systemd-analyze", *words], capture_output=True, text=True, check=False)


def setting(name: str) -> str:
    """The value of a key that the unit has once."""
    (value,) = re.findall(rf"^{name}=(.*)$", TEXT, re.MULTILINE)
    return str(value)


@needs_systemd
def test_systemd_accepts_every_line(tmp_path: Path) -> None:
    # Not installed here, the program is what it must not complain about.
    installed = tmp_path / UNIT.name
    installed.write_text(TEXT.replace("/opt/backfillctl/bin/backfillctl", "/bin/true"))
    done = analyze("verify", installed)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@needs_systemd
def test_the_sandbox_leaves_little_open_and_the_unit_explains_each_part_of_it() -> None:
    done = analyze("security", "--offline=true", f"--threshold={EXPOSURE_MAX}", "--no-pager", UNIT)
    assert done.returncode == 0, done.stdout
    left = re.findall(r"^✗ (\S+)", done.stdout, re.MULTILINE)
    assert left, done.stdout
    explained = "".join(line for line in TEXT.splitlines() if line.startswith("# -"))
    assert [exposure for exposure in left if exposure not in explained] == []


def test_exit_codes_that_wait_for_the_operator_are_not_tried_again() -> None:
    waiting = {
        ExitCode.USAGE,
        ExitCode.PARKED,
        ExitCode.MISMATCH,
        ExitCode.REFUSED,
        ExitCode.JOURNAL,
        ExitCode.STOPPED,
    }
    assert {int(code) for code in setting("RestartPreventExitStatus").split()} == waiting
    ended = {ExitCode.INTERRUPTED, ExitCode.TERMINATED}
    assert {int(code) for code in setting("SuccessExitStatus").split()} == ended
    assert {*waiting, *ended, ExitCode.DONE, ExitCode.FAILED, ExitCode.UNREACHABLE} == set(ExitCode)
    assert (setting("Restart"), setting("StartLimitIntervalSec")) == ("on-failure", "0")


def test_a_stop_leaves_more_time_than_the_default_drain() -> None:
    assert float(setting("TimeoutStopSec").removesuffix("s")) >= UploadConfig().drain_deadline + STOP_SECONDS


def test_readme_installs_with_five_commands() -> None:
    assert len(installation()) == 5
    assert setting("ExecStart").split()[0] in "\n".join(installation())


def test_the_wheel_carries_unit_and_group() -> None:
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for path in ("systemd/backfill@.service", "systemd/backfill.sysusers.conf"):
        assert f'"{path}"' in text
        assert (ROOT / path).is_file()
