"""The answer's half of one exchange with S3: read within bounds, closed on every path, errors classified."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import httpx

from daemon.answers import ERROR_BODY_BYTES_MAX
from daemon.classifying import Answer, Subject, garbled, unanswered
from daemon.signing import Credentials

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Exchange(NamedTuple):
    """A request that was sent and the head of its answer; the body is still to be read, or the answer closed.

    Attributes:
        subject: what was asked.
        response: as the transport returned it.
        signed_us: the time the request was signed for, microseconds since 1970-01-01 UTC.
        credentials: whose signature it carried.
    """

    subject: Subject
    response: httpx.Response
    signed_us: int
    credentials: Credentials

    def __repr__(self) -> str:
        return f"Exchange({self.subject}, {self.status})"

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no message may contain."""
        return (self.credentials.secret_key, self.credentials.token or "", self.credentials.access_key)

    @property
    def status(self) -> int:
        """The HTTP status."""
        return self.response.status_code

    def answer(self, body: bytes = b"") -> Answer:
        """Return the head together with `body`."""
        return Answer(self.response.status_code, _mapping(self.response.headers.raw), body)

    async def read(self, success_bytes_max: int = ERROR_BODY_BYTES_MAX) -> Answer:
        """Read the body to its end, so that the connection can serve again, and close.

        The body of an error is cut at ERROR_BODY_BYTES_MAX: the code is at its beginning, if anywhere.

        Raises:
            Failure: the connection broke, or a success went on for more than `success_bytes_max`.
        """
        whole = self.response.extensions.get("whole")
        if whole is not None and len(whole[1]) <= min(success_bytes_max, ERROR_BODY_BYTES_MAX):
            # Most answers by far: nothing is left to read or to give back.
            return Answer(self.response.status_code, _mapping(whole[0]), whole[1])
        success = 200 <= self.status < 300
        bytes_max = success_bytes_max if success else ERROR_BODY_BYTES_MAX
        body = bytearray()
        async with self.chunks() as chunks:
            async for chunk in chunks:
                body += chunk
                if len(body) > bytes_max:
                    break
        if success and len(body) > bytes_max:
            raise garbled(self.subject, f"expected at most {bytes_max} bytes, found more", self.answer())
        return self.answer(bytes(body[:bytes_max]))

    @asynccontextmanager
    async def chunks(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """Iterate over the body as it arrives; the answer is closed at the end of the block.

        Raises:
            Failure: the connection broke; the answer's head had arrived, so it counts as answered.
        """
        stream = self.response.stream
        if not isinstance(stream, httpx.AsyncByteStream):
            raise TypeError(
                f"expected a transport that answers with an async stream, found {type(stream).__name__}"
            )
        iterator = aiter(stream)
        try:
            yield iterator
        except httpx.TransportError as exc:
            raise unanswered(exc, self.subject, head_arrived=True) from exc
        finally:
            if isinstance(iterator, AsyncGenerator):  # left unfinished, it would be finalized whenever
                await iterator.aclose()
            await self.response.aclose()


def _mapping(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by name in lower case; the values of a repeated one are joined (RFC 9110, section 5.3)."""
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found
