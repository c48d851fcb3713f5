"""What passes between the bucket and the rest of the program, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field

PROBE_KEY_NAME = ".backfill-probe"
"""The probe's object key is this under a source's prefix: no row may have it, verification passes it over."""


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """An object as HEAD shows it.

    Attributes:
        size: Content-Length in bytes.
        etag: without quotes.
        version_id: on a versioned bucket.
        encryption: x-amz-server-side-encryption, as answered.
        storage_class: as answered; S3 names none for STANDARD.
        metadata: x-amz-meta-* without that prefix, lower-case names, values as sent.
        retained_until: until when object lock keeps it, as answered (ISO 8601); told to who may know it only.
        legal_hold: object lock keeps it until somebody ends the hold.
    """

    size: int
    etag: str
    version_id: str | None = None
    encryption: str | None = None
    storage_class: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    retained_until: str | None = None
    legal_hold: bool = False


@dataclass(frozen=True, slots=True)
class ObjectDigests:
    """An object as its bytes show it: size, and MD5 and SHA-256 in lower-case hex digits."""

    size: int
    md5: str
    sha256: str


@dataclass(frozen=True, slots=True)
class PutReceipt:
    """What S3 answered to a PUT that it took."""

    etag: str
    version_id: str | None = None
    encryption: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One entry of ListObjectsV2."""

    key: str
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Condition:
    """On what a PUT depends: nothing there (`if_none_match`), exactly that object (`if_match`), or nothing."""

    if_none_match: bool = False
    if_match: str | None = None


IF_ABSENT = Condition(if_none_match=True)
UNCONDITIONAL = Condition()


def if_match(etag: str) -> Condition:
    """Return the condition that the object is still the one with `etag` (without quotes)."""
    return Condition(if_match=etag)


class PreconditionFailed(Exception):  # noqa: N818 -- an answer (412), not an error
    """The condition of a PUT or DELETE did not hold: something else is under that key.

    Attributes:
        request_id: of the 412, for the record.
    """

    def __init__(self, request_id: str | None = None) -> None:
        super().__init__("412 Precondition Failed")
        self.request_id = request_id
