"""Commands of the operator's at the end of a run: chosen by how it ended, told the facts, bounded, on record."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio

from daemon.config import Config
from daemon.drain import Drain
from daemon.ending import Ending, counts_of
from daemon.error_text import expected, unexpected
from daemon.errors import BackfillError, ExitCode
from daemon.findings import exit_code_of, gravest
from daemon.log_events import LogEvent, log_event
from daemon.recorder import Recorder
from daemon.rendering_progress import totals
from journal.errors import JournalError
from journal.events import Kind

OUTPUT_BYTES_MAX = 2000
"""What is kept of a hook's output, its beginning; the rest is read and dropped, so that no hook hangs on a full pipe."""
TERMINATED_SECONDS = 5.0
"""Between SIGTERM and SIGKILL for a hook that outlives its time."""
LEFT_OPEN_SECONDS = 1.0
"""How long a hook's output is waited for once it has ended: what it left running in the background may hold it."""

_OF_AN_END = {
    ExitCode.DONE: "on_complete",
    ExitCode.PARKED: "on_parked",
    ExitCode.MISMATCH: "on_halt",
}
_WITHHELD = ("AWS_", "PG", "BACKFILL_", "CREDENTIALS_DIRECTORY", "NOTIFY_SOCKET", "WATCHDOG_", "LISTEN_")
"""Beginnings of variables that a hook doesn't inherit: credentials, and what systemd says to this process alone."""


@dataclass(frozen=True, slots=True)
class HookResult:
    """How a hook ended.

    Attributes:
        exit_code: negative for a signal; None if it could not be started, or not be ended.
        timed_out: it had to be ended.
        seconds: how long it took.
        output: the beginning of what it said on stdout and stderr; why it could not be started or ended.
    """

    exit_code: int | None
    timed_out: bool
    seconds: float
    output: str


async def with_hooks(
    work: Callable[[], Awaitable[ExitCode]], config: Config, recorder: Recorder, drain: Drain, ending: Ending
) -> ExitCode:
    """Do the work of a run, then run the hook for its end, if there is one; the exit code is the work's.

    Complete: on_complete; ended with parked keys: on_parked; an error, or a mismatch: on_halt. A drained session
    has no hook: it is not over.

    Raises:
        BackfillError, JournalError: the work's, or a group of them.
    """
    try:
        code = await work()
    except (BackfillError, JournalError, BaseExceptionGroup) as error:
        failures = expected(error)
        if failures and not unexpected(error):
            code = gravest(map(exit_code_of, failures))
            problem = "; ".join(failure.problem for failure in failures)
            keys = [key for one in failures if isinstance(one, BackfillError) for key in one.keys]
            problem = ending.log.redacted_text(problem, keys)
            await _run(_Occasion("on_halt", "halted", code, problem), config, recorder, drain, ending)
        raise
    hook = _OF_AN_END.get(code)
    if hook is not None:
        await _run(_Occasion(hook, ending.outcome, code, ""), config, recorder, drain, ending)
    return code


@dataclass(frozen=True, slots=True)
class _Occasion:
    hook: str
    outcome: str
    exit_code: ExitCode
    problem: str


async def _run(occasion: _Occasion, config: Config, recorder: Recorder, drain: Drain, ending: Ending) -> None:
    command: Sequence[str] | None = getattr(config.hooks, occasion.hook)
    if command is None:
        return
    env = hook_environment(os.environ, _facts(occasion, config, ending))
    results: list[HookResult] = []
    with drain.governs(grace=config.hooks.timeout):
        results.append(await run_hook(command, env, within=config.hooks.timeout))
    result = results[0] if results else HookResult(None, timed_out=True, seconds=0.0, output="cancelled")
    _tell(occasion.hook, command[0], result)
    if not recorder.broken:
        await _record(occasion.hook, command[0], result, recorder)


async def _record(hook: str, program: str, result: HookResult, recorder: Recorder) -> None:
    try:
        await recorder.note(
            Kind.HOOK_RAN,
            {
                "hook": hook,
                "program": program,
                "exit_code": result.exit_code,
                "timed_out": result.timed_out,
                "milliseconds": round(result.seconds * 1000),
            },
        )
    except JournalError as unrecorded:
        # The run has ended, and how it ended is on record: a hook never changes that.
        log_event(
            LogEvent.END_UNRECORDED, f"hook {hook}: its end could not be recorded: {unrecorded.problem}"
        )


