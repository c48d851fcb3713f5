"""Commands at the end of a run: the one that fits, told the facts and no secret, bounded, never the exit code's judge."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import trio

from daemon.errors import ExitCode
from daemon.hooks import OUTPUT_BYTES_MAX, HookResult, hook_environment, run_hook
from tests.cli.conftest import SMALLEST, Invoke
from tests.cli.migrations import Migration, refused
from tests.cli.test_log import spoil
from tests.faults.waiting import eventually

ENDS = ("on_complete", "on_parked", "on_halt")


def script(directory: Path, text: str, name: str = "hook") -> Path:
    path = directory / name
    path.write_text(f"#!{sys.executable}\nimport json, os, signal, subprocess, sys\n{text}\n")
    path.chmod(0o700)
    return path


@pytest.fixture
def hooked(inside: Migration, tmp_path: Path) -> Migration:
    """A migration whose hooks write their environment, and their name, to a file."""
    write = script(tmp_path, f"json.dump(dict(os.environ), open({str(tmp_path / 'facts.json')!r}, 'w'))")
    lines = "\n".join(f'{end} = ["{write}", "argument"]' for end in ENDS)
    inside.sections["upload"] = f"max_failures = 1\n[hooks]\n{lines}"
    return inside


def facts(migration: Migration) -> dict[str, str] | None:
    path = migration.directory / "facts.json"
    return json.loads(path.read_text()) if path.exists() else None


def notes(migration: Migration) -> list[dict[str, Any]]:
    lines = migration("events --kind hook_ran --json").stdout.splitlines()
    return [json.loads(line)["data"] for line in lines]


def test_a_complete_run_tells_its_hook_every_number(hooked: Migration) -> None:
    assert hooked("run").returncode == 0
    env = facts(hooked)
    assert env is not None
    assert int(env.pop("BACKFILL_SECONDS")) < 60
    assert {name: value for name, value in env.items() if name.startswith("BACKFILL_")} == {
        "BACKFILL_HOOK": "on_complete",
        "BACKFILL_MIGRATION": "blobs",
        "BACKFILL_JOURNAL": str(hooked.journal),
        "BACKFILL_OUTCOME": "every key is settled",
        "BACKFILL_PROBLEM": "",
        "BACKFILL_EXIT_CODE": "0",
        "BACKFILL_STORED": "20",
        **{f"BACKFILL_{state}": "0" for state in ("PRESENT", "SKIPPED", "VANISHED", "PARKED")},
        **{f"BACKFILL_{state}": "0" for state in ("IN_FLIGHT", "WAITING")},
        "BACKFILL_UPLOADED_BYTES": "31",
    }


def test_no_credential_is_in_a_hooks_environment(hooked: Migration) -> None:
    assert (
        hooked("run", PGPASSWORD="hunter2canary", BACKFILL_POSTGRES_DSN=hooked.database.dsn).returncode == 0
    )
    env = facts(hooked)
    assert env is not None
    assert "PATH" in env
    assert hooked.server.secret_key not in env.values()
    assert not [name for name in env if name.startswith(("AWS_", "PG", "BACKFILL_POSTGRES"))]


@pytest.mark.parametrize(
    "name", ["AWS_SESSION_TOKEN", "PGPASSFILE", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET"]
)
def test_what_could_hold_or_lead_to_a_secret_is_withheld(name: str) -> None:
    assert hook_environment({name: "x", "HOME": "/root"}, {"BACKFILL_PROBLEM": "a\0b"}) == {
        "HOME": "/root",
        "BACKFILL_PROBLEM": "a\N{REPLACEMENT CHARACTER}b",
    }


def test_a_run_that_ends_with_parked_keys_has_its_own_hook(hooked: Migration) -> None:
    spoil(hooked, "7")
    assert hooked("run").returncode == ExitCode.PARKED
    env = facts(hooked)
    assert env is not None
    assert (env["BACKFILL_HOOK"], env["BACKFILL_PARKED"], env["BACKFILL_EXIT_CODE"]) == (
        "on_parked",
        "1",
        "3",
    )


def test_a_halted_run_has_its_own_hook_and_is_told_the_problem(hooked: Migration) -> None:
    spoil(hooked, "7")
    spoil(hooked, "8")
    assert hooked("run").returncode == ExitCode.PARKED
    env = facts(hooked)
    assert env is not None
    assert (env["BACKFILL_HOOK"], env["BACKFILL_OUTCOME"]) == ("on_halt", "halted")
    assert "2 keys parked in this session" in env["BACKFILL_PROBLEM"]


def test_a_mismatch_has_the_hook_of_a_halt_and_a_verified_run_that_of_completion(hooked: Migration) -> None:
    assert hooked("run --verify").returncode == 0
    env = facts(hooked)
    assert env is not None
    assert (env["BACKFILL_HOOK"], env["BACKFILL_OUTCOME"]) == ("on_complete", "verified 20 keys")
    spoil(hooked, "7")
    assert hooked("run --verify").returncode == ExitCode.MISMATCH
    env = facts(hooked)
    assert env is not None
    assert (env["BACKFILL_HOOK"], env["BACKFILL_EXIT_CODE"]) == ("on_halt", "4")


def test_a_run_that_stopped_at_a_limit_or_never_began_has_no_hook(hooked: Migration) -> None:
    assert hooked("run --limit 5").returncode == ExitCode.STOPPED
    hooked.changes = {"table": "public.nowhere"}
    assert hooked("run").returncode == ExitCode.USAGE
    assert facts(hooked) is None


def test_how_a_hook_ended_is_on_record_and_in_the_log_and_changes_no_exit_code(
    inside: Migration, tmp_path: Path
) -> None:
    fails = script(tmp_path, "print('pager is down'); sys.exit(3)")
    inside.sections["upload"] = f'[hooks]\non_complete = ["{fails}", "s3cret-argument"]'
    done = inside("run")
    assert done.returncode == 0
    assert f"WARNING hook on_complete: {fails} ended with 3" in done.stderr
    assert "it said: pager is down" in done.stderr
    assert "every key is settled" in done.stderr.splitlines()[-1]
    (note,) = notes(inside)
    assert note.pop("milliseconds") >= 0
    assert note == {"hook": "on_complete", "program": str(fails), "exit_code": 3, "timed_out": False}
    assert "s3cret-argument" not in done.stderr
    assert json.loads(inside("status --json").stdout)["state"] == "complete"


def test_a_hook_may_ask_for_the_status(inside: Migration, tmp_path: Path) -> None:
    asks = script(tmp_path, "sys.exit(subprocess.call([sys.executable, '-m', 'daemon', 'status']))")
    inside.sections["upload"] = f'[hooks]\non_complete = ["{asks}"]'
    done = inside("run", PYTHONPATH=str(Path(__file__).parents[2]))
    assert f"INFO hook on_complete: {asks} ended with 0" in done.stderr, done.stderr


@pytest.mark.parametrize(("manner", "number"), [("tame", signal.SIGTERM), ("deaf", signal.SIGKILL)])
def test_a_hook_that_outlives_its_time_is_ended_with_all_it_started(
    tmp_path: Path, manner: str, number: signal.Signals
) -> None:
    hook = script(
        tmp_path,
        "signal.signal(signal.SIGTERM, signal.SIG_IGN) if sys.argv[1] == 'deaf' else None\n"
        "print(subprocess.Popen(['sleep', '600']).pid, flush=True)\n"
        "while True: signal.pause()",
    )

    async def ended() -> HookResult:
        return await run_hook([str(hook), manner], dict(os.environ), within=5.0)

    result = trio.run(ended)
    assert (result.timed_out, result.exit_code) == (True, -number)
    eventually(lambda: not is_running(int(result.output)), "what the hook started has ended")


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rpartition(")")[2].split()[0] != "Z"


def test_of_a_talkative_hook_only_the_beginning_is_kept(tmp_path: Path) -> None:
    hook = script(tmp_path, "sys.stdout.write('x' * 10_000_000)")

    async def listened() -> None:
        result = await run_hook([str(hook)], dict(os.environ), within=60)
        assert result.exit_code == 0
        assert result.output == "x" * OUTPUT_BYTES_MAX

    trio.run(listened)


def test_what_a_hook_leaves_in_the_background_is_not_waited_for(tmp_path: Path) -> None:
    hook = script(tmp_path, "child = subprocess.Popen(['sleep', '30']); print(child.pid)")

    async def ended() -> None:
        result = await run_hook([str(hook)], dict(os.environ), within=60)
        os.kill(int(result.output), signal.SIGKILL)
        assert result.exit_code == 0
        assert result.seconds < 20

    trio.run(ended)


def test_a_hook_whose_interpreter_is_missing_is_told_and_changes_nothing(
    inside: Migration, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o700)
    inside.sections["upload"] = f'[hooks]\non_complete = ["{broken}"]'
    done = inside("run")
    assert done.returncode == 0
    assert "could not be started: no such file or directory" in done.stderr
    assert notes(inside)[0]["exit_code"] is None


def test_every_hook_that_cannot_be_run_is_refused_at_the_start(inside: Migration) -> None:
    inside.sections["upload"] = (
        '[hooks]\non_complete = ["/no/such/program"]\non_parked = ["no-such-program"]\non_halt = ["./hook"]'
    )
    with inside.untouched():
        message = refused(inside("run"), ExitCode.USAGE)
    for named in (
        'hooks.on_complete: found "/no/such/program"; expected a program that exists',
        'hooks.on_parked: found "no-such-program"',
        'hooks.on_halt: found "./hook"; expected the absolute path',
    ):
        assert named in message


@pytest.mark.parametrize("value", ['"echo done"', "[]", '[""]', "[1]", "true"])
def test_a_hook_that_is_no_list_of_words_is_refused(invoke: Invoke, write_config: Any, value: str) -> None:
    result = invoke("run", "-c", write_config(f"{SMALLEST}[hooks]\non_halt = {value}\n"))
    assert result.exit_code == ExitCode.USAGE
    assert "hooks.on_halt: found" in result.stderr
    assert "a program and its arguments" in result.stderr


# What is given up on is not waited for: the interpreter remarks on that.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_hook_that_became_another_users_holds_up_no_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[int] = []

    def forbidden(group: int, _number: int) -> None:
        groups.append(group)
        raise PermissionError

    async def run() -> HookResult:
        with trio.fail_after(30):
            return await run_hook([str(script(tmp_path, "signal.pause()"))], dict(os.environ), within=0.1)

    with monkeypatch.context() as patched:
        patched.setattr(os, "killpg", forbidden)
        result = trio.run(run)
    os.killpg(groups[0], signal.SIGKILL)
    os.waitpid(groups[0], 0)
    assert (result.exit_code, result.timed_out) == (None, True)
    assert "another user" in result.output
