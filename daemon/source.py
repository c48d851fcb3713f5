"""PostgreSQL sessions: the only module that knows asyncpg and trio-asyncio.

No pool of the driver's: cancelling a pooled query while the server hangs never returns. Each session is one
dedicated connection, opened when first needed and terminated on any cancellation or doubt; a statement that was
cancelled may still have been executed, which is harmless to a session that only reads.

No exception of the driver's leaves this module: `translated` turns each into a `Failure` (another attempt may
help) or a `BackfillError` (none will).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import asyncpg
import trio
import trio_asyncio

from daemon import catalogue
from daemon.catalogue import FirstServer
from daemon.config import ThrottleConfig
from daemon.conninfo import ConnectionTarget, connection_target
from daemon.contact import outlasting
from daemon.errors import ConfigError, UnreachableError
from daemon.iam_login import IamLogin, iam_login
from daemon.instants import as_received, as_sent
from daemon.pooling import loses_settings
from daemon.reading import PostgresSource
from daemon.retrying import Failure
from daemon.row_queries import set_statements
from daemon.rows import ServerFacts
from daemon.server_errors import GARBLED, pooled, raise_unless_told, refused_connection, translated
from daemon.session_settings import FETCH_SETTINGS, WRITING, session_settings

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
    from random import Random

    from daemon.config import PostgresConfig
    from daemon.credentials import CredentialSource

__all__ = ["PostgresSource", "open_source"]

T = TypeVar("T")
UNTHROTTLED = ThrottleConfig()

SCAN_BATCH_ROWS = 5_000
"""Rows per cursor fetch: the fastest way of reading measured, level with COPY."""
COMMAND_GRACE_SECONDS = 5.0
"""How much longer than statement_timeout we wait for the server to say so itself."""
CLOSE_SECONDS = 0.5
"""What a polite goodbye may take; a frozen server gets none."""


@contextlib.asynccontextmanager
async def open_source(
    postgres: PostgresConfig,
    *,
    migration: str,
    give_up_after: float,
    random: Random,
    throttle: ThrottleConfig = UNTHROTTLED,
    patient: bool = False,
    credentials: CredentialSource | None = None,
    only_fetching: tuple[int, ServerFacts] | None = None,
) -> AsyncIterator[PostgresSource]:
    """Connect once, to see that it works, and yield the source; at most `postgres.connections` at a time.

    Args:
        postgres: how to connect; PG*, ~/.pgpass and service files add what its DSN leaves out.
        migration: shown in the server's pg_stat_activity, as application_name.
        give_up_after: seconds that planning reads wait out a lost server. A fetch leaves that to its caller.
        random: source of backoff jitter.
        throttle: which readings will be asked for; if any are, one of the connections is theirs.
        patient: the first connection waits as long as planning reads do; else for nothing.
        credentials: what IAM tokens are made from; None: botocore's chain.
        only_fetching: nothing is planned or measured; so many connections fetch, all from this server.

    Raises:
        ConfigError: the DSN or a variable is malformed or can't be honoured.
        RefusedError: wrong password, no such database, TLS refused, a pooler in transaction mode.
        SourceUnfitError: the server's version is too old.
        UnreachableError: nothing answers there.
    """
    target = connection_target(postgres.dsn, os.environ, Path.home(), iam=postgres.auth == "rds-iam")
    login = iam_login(target.login, postgres.region, credentials)
    async with _event_loop() as loop:
        fetches, server = only_fetching or (throttle.fetch_connections(postgres.connections), None)
        first_server = FirstServer(server)

        def session(extra: Mapping[str, str], timeout: float = postgres.statement_timeout) -> Session:
            given = {**session_settings(postgres.lock_timeout, timeout), **extra}
            allowed = timeout + COMMAND_GRACE_SECONDS
            return Session(loop, target, given, migration, allowed, first_server, login)

        fetching = [session(FETCH_SETTINGS) for _ in range(fetches)]
        planning = session({}) if server is None else fetching[0]
        measuring = session({}, throttle.reading_timeout) if server is None else fetching[0]
        try:
            utf8 = await _first_contact(planning, fetching[0], give_up_after if patient else 0.0, random)
            yield PostgresSource(
                planning,
                fetching,
                measuring,
                first_server=first_server,
                utf8=utf8,
                give_up_after=give_up_after,
                random=random,
            )
        finally:
            await _close([planning, measuring, *fetching])


@contextlib.asynccontextmanager
async def open_writer(
    postgres: PostgresConfig, dsn: str, *, migration: str, random: Random
) -> AsyncIterator[Session]:
    """Connect once, and yield a session that may write: nothing else changes anything in a database.

    Args:
        postgres: its timeouts, and how it logs in where `dsn` is its own.
        dsn: a libpq URI, completed as `postgres.dsn` is.
        migration: as in `open_source`.
        random: as in `open_source`.

    Raises:
        ConfigError, RefusedError, SourceUnfitError, UnreachableError: as `open_source`.
    """
    iam = (postgres.auth, postgres.dsn) == ("rds-iam", dsn)
    target = connection_target(dsn, os.environ, Path.home(), iam=iam)
    async with _event_loop() as loop:
        login = iam_login(target.login, postgres.region, None)
        settings = session_settings(postgres.lock_timeout, postgres.statement_timeout) | WRITING
        given = postgres.statement_timeout + COMMAND_GRACE_SECONDS, FirstServer(), login
        session, other = (Session(loop, target, settings, migration, *given) for _ in range(2))
        try:
            await _first_contact(session, other, 0.0, random)
            yield session
        finally:
            await _close([session, other])


@contextlib.asynccontextmanager
async def _event_loop() -> AsyncIterator[trio_asyncio.TrioEventLoop]:
    """Yield a loop for the driver; what the block raises is raised as it was."""
    raised: BaseException | None = None
    # trio-asyncio would wrap whatever leaves its loop in two groups; it is raised outside instead, as it was.
    async with trio_asyncio.open_loop() as loop:
        loop.set_default_executor(_AbandoningExecutor())
        loop.set_exception_handler(raise_unless_told)
        try:
            yield loop
        except BaseException as error:  # noqa: BLE001 -- raised again below
            raised = error
    if raised is not None:
        raise raised


class _AbandoningExecutor(trio_asyncio.TrioExecutor):  # type: ignore[misc]  # untyped base
    """Runs name resolution, which may hang, in a thread that a cancellation leaves behind."""

    async def submit(self, function: Callable[..., T], *arguments: Any) -> T:
        return await trio.to_thread.run_sync(function, *arguments, abandon_on_cancel=True)


class Session:
    """One dedicated connection; trio-flavoured outside, asyncio inside. One task at a time runs a statement."""

    def __init__(
        self,
        loop: trio_asyncio.TrioEventLoop,
        target: ConnectionTarget,
        settings: Mapping[str, str],
        migration: str,
        command_timeout: float,
        first_server: FirstServer,
        login: IamLogin | None = None,
    ) -> None:
        self._loop = loop
        self._target = target
        self._settings = settings
        self._application_name = target.application_name or f"backfillctl {migration}"
        self._command_timeout = command_timeout
        self._first_server = first_server
        self._login = login
        self._connection: asyncpg.Connection[asyncpg.Record] | None = None
        self._lock = trio.Lock()
        self.backend_pid = 0

    def __repr__(self) -> str:
        return f"Session({self._target.where}, {'open' if self._connection else 'closed'})"

    @property
    def where(self) -> str:
        """Which server, for messages."""
        return self._target.where

    @property
    def handshake_pid(self) -> int:
        """The backend's process id as the handshake told it; 0 while closed."""
        return 0 if self._connection is None else self._connection.get_server_pid()

    async def fetch(
        self, sql: str, *arguments: Any, operation: str, local: Mapping[str, str] | None = None
    ) -> list[Any]:
        """Run one statement and return its rows, indexable by number and name.

        Args:
            sql: the statement; $1 and so on stand for `arguments`.
            arguments: timestamps as microseconds since 1970, tids as (block, offset).
            operation: named in failures.
            local: settings for this statement alone.

        Raises:
            Failure: another attempt may help, or this row can't be read (UNSUITABLE_VALUE).
            RefusedError, SourceUnfitError, ConfigError: none will; RefusedError also if a new connection reached
                another server than the first, whereupon the statement was not run.
        """

        async def run(connection: asyncpg.Connection[asyncpg.Record]) -> list[Any]:
            if not local:
                return list(await connection.fetch(sql, *arguments))
            async with connection.transaction(readonly=True):
                await connection.execute(set_statements(local, scope="LOCAL"))
                return list(await connection.fetch(sql, *arguments))

        return await self._run(run, operation)

    async def value(self, sql: str, *arguments: Any, operation: str) -> Any:
        """Run one statement and return its first row's first column."""
        return (await self.fetch(sql, *arguments, operation=operation))[0][0]

    @contextlib.asynccontextmanager
    async def scan(
        self, sql: str, *arguments: Any, operation: str
    ) -> AsyncIterator[AsyncIterator[list[Any]]]:
        """Open a cursor in one REPEATABLE READ, READ ONLY snapshot and yield its batches of SCAN_BATCH_ROWS.

        Raises:
            Failure, BackfillError: as `fetch`; the snapshot is lost then.
        """

        async def begin(connection: asyncpg.Connection[asyncpg.Record]) -> tuple[Any, Any]:
            transaction = connection.transaction(isolation="repeatable_read", readonly=True)
            await transaction.start()
            await connection.execute(set_statements(dict.fromkeys(FETCH_SETTINGS, "on"), scope="LOCAL"))
            return transaction, await connection.cursor(sql, *arguments)

        transaction, cursor = await self._run(begin, operation)

        async def batches() -> AsyncGenerator[list[Any], None]:
            while batch := await self._run(lambda _: cursor.fetch(SCAN_BATCH_ROWS), operation):
                yield batch

        try:
            async with contextlib.aclosing(batches()) as stream:
                yield stream
            await self._run(lambda _: transaction.rollback(), operation)
        except BaseException:
            self.drop()
            raise

    def drop(self) -> None:
        """Terminate the connection at once; the next statement opens another."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        """Say goodbye and wait until the server has heard it, if the connection is open."""
        if self._connection is not None and not self._connection.is_closed():
            # One that was lost already needs no goodbye.
            with contextlib.suppress(*_DRIVER_ERRORS):
                await self._loop.run_aio_coroutine(self._connection.close(timeout=CLOSE_SECONDS))

    async def _run(
        self, statement: Callable[[asyncpg.Connection[asyncpg.Record]], Awaitable[T]], operation: str
    ) -> T:
        async with self._lock:
            login = self._login if self._is_closed() else None
            password = None if login is None else await login.password()
            try:
                return await self._loop.run_aio_coroutine(self._guarded(statement, password))  # type: ignore[no-any-return]
            except _DRIVER_ERRORS as error:
                raise translated(error, operation, self.where) from error

    def _is_closed(self) -> bool:
        return self._connection is None or self._connection.is_closed()

    async def _guarded(
        self,
        statement: Callable[[asyncpg.Connection[asyncpg.Record]], Awaitable[T]],
        password: str | None,
    ) -> T:
        """Run on the asyncio side; leave no connection behind whose state is in doubt."""
        try:
            if self._connection is None or self._connection.is_closed():
                self._connection = None
                self._connection = await self._open(password)
            return await statement(self._connection)
        except asyncpg.PostgresError:
            # The server answered and goes on, unless the connection or a transaction ended with the answer.
            if self._connection is not None and (
                self._connection.is_closed() or self._connection.is_in_transaction()
            ):
                self.drop()
            raise
        except BaseException:
            self.drop()
            raise

    async def _open(self, password: str | None) -> asyncpg.Connection[asyncpg.Record]:
        """Connect; return the connection only once it has its settings and reached the first server."""
        options: dict[str, Any] = {"ssl": ssl.create_default_context()} if self._target.system_roots else {}
        if self._login is not None:
            if password is None:
                raise ConnectionResetError("the connection was lost just now")
            options["password"] = password
        try:
            connection: asyncpg.Connection[asyncpg.Record] = await asyncpg.connect(
                self._target.dsn,
                timeout=self._target.timeout,
                command_timeout=self._command_timeout,
                server_settings={**self._target.server_settings, "application_name": self._application_name},
                **options,
            )
        except asyncpg.ClientConfigurationError as error:
            problem = f"postgres: {error.args[0]}"
            raise ConfigError([problem], "correct postgres.dsn or the PG* variables") from None
        except _CONNECT_ERRORS as error:
            raise refused_connection(error, self.where, iam=self._login is not None) or error from None
        try:
            await self._set_up(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def _set_up(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        # First, since an old server would refuse a setting that it does not know.
        catalogue.refuse_old(connection.get_server_version().major * 10_000, self.where)
        # By SET and not as startup parameters, which pgbouncer would refuse.
        await connection.execute(set_statements(self._settings, scope="SESSION"))
        # The default codec makes infinity a naive datetime and overflows past year 9999.
        await connection.set_type_codec(
            "timestamptz", schema="pg_catalog", format="tuple", encoder=as_sent, decoder=as_received
        )
        ((*facts, backend_pid),) = await connection.fetch(catalogue.SESSION)
        self._first_server.admit(ServerFacts(*facts), self.where)
        self.backend_pid = backend_pid


_DRIVER_ERRORS = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncio.CancelledError,  # only if the loop itself is ending: trio's cancellation comes as trio.Cancelled
    OSError,  # TimeoutError included
    *GARBLED,
)
_CONNECT_ERRORS = (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError)


async def _close(sessions: Sequence[Session]) -> None:
    """Close all sessions politely if that is quick; a cancellation or a frozen server does not delay it."""
    try:
        with trio.move_on_after(CLOSE_SECONDS):
            async with trio.open_nursery() as nursery:
                for session in sessions:
                    nursery.start_soon(session.close)
    finally:
        for session in sessions:
            session.drop()


async def _first_contact(first: Session, second: Session, silence_seconds: float, random: Random) -> bool:
    """Connect once, refuse a pooler in transaction mode, and say whether the database's encoding is UTF8.

    A pooler shows in the process id of the handshake, which it makes up.
    """

    async def contact() -> bool:
        encoding = await first.value("SELECT current_setting('server_encoding')", operation="CONNECT")
        if first.backend_pid != first.handshake_pid and await loses_settings(first, second):
            raise pooled(first.where)
        return bool(encoding == "UTF8")

    subject = f"PostgreSQL at {first.where}"
    try:
        return await outlasting(subject, contact, silence_seconds=silence_seconds, random=random)
    except Failure as failure:
        raise UnreachableError(
            failure.message,
            "check host and port in postgres.dsn, and that the server runs and accepts connections",
        ) from failure
