from __future__ import annotations

import pytest

from daemon.comparing import Means, VerificationResult, compare
from daemon.errors import ExitCode
from daemon.objects import ListedObject

MD5 = "d41d8cd98f00b204e9800998ecf8427e"
OTHER = "900150983cd24fb0d6963f7d28e17f72"


@pytest.mark.parametrize(
    ("size", "listed", "etag", "means", "difference"),
    [
        (5, MD5, None, Means.MD5, ""),
        (5, MD5.upper(), None, Means.MD5, ""),
        (5, OTHER, None, Means.MD5, f"MD5 {OTHER}, expected {MD5}"),
        (4, MD5, None, Means.MD5, "4 bytes, expected 5"),
        (5, f"{OTHER}-2", None, Means.MD5, f"MD5 {OTHER}-2, expected {MD5}"),
        (5, "", None, Means.SIZE, ""),
        (4, "", None, Means.SIZE, "4 bytes, expected 5"),
        (5, OTHER, OTHER, Means.SIZE, ""),
        (5, f"{OTHER}-2", f"{OTHER}-2", Means.SIZE, ""),
        (5, MD5, OTHER, Means.SIZE, f"ETag {MD5}, expected {OTHER}"),
    ],
)
def test_an_object_is_right_by_size_and_by_the_etag_it_was_settled_with(
    size, listed, etag, means, difference
):
    assert compare(ListedObject("k", size, listed), size=5, md5=MD5, etag=etag) == (means, difference)


def test_without_any_digest_on_record_only_the_size_is_compared():
    assert compare(ListedObject("k", 5, OTHER), size=5, md5="", etag=None) == (Means.SIZE, "")


def result(**numbers):
    found = dict.fromkeys(
        ("checked", "by_md5", "by_size", "missing", "differing", "extra", "unsettled", "skipped"), 0
    )
    return VerificationResult(**{**found, "extra_fails": False, "examples": (), "seconds": 1.0, **numbers})


@pytest.mark.parametrize(
    ("numbers", "code"),
    [
        ({"checked": 3, "by_md5": 3}, ExitCode.DONE),
        ({"missing": 1}, ExitCode.MISMATCH),
        ({"differing": 1}, ExitCode.MISMATCH),
        ({"extra": 1}, ExitCode.DONE),
        ({"extra": 1, "extra_fails": True}, ExitCode.MISMATCH),
        ({"unsettled": 1, "skipped": 1}, ExitCode.DONE),
    ],
)
def test_only_a_mismatch_has_the_exit_code_of_one(numbers, code):
    assert result(**numbers).exit_code is code
