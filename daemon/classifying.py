"""Say what an answer of S3, or the want of one, means: a `Failure`; pure.

The code in S3's error document decides first, its HTTP status where no code is known. What follows from a
failure is decided elsewhere (daemon/retrying.py). Codes are those of the S3 API reference, "Error responses",
and of the servers in the contract suite.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx

from daemon.answers import ErrorDocument, GarbledAnswerError, read_error, request_id
from daemon.retrying import Failure, FailureClass

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BY_CODE = {
    FailureClass.CLOCK_SKEW: ("RequestTimeTooSkewed", "RequestExpired"),
    FailureClass.EXPIRED_CREDENTIALS: ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"),
    FailureClass.FORBIDDEN: (
        *("AccessDenied", "AccountProblem", "AllAccessDisabled", "InvalidAccessKeyId", "InvalidSecurity"),
        *("InvalidToken", "NotSignedUp", "SignatureDoesNotMatch", "UnauthorizedAccess"),
    ),
    FailureClass.NO_SUCH_BUCKET: ("NoSuchBucket", "InvalidBucketName"),
    FailureClass.WRONG_REGION: (
        "PermanentRedirect",
        "IllegalLocationConstraintException",
        "IncorrectEndpoint",
    ),
    FailureClass.REDIRECTED: ("TemporaryRedirect", "Redirect"),
    FailureClass.CORRUPTED: ("BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch", "IncompleteBody"),
    FailureClass.TIMEOUT: ("RequestTimeout",),
    FailureClass.CONFLICT: ("ConditionalRequestConflict", "OperationAborted"),
    FailureClass.THROTTLED: (
        *("SlowDown", "ServiceUnavailable", "TooManyRequests", "Throttling", "ThrottlingException"),
        *("RequestThrottled", "RequestLimitExceeded", "BandwidthLimitExceeded", "KMS.ThrottlingException"),
    ),
    FailureClass.SERVER: ("InternalError", "KMS.KMSInternalException", "KMS.DependencyTimeoutException"),
    FailureClass.METADATA_TOO_LARGE: ("MetadataTooLarge", "RequestHeaderSectionTooLarge"),
}
_KIND_OF_CODE = {code: kind for kind, codes in _BY_CODE.items() for code in codes}
_KIND_OF_STATUS = {
    401: FailureClass.FORBIDDEN,
    403: FailureClass.FORBIDDEN,
    408: FailureClass.TIMEOUT,
    409: FailureClass.CONFLICT,
    429: FailureClass.THROTTLED,
    431: FailureClass.METADATA_TOO_LARGE,
    501: FailureClass.REJECTED,
    503: FailureClass.THROTTLED,
}
CLOCK_SKEW_MAX_US = 15 * 60 * 1_000_000
"""S3 refuses a signature older or newer than 15 minutes (S3 API reference, RequestTimeTooSkewed)."""
_LINE_CHARACTERS_MAX = 300
# Any run of hexadecimal digits as long as a SHA-1: servers echo signatures and what was signed.
_DIGEST = re.compile(r"[0-9A-Fa-f]{40,}")


@dataclass(frozen=True, slots=True)
class Subject:
    """What a request was about, for messages: operation, bucket, and key or prefix."""

    operation: str
    bucket: str
    key: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The key that messages quote, where it is one."""
        return (self.key,) if self.key and self.operation != "LIST" else ()

    def __str__(self) -> str:
        key = self.key if self.key.isprintable() else ascii(self.key)
        return f"{self.operation} s3://{self.bucket}/{key}"


@dataclass(frozen=True, slots=True)
class Answer:
    """An HTTP answer in full.

    Attributes:
        headers: names in lower case.
        body: bounded by who read it.
    """

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def request_id(self) -> str | None:
        """What AWS support asks for."""
        return request_id(self.headers.get("x-amz-request-id"))

    @property
    def date_us(self) -> int | None:
        """The server's clock, microseconds since 1970-01-01 UTC; None without a legible Date header."""
        try:
            moment = parsedate_to_datetime(self.headers.get("date", ""))
        except (ValueError, OverflowError):  # the latter from a year or zone beyond a machine integer
            return None
        # "-0000" is UTC of unknown local zone, which Python reads as no zone at all
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def classify(answer: Answer, subject: Subject, *, signed_us: int, secrets: Sequence[str] = ()) -> Failure:
    """Return what an answer that is no success means.

    Args:
        answer: status, headers and body as received.
        subject: what was asked.
        signed_us: the time the request was signed for; beside the Date header it tells a skewed clock where
            S3 gives no code (HEAD has no body).
        secrets: texts that must not get into the message, should the server echo them.
    """
    try:
        document = read_error(answer.body)
        legible = True
    except GarbledAnswerError:
        document = ErrorDocument()
        legible = False
    kind = _kind(answer, document, subject, legible=legible, signed_us=signed_us)
    found = f"{answer.status} {document.code or _codeless(answer, legible=legible)}"
    further = [_whither(answer, document, kind), document.message or ""]
    told = "; ".join(legible_line(text, secrets) for text in further if text)
    return Failure(
        kind,
        subject.operation,
        f"{subject}: expected success, found {found}{': ' if told else ''}{told}",
        http_status=answer.status,
        code=document.code,
        request_id=answer.request_id or document.request_id,
        keys=subject.keys,
    )


