from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import ExitCode
from daemon.retrying import (
    BACKOFF_FIRST_SECONDS,
    BACKOFF_LAST_SECONDS,
    Decision,
    Disposition,
    Failure,
    FailureClass,
    backoff,
    decide,
)

TRANSIENT = [
    FailureClass.TIMEOUT,
    FailureClass.CONNECTION,
    FailureClass.SERVER,
    FailureClass.THROTTLED,
    FailureClass.CONFLICT,
    FailureClass.CLOCK_SKEW,
    FailureClass.CORRUPTED,
    FailureClass.GARBLED,
]
ABOUT_THE_KEY = [
    FailureClass.REJECTED,
    FailureClass.FOREIGN_OBJECT,
    FailureClass.UNUSABLE_KEY,
    FailureClass.METADATA_TOO_LARGE,
    FailureClass.UNSUITABLE_VALUE,
    FailureClass.PROCESS_DIED,
]
ABOUT_EVERY_KEY = [
    FailureClass.FORBIDDEN,
    FailureClass.NO_SUCH_BUCKET,
    FailureClass.WRONG_REGION,
    FailureClass.REDIRECTED,
]
OPERATIONS = ["PUT", "HEAD", "GET", "LIST", "FETCH"]


def decided(kind: FailureClass, operation: str = "PUT", *, answered: bool = True, **state) -> Decision:
    facts = {
        "answers": 1,
        "failures": 1,
        "max_attempts": 8,
        "silent_seconds": 0.0,
        "give_up_after": 900.0,
        "jitter": 0.5,
        "refreshed": False,
    }
    return decide(Failure(kind, operation, "message", answered=answered), **{**facts, **state})


def test_every_class_of_failure_has_a_row_in_these_tests() -> None:
    listed = {*TRANSIENT, *ABOUT_THE_KEY, *ABOUT_EVERY_KEY, FailureClass.EXPIRED_CREDENTIALS}

    assert listed == set(FailureClass)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", TRANSIENT)
def test_what_may_pass_is_tried_again_after_a_backoff(kind, operation) -> None:
    assert decided(kind, operation, failures=3) == Decision(Disposition.RETRY, backoff(3, 0.5))


@pytest.mark.parametrize("kind", sorted(set(TRANSIENT) - {FailureClass.THROTTLED}))
def test_the_last_permitted_answer_parks_the_key(kind) -> None:
    assert decided(kind, answers=7, max_attempts=8).disposition is Disposition.RETRY
    assert decided(kind, answers=8, max_attempts=8).disposition is Disposition.PARK
    assert decided(kind, answers=9, max_attempts=8).disposition is Disposition.PARK


@pytest.mark.parametrize("kind", [FailureClass.TIMEOUT, FailureClass.CONNECTION])
def test_silence_is_bounded_by_time_and_not_by_attempts(kind) -> None:
    patient = decided(kind, answered=False, failures=500, answers=100, silent_seconds=899.9)
    spent = decided(kind, answered=False, failures=1, answers=0, silent_seconds=900.0)

    assert patient.disposition is Disposition.RETRY
    assert spent == Decision(Disposition.HALT, exit_code=ExitCode.UNREACHABLE)


def test_an_answer_is_never_unreachable_however_long_others_were_silent() -> None:
    assert decided(FailureClass.SERVER, silent_seconds=10_000).disposition is Disposition.RETRY


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("kind", ABOUT_THE_KEY)
def test_what_can_not_succeed_parks_the_key_at_once(kind, operation) -> None:
    assert decided(kind, operation).disposition is Disposition.PARK


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (FailureClass.NO_SUCH_BUCKET, ExitCode.REFUSED),
        (FailureClass.WRONG_REGION, ExitCode.USAGE),
        (FailureClass.REDIRECTED, ExitCode.USAGE),
    ],
)
def test_what_would_befall_every_key_halts_the_migration(kind, exit_code, operation) -> None:
    assert decided(kind, operation) == Decision(Disposition.HALT, exit_code=exit_code)


