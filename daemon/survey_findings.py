"""What a survey of an endpoint means for a migration, as lines of `check`; pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import rendering_units as units
from daemon.findings import Finding, ok, warning

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from daemon.bucket_documents import LifecycleRule
    from daemon.surveying import Survey

CLOCK_OFFSET_MAX = 60
"""Seconds; S3 refuses a signature that is 15 minutes off, so there is time to mend a minute."""

_GOOD = {
    "if_none_match": ("honoured", "If-None-Match is honoured: nothing is overwritten unseen"),
    "if_match": ("honoured", "If-Match is honoured"),
    "content_md5": ("verified", "a body that contradicts Content-MD5 is refused"),
    "etag": ("md5", "the ETag is the MD5: a listing proves the content"),
    "delete": ("allowed", "objects may be deleted"),
    "list": ("allowed", "may be listed"),
    "head_of_missing": ("404", "HEAD of what is missing answers 404"),
}
_BAD = {
    "if_none_match": (
        "If-None-Match is {word}: writes are not atomic here",
        "a HEAD precedes each PUT; let nobody else write there during the migration",
    ),
    "if_match": ("If-Match is {word}", "an overwrite may hit an object that changed a moment before"),
    "content_md5": (
        "a body that contradicts Content-MD5 is {word}",
        "corruption on the way is found by the ETag that is answered, and by `verify`",
    ),
    "etag": (
        "the ETag is no MD5: a listing proves sizes only",
        "`verify --tier head` compares our MD5 in the metadata, `--tier content` the bytes",
    ),
    "delete": (
        "the survey's objects may not be deleted",
        "grant s3:DeleteObject on them; `undo` needs it for all",
    ),
    "list": ("may not be listed ({word})", "grant s3:ListBucket: `verify` and `undo` need it"),
    "head_of_missing": (
        "HEAD of what is missing answers {word}",
        "grant s3:ListBucket: without it what is missing can't be told from what is forbidden",
    ),
}
_NEUTRAL = {
    "payload_hash": "a body that contradicts x-amz-content-sha256 is {word}",
    "checksum_sha256": "x-amz-checksum-sha256 is {word}",
    "checksum_returned": "HEAD shows that checksum: {word}",
    "encryption": "encryption: {word}",
    "listing_order": "listed in the order of: {word}",
    "start_after": "start-after is {word}",
    "url_encoding": "encoding-type=url is {word}",
    "delete_if_match": "If-Match on DELETE is {word}",
    "versioning": "versioning: {word}",
    "object_lock": "object lock: {word}",
}
"""Facts that nothing here depends on, or that a migration takes as they are."""
QUESTIONS = (*_GOOD, *_NEUTRAL, "put", "clock_offset_seconds", "lifecycle")
"""Every question that a survey may answer."""


def survey_findings(survey: Survey) -> list[Finding]:
    """Return what was found out, one finding for each thing an operator may have to know."""
    subject = f"bucket {survey.bucket}"
    found = survey.found
    findings = []
    if found.get("put") == "occupied":
        findings.append(
            warning(
                subject,
                f"another object is under {units.shown(survey.left[0])}: writes were not looked into",
                "move it away; names that begin so are the probe's",
            )
        )
    elif found.get("object_lock") == "default retention":
        text = "object lock keeps every new object: nothing was written to look into writes"
        findings.append(warning(subject, text, "`undo` can't delete before the retention ends"))
    elif found.get("put") != "accepted":
        findings.append(
            warning(
                subject, f"a PUT answers {found.get('put')}", "`backfillctl check --iam` prints the rights"
            )
        )
    for question, (word, text) in _GOOD.items():
        if found.get(question) == word:
            findings.append(ok(subject, text))
        elif question in found:
            bad, hint = _BAD[question]
            findings.append(warning(subject, bad.format(word=found[question]), hint))
    facts = [text.format(word=found[question]) for question, text in _NEUTRAL.items() if question in found]
    findings.append(ok(subject, "; ".join(facts)))
    findings += _clock(found)
    findings += _lifecycle(subject, found.get("lifecycle", ""), survey.rules, survey.prefix)
    if found.get("put") != "occupied" and survey.left:
        findings.append(
            warning(
                subject, f"left behind: {', '.join(map(units.shown, survey.left))}", "delete them by hand"
            )
        )
    return findings


def _clock(found: Mapping[str, str]) -> list[Finding]:
    seconds = int(found.get("clock_offset_seconds", 0))
    if abs(seconds) <= CLOCK_OFFSET_MAX:
        return []
    text = f"the endpoint's clock is {seconds:+d} s from this machine's"
    return [
        warning("clock", text, "set this machine's clock (NTP); signing follows the endpoint's meanwhile")
    ]


def _lifecycle(subject: str, word: str, rules: Sequence[LifecycleRule], prefix: str) -> list[Finding]:
    if word == "denied":
        text = "its lifecycle rules may not be read: one may expire what is copied"
        return [warning(subject, text, "grant s3:GetLifecycleConfiguration, or ask whoever owns the bucket")]
    findings = []
    for rule in rules:
        of = (
            f' of tagged or sized objects under "{units.shown(rule.prefix)}"'
            if rule.narrowed
            else f' of "{units.shown(rule.prefix)}"'
        )
        after = f" after {units.shown(rule.after)}" if rule.after else ""
        findings.append(
            warning(
                subject,
                f'lifecycle rule "{units.shown(rule.identifier)}"{of} {units.shown(rule.action)}{after}:'
                f' it can touch "{units.shown(prefix)}"',
                "change the rule or the prefix before the source is dropped",
            )
        )
    return findings or ([ok(subject, "no lifecycle rule touches the prefix")] if word == "none" else [])
