"""Recognise proxy variables that would apply to an endpoint; pure.

The transport talks to the endpoint directly. Where the environment asks for a proxy, going around it in
silence could break a site's rule or hang in a firewall, so that the daemon refuses to start instead.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping

_DEFAULT_PORTS = {"http": 80, "https": 443}


def refused_proxy(env: Mapping[str, str], endpoint: str) -> str | None:
    """Return the name of the proxy variable that applies to `endpoint`, or None.

    As in curl and the AWS CLI: the scheme's own variable goes before ALL_PROXY, lower case before upper case,
    an empty value means none, and NO_PROXY exempts.

    Args:
        env: the environment.
        endpoint: URL with scheme and host.
    """
    parts = urlsplit(endpoint)
    scheme, host = parts.scheme.lower(), (parts.hostname or "").rstrip(".")
    name = _set_name(env, f"{scheme}_proxy") or _set_name(env, "all_proxy")
    if name is None:
        return None
    exempting = _set_name(env, "no_proxy")
    exemptions = env[exempting] if exempting else ""
    port = parts.port or _DEFAULT_PORTS.get(scheme, 0)
    exempt = any(_exempts(entry.strip().lower(), host, port) for entry in exemptions.split(","))
    return None if exempt else name


def _set_name(env: Mapping[str, str], name: str) -> str | None:
    """Return which spelling of variable `name` is in force; a lower-case one shadows, even empty."""
    for spelling in (name, name.upper()):
        if spelling in env:
            return spelling if env[spelling].strip() else None
    return None


def _exempts(entry: str, host: str, port: int) -> bool:
    """Say whether one NO_PROXY entry covers the endpoint: *, name, .suffix, address, network, each with :port."""
    if entry == "*":
        return True
    entry, entry_port = _split_port(entry)
    if not entry or (entry_port is not None and entry_port != port):
        return False
    address = _address(host)
    if address is None:
        suffix = entry.removeprefix("*").removeprefix(".").rstrip(".")
        return bool(suffix) and (host == suffix or host.endswith("." + suffix))
    try:
        return address in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False


def _split_port(entry: str) -> tuple[str, int | None]:
    """Split `host:port`, `[v6]:port`; a bare IPv6 address has colons and no port."""
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return host, int(rest[1:]) if rest[1:].isdecimal() else None
    host, colon, rest = entry.partition(":")
    if colon and rest.isdecimal():
        return host, int(rest)
    return entry, None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
