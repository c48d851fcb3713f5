"""Find out what an S3 endpoint really does, by asking it: a few small objects, all deleted again.

Their names begin with the probe's, which no row may have and verification passes over. What is there under one of
them and is not ours is neither overwritten nor deleted. A right that is missing is a finding, not a failure.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import md5, sha256
from typing import Protocol

from daemon.answers import GarbledAnswerError, read_error, read_page, unquoted
from daemon.bucket_documents import LifecycleRule, read_lifecycle, read_object_lock, read_versioning
from daemon.classifying import Answer, Subject
from daemon.objects import PROBE_KEY_NAME
from daemon.probing import BODY
from daemon.signing import Header

OTHER = b"backfillctl asks whether what it sends is looked at; safe to delete\n"
"""A body that is not the one announced."""
FIRST, SECOND = f"{PROBE_KEY_NAME}-b-", f"{PROBE_KEY_NAME}-b/x"
"""In byte order; a server that lists the order of its tree has them the other way round."""
_WRONG_ETAG = "0" * 32


class Surveyed(Protocol):
    """A bucket, as a survey needs it."""

    async def ask(
        self,
        subject: Subject,
        fields: Sequence[Header] = ...,
        *,
        query: Mapping[str, str] | None = ...,
        body: bytes = ...,
        payload_sha256: str | None = ...,
    ) -> Answer:
        """Send one request as it is given; return whatever is answered."""


@dataclass(slots=True)
class Survey:
    """What was found out about one place.

    Attributes:
        found: a word for each question, such as {"content_md5": "verified"}; see `survey_findings.QUESTIONS`.
        rules: lifecycle rules that can be about the prefix.
        left: object keys that could not be deleted again.
    """

    bucket: str
    prefix: str
    found: dict[str, str] = field(default_factory=dict)
    rules: list[LifecycleRule] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def as_data(self) -> dict[str, object]:
        """Return it as the journal has it."""
        return {
            "bucket": self.bucket,
            "prefix": self.prefix,
            "found": dict(self.found),
            "lifecycle": [
                [rule.identifier, rule.prefix, rule.narrowed, rule.action, rule.after] for rule in self.rules
            ],
        }


async def survey(target: Surveyed, bucket: str, prefix: str, *, now_us: Callable[[], int]) -> Survey:
    """Find out what the endpoint does with objects under `prefix` of `bucket`.

    Raises:
        Failure: it does not answer.
    """
    made = _Surveyor(target, Survey(bucket, prefix), now_us)
    await made.configuration()
    if made.survey.found.get("object_lock") != "default retention" and await made.nothing_foreign():
        try:
            await made.writing()
            await made.listing()
        finally:
            await made.clean_up()
    return made.survey


class _Surveyor:
    """One survey in progress."""

    def __init__(self, target: Surveyed, result: Survey, now_us: Callable[[], int]) -> None:
        self.survey = result
        self._target = target
        self._now_us = now_us
        self._written: list[tuple[str, str | None]] = []

    async def configuration(self) -> None:
        """Ask what the bucket itself is set to."""
        found = self.survey.found
        found["versioning"] = await self._document("versioning", read_versioning)
        found["object_lock"] = await self._document("object-lock", read_object_lock)

        def lifecycle(body: bytes) -> str:
            self.survey.rules = [rule for rule in read_lifecycle(body) if rule.touches(self.survey.prefix)]
            return "touches the prefix" if self.survey.rules else "none"

        found["lifecycle"] = await self._document("lifecycle", lifecycle)

    async def _document(self, name: str, read: Callable[[bytes], str]) -> str:
        answer = await self._target.ask(Subject("LIST", self.survey.bucket), query={name: ""})
        if answer.status == 200:
            try:
                return read(answer.body)
            except GarbledAnswerError:
                return "unknown"
        if answer.status == 403:
            return "denied"
        return "none" if answer.status == 404 else "unknown"

    async def nothing_foreign(self) -> bool:
        """Look whether what is under the names, if anything, is ours; and what HEAD says of what is missing."""
        missing = await self._ask("HEAD", f"{PROBE_KEY_NAME}-nothing")
        self.survey.found["head_of_missing"] = str(missing.status)
        for name in (FIRST, SECOND):
            there = await self._ask("HEAD", name)
            if there.status == 200 and unquoted(there.headers.get("etag", "")) != _md5(BODY).hex():
                self.survey.found["put"] = "occupied"
                self.survey.left.append(self.survey.prefix + name)
                return False
        return True

    async def writing(self) -> None:
        """Ask what is done with what is written."""
        found = self.survey.found
        before = self._now_us()
        plain = await self._put(FIRST)
        found["put"] = "accepted" if plain.status == 200 else f"{plain.status} {_code(plain)}".strip()
        if plain.date_us is not None:
            # The header counts whole seconds.
            found["clock_offset_seconds"] = str(round((plain.date_us - before) / 1_000_000))
        if plain.status != 200:
            return
        etag = unquoted(plain.headers.get("etag", ""))
        found["etag"] = "md5" if etag == _md5(BODY).hex() else "other"
        found["encryption"] = plain.headers.get("x-amz-server-side-encryption", "none")
        found["if_none_match"] = _honoured(await self._put(FIRST, [(b"if-none-match", b"*")]))
        wrong_etag = f'"{_WRONG_ETAG}"'.encode()
        found["if_match"] = _honoured(await self._put(FIRST, [(b"if-match", wrong_etag)]))
        wrong = base64.b64encode(_md5(OTHER))
        found["content_md5"] = _verified(await self._put(FIRST, content_md5=wrong))
        claimed = sha256(OTHER).hexdigest()
        found["payload_hash"] = _verified(await self._put(FIRST, payload_sha256=claimed))
        await self._checksums()

    async def _checksums(self) -> None:
        found = self.survey.found
        right = base64.b64encode(sha256(BODY).digest())
        taken = await self._put(FIRST, [(b"x-amz-checksum-sha256", right)])
        if taken.status != 200:
            found["checksum_sha256"] = "refused"
            return
        wrong = base64.b64encode(sha256(OTHER).digest())
        found["checksum_sha256"] = _verified(await self._put(FIRST, [(b"x-amz-checksum-sha256", wrong)]))
        shown = await self._ask("HEAD", FIRST, [(b"x-amz-checksum-mode", b"ENABLED")])
        returned = shown.headers.get("x-amz-checksum-sha256", "").encode() == right
        found["checksum_returned"] = "yes" if returned else "no"

    async def listing(self) -> None:
        """Ask in what order, and under what names, objects are listed."""
        found = self.survey.found
        if found.get("put") != "accepted":
            return
        await self._put(FIRST)
        await self._put(SECOND)
        prefix = self.survey.prefix + PROBE_KEY_NAME
        keys, encoded = await self._listed({"prefix": prefix, "encoding-type": "url"})
        if keys is None:
            return
        wanted = [self.survey.prefix + name for name in (FIRST, SECOND)]
        ours = [key for key in keys if key in wanted]
        found["url_encoding"] = "honoured" if encoded else "ignored"
        found["listing_order"] = (
            "bytes" if ours == wanted else "other" if sorted(ours) == wanted else "incomplete"
        )
        after, _ = await self._listed({"prefix": prefix, "encoding-type": "url", "start-after": wanted[0]})
        if after is not None:
            found["start_after"] = (
                "honoured" if [key for key in after if key in wanted] == wanted[1:] else "ignored"
            )

    async def _listed(self, parameters: Mapping[str, str]) -> tuple[list[str] | None, bool]:
        answer = await self._target.ask(
            Subject("LIST", self.survey.bucket, self.survey.prefix),
            query={"list-type": "2", "max-keys": "100", **parameters},
        )
        found = self.survey.found
        if answer.status != 200:
            found["list"] = "denied" if answer.status == 403 else str(answer.status)
            return None, False
        try:
            page = read_page(answer.body, token=None)
        except GarbledAnswerError:
            found["list"] = "garbled"
            return None, False
        found["list"] = "allowed"
        return [item.key for item in page.objects], b"<EncodingType>url</EncodingType>" in answer.body

    async def clean_up(self) -> None:
        """Delete everything that was written, for good where versions are kept; ask of conditions meanwhile."""
        found = self.survey.found
        if found.get("put") == "accepted":
            wrong = await self._ask("DELETE", FIRST, [(b"if-match", f'"{_WRONG_ETAG}"'.encode())])
            found["delete_if_match"] = {412: "honoured", 200: "ignored", 204: "ignored"}.get(
                wrong.status, "refused"
            )
        for name, version_id in dict.fromkeys(self._written):
            query = {} if version_id in {None, "null"} else {"versionId": str(version_id)}
            answer = await self._ask("DELETE", name, query=query)
            found["delete"] = "allowed" if answer.status in {200, 204, 404} else "denied"
            if found["delete"] == "denied":
                self.survey.left.append(self.survey.prefix + name)
        self.survey.left = list(dict.fromkeys(self.survey.left))

    async def _put(
        self,
        name: str,
        fields: Sequence[Header] = (),
        *,
        content_md5: bytes | None = None,
        payload_sha256: str | None = None,
    ) -> Answer:
        digest = base64.b64encode(_md5(BODY)) if content_md5 is None else content_md5
        answer = await self._target.ask(
            Subject("PUT", self.survey.bucket, self.survey.prefix + name),
            [(b"content-type", b"text/plain"), (b"content-md5", digest), *fields],
            body=BODY,
            payload_sha256=payload_sha256,
        )
        if answer.status == 200:
            self._written.append((name, answer.headers.get("x-amz-version-id")))
        return answer

    def _ask(
        self,
        operation: str,
        name: str,
        fields: Sequence[Header] = (),
        *,
        query: Mapping[str, str] | None = None,
    ) -> Awaitable[Answer]:
        subject = Subject(operation, self.survey.bucket, self.survey.prefix + name)
        return self._target.ask(subject, fields, query=query)


def _md5(body: bytes) -> bytes:
    return md5(body, usedforsecurity=False).digest()


def _honoured(answer: Answer) -> str:
    """Read the answer to a PUT whose condition does not hold."""
    return {412: "honoured", 200: "ignored"}.get(answer.status, "refused")


def _verified(answer: Answer) -> str:
    """Read the answer to a PUT whose body is not what it announces."""
    return "ignored" if answer.status == 200 else "verified"


def _code(answer: Answer) -> str:
    try:
        return read_error(answer.body).code or ""
    except GarbledAnswerError:
        return ""
