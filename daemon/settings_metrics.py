"""`[metrics]`: where metrics and the status page are served; every limit checked, off unless a port is set."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from daemon import settings_fields as fields

HOSTS_MAX = 64
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", re.ASCII)


def _address(value: object) -> str:
    try:
        return str(ipaddress.ip_address(value if isinstance(value, str) else ""))
    except ValueError:
        raise ValueError('an IP address such as "127.0.0.1", without port') from None


def _hosts(value: object) -> list[str]:
    if (
        isinstance(value, list | tuple)
        and len(value) <= HOSTS_MAX
        and all(isinstance(name, str) and _HOST.fullmatch(name) for name in value)
    ):
        return [name.lower() for name in value]
    raise ValueError(f'a list of at most {HOSTS_MAX} host names without port, such as ["db1.example.net"]')


class MetricsConfig(BaseModel):
    """The HTTP server of a session.

    Attributes:
        port: TCP port; None: nothing is served; 0: any free one, which the log names.
        address: to listen on; whoever reaches another than a loopback address reads counts and example keys.
        linger: seconds that the server stays after the end of the session.
        allowed_hosts: names by which browsers and scrapers may address it, beside localhost and IP addresses.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    port: Annotated[int | None, BeforeValidator(fields.whole(0, 65535))] = None
    address: Annotated[str, BeforeValidator(_address)] = "127.0.0.1"
    linger: Annotated[float, BeforeValidator(fields.seconds(0, 86400))] = 60.0
    allowed_hosts: Annotated[list[str], BeforeValidator(_hosts)] = Field(default_factory=list)

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.address).is_loopback
