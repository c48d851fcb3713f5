"""One process of a simulated migration: `run` as the command has it, on simulated ends, signals and operators."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar
from unittest.mock import patch

import trio

import daemon.disk_reserve
import daemon.opening
import daemon.service
import daemon.session
import daemon.verify_ends
from daemon.bucket import Bucket
from daemon.config import Config, RunOptions
from daemon.disk_reserve import DiskUsage
from daemon.drain import Drain
from daemon.ending import Ending
from daemon.error_text import expected, unexpected
from daemon.errors import ExitCode
from daemon.findings import exit_code_of, gravest
from daemon.heartbeat import beating
from daemon.log_lines import Style
from daemon.logs import StderrLog
from daemon.monitoring import monitored
from daemon.notify import Notifier
from daemon.runtime import Runtime, in_loop
from daemon.service import stoppable
from daemon.signals import _listen
from daemon.signing import Signer
from daemon.steering import Hangups
from tests.s3_fake import REGION
from tests.simulation.measuring import MeasuredMigration

if TYPE_CHECKING:
    from daemon.errors import BackfillError
    from journal.errors import JournalError
    from tests.simulation.postgres_end import SimulatedSource
    from tests.simulation.simulation import Simulation

T = TypeVar("T")
DISK_BYTES = 100 * 2**30


@contextmanager
def surroundings(simulation: Simulation) -> Iterator[None]:
    """Let the program find the simulated world wherever it reaches for the real one."""
    # What `verify` prints goes nowhere.
    with ExitStack() as stack, contextlib.redirect_stdout(io.StringIO()):
        for module, name, value in (
            (daemon.opening, "Journal", simulation.kind),
            (daemon.opening, "open_source", partial(_open_source, simulation)),
            (daemon.opening, "bound", lambda _path: contextlib.nullcontext()),
            (daemon.opening, "serve", simulation.operator.serve),
            (daemon.service, "open_bucket", partial(_open_bucket, simulation)),
            (daemon.service, "under_signals", partial(_under_signals, simulation)),
            (daemon.service, "Migration", MeasuredMigration),
            (daemon.service, "Runtime", partial(_runtime, simulation)),
            (daemon.verify_ends, "open_bucket", partial(_open_bucket, simulation)),
            (daemon.verify_ends, "open_source", partial(_open_source, simulation)),
            (daemon.session, "wall_clock_us", simulation.now_us),
            (daemon.disk_reserve, "_usage", partial(_usage, simulation)),
            (trio.to_thread, "run_sync", _at_once),
        ):
            assert hasattr(module, name)
            stack.enter_context(patch.object(module, name, value))
        yield


async def ran(simulation: Simulation, config: Config, options: RunOptions) -> ExitCode:
    """Do what `service.run` does; only the signals that it would receive come from the simulation.

    Raises:
        BackfillError, JournalError: as `service.run`, or a group of them.
    """
    runtime = _runtime(simulation)
    ending = Ending(StderrLog(Style.TEXT))
    async with monitored(config, runtime) as monitor, beating(Notifier(), lambda: None) as heartbeat:
        monitor.heartbeat = heartbeat
        hangups = Hangups(simulation.operator.hangups(), simulation.operator.read_config)
        work = partial(daemon.service._run, config, options, runtime, monitor, heartbeat, ending, hangups)
        code = await stoppable(
            work, ending, grace_seconds=config.upload.drain_deadline, max_duration=config.limits.max_duration
        )
    simulation.outcome = ending.outcome
    return code


def _runtime(simulation: Simulation) -> Runtime:
    return Runtime(
        now_us=simulation.now_us,
        random=Random(f"jitter {simulation.world.seed} {len(simulation.ends)}"),
        journal_runner=in_loop,
        digest_runner=in_loop,
        patient=simulation.patient,
        cores=2,
    )


def failures_of(error: BaseException) -> tuple[ExitCode, list[BackfillError | JournalError]]:
    """Return the exit code that the command ends with after `error`, and what it tells; raises what it would."""
    failures = expected(error)
    if not failures or unexpected(error):
        raise error
    return gravest(map(exit_code_of, failures)), failures


async def _at_once(function: Callable[..., T], *arguments: Any, **_settings: Any) -> T:
    await trio.lowlevel.checkpoint()
    return function(*arguments)


@asynccontextmanager
async def _open_source(
    simulation: Simulation, _postgres: object, *, give_up_after: float, random: Random, **_settings: Any
) -> AsyncIterator[SimulatedSource]:
    await simulation.source.connect(give_up_after=give_up_after, random=random)
    yield simulation.source


@asynccontextmanager
async def _open_bucket(
    simulation: Simulation, config: Config, _env: Mapping[str, str], *, instruments: Any = None
) -> AsyncIterator[Bucket]:
    yield Bucket(
        simulation.s3,
        Signer(REGION),
        config.s3,
        credentials=simulation.s3.credentials(),
        clock_us=simulation.now_us,
        instruments=instruments,
    )


async def _under_signals(
    simulation: Simulation, work: Callable[[Drain], Awaitable[T]], *, grace_seconds: float
) -> T:
    drain = Drain()
    results: list[T] = []
    sending, received = trio.open_memory_channel[int](2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_listen, received, drain, grace_seconds)
        nursery.start_soon(simulation.operator.signal, sending)
        results.append(await work(drain))
        nursery.cancel_scope.cancel()
    return results[0]


def _usage(simulation: Simulation, _directory: object) -> DiskUsage:
    free = simulation.disk_free()
    return DiskUsage(DISK_BYTES, DISK_BYTES - free, free)
