"""What a session shows over HTTP: metrics, its health, and the status page; all read from the journal when asked.

/             the status page
/status.json  what `status --json` prints
/metrics      for Prometheus
/healthz      200 while event loop and journal move, else 503
/readyz       200 once PostgreSQL and S3 have both answered, else 503
"""

from __future__ import annotations

import functools
import json
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Protocol

import trio

from daemon.bulkhead import behind_bulkhead
from daemon.config import Config, MetricsConfig
from daemon.controls import Controls
from daemon.disk_reserve import reserve_of
from daemon.drain import Drain
from daemon.ending import Ending
from daemon.error_text import expected
from daemon.errors import BackfillError, ConfigError
from daemon.hosts import is_ours
from daemon.log_events import LogEvent, log_event
from daemon.metrics import Observed, Recorded, exposition
from daemon.rendering import status_json
from daemon.rendering_service import LINGERING
from daemon.rendering_view import view
from daemon.runtime import Runtime
from daemon.serving import Call, Reply, plain, serve
from daemon.status_page import Phase, bare_page, content_security_policy, page
from journal.errors import JournalError, JournalMissing
from journal.reader import Reader
from journal.sizes import sizes_of

CACHE_SECONDS = 1.0
"""For how long a reading of the journal serves: many scrapers and open pages cost one reader."""
HEARTBEAT_SECONDS_MAX = 30.0
"""An older beat is a hang: there is one every 10 s at least."""
SERVER = "the server of status page and metrics"
"""Its name to operators."""
SIGNALS = frozenset({"SIGINT", "SIGTERM"})
"""Causes of a drain after which nothing lingers: whoever sent the signal wants the process gone."""
_PRIVATE = {
    "cache-control": "no-store",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
}
"""What goes with every answer: nothing here is to be kept, or embedded elsewhere."""


class Beating(Protocol):
    """Something whose beats prove that the process moves."""

    @property
    def age_seconds(self) -> float:
        """How long ago the newest beat was."""


class Expiring(Protocol):
    """Something that signs with credentials that may expire."""

    @property
    def credentials_expire_us(self) -> int | None:
        """When they do, microseconds since 1970-01-01 UTC; None if they don't."""


