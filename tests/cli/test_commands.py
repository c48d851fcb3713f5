from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from click.testing import CliRunner, Result

from daemon.cli import cli
from daemon.errors import ConfigError, ExitCode, RefusedError, UnreachableError
from daemon.findings import GRAVEST_FIRST, exit_code_of, gravest
from journal.errors import (
    Difference,
    IdentityMismatch,
    JournalCorrupt,
    JournalFailed,
    JournalFull,
    JournalLocked,
    JournalMissing,
    JournalNewer,
)

from .conftest import SMALLEST, Invoke, WriteConfig

if TYPE_CHECKING:
    from collections.abc import Callable

COMMANDS = [
    "init",
    "attest",
    "check",
    "plan",
    "run",
    "status",
    "explain",
    "events",
    "report",
    "requeue",
    "pause",
    "resume",
    "set",
    "drain",
    "verify",
    "undo",
    "restore",
    "journal",
    "demo",
]


def test_the_commands_are_those_of_the_contract() -> None:
    assert sorted(cli.commands) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(invoke: Invoke, command: str) -> None:
    result = invoke(command, "-h")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: backfillctl {command}")


def test_no_arguments_print_the_commands_and_exit_2(invoke: Invoke) -> None:
    result = invoke()
    assert result.exit_code == ExitCode.USAGE
    assert all(command in result.stderr for command in COMMANDS)
    assert result.stdout == ""


def test_an_unknown_command_or_option_exits_2(invoke: Invoke) -> None:
    assert invoke("restart").exit_code == ExitCode.USAGE
    assert invoke("status", "--follow").exit_code == ExitCode.USAGE


def test_the_version_is_printed(invoke: Invoke) -> None:
    assert invoke("--version").stdout == "backfillctl, version 0.1.0\n"


@pytest.mark.parametrize("command", ["check", "plan", "run", "verify"])
def test_a_command_without_its_config_says_how_to_name_or_make_one(invoke: Invoke, command: str) -> None:
    result = invoke(command)
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.startswith(
        "error: no configuration named\n"
        "hint: give -c FILE, or set BACKFILL_CONFIG; `backfillctl init` writes a sample\n"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["status"],
        ["events"],
        ["explain", "k"],
        ["requeue", "--all"],
        ["journal", "check"],
        ["journal", "rebuild"],
    ],
)
def test_a_command_without_its_journal_says_how_to_name_one(invoke: Invoke, arguments: list[str]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == ExitCode.USAGE
    assert result.stderr.startswith("error: no journal named\nhint: give --journal FILE or -c FILE")


def test_a_wrong_config_is_one_screen_with_every_problem_and_exit_2(
    invoke: Invoke, write_config: WriteConfig
) -> None:
    path = write_config(SMALLEST.replace('key = "id"', "key = 3").replace('name = "blobs"', "name = 3"))
    before = sorted(path.parent.iterdir())
    result = invoke("run", "-c", path)
    assert result.exit_code == ExitCode.USAGE
    lines = result.stderr.splitlines()
    assert lines[0] == "error: 2 problems:"
    assert lines[1].startswith("  migration.name: found 3; expected a name")
    assert lines[2].startswith('  source "attachments".key: found 3; expected a column name')
    assert lines[3].startswith("hint: correct ")
    assert sorted(path.parent.iterdir()) == before


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--cutoff-timestamp", "2026-01-14 15:30:45"),
        ("--cutoff-timestamp", "2999-01-01T00:00:00Z"),
        ("--cache-types", "cas,nonsense"),
        ("--cache-types", "cas,"),
        ("--cache-types", ""),
        ("--key-batch-size", "1e3"),
        ("--checkpoint-interval-secs", "0"),
        ("--max-concurrent-uploads", "five"),
    ],
)
def test_d5_a_malformed_flag_of_run_is_an_error_that_names_it(
    invoke: Invoke, write_config: WriteConfig, flag: str, value: str
) -> None:
    path = write_config(SMALLEST + '[layer_cache]\ncaches = ["cas"]\nbucket_prefix = "si"\n')
    result = invoke("run", "-c", path, flag, value)
    assert result.exit_code == ExitCode.USAGE
    assert (
        flag in result.stderr or "layer_cache.caches" in result.stderr or "migration.cutoff" in result.stderr
    )
    assert "expected" in result.stderr or "no cache is named" in result.stderr


