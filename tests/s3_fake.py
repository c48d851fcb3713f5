"""An S3 in memory, strict and scriptable: an httpx transport without sockets, threads or real time.

It verifies signatures by a computation of its own, Content-MD5, payload hash, clock skew and conditions as AWS
documents them, and lists in no order. What real servers can't be made to do is scripted: `fake.script(...)`
lets the next matching requests fail in a chosen way. Waiting is `trio.sleep`, so a virtual clock makes it free.
"""

from __future__ import annotations

import base64
import hashlib
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, unquote

import httpx
import trio

from tests.s3_authentication import Arrived, Refusal, authenticate
from tests.s3_bodies import Body, arriving
from tests.s3_documents import error_document, page_document
from tests.s3_faults import Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from random import Random

DOMAIN = "s3.fake"
ENDPOINT = f"http://{DOMAIN}"
ACCESS_KEY = "AKIAFAKE"
SECRET_KEY = "fake-secret-canary"
REGION = "eu-test-1"


@dataclass(frozen=True)
class Stored:
    """One version of an object."""

    body: bytes
    etag: str
    headers: dict[str, str]
    version_id: str | None = None
    deleted: bool = False

    @property
    def metadata(self) -> dict[str, str]:
        return {
            n.removeprefix("x-amz-meta-"): v for n, v in self.headers.items() if n.startswith("x-amz-meta-")
        }


@dataclass(frozen=True)
class Seen:
    """A request that arrived, and what was answered (0: nothing)."""

    operation: str
    bucket: str
    key: str
    status: int
    headers: dict[str, str] = field(default_factory=dict, repr=False)


@dataclass
class _Scripted:
    fault: Fault
    times: int
    operation: str | None
    key: str | None


