from __future__ import annotations

from daemon import rendering_units as units
from daemon.comparing import Finding, FindingKind, Means, VerificationResult
from daemon.rendering_verification import verification_text
from journal.verification_runs import SampledKeys


def result(tier="list", **changed):
    numbers = {
        "checked": 20_000,
        "right": {Means.MD5: 19_990, Means.SIZE: 10},
        "seconds": 12.4,
    }
    return VerificationResult(tier, **{**numbers, **changed})


def test_a_clean_verification_says_by_what_means_and_that_nothing_is_wrong():
    assert verification_text(result(), width=150).splitlines() == [
        "list: checked 20,000 keys against the listing in 12s: 19,990 right by size and MD5, 10 by size only (no MD5 to compare)",
        "missing: none",
        "differing: none",
        "extra (no row accounts for them; they fail only with --no-extra): none",
        "no mismatch; exit code 0",
    ]


def test_a_sample_states_what_it_proves():
    sampled = result("content", checked=6905, right={Means.SHA256: 6905}, sample=SampledKeys(6905, 1_000_000))
    assert verification_text(sampled, width=150).splitlines() == [
        "content: checked 6,905 keys of 1,000,000 against their objects' bytes and their rows in 12s: 6,905 right by size, MD5 and SHA-256",
        "missing: none",
        "differing: none",
        "row changed since it was copied (`verify --repair`, `run`): none",
        "no mismatch in 6,905 of 1,000,000 keys: the mismatch rate is below 0.100 % at 99.9 % confidence",
        "no mismatch; exit code 0",
    ]


def test_a_sample_that_could_not_be_read_whole_says_that_it_proves_nothing():
    found = {FindingKind.UNREADABLE: 900}
    sampled = result("content", checked=1000, right={}, sample=SampledKeys(1000, 1_000_000), found=found)
    assert verification_text(sampled, width=150).splitlines()[-2:] == [
        "nothing is proven of the keys that were not drawn: 900 that were could not be read",
        "no mismatch; exit code 0",
    ]


def test_findings_are_named_escaped_and_counted_beyond_the_examples():
    examples = (
        Finding(FindingKind.MISSING, "cas", "ab/\x1b[2Jkey\n", 7, "key"),
        Finding(FindingKind.DIFFERING, "cas", "żółć", 8, "żółć", "3 bytes, expected 5"),
        Finding(FindingKind.EXTRA, "cas", "stray", detail="9 bytes"),
    )
    text = verification_text(
        result(
            found={FindingKind.MISSING: 13, FindingKind.DIFFERING: 1, FindingKind.EXTRA: 2},
            unsettled=5,
            skipped=1,
            examples=examples,
        ),
        width=80,
    )
    assert text.splitlines()[2:] == [
        "missing: 13",
        "  cas: ab/\\x1b[2Jkey\\n",
        "  and 12 more: `backfillctl events --kind finding_recorded`",
        "differing: 1",
        "  cas: żółć (3 bytes, expected 5)",
        "extra (no row accounts for them; they fail only with --no-extra): 2",
        "  cas: stray (9 bytes)",
        "  and 1 more",
        "not checked: 5 planned keys without a copy yet; `backfillctl status` says why",
        "not checked: 1 skipped key (s3.existing = skip: what was there was left",
        "  uncompared)",
        "mismatch; exit code 4",
    ]


def test_a_long_key_is_shown_whole_on_several_lines():
    key = "k" * 300
    text = verification_text(
        result(found={FindingKind.MISSING: 1}, examples=(Finding(FindingKind.MISSING, "cas", key, 1, key),)),
        width=80,
    )
    assert all(units.cells(line) <= 80 for line in text.splitlines())
    assert key in "".join(line.strip() for line in text.splitlines())
