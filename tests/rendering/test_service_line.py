from __future__ import annotations

import dataclasses

from daemon.rendering_service import service_line
from daemon.rendering_view import view
from journal.status import MigrationState, NoteStatus
from tests.rendering.courses import Course
from tests.rendering.statuses import ALL, NOW_US


def told(status, **changed):
    return service_line(view(dataclasses.replace(status, **changed), now_us=NOW_US))


def test_a_session_at_work_is_told_by_share_pace_and_eta():
    status = Course().session().work(1200, 40).status()
    assert told(status) == "cas 48.0 % · 40 obj/s · ETA 21m40s"


def test_several_sources_are_told_as_their_sum():
    assert told(Course("a", "b").session().work(1200, 10).status()).startswith("total 12.0 % · 20 obj/s · ")


def test_what_slows_it_down_is_told_in_words():
    lag = NoteStatus(NOW_US, {"cause": "replica_lag", "detail": "12 s, limit 10 s"})
    status = Course().session().work(1200, 40).status()
    assert told(status, throttle=lag) == "cas 48.0 % · 40 obj/s · ETA 21m40s · throttled: replica lag"


def test_any_other_state_than_running_is_named():
    status = Course().session().work(1200, 40).status()
    assert told(status, state=MigrationState.PAUSED).startswith("cas 48.0 % paused · ")


def test_parked_keys_are_counted():
    assert " · parked 3" in told(ALL["running"])


def test_before_there_is_a_plan_there_is_a_line():
    assert told(ALL["fresh"], state=MigrationState.PLANNING) == "total planning · - obj/s · ETA -"
