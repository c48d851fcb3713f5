"""Speak S3: the few operations a migration needs, over any httpx transport, every error a classified `Failure`.

Nothing is retried here and no redirect is followed: what follows from a failure is decided by the caller, and
credentials go to the configured endpoint only. The PUT path builds its request from parts prepared once, since
httpx's own conveniences would cost several times the signature.
"""

from __future__ import annotations

import base64
from hashlib import md5 as new_md5
from hashlib import sha256
from typing import TYPE_CHECKING

import httpx

from daemon.addressing import Address, locate
from daemon.answers import PAGE_BODY_BYTES_MAX, GarbledAnswerError, read_page, unquoted
from daemon.classifying import Answer, Subject, classify, garbled, unanswered
from daemon.exchanging import Exchange
from daemon.http_request import PreparedRequest
from daemon.instruments import Instruments
from daemon.object_answers import LargerError, changed, facts_of, metadata_bytes
from daemon.objects import Condition, ListedObject, ObjectDigests, ObjectFacts, PreconditionFailed, PutReceipt
from daemon.probing import ProbeFinding, probe
from daemon.retrying import Failure, FailureClass
from daemon.signing import EMPTY_SHA256, Header, Signer, canonical_query, encode_key

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from daemon.config import S3Config
    from daemon.credentials import CredentialProvider
    from daemon.signing import Credentials

METADATA_BYTES_MAX = 2048
"""S3 API, PutObject: names and values of user metadata, in UTF-8, all together."""
LIST_KEYS_MAX = 1000
"""S3 API, ListObjectsV2: the most a page holds."""