@pytest.mark.parametrize("kind", [FailureClass.FORBIDDEN, FailureClass.EXPIRED_CREDENTIALS])
def test_a_refused_put_is_tried_once_more_with_fresh_credentials_and_then_halts(kind) -> None:
    assert decided(kind, refreshed=False) == Decision(Disposition.RETRY)
    assert decided(kind, refreshed=True) == Decision(Disposition.HALT, exit_code=ExitCode.REFUSED)


@pytest.mark.parametrize("operation", ["HEAD", "GET"])
def test_an_object_that_may_not_be_read_parks_its_key_once_credentials_were_refreshed(operation) -> None:
    assert decided(FailureClass.FORBIDDEN, operation, refreshed=False) == Decision(Disposition.RETRY)
    assert decided(FailureClass.FORBIDDEN, operation, refreshed=True).disposition is Disposition.PARK


def test_a_storm_of_503s_is_bounded_by_time_and_not_by_attempts() -> None:
    patient = decided(FailureClass.THROTTLED, failures=500, answers=100, silent_seconds=899.9)
    spent = decided(FailureClass.THROTTLED, failures=1, answers=0, silent_seconds=900.0)

    assert patient.disposition is Disposition.RETRY
    assert spent == Decision(Disposition.HALT, exit_code=ExitCode.UNREACHABLE)


@pytest.mark.parametrize("operation", ["LIST", "FETCH"])
def test_a_listing_or_a_fetch_that_is_forbidden_halts(operation) -> None:
    assert decided(FailureClass.FORBIDDEN, operation, refreshed=True) == Decision(
        Disposition.HALT, exit_code=ExitCode.REFUSED
    )


@given(
    kind=st.sampled_from(list(FailureClass)),
    operation=st.sampled_from(OPERATIONS),
    answered=st.booleans(),
    answers=st.integers(0, 100),
    failures=st.integers(1, 10_000),
    max_attempts=st.integers(1, 20),
    silent_seconds=st.floats(0, 10_000),
    jitter=st.floats(0, 1, exclude_max=True),
    refreshed=st.booleans(),
)
def test_only_retries_wait_and_only_halts_name_an_exit_code(
    kind, operation, answered, answers, failures, max_attempts, silent_seconds, jitter, refreshed
) -> None:
    found = decided(
        kind,
        operation,
        answered=answered,
        answers=answers,
        failures=failures,
        max_attempts=max_attempts,
        silent_seconds=silent_seconds,
        jitter=jitter,
        refreshed=refreshed,
    )

    assert 0 <= found.delay < BACKOFF_LAST_SECONDS
    if found.disposition is not Disposition.RETRY:
        assert found.delay == 0
    if found.disposition is Disposition.HALT:
        assert found.exit_code in {ExitCode.REFUSED, ExitCode.USAGE, ExitCode.UNREACHABLE}
    else:
        assert found.exit_code is ExitCode.FAILED


@given(attempt=st.integers(1, 100_000), jitter=st.floats(0, 1, exclude_max=True))
def test_a_backoff_lies_below_its_doubling_ceiling(attempt, jitter) -> None:
    ceiling = min(BACKOFF_LAST_SECONDS, BACKOFF_FIRST_SECONDS * 2 ** min(attempt - 1, 64))

    assert 0 <= backoff(attempt, jitter) <= ceiling
    assert backoff(attempt, 0.0) == 0
    assert backoff(attempt, 0.5) == pytest.approx(ceiling / 2)


def test_the_ceiling_doubles_from_a_tenth_of_a_second_to_twenty() -> None:
    ceilings = [2 * backoff(attempt, 0.5) for attempt in range(1, 11)]

    assert ceilings == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20.0, 20.0])


@pytest.mark.parametrize("operation", ["HEAD", "GET"])
def test_expired_credentials_while_comparing_never_halt_the_migration_at_once(operation) -> None:
    assert decided(FailureClass.EXPIRED_CREDENTIALS, operation).disposition is Disposition.RETRY
