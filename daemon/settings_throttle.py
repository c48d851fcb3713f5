"""`[throttle]`: how a migration keeps out of the source's way; every limit checked, off unless asked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict

from daemon import settings_fields as fields
from daemon import settings_values as values
from daemon import timetables
from daemon.timetables import Timetable

_SECONDS_MAX = 7 * 86400.0
_Lag = Annotated[float | None, BeforeValidator(fields.seconds(0.1, _SECONDS_MAX))]
_Sessions = Annotated[int | None, BeforeValidator(fields.whole(1, 100_000))]
_Number = Annotated[float | None, BeforeValidator(fields.number)]
_Query = Annotated[
    str | None, BeforeValidator(fields.matching(r"(?s)[^\x00]*\S[^\x00]*", "a query of one row, one number"))
]


class ThrottleConfig(BaseModel):
    """What slows copying down on purpose, each part off while None.

    Attributes:
        rows_per_second, bytes_per_second: most that is fetched.
        timetable: bytes per second by the time of day; where bytes_per_second is set too, the smaller holds.
        timetable_zone: whose clocks the timetable goes by.
        replica_lag, replica_lag_hibernate: seconds of replay lag above which nothing new begins.
        active_sessions, active_sessions_hibernate: sessions of others at work on the server, likewise.
        query, query_threshold, query_hibernate: trusted SQL like `where`, and the results above which it holds.
        check_interval: seconds between readings.
        reading_timeout: seconds that the server may take for one reading.
        hibernate: seconds of rest, without readings, above a second threshold.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    rows_per_second: Annotated[int | None, BeforeValidator(values.rows_per_second)] = None
    bytes_per_second: Annotated[int | None, BeforeValidator(values.bytes_per_second)] = None
    timetable: Annotated[Timetable | None, BeforeValidator(timetables.parsed)] = None
    timetable_zone: Annotated[str, BeforeValidator(timetables.zone_name)] = "UTC"
    replica_lag: _Lag = None
    replica_lag_hibernate: _Lag = None
    active_sessions: _Sessions = None
    active_sessions_hibernate: _Sessions = None
    query: _Query = None
    query_threshold: _Number = None
    query_hibernate: _Number = None
    check_interval: Annotated[float, BeforeValidator(fields.seconds(0.1, 3600))] = 5.0
    reading_timeout: Annotated[float, BeforeValidator(fields.seconds(0.1, 600))] = 3.0
    hibernate: Annotated[float, BeforeValidator(fields.seconds(1, 86400))] = 60.0

    @property
    def reads(self) -> bool:
        """Whether the server is asked for readings at all, over a connection of their own."""
        return self.replica_lag is not None or self.active_sessions is not None or self.query is not None

    def fetch_connections(self, connections: int) -> int:
        """Return how many of all connections fetch; planning has one to itself, and so have readings if there are any."""
        return max(1, connections - (2 if self.reads else 1))