def test_init_writes_a_private_file_that_loads_and_never_over_another(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "new.toml"
    result = invoke("init", "-c", path)
    assert result.exit_code == 0
    assert path.stat().st_mode & 0o777 == 0o600
    again = invoke("init", "-c", path)
    assert again.exit_code == ExitCode.USAGE
    assert again.stderr.startswith(f"error: write {path}: it exists\nhint: ")


def test_init_where_nothing_can_be_written_says_so(invoke: Invoke, tmp_path: Path) -> None:
    result = invoke("init", "-c", tmp_path / "none" / "new.toml")
    assert result.exit_code == ExitCode.USAGE
    assert "no such file or directory" in result.stderr


def test_requeue_wants_to_know_which_keys(invoke: Invoke, tmp_path: Path) -> None:
    for arguments in ([], ["--all", "--key", "k"]):
        result = invoke("requeue", "--journal", tmp_path / "j.db", *arguments)
        assert result.exit_code == ExitCode.USAGE
        assert "expected --all, or some of" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError(["x"]), 2),
        (UnreachableError("x"), 5),
        (RefusedError("x"), 6),
        (JournalMissing("x"), 2),
        (IdentityMismatch([Difference("s", "f", "a", "b")]), 2),
        (JournalFailed("x"), 1),
        (JournalLocked("x"), 7),
        (JournalFull("x"), 7),
        (JournalCorrupt("x"), 7),
        (JournalNewer("x"), 7),
    ],
)
def test_each_failure_has_its_exit_code(error: ConfigError, code: int) -> None:
    assert exit_code_of(error) == code


def test_of_several_failures_the_one_a_restart_cannot_mend_decides() -> None:
    assert gravest([ExitCode.UNREACHABLE, ExitCode.REFUSED]) is ExitCode.REFUSED
    assert gravest([ExitCode.DONE]) is ExitCode.DONE
    assert gravest(GRAVEST_FIRST) is ExitCode.FAILED


def outcome_of(error: BaseException) -> Result:
    """What a command that raises `error` comes to, under the group that backfillctl uses."""

    @click.group(cls=type(cli))
    def group() -> None:
        pass

    @group.command()
    def run() -> None:
        raise error

    return CliRunner().invoke(group, ["run"])


def test_a_failure_is_told_with_its_hint_and_exit_code() -> None:
    result = outcome_of(JournalLocked("open journal: pid 7 holds it", "stop it"))
    assert result.exit_code == ExitCode.JOURNAL
    assert result.stderr == "error: open journal: pid 7 holds it\nhint: stop it\n"
    assert result.stdout == ""


def test_a_group_of_failures_is_told_one_by_one_without_traceback() -> None:
    inner = ExceptionGroup("inner", [RefusedError("no right", "ask")])
    result = outcome_of(
        BaseExceptionGroup("nursery", [inner, UnreachableError("silence"), KeyboardInterrupt()])
    )
    assert result.exit_code == ExitCode.REFUSED
    assert result.stderr == "error: no right\nhint: ask\nerror: silence\n"


def test_the_same_failure_from_two_tasks_is_told_once() -> None:
    result = outcome_of(ExceptionGroup("nursery", [RefusedError("no right"), RefusedError("no right")]))
    assert result.stderr == "error: no right\n"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BaseExceptionGroup("nursery", [KeyboardInterrupt()])])
def test_ctrl_c_exits_130_and_says_that_nothing_is_lost(error: BaseException) -> None:
    result = outcome_of(error)
    assert result.exit_code == ExitCode.INTERRUPTED
    assert "the same command continues" in result.stderr


def test_a_fault_of_the_program_keeps_its_traceback() -> None:
    fault = ExceptionGroup("nursery", [RefusedError("x"), ZeroDivisionError()])
    assert outcome_of(fault).exception is fault


def test_commands_work_as_a_process_of_their_own(
    backfillctl: Callable[..., subprocess.CompletedProcess[str]], smallest: Path
) -> None:
    assert backfillctl().returncode == ExitCode.USAGE
    done = backfillctl("status", "-c", smallest)
    assert done.returncode == ExitCode.USAGE
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["status"], ["events"], ["explain", "k"], ["journal", "check"]])
def test_reading_commands_import_neither_network_nor_loop(arguments: list[str], tmp_path: Path) -> None:
    program = (
        "import sys\nfrom daemon.cli import cli\n"
        "cli(sys.argv[1:], standalone_mode=False)\n"
        "heavy = {'trio', 'httpx', 'asyncpg', 'botocore', 'pydantic', 'trio_asyncio'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments, "--journal", str(tmp_path / "none.db")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "error: " in done.stderr
