"""Whether S3 would let a request in: SigV4 checked by a computation of its own, clock and payload hash."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote

SKEW_MAX_US = 15 * 60 * 1_000_000


class Refusal(Exception):  # noqa: N818 -- an answer
    """An error that the server answers with."""

    def __init__(self, status: int, code: str, message: str = "", **fields: str) -> None:
        super().__init__(code)
        self.status, self.code, self.message, self.fields = status, code, message or code, fields


@dataclass(frozen=True)
class Arrived:
    """A request as it arrived; `path` percent-encoded, `parameters` decoded, header names in lower case."""

    method: str
    path: str
    parameters: dict[str, str]
    headers: dict[str, str]
    body: bytes


def authenticate(request: Arrived, secrets: dict[str, str], *, region: str, now_us: int) -> str:
    """Return the access key that signed `request`, or raise the Refusal that S3 would answer."""
    headers = request.headers
    if "authorization" not in headers:
        raise Refusal(403, "AccessDenied", "anonymous")
    algorithm, _, rest = headers["authorization"].partition(" ")
    fields = dict(part.strip().split("=", 1) for part in rest.split(","))
    access_key, day, signed_region, service, terminator = fields["Credential"].split("/")
    if (algorithm, service, terminator) != ("AWS4-HMAC-SHA256", "s3", "aws4_request"):
        raise Refusal(400, "AuthorizationHeaderMalformed")
    if signed_region != region:
        message = f"the region '{signed_region}' is wrong; expecting '{region}'"
        raise Refusal(400, "AuthorizationHeaderMalformed", message, Region=region)
    if access_key not in secrets:
        raise Refusal(403, "InvalidAccessKeyId")
    signed = fields["SignedHeaders"].split(";")
    needed = {name for name in headers if name.startswith("x-amz-") or name in {"host", "content-md5"}}
    if unsigned := needed - set(signed):
        raise Refusal(
            403, "AccessDenied", f"headers present in the request which were not signed: {unsigned}"
        )
    expected = signature(request, signed, day=day, region=region, secret=secrets[access_key])
    if not hmac.compare_digest(expected, fields["Signature"]):
        raise Refusal(403, "SignatureDoesNotMatch", f"expected {expected} of {access_key}")
    signed_at = datetime.strptime(headers["x-amz-date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    skew = now_us - round(signed_at.timestamp() * 1e6)
    if abs(skew) > SKEW_MAX_US or not headers["x-amz-date"].startswith(day):
        raise Refusal(403, "RequestTimeTooSkewed")
    if hashlib.sha256(request.body).hexdigest() != headers["x-amz-content-sha256"]:
        raise Refusal(400, "XAmzContentSHA256Mismatch")
    return access_key


def signature(request: Arrived, signed: list[str], *, day: str, region: str, secret: str) -> str:
    """SigV4 by AWS's description, from the decoded path and query: it shares no code with what it checks."""
    pairs = sorted((quote(n, safe="-_.~"), quote(v, safe="-_.~")) for n, v in request.parameters.items())
    canonical = [
        request.method,
        quote(unquote(request.path), safe="/-_.~"),
        "&".join(f"{name}={value}" for name, value in pairs),
        *(f"{name}:{' '.join(request.headers[name].split())}" for name in signed),
        "",
        ";".join(signed),
        request.headers["x-amz-content-sha256"],
    ]
    to_sign = [
        "AWS4-HMAC-SHA256",
        request.headers["x-amz-date"],
        f"{day}/{region}/s3/aws4_request",
        hashlib.sha256("\n".join(canonical).encode()).hexdigest(),
    ]
    key = f"AWS4{secret}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return hmac.new(key, "\n".join(to_sign).encode(), hashlib.sha256).hexdigest()
