"""A soak's judge: what grows is found, what only varies is not, and no key may be lost, added or repeated for nothing."""

from __future__ import annotations

import signal
from dataclasses import replace
from random import Random

import pytest

from benchmarks.endurance.comparing import Content, compare
from benchmarks.endurance.journal_facts import Facts, TakenBack
from benchmarks.endurance.judging import (
    STRETCH_SECONDS_MIN,
    Death,
    deaths_expected,
    repeats_bounded,
    stretches,
    verdicts,
)
from benchmarks.endurance.migration import claim_window
from benchmarks.endurance.sampling import Progress, Sample, Usage
from benchmarks.endurance.schedule import Phase
from journal.connection import WAL_BYTES_KEPT

MIB = 2**20
CALM_RSS = 90 * MIB
CONCURRENCY = 64
SECONDS = 420


def lived(*, seconds=SECONDS, pid=7, phase=Phase.CALM, uploaders=0, keys=400, rss=0.0, fds=0.0, threads=0.0,
          upload_rss=0.0, wal=0.0, wal_at_first=4 * MIB):  # fmt: skip
    """Samples of one process that varies a little, and grows by so much a second."""
    source = Random(11)
    return [
        Sample(
            at=float(second),
            pid=pid,
            phase=phase,
            faults=(),
            daemon=Usage(
                int(CALM_RSS + source.uniform(0, MIB) + rss * second),
                int(24 + source.randint(0, 2) + fds * second),
                int(2 + source.randint(0, 1) + threads * second),
            ),
            uploaders=Usage(int(uploaders * 60 * MIB + upload_rss * second), 40 * uploaders, 2 * uploaders),
            count=uploaders,
            journal=0,
            wal=int(wal_at_first + wal * second),
            progress=Progress(planned=10**6, settled=1 + keys * second),
        )
        for second in range(seconds)
    ]


def not_met(samples, facts=None, log=""):
    found = verdicts(samples, [], facts or Facts(), log, CONCURRENCY)
    return [verdict.rule for verdict in found if not verdict.is_met]


@pytest.mark.parametrize("uploaders", [0, 2])
def test_what_only_varies_is_flat(uploaders):
    assert not_met(lived(uploaders=uploaders)) == []


@pytest.mark.parametrize(
    ("leak", "rule"),
    [
        ({"rss": 300 * 400}, "rss of the daemon"),
        ({"fds": 0.1}, "fds of the daemon"),
        ({"threads": 0.05}, "threads of the daemon"),
        ({"uploaders": 2, "upload_rss": 500 * 400}, "rss of the upload processes"),
    ],
    ids=["300 bytes a key", "a descriptor in 10 s", "a thread in 20 s", "500 bytes a key in two processes"],
)
def test_a_leak_is_found(leak, rule):
    assert not_met(lived(**leak)) == [f"{rule}, 15 to 419 s"]


def test_a_leak_among_faults_is_found_as_well():
    assert not_met(lived(phase=Phase.FAULTS, fds=0.1)) == ["fds of the daemon, 15 to 419 s"]


def test_a_leak_is_not_hidden_by_the_next_process():
    after = [*lived(fds=0.1), *lived(pid=8)]
    assert not_met(after) == ["fds of the daemon, 15 to 419 s"]


def test_a_write_ahead_log_that_is_never_reused_is_found():
    assert not_met(lived(wal=100_000)) == ["the WAL is used again after a checkpoint, 15 to 419 s"]


def test_a_write_ahead_log_may_fill_up_to_a_checkpoint():
    assert not_met(lived(wal=40_000, wal_at_first=0)) == []


def test_a_write_ahead_log_beyond_what_it_is_cut_to_is_found_even_in_a_single_sample():
    samples = lived(seconds=30)
    assert not_met([*samples, *lived(seconds=1, pid=8, wal_at_first=WAL_BYTES_KEPT + 1)]) == [
        "the journal's WAL is at most 67 MB"
    ]


