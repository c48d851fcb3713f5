"""Bodies of the fake S3's answers, and how they arrive: whole, in pieces, or not to the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import trio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.s3_faults import Fault


class Body(httpx.AsyncByteStream):
    """A body in two parts, or dripping in more; a truncated one breaks off after the first half."""

    def __init__(self, body: bytes) -> None:
        self.whole = body
        self.truncated = False
        self.drip = 0.0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        size = max(1, len(self.whole) // (8 if self.drip else 2))
        half = len(self.whole) // 2
        yield self.whole[:0]
        for first in range(0, len(self.whole), size):
            await trio.sleep(self.drip)
            if self.truncated and first >= half:
                break
            yield self.whole[first : first + size]
        if self.truncated:
            raise (
                httpx.ReadTimeout("scripted: silent")
                if self.drip
                else httpx.RemoteProtocolError("scripted: truncated")
            )


def arriving(response: httpx.Response, fault: Fault) -> httpx.Response:
    """Return `response`, whose body arrives as `fault` says."""
    assert isinstance(response.stream, Body)
    response.stream.truncated, response.stream.drip = fault.truncated, fault.drip
    return response
