from __future__ import annotations

from dataclasses import replace

import pytest

from daemon.comparing import (
    EXAMPLES_MAX,
    Examples,
    Finding,
    FindingKind,
    Means,
    VerificationResult,
    compare,
    exit_code_of,
    redacted,
)
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


def test_the_first_findings_of_each_kind_are_examples_and_each_only_once():
    examples = Examples()
    missing = [Finding(FindingKind.MISSING, "a", f"k{number}") for number in range(EXAMPLES_MAX + 2)]
    for finding in [missing[0], *missing]:
        examples.add(finding)
    examples.add(Finding(FindingKind.MISSING, "b", "k0"))
    foreign = Finding(FindingKind.FOREIGN, "a", "k0")
    examples.add(foreign)
    kinds = {
        kind: [one for one in examples.all() if one.kind is kind]
        for kind in (FindingKind.MISSING, FindingKind.FOREIGN)
    }
    assert kinds == {FindingKind.MISSING: missing[:EXAMPLES_MAX], FindingKind.FOREIGN: [foreign]}


def test_an_example_is_shown_with_its_keys_as_they_may_be_shown_and_no_key_invented():
    findings = (
        Finding(FindingKind.MISSING, "a", "p/k", 1, "k", "GET p/k"),
        Finding(FindingKind.RECEIPT, "a", "", 1, None, "no digest"),
    )
    result = VerificationResult("list", examples=findings)
    shown = redacted(result, "<{}>".format, lambda text, keys: f"{text} without {sorted(keys)}")
    assert shown.examples == (
        replace(findings[0], object_key="<p/k>", row_key="<k>", detail="GET p/k without ['k', 'p/k']"),
        replace(findings[1], detail="no digest without ['']"),
    )


def test_what_was_right_and_what_was_found_is_counted_by_kind():
    result = VerificationResult("list", right={Means.SIZE: 2, Means.MD5: 5}, found={FindingKind.MISSING: 3})
    assert (result.by_size, result.by_digest) == (2, 5)
    assert (result.number(FindingKind.MISSING), result.number(FindingKind.EXTRA)) == (3, 0)
    nothing = VerificationResult("list")
    assert (nothing.by_size, nothing.by_digest, nothing.blind) == (0, 0, False)


@pytest.mark.parametrize(("checked", "blind"), [(1, True), (2, False)])
def test_a_run_is_blind_if_it_could_read_none_of_what_it_looked_at(checked, blind):
    assert VerificationResult("list", checked=checked, found={FindingKind.UNREADABLE: 1}).blind is blind