def _facts(occasion: _Occasion, config: Config, ending: Ending) -> dict[str, str]:
    counts = counts_of(config)
    numbers = totals(counts or ())
    copied = sum(each.stored_bytes for each in counts or ())
    uploaded = max(0, copied - (ending.copied_before or 0))
    return {
        "BACKFILL_HOOK": occasion.hook,
        "BACKFILL_MIGRATION": config.migration.name,
        "BACKFILL_JOURNAL": str(config.migration.journal),
        "BACKFILL_OUTCOME": occasion.outcome,
        "BACKFILL_PROBLEM": occasion.problem,
        "BACKFILL_EXIT_CODE": str(int(occasion.exit_code)),
        **{f"BACKFILL_{word.upper().replace(' ', '_')}": str(number) for word, number in numbers.items()},
        "BACKFILL_UPLOADED_BYTES": str(uploaded),
        "BACKFILL_SECONDS": str(round(ending.seconds)),
    }


def hook_environment(env: Mapping[str, str], facts: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a hook: `env` without credentials, and the facts, free of NUL."""
    kept = {name: value for name, value in env.items() if not name.startswith(_WITHHELD)}
    return kept | {name: value.replace("\0", "\N{REPLACEMENT CHARACTER}") for name, value in facts.items()}


async def run_hook(command: Sequence[str], env: Mapping[str, str], *, within: float) -> HookResult:
    """Run a command without a shell, in a process group of its own, for at most `within` seconds.

    Cancelled, it takes the group with it.
    """
    begun = trio.current_time()
    try:
        process = await trio.lowlevel.open_process(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=dict(env),
            start_new_session=True,
        )
    except OSError as error:
        return HookResult(None, timed_out=False, seconds=0.0, output=(error.strerror or str(error)).lower())
    output = bytearray()
    ended = trio.Event()

    async def listen() -> None:
        assert process.stdout is not None
        async with process.stdout:
            async for chunk in process.stdout:
                output.extend(chunk[: OUTPUT_BYTES_MAX - len(output)])
        ended.set()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            with trio.move_on_after(within) as in_time:
                await process.wait()
            if in_time.cancelled_caught:
                await _terminate(process)
            with trio.move_on_after(LEFT_OPEN_SECONDS):
                await ended.wait()
            nursery.cancel_scope.cancel()
    finally:
        ours = process.returncode is not None or _signal(process, signal.SIGKILL)
        if ours:
            with trio.CancelScope(shield=True):
                await process.wait()
    if not ours:
        return HookResult(
            None,
            timed_out=True,
            seconds=trio.current_time() - begun,
            output="it has become another user's, and goes on",
        )
    return HookResult(
        process.returncode,
        timed_out=in_time.cancelled_caught,
        seconds=trio.current_time() - begun,
        output=output.decode(errors="replace").strip(),
    )


async def _terminate(process: trio.Process) -> None:
    if not _signal(process, signal.SIGTERM):
        return
    with trio.move_on_after(TERMINATED_SECONDS):
        await process.wait()
    _signal(process, signal.SIGKILL)


def _signal(process: trio.Process, number: signal.Signals) -> bool:
    """Send a signal to the hook's process group, as far as it still exists; False where we may not (sudo)."""
    try:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
    except PermissionError:
        return False
    return True


def _tell(hook: str, program: str, result: HookResult) -> None:
    if result.exit_code is None:
        how = f"could not be {'ended' if result.timed_out else 'started'}: {result.output}"
    elif result.timed_out:
        how = f"was ended after {result.seconds:.1f} s (hooks.timeout)"
    else:
        how = f"ended with {result.exit_code} after {result.seconds:.1f} s"
    said = f"; it said: {result.output}" if result.output and result.exit_code is not None else ""
    log_event(
        LogEvent.HOOK_RAN if result.exit_code == 0 and not result.timed_out else LogEvent.HOOK_FAILED,
        f"hook {hook}: {program} {how}{said}",
        hook=hook,
        program=program,
        hook_exit_code=result.exit_code,
        timed_out=result.timed_out,
        seconds=round(result.seconds, 3),
        output=result.output,
    )