class Monitor:
    """Answers for one process.

    Attributes:
        phase: STARTING until both ends have answered, LINGERING once the session has ended.
        heartbeat: None where nothing beats.
    """

    def __init__(self, config: Config, runtime: Runtime) -> None:
        self.phase = Phase.STARTING
        self.heartbeat: Beating | None = None
        self._config = config
        self._runtime = runtime
        self._controls: Controls | None = None
        self._bucket: Expiring | None = None
        self._turn = trio.Lock()
        self._read_at = -CACHE_SECONDS
        self._read: Recorded | None = None

    def watch(self, controls: Controls, bucket: Expiring) -> None:
        """Say that both ends have answered, and with what the session works."""
        self.phase = Phase.WORKING
        self._controls = controls
        self._bucket = bucket

    @asynccontextmanager
    async def lingering(
        self, drain: Drain, ending: Ending, tell: Callable[[str], None]
    ) -> AsyncIterator[None]:
        """Stay for `metrics.linger` after the block, however it ended, or until a signal.

        Nothing lingers after a signal that ended the session, nor where no session began. `tell` is told so.
        """
        try:
            yield
        except (BackfillError, JournalError, ExceptionGroup) as failure:
            told = expected(failure)
            keys = [key for one in told if isinstance(one, BackfillError) for key in one.keys]
            await self._linger(drain, tell, "; ".join(one.problem for one in told), keys)
            raise
        await self._linger(drain, tell, ending.outcome, ())

    async def _linger(
        self, drain: Drain, tell: Callable[[str], None], outcome: str, keys: Collection[str]
    ) -> None:
        seconds = self._config.metrics.linger
        if self._config.metrics.port is None or self.phase is not Phase.WORKING or drain.cause in SIGNALS:
            return
        self.phase = Phase.LINGERING
        tell(LINGERING)
        log_event(
            LogEvent.LINGERING,
            f"{outcome}; status page and metrics stay for {seconds:g} s, a signal ends that",
            keys=keys,
            seconds=seconds,
        )
        # A drain for another cause has been asked for already: a signal then is the second request, and cancels.
        with drain.governs(grace=seconds if drain else 0):
            await trio.sleep(seconds)

    async def answer(self, call: Call) -> Reply:
        """Answer one request."""
        if not is_ours(call.fields.get("host", ""), self._config.metrics.allowed_hosts):
            return plain(
                HTTPStatus.MISDIRECTED_REQUEST, "unknown Host; name it in metrics.allowed_hosts", _PRIVATE
            )
        route = {
            "/": self._page,
            "/status.json": self._status,
            "/metrics": self._metrics,
            "/healthz": self._health,
            "/readyz": self._readiness,
        }.get(call.path)
        if route is None:
            return plain(HTTPStatus.NOT_FOUND, "/, /status.json, /metrics, /healthz, /readyz", _PRIVATE)
        try:
            return await route(call)
        except (BackfillError, JournalError) as error:
            return plain(HTTPStatus.SERVICE_UNAVAILABLE, error.problem, _PRIVATE)

    async def _metrics(self, call: Call) -> Reply:
        controls, bucket, heartbeat = self._controls, self._bucket, self.heartbeat
        migration = self._config.migration
        observed = Observed(
            migration=migration.name,
            recorded=await self._recorded(),
            instruments=self._runtime.instruments,
            tunables=None if controls is None else controls.tunables,
            concurrency=None if controls is None else controls.concurrency,
            credentials_expire_us=None if bucket is None else bucket.credentials_expire_us,
            deadline_us=self._config.migration.deadline_us,
            disk_reserve_bytes=reserve_of(migration.journal.parent, migration.disk_reserve),
            heartbeat_age_seconds=None if heartbeat is None else heartbeat.age_seconds,
        )
        body, content_type = exposition(observed, call.fields.get("accept", ""))
        return Reply(HTTPStatus.OK, content_type, body, _PRIVATE)

    async def _page(self, _call: Call) -> Reply:
        now_us = self._runtime.now_us()
        name = self._config.migration.name
        status = HTTPStatus.OK
        try:
            recorded = await self._recorded()
        except JournalError as error:
            status, text = HTTPStatus.SERVICE_UNAVAILABLE, bare_page(name, error.problem, now_us=now_us)
        else:
            if recorded is None:
                text = bare_page(name, f"{self.phase.value}: there is no journal yet", now_us=now_us)
            else:
                text = page(recorded.status, recorded.view, phase=self.phase)
        fields = {"content-security-policy": content_security_policy(), "x-frame-options": "DENY"}
        return Reply(status, "text/html; charset=utf-8", text.encode(), {**_PRIVATE, **fields})

    async def _status(self, _call: Call) -> Reply:
        recorded = await self._recorded()
        if recorded is None:
            return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"why": "there is no journal yet"})
        return _json(HTTPStatus.OK, status_json(recorded.status, now_us=self._runtime.now_us()))

    async def _health(self, _call: Call) -> Reply:
        age = None if self.heartbeat is None else self.heartbeat.age_seconds
        hangs = age is not None and age > HEARTBEAT_SECONDS_MAX
        facts = {"healthy": not hangs, "phase": self.phase.value, "heartbeat_age_seconds": age}
        if hangs:
            facts["why"] = "event loop or journal have not moved for longer than they should take"
        return _json(HTTPStatus.SERVICE_UNAVAILABLE if hangs else HTTPStatus.OK, facts)

    async def _readiness(self, _call: Call) -> Reply:
        if self.phase is Phase.STARTING:
            why = "PostgreSQL and S3 have not both answered yet"
            return _json(HTTPStatus.SERVICE_UNAVAILABLE, {"ready": False, "why": why})
        return _json(HTTPStatus.OK, {"ready": True, "phase": self.phase.value})

    async def _recorded(self) -> Recorded | None:
        """Return what the journal said at most CACHE_SECONDS ago; None while there is no journal."""
        async with self._turn:
            if trio.current_time() - self._read_at >= CACHE_SECONDS:
                self._read = await trio.to_thread.run_sync(self._read_journal)
                self._read_at = trio.current_time()
            return self._read

    def _read_journal(self) -> Recorded | None:
        # Opened for each reading: a reader that is open when the journal is closed would leave its side files behind.
        path = self._config.migration.journal
        try:
            with Reader.open(path, undisturbing=True) as reader:
                now_us = self._runtime.now_us()
                status = reader.status(now_us=now_us)
                return Recorded(status, view(status, now_us=now_us), reader.attempts(), sizes_of(path))
        except JournalMissing:
            return None


def _json(status: HTTPStatus, document: dict[str, Any]) -> Reply:
    return Reply(status, "application/json", f"{json.dumps(document)}\n".encode(), _PRIVATE)


@asynccontextmanager
async def monitored(config: Config, runtime: Runtime) -> AsyncIterator[Monitor]:
    """Yield the process's monitor; where `metrics.port` is set it answers while the block runs.

    Raises:
        ConfigError: the port can't be listened on.
    """
    monitor = Monitor(config, runtime)
    if config.metrics.port is None:
        yield monitor
        return
    listeners = await _listeners(config.metrics, config.metrics.port)
    host, port = listeners[0].socket.getsockname()[:2]
    url = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"
    log_event(
        LogEvent.METRICS_SERVED,
        f"status page and metrics: {url}, until {config.metrics.linger:g} s after the end",
        url=url,
    )
    if not config.metrics.loopback:
        log_event(
            LogEvent.METRICS_EXPOSED,
            f"metrics.address {host}: other machines can read counts, example keys and error messages",
        )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(behind_bulkhead, SERVER, functools.partial(serve, listeners, monitor.answer))
        yield monitor
        nursery.cancel_scope.cancel()


async def _listeners(metrics: MetricsConfig, port: int) -> list[trio.SocketListener]:
    try:
        return await trio.open_tcp_listeners(port, host=metrics.address)
    except OSError as error:
        found = (error.strerror or str(error)).lower()
        raise ConfigError(
            [f"listen on {metrics.address} port {port}: {found}"],
            "set metrics.port to a free one, or leave it out to serve nothing (BACKFILL_METRICS_PORT overrides it);"
            " a run that has ended may linger there for metrics.linger: SIGTERM ends that",
        ) from error
