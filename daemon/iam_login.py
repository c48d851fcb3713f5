"""Log in to PostgreSQL on RDS or Aurora with an IAM token instead of a password.

The token is a signed request that is never sent anywhere but to the server, as the password (Amazon RDS User
Guide, "IAM database authentication": the action `connect` of the service `rds-db`, valid for 15 minutes). The
server takes it only over TLS, and looks at it only when a connection is made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.credentials import CredentialSource
from daemon.errors import UnreachableError
from daemon.retrying import Failure, FailureClass
from daemon.runtime import wall_clock_us
from daemon.signing import Credentials, Signer

if TYPE_CHECKING:
    from collections.abc import Callable

    from daemon.conninfo import Login

TOKEN_SECONDS = 900
"""How long a token lets one in; Amazon RDS User Guide, "IAM database authentication"."""
_HTTPS_PORT = 443


def connect_token(login: Login, region: str, credentials: Credentials, *, now_us: int) -> str:
    """Return the password that `login` has from `now_us` (microseconds since 1970-01-01 UTC) on, for TOKEN_SECONDS."""
    # A URL's default port is no part of what is signed.
    signed_host = login.host.lower() if login.port == _HTTPS_PORT else f"{login.host.lower()}:{login.port}"
    query = Signer(region, "rds-db").presign(
        host=signed_host,
        parameters={"Action": "connect", "DBUser": login.user},
        expires_seconds=TOKEN_SECONDS,
        credentials=credentials,
        now_us=now_us,
    )
    return f"{login.host}:{login.port}/?{query}"


def iam_login(
    login: Login | None, region: str | None, credentials: CredentialSource | None
) -> IamLogin | None:
    """Return what makes passwords for `login`; None where a password of the usual kind serves.

    Args:
        login: None unless a token is wanted.
        region: the database's; the configuration has one wherever a token is wanted.
        credentials: None for botocore's chain.
    """
    if login is None or region is None:
        return None
    return IamLogin(login, region, credentials or CredentialSource(), wall_clock_us)


class IamLogin:
    """Makes a password for each connection; repr shows none."""

    def __init__(
        self, login: Login, region: str, credentials: CredentialSource, clock_us: Callable[[], int]
    ) -> None:
        self._login = login
        self._region = region
        self._credentials = credentials
        self._clock_us = clock_us

    async def password(self) -> str:
        """Return a password made now.

        Raises:
            Failure: the credentials' provider did not answer; another attempt may help.
            RefusedError: there are no credentials.
        """
        try:
            credentials = await self._credentials.current()
        except UnreachableError as error:
            raise Failure(FailureClass.CONNECTION, "CONNECT", error.problem, answered=False) from error
        return connect_token(self._login, self._region, credentials, now_us=self._clock_us())
