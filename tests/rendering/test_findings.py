from __future__ import annotations

import pytest

from daemon.errors import ExitCode, RefusedError, UnreachableError
from daemon.findings import (
    GRAVEST_FIRST,
    Finding,
    Level,
    exit_code_of,
    failure,
    finding_lines,
    gravest,
    ok,
    warning,
)
from journal.errors import JournalError, JournalFailed, JournalLocked, JournalMissing, ManifestUnfit


def test_a_finding_says_how_bad_it_is():
    assert ok("journal", "sound") == Finding(Level.OK, "journal", "sound", "", ExitCode.DONE)
    assert warning("bucket b", "slow", "wait") == Finding(Level.WARNING, "bucket b", "slow", "wait")
    refused = failure("postgres", RefusedError("no right", "grant it"))
    assert refused == Finding(Level.FAILURE, "postgres", "no right", "grant it", ExitCode.REFUSED)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UnreachableError("p"), ExitCode.UNREACHABLE),
        (JournalFailed("p"), ExitCode.FAILED),
        (JournalMissing("p"), ExitCode.USAGE),
        (ManifestUnfit("p"), ExitCode.USAGE),
        (JournalLocked("p"), ExitCode.JOURNAL),
        (JournalError("p"), ExitCode.JOURNAL),
    ],
)
def test_an_error_ends_the_process_with_the_code_of_its_kind(error, code):
    assert exit_code_of(error) is code


def test_of_several_failures_the_one_that_a_restart_cannot_mend_decides():
    for place, code in enumerate(GRAVEST_FIRST):
        assert gravest([ExitCode.DONE, *reversed(GRAVEST_FIRST[place:])]) is code
    assert gravest([ExitCode.DONE]) is ExitCode.DONE
    assert gravest([]) is ExitCode.DONE


def test_a_finding_is_told_in_one_line_with_what_follows_under_its_text():
    told = finding_lines(warning("journal", "first\nsecond", "do it"), subject_width=9, colour=False)
    assert told == "warn  journal    first\n                 second\n                 hint: do it"
    assert finding_lines(ok("journal", "fine"), subject_width=7, colour=False) == "ok    journal  fine"


@pytest.mark.parametrize(("level", "number"), [(Level.OK, 32), (Level.WARNING, 33), (Level.FAILURE, 31)])
def test_only_the_word_that_says_how_bad_it_is_is_coloured(level, number):
    told = finding_lines(Finding(level, "s", "text"), subject_width=1, colour=True)
    assert told == f"\x1b[{number}m{level.value:<4}\x1b[0m  s  text"
