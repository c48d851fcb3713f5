"""Turn `postgres.dsn` and the PG* variables into what the driver needs, as libpq would read them; pure but for files.

The driver knows most of libpq's URI. What it lacks is added here (services with their file, connect_timeout,
PGOPTIONS, sslrootcert=system), and what can't be honoured is refused by name instead of being dropped. No
message ever quotes the URI: a password with an unescaped character ends up in any of its parts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from daemon.errors import ConfigError
from daemon.passfile import granted_copy

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT_TIMEOUT_SECONDS = 10.0
"""For one connection attempt where neither connect_timeout nor PGCONNECT_TIMEOUT says otherwise."""

# fmt: off
_DRIVER_PARAMETERS = frozenset({
    "host", "port", "dbname", "user", "password", "passfile", "sslmode", "sslcert", "sslkey",
    "sslrootcert", "sslnegotiation", "sslcrl", "sslpassword", "ssl_min_protocol_version",
    "ssl_max_protocol_version", "target_session_attrs", "krbsrvname", "gsslib", "options",
})
# fmt: on
_OWN_PARAMETERS = frozenset({"service", "connect_timeout", "application_name", "fallback_application_name"})
_FILES = {"sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY", "sslcrl": "PGSSLCRL"}
_DEMANDS = {
    "PGHOSTADDR": None,
    "PGREQUIREAUTH": None,
    "PGCHANNELBINDING": "require",
    "PGGSSENCMODE": "require",
}
"""Variables that can't be honoured; with a value, only that one makes a demand."""


