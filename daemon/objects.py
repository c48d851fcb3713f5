"""What passes between the bucket and the rest of the program, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """An object as HEAD shows it.

    Attributes:
        size: Content-Length in bytes.
        etag: without quotes.
        version_id: on a versioned bucket.
        encryption: x-amz-server-side-encryption, as answered.
        metadata: x-amz-meta-* without that prefix, lower-case names, values as sent.
    """

    size: int
    etag: str
    version_id: str | None = None
    encryption: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)


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
