"""Find S3 credentials as the AWS CLI does, and keep them fresh; botocore's chain, in a thread.

Environment, shared files and profiles, SSO, web identity, ECS, IMDSv2, credential_process: all of it is
botocore's. It blocks, and its import takes about 0.1 s, so it is loaded and asked in a worker thread.
"""

from __future__ import annotations

import functools
import logging
import os
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import trio

from daemon.errors import RefusedError, UnreachableError
from daemon.signing import Credentials

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import NoReturn

    from daemon.runtime import RunSync

RETRY_SECONDS = 30.0
"""Between two attempts to refresh credentials that still have minutes to live."""

_HINT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or run where an instance or task role "
    "applies; `aws sts get-caller-identity` shows whether the AWS CLI finds them"
)

_IN_A_THREAD: RunSync = functools.partial(trio.to_thread.run_sync, abandon_on_cancel=True)
"""A metadata service or credential program that hangs must not hold up the end of the process."""


class Chain(Protocol):
    """Credentials as botocore resolved them: fixed, or (with `refresh_needed`) temporary."""

    def get_frozen_credentials(self) -> _Frozen:
        """Return the current ones, refreshed before where that is due; blocks."""


class _Frozen(Protocol):
    access_key: str
    secret_key: str
    token: str | None


def botocore_chain() -> Chain | None:
    """Walk botocore's chain from its start, reading environment and files anew; None if it finds nothing."""
    import botocore.session

    # It logs tracebacks of what it survives, with the output of credential programs in them.
    logging.getLogger("botocore").setLevel(logging.CRITICAL)
    session: Any = botocore.session.Session()
    chain: Chain | None = session.get_credentials()
    return chain


def missing_files(env: Mapping[str, str]) -> list[str]:
    """Name each file that `env` names and that is not there: botocore passes over it in silence."""
    return [
        f"{name} names {env[name]}, which is not a file"
        for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE")
        if env.get(name) and not Path(os.path.expanduser(env[name])).is_file()  # noqa: PTH111 -- as botocore does: an unknown user stays
    ]


class CredentialProvider(Protocol):
    """Whose credentials requests are signed with."""

    @property
    def expire_us(self) -> int | None:
        """When those that `current` returned last expire, microseconds since 1970-01-01 UTC; None: they don't."""

    async def current(self) -> Credentials:
        """Return credentials to sign with now; cheap."""

    async def refresh(self, refused: Credentials | None = None) -> Credentials:
        """Return others than the server refused, or the same again where there are no others."""


class CredentialSource:
    """The credentials that requests are signed with, one set for all; repr shows none of them.

    Guards that a hundred uploaders refused at once lead to one walk of the chain.
    """

    def __init__(
        self,
        *,
        resolve: Callable[[], Chain | None] = botocore_chain,
        run_sync: RunSync = _IN_A_THREAD,
    ) -> None:
        """Make a source that has asked nobody yet.

        Args:
            resolve: walks the chain; blocks.
            run_sync: runs it, off the event loop; by default in a thread that cancellation abandons, and what
                it finds then is dropped.
        """
        self._resolve = resolve
        self._run_sync = run_sync
        self._lock = trio.Lock()
        self._chain: Chain | None = None
        self._current: Credentials | None = None
        self._retry_at = 0.0

    @property
    def expire_us(self) -> int | None:
        """When what `current` returned last expires, microseconds since 1970-01-01 UTC; None if it doesn't."""
        # botocore tells it nowhere else: RefreshableCredentials has it, plain credentials have not.
        expiry = getattr(self._chain, "_expiry_time", None)
        return round(expiry.timestamp() * 1e6) if isinstance(expiry, datetime) else None

    async def current(self) -> Credentials:
        """Return credentials to sign with now; cheap unless they are about to expire.

        Raises:
            RefusedError: there are none, or their provider refused.
            UnreachableError: their provider did not answer, and the old ones have expired.
        """
        if self._current is not None and not self._refresh_is_due():
            return self._current
        async with self._lock:
            if self._current is None:
                return await self._walk()
            if self._refresh_is_due():
                self._retry_at = trio.current_time() + RETRY_SECONDS
                self._current = await self._ask(self._chain)
            return self._current

    async def refresh(self, refused: Credentials | None = None) -> Credentials:
        """Walk the chain anew, since the server refused what `current` returned, and return what it finds.

        Args:
            refused: what the server refused; if others were found since, they are returned at once.

        Raises:
            RefusedError, UnreachableError: as `current`.
        """
        async with self._lock:
            if refused is not None and self._current is not None and self._current != refused:
                return self._current
            return await self._walk()

    def _refresh_is_due(self) -> bool:
        """Say whether the provider should be asked: 15 minutes before expiry, as botocore does."""
        refresh_needed = getattr(self._chain, "refresh_needed", None)
        if refresh_needed is None:
            return False
        if trio.current_time() >= self._retry_at:
            return bool(refresh_needed())
        return bool(refresh_needed(refresh_in=0))

    async def _walk(self) -> Credentials:
        try:
            chain = await self._run_sync(self._resolve)
        except _chain_errors() as error:
            _refuse(error)
        if chain is None:
            lost = "".join(f"; {one}" for one in missing_files(os.environ))
            raise RefusedError(
                f"find S3 credentials: expected some in botocore's chain, found none{lost}", _HINT
            )
        self._current = await self._ask(chain)
        self._chain = chain
        self._retry_at = trio.current_time()
        return self._current

    async def _ask(self, chain: Chain | None) -> Credentials:
        assert chain is not None, "asked before the chain was walked"
        try:
            frozen = await self._run_sync(chain.get_frozen_credentials)
        except _chain_errors() as error:
            _refuse(error)
        found = Credentials(frozen.access_key, frozen.secret_key, frozen.token)
        return self._current if found == self._current and self._current is not None else found


@functools.cache
def _chain_errors() -> tuple[type[Exception], ...]:
    """What a chain raises: also "refreshed credentials are still expired", absent programs, answers not JSON."""
    from botocore.exceptions import BotoCoreError, ClientError

    return (BotoCoreError, ClientError, RuntimeError, OSError, ValueError)


def _refuse(error: Exception) -> NoReturn:
    """Tell `error` in our words; not chained: it may quote what a credential program printed, secrets too."""
    from botocore import exceptions

    if isinstance(error, (exceptions.HTTPClientError, exceptions.ConnectionError)):
        problem = f"find S3 credentials: expected their provider to answer, found {type(error).__name__}"
        raise UnreachableError(problem, _HINT) from None
    if isinstance(error, exceptions.CredentialRetrievalError):
        found = f"provider {error.kwargs.get('provider', 'unknown')} failed (what it said is withheld)"
    elif isinstance(error, (exceptions.BotoCoreError, exceptions.ClientError, OSError)):
        found = " ".join(str(error).split())[:300]
    else:
        found = type(error).__name__
    raise RefusedError(f"find S3 credentials: expected usable ones, found: {found}", _HINT) from None
