"""What an error of the PostgreSQL driver means for us; pure, and without knowing the driver.

SQLSTATE codes and classes: PostgreSQL manual, Appendix A.
"""

from __future__ import annotations

import ssl
from enum import StrEnum
from typing import Any, Protocol

from daemon.errors import BackfillError, ConfigError, RefusedError, SourceUnfitError
from daemon.retrying import Failure, FailureClass


class Meaning(StrEnum):
    """What a server's error says about the next step."""

    LOST = "lost"
    """The connection is gone or was not let in yet: reconnect later."""
    CROWDED = "crowded"
    """Cancelled for others' sake (recovery conflict, timeout, lock): ask for less, or again."""
    STRUGGLING = "struggling"
    """The server's own trouble (memory, disk, internal): again later."""
    REFUSED = "refused"
    """Authentication or a right is missing: nothing to retry."""
    POOLED = "pooled"
    """A prepared statement vanished or appeared: consecutive statements reach different backends."""
    UNFIT_VALUE = "unfit value"
    """The row's data, or the configured expression over it, can't be read."""
    UNFIT_SCHEMA = "unfit schema"
    """Table, column or expression are not what was described."""


_BY_CODE = {
    "57P01": Meaning.LOST,  # admin_shutdown
    "57P02": Meaning.LOST,  # crash_shutdown
    "57P03": Meaning.LOST,  # cannot_connect_now
    "57P05": Meaning.LOST,  # idle_session_timeout
    "25P03": Meaning.LOST,  # idle_in_transaction_session_timeout
    "25P04": Meaning.LOST,  # transaction_timeout
    "53300": Meaning.LOST,  # too_many_connections
    "57014": Meaning.CROWDED,  # query_canceled: statement_timeout, a recovery conflict, or an administrator
    "55P03": Meaning.CROWDED,  # lock_not_available: lock_timeout
    "42501": Meaning.REFUSED,  # insufficient_privilege, row_security=off included
    "25006": Meaning.UNFIT_SCHEMA,  # read_only_sql_transaction: `where` calls a function that writes
    "3D000": Meaning.REFUSED,  # invalid_catalog_name: no such database
    "26000": Meaning.POOLED,  # invalid_sql_statement_name
    "42P05": Meaning.POOLED,  # duplicate_prepared_statement
}
_BY_CLASS = {
    "08": Meaning.LOST,
    "40": Meaning.CROWDED,
    "28": Meaning.REFUSED,
    "22": Meaning.UNFIT_VALUE,
    "54": Meaning.UNFIT_VALUE,  # program limit exceeded: a value over 1 GB once rendered
    "42": Meaning.UNFIT_SCHEMA,
    "3F": Meaning.UNFIT_SCHEMA,
    "0A": Meaning.UNFIT_SCHEMA,  # feature_not_supported, and cached plans that no longer fit
}

FAILURE_CLASSES = {
    Meaning.LOST: FailureClass.CONNECTION,
    Meaning.STRUGGLING: FailureClass.SERVER,
    Meaning.REFUSED: FailureClass.FORBIDDEN,
    Meaning.UNFIT_VALUE: FailureClass.UNSUITABLE_VALUE,
}
"""How a fetch tells the retry policy; what is missing here is CONFLICT or TIMEOUT, or no matter of one key."""


GARBLED = (
    *(ArithmeticError, AssertionError, AttributeError, BufferError, LookupError, TypeError),
    UnicodeDecodeError,
)
"""What asyncpg's decoders raise when the bytes that arrive are no answer of PostgreSQL: whatever they stumble over."""


class CallbackLoop(Protocol):
    """An asyncio event loop."""

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Let an error of a callback end everything."""


def raise_unless_told(loop: CallbackLoop, context: dict[str, Any]) -> None:
    """Heed an error of a callback, unless it is of a transport, whose loss whoever waits for an answer is told of.

    Nor does it matter to anybody if a connection is lost that asyncpg was still making and has given up: its future
    is retrieved by nobody.
    """
    if not context.keys() & {"transport", "future"}:
        loop.default_exception_handler(context)


def meaning_of(sqlstate: str | None) -> Meaning:
    """Say what an error with `sqlstate` means; what nobody listed is the server's own trouble."""
    code = sqlstate or ""
    return _BY_CODE.get(code) or _BY_CLASS.get(code[:2], Meaning.STRUGGLING)