class FakeS3(httpx.AsyncBaseTransport):
    """All buckets of one endpoint.

    Attributes:
        conditions: "atomic", "ignored" or "refused": what becomes of If-None-Match and If-Match.
        denied: operations (PUT, HEAD, GET, LIST, DELETE, DELETE_VERSION) that nobody has a right to.
        versioned: every bucket keeps versions.
        clock_offset_us: the server's clock against the test's.
        expired: access keys whose token has expired.
        page_keys_max: keys in a page of a listing.
        seen: every request, in the order of its answer.
        puts_taken: bucket and key to the number of PUTs that took effect.
        in_flight, in_flight_max: PUTs at once, now and at most.
    """

    def __init__(
        self,
        clock: Callable[[], int],
        rng: Random,
        *,
        buckets: Iterable[str] = ("bucket",),
        latency: Callable[[], float] | None = None,
    ) -> None:
        self._clock = clock
        self._rng = rng
        self._latency = latency
        self.secrets = {ACCESS_KEY: SECRET_KEY}
        self.buckets: dict[str, dict[str, list[Stored]]] = {name: {} for name in buckets}
        self.conditions = "atomic"
        self.denied: set[str] = set()
        self.versioned = False
        self.clock_offset_us = 0
        self.expired: set[str] = set()
        self.page_keys_max = 1000
        self.seen: list[Seen] = []
        self.puts_taken: Counter[tuple[str, str]] = Counter()
        self.in_flight = 0
        self.in_flight_max = 0
        self._scripted: deque[_Scripted] = deque()
        self._late: list[tuple[int, Callable[[], object]]] = []
        self._listings: dict[str, tuple[str, list[str]]] = {}
        self._serial = 0

    # What tests ask for

    def script(
        self, fault: Fault, times: int = 1, *, operation: str | None = None, key: str | None = None
    ) -> None:
        """Let `fault` befall the next `times` requests of that operation and key (None: any)."""
        self._scripted.append(_Scripted(fault, times, operation, key))

    def objects(self, bucket: str = "bucket") -> dict[str, bytes]:
        """What is there now, late requests that are due included."""
        self._land()
        return {
            key: versions[-1].body
            for key, versions in self.buckets[bucket].items()
            if not versions[-1].deleted
        }

    def stored(self, key: str, bucket: str = "bucket") -> Stored:
        """The current version under `key`."""
        self._land()
        return self.buckets[bucket][key][-1]

    def place(self, key: str, body: bytes, bucket: str = "bucket", **headers: str) -> None:
        """Put an object there as someone else would have; underscores in header names stand for hyphens."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self._store(bucket, key, body, named)

    # The server

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        headers = {name.decode().lower(): value.decode() for name, value in request.headers.raw}
        path, _, query = request.extensions["target"].decode("ascii").partition("?")
        bucket, key = self._locate(headers["host"], path)
        parameters = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
        listing = request.method == "GET" and parameters.get("list-type") == "2"
        operation = "LIST" if listing else request.method
        fault = self._fault(operation, key)
        body = await request.aread()
        putting = operation == "PUT"
        self.in_flight += putting
        self.in_flight_max = max(self.in_flight_max, self.in_flight)
        status = 0
        try:
            await self._wait(fault)
            self._land()
            if fault.flip and body:
                body = bytes([body[0] ^ 1]) + body[1:]
            if fault.status is not None:
                status = fault.status
                return arriving(self._scripted_answer(operation, fault), fault)
            if fault.error is not None and not fault.after_commit and fault.late_seconds is None:
                raise fault.error("scripted: the request did not arrive")

            def act() -> httpx.Response:
                arrived = Arrived(request.method, path, parameters, headers, body)
                return self._answer(arrived, operation, bucket, key)

            if fault.late_seconds is not None:
                self._late.append((self._clock() + round(fault.late_seconds * 1e6), act))
            else:
                response = act()
                status = response.status_code
            if fault.again_seconds is not None:
                self._late.append((self._clock() + round(fault.again_seconds * 1e6), act))
            await self._wait(Fault())
            if fault.error is not None:
                raise fault.error("scripted: no answer")
            return arriving(response, fault)
        finally:
            self.in_flight -= putting
            self.seen.append(Seen(operation, bucket, key, status, headers))

    async def _wait(self, fault: Fault) -> None:
        seconds = fault.seconds + (self._latency() if self._latency else 0.0)
        if seconds:
            await trio.sleep(seconds)
        else:
            await trio.lowlevel.checkpoint()

    def _land(self) -> None:
        now = self._clock()
        due = sorted((late for late in self._late if late[0] <= now), key=lambda late: late[0])
        self._late = [late for late in self._late if late[0] > now]
        for _, act in due:
            act()

    def _fault(self, operation: str, key: str) -> Fault:
        for scripted in self._scripted:
            if scripted.operation in {None, operation} and scripted.key in {None, key}:
                scripted.times -= 1
                if not scripted.times:
                    self._scripted.remove(scripted)
                return scripted.fault
        return Fault()

    def _locate(self, host: str, path: str) -> tuple[str, str]:
        name = host.partition(":")[0]
        if name == DOMAIN:
            bucket, _, key = path[1:].partition("/")
        else:
            assert name.endswith(f".{DOMAIN}"), f"credentials sent to another host: {host}"
            bucket, key = name.removesuffix(f".{DOMAIN}"), path[1:]
        return unquote(bucket), unquote(key, errors="strict")

    def _scripted_answer(self, operation: str, fault: Fault) -> httpx.Response:
        assert fault.status is not None
        body = fault.body
        if body is None:
            body = error_document(fault.code, "scripted") if fault.code else b""
        return self._respond(operation, fault.status, body, fault.headers)

    def _respond(
        self, operation: str, status: int, body: bytes = b"", headers: Iterable[tuple[str, str]] = ()
    ) -> httpx.Response:
        self._serial += 1
        own = [("date", self._date()), ("x-amz-request-id", f"FAKE{self._serial:012}")]
        given = {name for name, _ in headers}
        if "content-length" not in given:
            own.append(("content-length", str(len(body))))
        return httpx.Response(
            status,
            headers=[*(pair for pair in own if pair[0] not in given), *headers],
            stream=Body(b"" if operation == "HEAD" else body),
        )

    def _date(self) -> str:
        now = datetime.fromtimestamp((self._clock() + self.clock_offset_us) / 1e6, UTC)
        return format_datetime(now.replace(microsecond=0), usegmt=True)

    def _answer(self, arrived: Arrived, operation: str, bucket: str, key: str) -> httpx.Response:
        now_us = self._clock() + self.clock_offset_us
        try:
            access_key = authenticate(arrived, self.secrets, region=REGION, now_us=now_us)
            self._authorize(arrived, access_key, operation, bucket)
            match operation:
                case "PUT":
                    return self._put(arrived.headers, bucket, key, arrived.body)
                case "LIST":
                    return self._list(bucket, arrived.parameters)
                case "DELETE":
                    return self._delete(arrived.headers, bucket, key, arrived.parameters.get("versionId"))
                case _:
                    return self._get(operation, bucket, key)
        except Refusal as refusal:
            return self._respond(
                operation, refusal.status, error_document(refusal.code, refusal.message, **refusal.fields)
            )

    def _authorize(self, arrived: Arrived, access_key: str, operation: str, bucket: str) -> None:
        if access_key in self.expired:
            raise Refusal(400, "ExpiredToken", "The provided token has expired.")
        right = "DELETE_VERSION" if "versionId" in arrived.parameters else operation
        if right in self.denied:
            raise Refusal(403, "AccessDenied", "User is not authorized to perform this action")
        if bucket not in self.buckets:
            raise Refusal(404, "NoSuchBucket")
        if operation not in {"PUT", "HEAD", "GET", "LIST", "DELETE"}:
            raise Refusal(405, "MethodNotAllowed")

    def _put(self, headers: dict[str, str], bucket: str, key: str, body: bytes) -> httpx.Response:
        _check_put(headers, key, body)
        there = self._current(bucket, key)
        conditional = {"if-none-match", "if-match"} & set(headers)
        if conditional and self.conditions == "refused":
            raise Refusal(
                501, "NotImplemented", "A header you provided implies functionality not implemented"
            )
        if conditional and self.conditions == "atomic":
            if "if-none-match" in headers and there is not None:
                raise Refusal(412, "PreconditionFailed")
            if "if-match" in headers and there is None:
                raise Refusal(404, "NoSuchKey")
            if "if-match" in headers and there is not None and headers["if-match"] != f'"{there.etag}"':
                raise Refusal(412, "PreconditionFailed")
        stored = self._store(bucket, key, body, headers)
        self.puts_taken[bucket, key] += 1
        return self._respond("PUT", 200, headers=[("etag", f'"{stored.etag}"'), *_echoed(stored)])

    def _store(self, bucket: str, key: str, body: bytes, headers: dict[str, str]) -> Stored:
        etag = hashlib.md5(body).hexdigest()
        if headers.get("x-amz-server-side-encryption", "").startswith("aws:kms"):
            etag = f"{self._rng.getrandbits(128):032x}"
        stored = Stored(body, etag, headers, self._next_version())
        versions = self.buckets[bucket].setdefault(key, [])
        versions[:] = [*versions, stored] if self.versioned else [stored]
        return stored

    def _next_version(self) -> str | None:
        self._serial += self.versioned
        return f"v{self._serial}" if self.versioned else None

    def _current(self, bucket: str, key: str) -> Stored | None:
        versions = self.buckets[bucket].get(key)
        return versions[-1] if versions and not versions[-1].deleted else None

    def _get(self, operation: str, bucket: str, key: str) -> httpx.Response:
        stored = self._current(bucket, key)
        if stored is None:
            # AWS hides what is missing from those who may not list.
            raise Refusal(403, "AccessDenied") if "LIST" in self.denied else Refusal(404, "NoSuchKey")
        described = [
            ("etag", f'"{stored.etag}"'),
            ("content-length", str(len(stored.body))),
            *_echoed(stored),
            *((name, value) for name, value in stored.headers.items() if name.startswith("x-amz-meta-")),
        ]
        return self._respond(operation, 200, stored.body, described)

    def _delete(
        self, headers: dict[str, str], bucket: str, key: str, version_id: str | None
    ) -> httpx.Response:
        if "if-match" in headers and self.conditions != "ignored":
            if self.conditions == "refused":
                raise Refusal(501, "NotImplemented")
            there = self._current(bucket, key)
            if there is None:
                raise Refusal(404, "NoSuchKey")
            if headers["if-match"] != f'"{there.etag}"':
                raise Refusal(412, "PreconditionFailed")
        versions = self.buckets[bucket].get(key, [])
        if version_id is not None:
            versions = [stored for stored in versions if stored.version_id != version_id]
        elif self.versioned:
            versions = [
                *versions,
                replace(Stored(b"", "", {}), deleted=True, version_id=self._next_version()),
            ]
        else:
            versions = []
        self.buckets[bucket][key] = versions
        if not versions:
            del self.buckets[bucket][key]
        return self._respond("DELETE", 204)

    def _list(self, bucket: str, parameters: dict[str, str]) -> httpx.Response:
        token = parameters.get("continuation-token")
        if token is None:
            keys = [key for key in self.objects(bucket) if key.startswith(parameters["prefix"])]
            self._rng.shuffle(keys)
        else:
            if token not in self._listings:
                raise Refusal(400, "InvalidArgument", "The continuation token provided is incorrect")
            keys = self._listings[token][1]
        size = min(self.page_keys_max, int(parameters.get("max-keys", "1000")))
        page, rest = keys[:size], keys[size:]
        there = [(key, stored) for key in page if (stored := self._current(bucket, key)) is not None]
        entries = [(key, len(stored.body), stored.etag) for key, stored in there]
        next_token = None
        if rest:
            self._serial += 1
            next_token = f"token+/={self._serial}&"
            self._listings[next_token] = (bucket, rest)
        return self._respond("LIST", 200, page_document(entries, next_token))


def _check_put(headers: dict[str, str], key: str, body: bytes) -> None:
    if headers.get("content-length") != str(len(body)):
        raise Refusal(411, "MissingContentLength")
    if not key or len(key.encode()) > 1024:
        raise Refusal(400, "KeyTooLongError")
    metadata = [(n[len("x-amz-meta-") :], v) for n, v in headers.items() if n.startswith("x-amz-meta-")]
    if sum(len(name) + len(value) for name, value in metadata) > 2048:
        raise Refusal(400, "MetadataTooLarge")
    if "content-md5" in headers:
        try:
            claimed = base64.b64decode(headers["content-md5"], validate=True)
        except ValueError:
            raise Refusal(400, "InvalidDigest") from None
        if len(claimed) != 16:
            raise Refusal(400, "InvalidDigest")
        if claimed != hashlib.md5(body).digest():
            raise Refusal(400, "BadDigest")


def _echoed(stored: Stored) -> list[tuple[str, str]]:
    encryption = stored.headers.get("x-amz-server-side-encryption")
    echoed = [("x-amz-server-side-encryption", encryption)] if encryption else []
    return echoed + ([("x-amz-version-id", stored.version_id)] if stored.version_id else [])
