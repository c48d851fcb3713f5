"""What an answer says of an object, and the failures that only its content can cause; pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from daemon.answers import unquoted
from daemon.classifying import Answer, Subject, garbled
from daemon.objects import ObjectFacts
from daemon.retrying import Failure, FailureClass

META: Final = "x-amz-meta-"


def facts_of(subject: Subject, answer: Answer) -> ObjectFacts:
    """Return what the head of an answer to HEAD or GET says of an object.

    Raises:
        Failure: GARBLED without a length or an ETag: a proxy's page is no object, whatever its status.
    """
    etag = unquoted(answer.headers.get("etag", ""))
    if not etag:
        raise garbled(subject, "expected an ETag, found none", answer)
    return ObjectFacts(
        size=content_length(subject, answer),
        etag=etag,
        version_id=answer.headers.get("x-amz-version-id"),
        encryption=answer.headers.get("x-amz-server-side-encryption"),
        storage_class=answer.headers.get("x-amz-storage-class"),
        metadata={
            name.lower().removeprefix(META): value
            for name, value in answer.headers.items()
            if name.lower().startswith(META)
        },
        retained_until=answer.headers.get("x-amz-object-lock-retain-until-date"),
        legal_hold=answer.headers.get("x-amz-object-lock-legal-hold", "").upper() == "ON",
    )


def content_length(subject: Subject, answer: Answer) -> int:
    """Return the announced length of a body, in bytes.

    Raises:
        Failure: GARBLED without one.
    """
    text = answer.headers.get("content-length", "")
    if not (text.isascii() and text.isdigit()):
        raise garbled(subject, f"expected a Content-Length, found {text[:40]!r}", answer)
    return int(text)


class LargerError(Failure):
    """An object is larger than it may be: it changed meanwhile."""

    def __init__(self, subject: Subject, size_max: int) -> None:
        failure = changed(subject, f"more than the {size_max} bytes expected")
        super().__init__(failure.kind, failure.operation, failure.message, keys=failure.keys)


def changed(subject: Subject, found: str) -> Failure:
    """Return the failure of a request that met another object than the one seen before."""
    return Failure(
        FailureClass.CONFLICT,
        subject.operation,
        f"{subject}: found {found}; it changed meanwhile",
        keys=subject.keys,
    )


def metadata_bytes(headers: Mapping[str, str]) -> int:
    """Return what user metadata counts for against S3's limit: names without their prefix, and values."""
    return sum(len(name) - len(META) + len(value) for name, value in headers.items() if name.startswith(META))