_USUAL_LOGIN_HINT = (
    "check user, password and database in postgres.dsn, PGPASSWORD or ~/.pgpass (PGPASSFILE), and the server's"
    " pg_hba.conf"
)
_IAM_LOGIN_HINT = (
    "check user and database in postgres.dsn, postgres.region, that the role has what `backfillctl check --grants`"
    " prints and the credentials what `backfillctl check --iam` prints"
)


def refused_connection(error: Exception, where: str, *, iam: bool = False) -> BackfillError | None:
    """Return what a failed connection attempt means if repeating it is pointless, else None.

    An answer to the attempt is quoted by its first line only; nothing of the DSN is. With `iam` it was made with a
    token.
    """
    code = sqlstate_of(error)
    subject = f"connect to PostgreSQL at {where}"
    if isinstance(error, ssl.SSLError) or (type(error) is ConnectionError and "SSL" in str(error)):
        reason = getattr(error, "verify_message", "") or "the server does not offer it as sslmode demands"
        return RefusedError(
            f"{subject}: TLS failed: {reason}", "check sslmode and sslrootcert in postgres.dsn"
        )
    # pgbouncer says "protocol violation" (08P01) to a wrong password or database.
    if code is not None and (meaning_of(code) is Meaning.REFUSED or code == "08P01"):
        return RefusedError(
            f"{subject}: refused: {_first_line(error)}",
            _IAM_LOGIN_HINT if iam else _USUAL_LOGIN_HINT,
        )
    if isinstance(error, ValueError):
        return ConfigError(
            [f"postgres: the connection parameters are malformed ({type(error).__name__})"],
            "correct postgres.dsn",
        )
    return None


def translated(error: BaseException, operation: str, where: str) -> Exception:
    """Return the failure or error that `error` of the driver amounts to, without payload or secret."""
    subject = (
        f"{operation.lower()} {'to' if operation in {'CONNECT', 'WRITE'} else 'from'} PostgreSQL at {where}"
    )
    code = sqlstate_of(error)
    if code is not None:
        return _answered(error, code, operation, subject, where)
    if isinstance(error, TimeoutError):
        return Failure(FailureClass.TIMEOUT, operation, f"{subject}: no answer in time", answered=False)
    if isinstance(error, ValueError):
        return Failure(FailureClass.UNSUITABLE_VALUE, operation, f"{subject}: a text is not valid UTF-8")
    if isinstance(error, GARBLED):
        problem = f"{subject}: the answer is garbled ({type(error).__name__})"
        return Failure(FailureClass.GARBLED, operation, problem)
    reason = _first_line(error) if isinstance(error, OSError) else type(error).__name__
    return Failure(
        FailureClass.CONNECTION, operation, f"{subject}: connection lost: {reason}", answered=False
    )


def _answered(error: BaseException, code: str, operation: str, subject: str, where: str) -> Exception:
    meaning = meaning_of(code)
    # The message of a data exception quotes the data.
    said = type(error).__name__ if code.startswith("22") else _first_line(error)
    problem = f"{subject}: {said} (SQLSTATE {code})"
    if meaning is Meaning.POOLED:
        return pooled(where)
    if meaning is Meaning.REFUSED:
        return RefusedError(
            problem, "`backfillctl check` prints the smallest GRANTs that this configuration needs"
        )
    if meaning is Meaning.UNFIT_SCHEMA:
        return SourceUnfitError(problem, "compare the table with its [[source]] in the configuration")
    kind = FAILURE_CLASSES.get(meaning, FailureClass.TIMEOUT if code == "57014" else FailureClass.CONFLICT)
    return Failure(kind, operation, problem, answered=meaning is not Meaning.LOST, code=code)


def sqlstate_of(error: BaseException) -> str | None:
    """Return the SQLSTATE that the server answered with, None for an error of our side or of the network."""
    code = getattr(error, "sqlstate", None)
    return code if isinstance(code, str) else None


def _first_line(error: BaseException) -> str:
    lines = str(error).splitlines()
    return lines[0] if lines else type(error).__name__


def pooled(where: str) -> RefusedError:
    """Return the refusal of a pooler that gives consecutive statements different backends."""
    return RefusedError(
        f"connect to PostgreSQL at {where}: there is a pooler in transaction mode in between, which loses the "
        "session's settings (read only, timeouts, row_security) between statements",
        "point postgres.dsn at the server itself, or at a pool in session mode (pgbouncer: pool_mode = session)",
    )
