"""An error that quotes a key names it, so that the log can redact it, however far the error travels."""

from __future__ import annotations

import httpx
import pytest

from daemon.classifying import Answer, Subject, classify, garbled, unanswered
from daemon.errors import ExitCode
from daemon.halting import halted
from daemon.redacting import Redactor
from daemon.retrying import Failure

KEY = "patients/7 ü"
SUBJECT = Subject("PUT", "blobs", KEY)
FAILURES = [
    classify(Answer(403), SUBJECT, signed_us=0),
    garbled(SUBJECT, "no ETag", Answer(200)),
    unanswered(httpx.ReadTimeout("timed out"), SUBJECT),
]


@pytest.mark.parametrize("failure", FAILURES, ids=["refused", "garbled", "silent"])
@pytest.mark.parametrize("code", [ExitCode.REFUSED, ExitCode.UNREACHABLE])
def test_a_failure_and_the_halt_that_it_causes_name_the_key_that_they_quote(failure: Failure, code: ExitCode):
    halt = halted(failure, code)
    assert KEY in halt.problem
    assert failure.keys == halt.keys == (KEY,)
    assert KEY not in Redactor("id").redacted(halt.problem, halt.keys)


def test_the_prefix_of_a_listing_is_no_key():
    assert classify(Answer(403), Subject("LIST", "blobs", "patients/"), signed_us=0).keys == ()
