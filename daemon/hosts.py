"""Whether a request was meant for this server; pure.

A web page can make its own name resolve to a loopback address and then read what answers there (DNS rebinding).
Such requests carry the page's name in Host; an IP address or `localhost` can't be pointed elsewhere.
"""

from __future__ import annotations

import ipaddress
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^:\[\]/@]+)(:\d{1,5})?", re.ASCII)


def is_ours(host: str, allowed: Collection[str]) -> bool:
    """Say whether a Host header (RFC 9110, 7.2) names this server: an IP address, localhost, or one of `allowed`.

    Args:
        host: the field's value, with or without port.
        allowed: further names, in lower case.
    """
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = found["host"].lower().removesuffix(".")
    return name == "localhost" or name in allowed or _is_address(name.strip("[]"))


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