INSISTING_ON_TLS = frozenset({"require", "verify-ca", "verify-full"})
"""Values of sslmode under which nothing is said in clear."""
DEFAULT_PORT = 5432
_PORT = re.compile(r"[0-9]{0,5}")
_SECONDS = re.compile(r"[+-]?[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class Login:
    """Who logs in where: what an IAM token is made for."""

    host: str
    port: int
    user: str


@dataclass(frozen=True, repr=False)
class ConnectionTarget:
    """Where and how to connect; its repr shows no secret.

    Attributes:
        dsn: a URI for the driver; may hold a password.
        where: host, port and database for messages; never a secret.
        timeout: seconds for one attempt.
        application_name: None unless the DSN or PGAPPNAME names one.
        system_roots: sslrootcert=system: verify against the operating system's roots, host name included.
        server_settings: startup parameters beyond those of the DSN (PGOPTIONS).
        login: for an IAM token; None unless one was asked for.
    """

    dsn: str
    where: str
    timeout: float
    application_name: str | None
    system_roots: bool
    server_settings: Mapping[str, str] = field(default_factory=dict)
    login: Login | None = None

    def __repr__(self) -> str:
        return f"ConnectionTarget({self.where})"


def connection_target(dsn: str, env: Mapping[str, str], home: Path, *, iam: bool = False) -> ConnectionTarget:
    """Read `dsn` with what `env` and the service file under `home` add.

    Precedence as in libpq: the DSN, then its service, then the variables. With `iam` the password will be a token:
    one host, a user and TLS are required, and a password is refused.

    Raises:
        ConfigError: the DSN is malformed, or asks for what can't be honoured; all such demands at once.
    """
    base, parameters = _split(dsn)
    service = parameters.pop("service", env.get("PGSERVICE"))
    if service:
        parameters = {**_service(service, env, home), **parameters}
    unsupported = sorted(parameters.keys() - _DRIVER_PARAMETERS - _OWN_PARAMETERS)
    problems = [f"postgres.dsn: the parameter {name} is not supported" for name in unsupported]
    problems += [
        f"the variable {name} is set and can't be honoured"
        for name, demand in _DEMANDS.items()
        if env.get(name) and demand in {None, env.get(name)}
    ]
    roots = parameters.get("sslrootcert", env.get("PGSSLROOTCERT"))
    system_roots = roots == "system"
    if system_roots:
        parameters.pop("sslrootcert", None)
    for name, variable in _FILES.items():
        path = parameters.get(name, env.get(variable))
        if path and path != "system" and not _is_file(path):
            problems.append(f"postgres: {name} (or {variable}) names {path}, which is not a file")
    granted = granted_copy(parameters.get("passfile") or env.get("PGPASSFILE", ""), env)
    if granted:
        parameters["passfile"] = granted
    timeout = _timeout(parameters.pop("connect_timeout", env.get("PGCONNECT_TIMEOUT", "")), problems)
    own_name = parameters.pop("application_name", env.get("PGAPPNAME"))
    fallback_name = parameters.pop("fallback_application_name", None)
    login = _login(base, parameters, env, problems, system_roots=system_roots) if iam else None
    if problems:
        raise ConfigError(
            problems, "remove or correct them in postgres.dsn, the service file or the environment"
        )
    options = parameters.get("options", env.get("PGOPTIONS"))
    query = "&".join(
        f"{name}={quote(value, safe='')}" for name, value in parameters.items() if value and name != "options"
    )
    return ConnectionTarget(
        dsn=f"{base}?{query}" if query else base,
        where=_where(base, parameters, env),
        timeout=timeout,
        application_name=own_name or fallback_name,
        system_roots=system_roots,
        server_settings={"options": options} if options else {},
        login=login,
    )


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # such as a name too long for any file system
        return False


def _malformed() -> ConfigError:
    return ConfigError(
        ["postgres.dsn is not a URI of the form postgresql://user@host:port/database?parameter=value"],
        "percent-encode special characters in user and password, such as '@' as %40 and '/' as %2F; "
        "better, leave the password to ~/.pgpass or PGPASSWORD",
    )


def _split(dsn: str) -> tuple[str, dict[str, str]]:
    """Return the URI without its query, and the query's parameters; `_malformed` says why nothing is quoted."""
    try:
        parts = urlsplit(dsn)
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise _malformed() from None
    hosts = parts.netloc.rpartition("@")[2]
    ports = [host.rpartition("]")[2].partition(":")[2] for host in hosts.split(",")]
    well_formed = all(_PORT.fullmatch(port) for port in ports)
    if parts.netloc.count("@") > 1 or "@" in parts.path or parts.fragment or not well_formed:
        raise _malformed()
    # Of a password with a "?" what follows it looks like parameters, "@" and host among them.
    if "@" in parts.query and parameters.keys() - _DRIVER_PARAMETERS - _OWN_PARAMETERS:
        raise _malformed()
    if "database" in parameters:
        parameters["dbname"] = parameters.pop("database")
    return f"{parts.scheme}://{parts.netloc}{parts.path}", parameters


def _timeout(text: str, problems: list[str]) -> float:
    """Read libpq's whole seconds, where 0 and negative mean without limit; here that means the default."""
    text = text.strip() or "0"
    if not _SECONDS.fullmatch(text):
        problems.append("postgres: connect_timeout (or PGCONNECT_TIMEOUT) is not a whole number of seconds")
        return CONNECT_TIMEOUT_SECONDS
    seconds = int(text)
    # libpq rounds 1 up to 2 seconds.
    return float(max(2, seconds)) if seconds > 0 else CONNECT_TIMEOUT_SECONDS


def _login(
    base: str,
    parameters: Mapping[str, str],
    env: Mapping[str, str],
    problems: list[str],
    *,
    system_roots: bool,
) -> Login | None:
    """Return who logs in where, or add why a token can't be made for it."""
    subject = 'postgres.auth = "rds-iam"'
    before = len(problems)
    userinfo, _, hosts = urlsplit(base).netloc.rpartition("@")
    name, _, password = userinfo.partition(":")
    if password or parameters.get("password"):
        problems.append(f"{subject}: postgres.dsn holds a password; expected none, a token takes its place")
    sslmode = (
        parameters.get("sslmode") or env.get("PGSSLMODE") or ("verify-full" if system_roots else "prefer")
    )
    if sslmode not in INSISTING_ON_TLS:
        problems.append(f"{subject}: found sslmode {sslmode}; expected verify-full, or at least require")
    host, _, port = hosts.partition("]:") if hosts.startswith("[") else hosts.partition(":")
    host = unquote(host.strip("[]")) or parameters.get("host") or env.get("PGHOST") or ""
    port = port or parameters.get("port") or env.get("PGPORT") or str(DEFAULT_PORT)
    if not host or "," in host or "," in hosts or host.startswith("/"):
        problems.append(f"{subject}: found {host or 'no host'}; expected the name of one host")
    if not port or not _PORT.fullmatch(port):
        problems.append(f"{subject}: expected one port, a number")
    user = unquote(name) or parameters.get("user") or env.get("PGUSER") or ""
    if not user:
        problems.append(f"{subject}: no user named; expected one in postgres.dsn or PGUSER")
    return Login(host, int(port), user) if len(problems) == before else None


def _where(base: str, parameters: Mapping[str, str], env: Mapping[str, str]) -> str:
    parts = urlsplit(base)
    hosts = (
        unquote(parts.netloc.rpartition("@")[2])
        or parameters.get("host")
        or env.get("PGHOST")
        or "local socket"
    )
    database = unquote(parts.path.lstrip("/")) or parameters.get("dbname") or env.get("PGDATABASE") or ""
    port = parameters.get("port") or env.get("PGPORT")
    shown = f"{hosts}:{port}" if port and ":" not in hosts else hosts
    return f"{shown}/{database}" if database else shown


def _service(name: str, env: Mapping[str, str], home: Path) -> dict[str, str]:
    """Return the parameters of service `name`, from the user's file, then from the system's."""
    own = env.get("PGSERVICEFILE")
    files = [Path(own) if own else home / ".pg_service.conf"]
    if env.get("PGSYSCONFDIR"):
        files.append(Path(env["PGSYSCONFDIR"]) / "pg_service.conf")
    for file in files:
        parameters = _section(file, name)
        if parameters is not None:
            return parameters
    raise ConfigError(
        [f"postgres: the service {name!r} is defined in none of {', '.join(map(str, files))}"],
        "define it there, or set PGSERVICEFILE",
    )


def _section(file: Path, wanted: str) -> dict[str, str] | None:
    """Return a section of a service file as libpq reads it: key=value lines, '#' comments, no quoting."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            [f"postgres: the service file {file} can't be read: {type(error).__name__}"]
        ) from error
    found: dict[str, str] | None = None
    inside = False
    for line in map(str.strip, lines):
        if line.startswith("["):
            inside = line == f"[{wanted}]" and found is None
            found = {} if inside else found
        elif inside and found is not None and line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found[key.strip()] = value.strip()
    return found