def _kind(  # noqa: PLR0911 -- a decision table reads best as one
    answer: Answer, document: ErrorDocument, subject: Subject, *, legible: bool, signed_us: int
) -> FailureClass:
    code, status = document.code, answer.status
    if code == "AuthorizationHeaderMalformed":
        return FailureClass.WRONG_REGION if _region(answer, document) else FailureClass.FORBIDDEN
    if code in _KIND_OF_CODE:
        return _KIND_OF_CODE[code]
    if code is not None and code.startswith("KMS."):
        # A disabled, deleted or forbidden key fails every object alike: never park them one by one.
        return FailureClass.FORBIDDEN
    if 300 <= status < 400:
        return FailureClass.WRONG_REGION if _region(answer, document) else FailureClass.REDIRECTED
    if status == 403 and code is None and _skewed(answer, signed_us):
        return FailureClass.CLOCK_SKEW
    if status in _KIND_OF_STATUS:
        return _KIND_OF_STATUS[status]
    if status >= 500:
        return FailureClass.SERVER
    if status < 400 or (not legible and subject.operation != "HEAD"):
        return FailureClass.GARBLED
    return FailureClass.REJECTED


def _region(answer: Answer, document: ErrorDocument) -> str | None:
    return document.region or answer.headers.get("x-amz-bucket-region")


def _skewed(answer: Answer, signed_us: int) -> bool:
    return answer.date_us is not None and abs(answer.date_us - signed_us) >= CLOCK_SKEW_MAX_US


def _codeless(answer: Answer, *, legible: bool) -> str:
    if legible or not answer.body:
        return "without a code"
    return f"with {len(answer.body)} bytes that are no S3 error document"


def _whither(answer: Answer, document: ErrorDocument, kind: FailureClass) -> str:
    """Name where S3 wants the request to go: the region, or the host of a redirect we don't follow."""
    region = _region(answer, document)
    if kind is FailureClass.WRONG_REGION:
        return f"the bucket is in region {region}" if region else ""
    if kind is FailureClass.REDIRECTED:
        host = document.endpoint or _host(answer.headers.get("location", ""))
        return f"a redirect to {host}, not followed" if host else "a redirect, not followed"
    return ""


def _host(location: str) -> str:
    # Not httpx.URL, which decodes international names and fails on false ones.
    try:
        return urlsplit(location).hostname or ""
    except ValueError:
        return ""


def legible_line(text: str, secrets: Sequence[str] = ()) -> str:
    """Return a stranger's `text` as one printable, bounded line without `secrets` or anything like a signature."""
    for secret in secrets:
        text = text.replace(secret, "[secret]") if secret else text
    text = _DIGEST.sub("[digest]", " ".join(text.split()))
    text = "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
    return text if len(text) <= _LINE_CHARACTERS_MAX else f"{text[:_LINE_CHARACTERS_MAX]}…"


def garbled(subject: Subject, problem: str, answer: Answer) -> Failure:
    """Return the failure of an answer that claims success and is not what S3 documents."""
    return Failure(
        FailureClass.GARBLED,
        subject.operation,
        f"{subject}: {problem}",
        http_status=answer.status,
        request_id=answer.request_id,
        keys=subject.keys,
    )


def unanswered(error: httpx.TransportError, subject: Subject, *, head_arrived: bool = False) -> Failure:
    """Return what an error of the transport means.

    Args:
        error: what the transport raised.
        subject: what was asked.
        head_arrived: the answer's head had arrived; then it counts as an answer.
    """
    answered = head_arrived
    kind = FailureClass.CONNECTION
    if isinstance(error, httpx.TimeoutException):
        kind = FailureClass.TIMEOUT
    elif isinstance(error, httpx.LocalProtocolError | httpx.UnsupportedProtocol):
        kind, answered = FailureClass.REJECTED, True
    elif isinstance(error, httpx.RemoteProtocolError):
        kind, answered = FailureClass.GARBLED, True
    reason = legible_line(str(error)) or type(error).__name__
    return Failure(kind, subject.operation, f"{subject}: {reason}", answered=answered, keys=subject.keys)