def test_a_daemon_that_settles_nothing_is_found():
    assert not_met(lived(keys=0)) == ["keys are settled, 15 to 419 s"]


def test_a_long_soak_in_which_no_daemon_lives_long_is_found():
    samples = [
        replace(sample, at=sample.at + 30 * pid)
        for pid in range(1, 12)
        for sample in lived(seconds=30, pid=pid)
    ]
    assert not_met(samples) == ["some daemon lived long enough to be judged"]


def test_only_what_one_process_lives_through_for_long_before_deaths_is_judged():
    short = int(STRETCH_SECONDS_MIN)
    samples = [
        *lived(seconds=short, pid=1, fds=1.0),
        *lived(pid=2, phase=Phase.DEATHS, fds=1.0),
        *lived(pid=3, phase=Phase.REST, fds=1.0),
        *lived(pid=4),
        *lived(pid=4, phase=Phase.FAULTS),
    ]
    (one,) = stretches(samples)
    assert {sample.pid for sample in one.samples} == {4}
    assert {sample.phase for sample in one.samples} == {Phase.CALM, Phase.FAULTS}


@pytest.mark.parametrize(
    ("code", "sent", "met_outage", "expected"),
    [
        (-9, {signal.SIGKILL}, False, True),
        (143, {signal.SIGTERM}, False, True),
        (-9, {signal.SIGTERM, signal.SIGKILL}, False, True),
        (5, set(), True, True),
        (-9, set(), True, False),
        (143, set(), True, False),
        (5, set(), False, False),
        (1, {signal.SIGTERM}, True, False),
        (0, {signal.SIGTERM}, True, False),
    ],
)
def test_a_daemon_may_end_only_by_what_was_done_to_it(code, sent, met_outage, expected):
    death = Death(1.0, code, frozenset(sent), met_outage)
    assert deaths_expected([death]).is_met is expected


def test_an_upload_process_that_ends_by_itself_is_found():
    taken = [
        TakenBack(1, f"upload process 1 (pid 7), {how}", {1}) for how in ("killed by SIGKILL", "exit code 1")
    ]
    assert not_met([], Facts(taken_back=taken[:1])) == []
    assert not_met([], Facts(taken_back=taken)) == ["no upload process ended but by SIGKILL"]


def test_a_traceback_in_the_log_is_found():
    assert not_met([], log="Traceback (most recent call last):") == ["no traceback in the daemons' log"]


def test_more_in_flight_at_a_death_than_the_claim_window_is_found():
    window = claim_window(CONCURRENCY)
    within = Facts(taken_back=[TakenBack(2, None, set(range(window)))])
    beyond = Facts(taken_back=[TakenBack(2, None, set(range(window + 1)))])
    assert repeats_bounded(within, CONCURRENCY).is_met
    assert not repeats_bounded(beyond, CONCURRENCY).is_met


def test_an_upload_repeated_without_a_death_or_a_failure_is_unexplained():
    facts = Facts(taken_back=[TakenBack(2, None, {1, 2})], failed={3}, repeated={1, 3, 4})
    assert facts.unexplained == {4}


ONE, TWO = Content(3, "a" * 32), Content(4, "b" * 32)


def test_the_bucket_differs_by_what_is_missing_different_or_surplus():
    found = compare(
        {"kept": ONE, "lost": ONE, "torn": ONE}, {"kept": ONE, "torn": TWO, "young": ONE}, gone={}
    )
    assert (found.missing, found.different, found.surplus) == (["lost"], ["torn"], ["young"])


def test_an_object_of_a_deleted_row_may_be_there_with_a_value_that_the_row_had():
    gone = {"deleted": {ONE}, "never copied": {ONE}}
    assert str(compare({}, {"deleted": ONE}, gone)) == ""
    assert compare({}, {"deleted": TWO}, gone).surplus == ["deleted"]
