"""How rough it gets: what befalls the run of a seed until it clears, and the theme that makes rare things common."""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random

THEMES = (
    "mixed",
    "failover",
    "mixed",
    "frozen",
    "clocks",
    "mixed",
    "credentials",
    "i/o errors",
    "mixed",
    "disk",
    "race",
    "mixed",
    "redirects",
    "verify",
    "throttle",
    "poison",
)
"""By seed: what would hang on luck has its own seeds, one in sixteen."""


@dataclass(frozen=True)
class Weather:
    """What befalls a run until it clears.

    Attributes:
        s3, postgres: share of requests and statements that something befalls.
        freezes: share of statements at which the server freezes for a while; failovers: in all.
        changes: changes of the tables in all; late: transactions that commit late.
        crashes: deaths in all; drains: requests to stop in all.
        full_disks, io_errors: commits in all that a full disk refuses, or that end in an I/O error.
        low_disk: now and then the disk has less room than the reserve.
        lost_stages: the stage may be deleted between sessions.
        poison: there is a row that its process dies with, four times.
        forbids: S3 may answer 403; redirects: share of what befalls requests that is a redirect.
        races: share of PUTs that another writer comes before.
        credentials: "fixed", "refreshable" (tell when they expire), "renewed" (don't), "lost" (and nobody renews them).
        server_skew_us: the clock of S3; client_skew: ours is off by 20 minutes, else by half a minute.
        verify: sessions verify what they finished.
    """

    s3: float = 0.0
    postgres: float = 0.0
    freezes: float = 0.0
    failovers: int = 0
    changes: int = 0
    late: int = 0
    crashes: int = 0
    drains: int = 0
    full_disks: int = 0
    io_errors: int = 0
    low_disk: bool = False
    lost_stages: bool = False
    poison: bool = False
    forbids: bool = False
    redirects: float = 0.0
    races: float = 0.0
    credentials: str = "fixed"
    server_skew_us: int = 0
    client_skew: bool = False
    verify: bool = False


def theme_of(seed: int) -> str:
    """Return what is common in the run of `seed`."""
    return THEMES[seed % len(THEMES)]


def drawn_weather(rng: Random, theme: str) -> Weather:
    """Draw the weather of a run with that theme."""
    calm = rng.random() < 0.25
    weather = Weather(
        s3=rng.choice([0.0, 0.03, 0.1, 0.25]),
        postgres=rng.choice([0.0, 0.02, 0.1]),
        changes=0 if calm else rng.choice([5, 20, 40]),
        late=0 if calm else rng.randint(0, 3),
        crashes=rng.randint(0, 6),
        drains=rng.randint(0, 2),
        full_disks=int(rng.random() < 0.1),
        lost_stages=rng.random() < 0.3,
        forbids=True,
    )
    skews = [-1200, 1200]
    themed = {
        "failover": {"failovers": rng.randint(1, 2), "changes": 60, "late": 2},
        "frozen": {"freezes": 0.05},
        "clocks": {
            "server_skew_us": rng.choice([0, *skews]) * 1_000_000,
            "client_skew": True,
        },
        "credentials": {"credentials": rng.choice(["refreshable", "renewed", "lost"])},
        "i/o errors": {"io_errors": rng.randint(1, 3)},
        "disk": {"full_disks": rng.randint(1, 3), "low_disk": True},
        "race": {"races": 0.2},
        "redirects": {"redirects": 0.2, "s3": 0.1},
        "verify": {"verify": True},
        "poison": {"poison": True},
    }
    return replace(weather, **themed.get(theme, {}))
