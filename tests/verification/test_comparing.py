from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.comparing import Finding, FindingKind, Means, VerificationResult, compare, exit_code_of, redacted
from daemon.errors import ExitCode
from daemon.objects import ListedObject
from daemon.redacting import Redactor
from journal.verification_runs import SampledKeys

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


@pytest.mark.parametrize(
    ("found", "code"),
    [
        ({}, ExitCode.DONE),
        ({FindingKind.MISSING: 1}, ExitCode.MISMATCH),
        ({FindingKind.DIFFERING: 1}, ExitCode.MISMATCH),
        ({FindingKind.FOREIGN: 1}, ExitCode.MISMATCH),
        ({FindingKind.RECEIPT: 1}, ExitCode.MISMATCH),
        ({FindingKind.ROW_CHANGED: 1}, ExitCode.MISMATCH),
        ({FindingKind.UNPLANNED: 1}, ExitCode.MISMATCH),
        ({FindingKind.ROW_DELETED: 1, FindingKind.UNREADABLE: 1}, ExitCode.DONE),
    ],
)
def test_damage_and_rows_without_a_copy_are_a_mismatch_and_deleted_rows_are_none(found, code):
    assert VerificationResult("list", found=found, unsettled=1, skipped=1).exit_code is code


@pytest.mark.parametrize(("asked", "code"), [(False, ExitCode.DONE), (True, ExitCode.MISMATCH)])
def test_an_extra_object_is_a_mismatch_only_if_asked_for(asked, code):
    assert VerificationResult("list", found={FindingKind.EXTRA: 1}, extra_fails=asked).exit_code is code


def test_only_a_sample_that_was_read_whole_and_has_no_mismatch_proves_a_bound():
    sample = SampledKeys(1000, 1_000_000)
    clean = VerificationResult("content", sample=sample, checked=1000)
    assert clean.bound == pytest.approx(0.006884, rel=1e-3)
    assert replace(clean, found={FindingKind.ROW_CHANGED: 1}).bound is None
    assert replace(clean, sample=None).bound is None
    assert replace(clean, found={FindingKind.UNREADABLE: 1}).bound is None


@pytest.mark.parametrize("row_key", ["secret/1", None])
def test_no_part_of_a_redacted_finding_tells_its_key(row_key):
    """An answer's text quotes the object's key; a finding that was read from the journal has no row key."""
    redactor = Redactor("m")
    detail = "GET blobs/p/secret/1: 403 AccessDenied"
    finding = Finding(FindingKind.UNREADABLE, "a", "p/secret/1", 1, row_key, detail)
    shown = redacted(VerificationResult("content", examples=(finding,)), redactor.hashed, redactor.redacted)
    [example] = shown.examples
    assert "secret" not in f"{example.object_key} {example.row_key} {example.detail}"
    assert example.detail.startswith("GET blobs/")
    assert example.detail.endswith(": 403 AccessDenied")


@pytest.mark.parametrize(("unread", "code"), [(0, ExitCode.DONE), (9, ExitCode.DONE), (10, ExitCode.REFUSED)])
def test_a_run_that_could_read_nothing_is_no_success(unread, code):
    result = VerificationResult("content", checked=10, found={FindingKind.UNREADABLE: unread})
    assert exit_code_of([VerificationResult("list"), result]) is code


def test_of_no_results_nothing_is_wrong():
    assert exit_code_of([]) is ExitCode.DONE