class Bucket:
    """The buckets of one endpoint; every method names the one it means.

    All methods raise `Failure` for whatever is no success, and nothing else of the transport's; they may overlap.

    Attributes:
        credentials: whose requests these are.
        clock_offset_us: what was learnt of the server's clock against ours; requests are signed accordingly.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        signer: Signer,
        s3: S3Config,
        *,
        credentials: CredentialProvider,
        clock_us: Callable[[], int],
        instruments: Instruments | None = None,
    ) -> None:
        """Prepare; nothing is sent.

        Args:
            transport: sends requests as given, honouring the `target` extension; follows nothing.
            signer: for the region of `s3`.
            s3: the endpoint, and what goes with every object.
            credentials: whose requests these are.
            clock_us: wall clock, microseconds since 1970-01-01 UTC.
            instruments: time every request until the head of its answer; by default some that nobody reads.
        """
        self._transport = transport
        self._signer = signer
        self._s3 = s3
        self.credentials = credentials
        self._clock_us = clock_us
        self._instruments = instruments or Instruments()
        self._addresses: dict[str, Address] = {}
        self._every_request = _headers({"x-amz-expected-bucket-owner": s3.expected_bucket_owner})
        self._every_put = self._every_request + _headers(
            {
                "x-amz-server-side-encryption": s3.sse,
                "x-amz-server-side-encryption-aws-kms-key-id": s3.kms_key_id,
                "x-amz-storage-class": s3.storage_class,
                "x-amz-tagging": canonical_query(s3.tags) or None,
            }
        )
        self._refused: Credentials | None = None
        self.clock_offset_us = 0

    @property
    def credentials_expire_us(self) -> int | None:
        """When the credentials in use expire; None if they don't, or none were needed yet."""
        return self.credentials.expire_us

    async def put(
        self,
        bucket: str,
        key: str,
        body: bytes,
        *,
        md5: bytes,
        headers: Mapping[str, str],
        condition: Condition,
        sha256_hex: str | None = None,
    ) -> PutReceipt:
        """Store `body` under `key` if `condition` holds; storing the same twice is harmless.

        Args:
            bucket: its name.
            key: the object key, not encoded.
            body: the bytes.
            md5: the digest of `body`, 16 bytes; S3 refuses a body that arrives different.
            headers: content-type and x-amz-meta-*, lower case, values in ASCII.
            condition: on what the PUT depends.
            sha256_hex: of `body`; None: computed here, in the event loop.

        Raises:
            PreconditionFailed: the condition did not hold.
            Failure: anything else but success; METADATA_TOO_LARGE without asking S3.
        """
        subject = Subject("PUT", bucket, key)
        metadata_size = metadata_bytes(headers)
        if metadata_size > METADATA_BYTES_MAX:
            raise Failure(
                FailureClass.METADATA_TOO_LARGE,
                "PUT",
                f"{subject}: expected at most {METADATA_BYTES_MAX} bytes of metadata, found {metadata_size}",
                keys=subject.keys,
            )
        fields = [
            (b"content-length", b"%d" % len(body)),
            (b"content-md5", base64.b64encode(md5)),
            *[(name.encode("ascii"), value.encode("ascii")) for name, value in headers.items()],
            *self._every_put,
        ]
        if condition.if_none_match:
            fields.append((b"if-none-match", b"*"))
        if condition.if_match is not None:
            fields.append((b"if-match", f'"{condition.if_match}"'.encode()))
        exchange = await self._send(
            subject, fields, body=body, payload_sha256=sha256_hex or sha256(body).hexdigest()
        )
        answer = await exchange.read()
        if answer.status == 412:
            raise PreconditionFailed(answer.request_id)
        if answer.status != 200:
            failure = self._failed(exchange, answer)
            if failure.code == "NoSuchKey" and condition.if_match is not None:
                raise PreconditionFailed(answer.request_id)
            raise failure
        etag = unquoted(answer.headers.get("etag", ""))
        if not etag or answer.body:
            found = "no ETag" if not etag else f"a body of {len(answer.body)} bytes"
            raise garbled(subject, f"expected an ETag and no body, found {found}", answer)
        return PutReceipt(
            etag=etag,
            version_id=answer.headers.get("x-amz-version-id"),
            encryption=answer.headers.get("x-amz-server-side-encryption"),
            request_id=answer.request_id,
        )

    async def head(self, bucket: str, key: str) -> ObjectFacts | None:
        """Return what is under `key`, None if nothing is.

        A bucket that does not exist also answers None: HEAD carries no code. The next PUT tells.
        """
        subject = Subject("HEAD", bucket, key)
        exchange = await self._send(subject, [])
        answer = await exchange.read()
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise self._failed(exchange, answer)
        return facts_of(subject, answer)

    async def get_digest(self, bucket: str, key: str, *, size_max: int) -> tuple[str, int]:
        """Return MD5 (hex) and size of what is under `key`, read as a stream of bounded memory.

        Raises:
            Failure: CONFLICT if nothing is there any more or it is larger than `size_max` bytes, which the
                caller learnt from HEAD: it changed meanwhile.
        """
        digest = new_md5(usedforsecurity=False)
        found = await self._read(Subject("GET", bucket, key), size_max, digest.update)
        if found is None:
            raise changed(Subject("GET", bucket, key), "nothing, though it was there a moment ago")
        return digest.hexdigest(), found.size

    async def get_digests(self, bucket: str, key: str, *, size_max: int) -> ObjectDigests | None:
        """Return size and digests of what is under `key`, read as a stream of bounded memory; None if nothing is.

        Of what is larger than `size_max` bytes no more is read: the size is one byte more then, and there is no
        digest.
        """
        md5, sha = new_md5(usedforsecurity=False), sha256()

        def take(chunk: bytes) -> None:
            md5.update(chunk)
            sha.update(chunk)

        try:
            found = await self._read(Subject("GET", bucket, key), size_max, take)
        except LargerError:
            return ObjectDigests(size_max + 1, "", "")
        return None if found is None else ObjectDigests(found.size, md5.hexdigest(), sha.hexdigest())

    async def get(self, bucket: str, key: str, *, size_max: int) -> tuple[ObjectFacts, bytes] | None:
        """Return what is under `key`, whole; None if nothing is.

        Raises:
            Failure: CONFLICT if it is larger than `size_max` bytes.
        """
        body = bytearray()
        found = await self._read(Subject("GET", bucket, key), size_max, body.extend)
        return None if found is None else (found, bytes(body))

    async def _read(
        self, subject: Subject, size_max: int, take: Callable[[bytes], object]
    ) -> ObjectFacts | None:
        exchange = await self._send(subject, [])
        if exchange.status != 200:
            failure = self._failed(exchange, await exchange.read())
            if failure.code == "NoSuchKey":
                return None
            raise failure
        size = 0
        async with exchange.chunks() as chunks:
            async for chunk in chunks:
                size += len(chunk)
                if size > size_max:
                    raise LargerError(subject, size_max)
                take(chunk)
        facts = facts_of(subject, exchange.answer())
        if facts.size != size:
            problem = f"expected {facts.size} bytes as announced, found {size}"
            raise garbled(subject, problem, exchange.answer())
        return facts

    async def list_page(
        self, bucket: str, prefix: str, *, token: str | None
    ) -> tuple[list[ListedObject], str | None]:
        """Return a page of the objects under `prefix`, and the token of the next page (None after the last).

        Order is the server's own and no guarantee: SeaweedFS does not list in byte order.
        """
        subject = Subject("LIST", bucket, prefix)
        parameters = {
            "list-type": "2",
            "encoding-type": "url",
            "max-keys": str(LIST_KEYS_MAX),
            "prefix": prefix,
        }
        if token is not None:
            parameters["continuation-token"] = token
        exchange = await self._send(subject, [], query=canonical_query(parameters))
        answer = await exchange.read(PAGE_BODY_BYTES_MAX)
        if answer.status != 200:
            raise self._failed(exchange, answer)
        try:
            page = read_page(answer.body, token=token)
        except GarbledAnswerError as exc:
            raise garbled(subject, str(exc), answer) from exc
        return page.objects, page.next_token

    async def delete(
        self, bucket: str, key: str, *, version_id: str | None = None, if_match: str | None = None
    ) -> None:
        """Delete what is under `key`, or one version of it for good; nothing there is a success too.

        Args:
            bucket: its name.
            key: the object key, not encoded.
            version_id: of the version.
            if_match: only if what is there has this ETag (without quotes).

        Raises:
            PreconditionFailed: it has another; from SeaweedFS also where nothing is there.
            Failure: anything else but success.
        """
        subject = Subject("DELETE", bucket, key)
        query = canonical_query({"versionId": version_id}) if version_id is not None else ""
        fields = [] if if_match is None else [(b"if-match", f'"{if_match}"'.encode())]
        exchange = await self._send(subject, fields, query=query)
        answer = await exchange.read()
        if answer.status == 412:
            raise PreconditionFailed(answer.request_id)
        if answer.status not in {200, 204}:
            failure = self._failed(exchange, answer)
            if failure.code not in {"NoSuchKey", "NoSuchVersion"}:
                raise failure

    async def ask(
        self,
        subject: Subject,
        fields: Sequence[Header] = (),
        *,
        query: Mapping[str, str] | None = None,
        body: bytes = b"",
        payload_sha256: str | None = None,
    ) -> Answer:
        """Send one request as it is given and return whatever is answered: for those who ask what a server does.

        Args:
            subject: LIST asks about the bucket itself.
            fields: further headers.
            query: parameters.
            body: of a PUT.
            payload_sha256: what to claim of the body; by default the truth.

        Raises:
            Failure: no answer, or one without an end.
        """
        given = [(b"content-length", b"%d" % len(body)), *fields, *self._every_put]
        exchange = await self._send(
            subject,
            given if subject.operation == "PUT" else list(fields),
            query=canonical_query(query or {}),
            body=body,
            payload_sha256=payload_sha256 or sha256(body).hexdigest(),
        )
        return await exchange.read(PAGE_BODY_BYTES_MAX)

    async def probe(self, bucket: str, prefix: str) -> ProbeFinding:
        """Find out what conditional PUTs are worth under `prefix`; see `daemon.probing.probe`."""
        return await probe(self, bucket, prefix)

    async def refresh_credentials(self) -> None:
        """Fetch credentials anew, unless others than those refused last have been found meanwhile."""
        await self.credentials.refresh(self._refused)

    async def _send(
        self,
        subject: Subject,
        fields: list[Header],
        *,
        query: str = "",
        body: bytes = b"",
        payload_sha256: str = EMPTY_SHA256,
    ) -> Exchange:
        address = self._address(subject.bucket)
        about_bucket = subject.operation == "LIST"
        method = "GET" if about_bucket else subject.operation
        path = address.bucket_path if about_bucket else address.object_root + encode_key(subject.key)
        credentials = await self.credentials.current()
        signed_us = self._clock_us() + self.clock_offset_us
        headers = self._signer.sign(
            method,
            host=address.host,
            raw_path=path,
            query=query,
            headers=fields if method == "PUT" else [*fields, *self._every_request],
            payload_sha256=payload_sha256,
            credentials=credentials,
            now_us=signed_us,
        )
        target = f"{path}?{query}" if query else path
        request = PreparedRequest(method, address.url, headers, body, target=target.encode("ascii"))
        try:
            with self._instruments.request(subject.operation):
                response = await self._transport.handle_async_request(request)
        except httpx.TransportError as exc:
            raise unanswered(exc, subject) from exc
        return Exchange(subject, response, signed_us, credentials)

    def _address(self, bucket: str) -> Address:
        address = self._addresses.get(bucket)
        if address is None:
            address = locate(bucket, endpoint_url=self._s3.endpoint_url, addressing=self._s3.addressing)
            self._addresses[bucket] = address
        return address

    def _failed(self, exchange: Exchange, answer: Answer) -> Failure:
        """Classify `answer`; learn from it which credentials are refused, or what the server's clock says."""
        failure = classify(answer, exchange.subject, signed_us=exchange.signed_us, secrets=exchange.secrets)
        if failure.kind is FailureClass.CLOCK_SKEW and answer.date_us is not None:
            self.clock_offset_us = answer.date_us - self._clock_us()
        if failure.kind in {FailureClass.EXPIRED_CREDENTIALS, FailureClass.FORBIDDEN}:
            self._refused = exchange.credentials
        return failure


def _headers(values: Mapping[str, str | None]) -> list[Header]:
    return [
        (name.encode("ascii"), value.encode("ascii")) for name, value in values.items() if value is not None
    ]
