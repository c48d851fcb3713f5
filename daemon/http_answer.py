"""Turn the bytes of one HTTP/1.1 connection into answers; no I/O.

httptools (llhttp) parses strictly: bare line feeds, two lengths, or a length beside chunked coding are refused.
"""

from __future__ import annotations

import httptools
import httpx

QUIET_BYTES_MAX = 64 * 1024
"""Bytes accepted without one byte of body among them: head, trailers, interim (1xx) answers.

S3 answers with heads under 10 KiB (metadata is capped at 2 KB); servers commonly cap heads at 8 to 64 KiB.
"""

_HEAD_END = b"\r\n\r\n"


class AnswerParser:
    """Parses the answers of one connection, one after the other; `expect` begins each.

    Attributes:
        status: of the final answer, once `head_complete`.
        reason: as the status line has it.
        headers: of the final answer, in order; trailers are dropped.
        body: parts that have arrived and were not taken yet.
        begun: at least one byte of this answer has arrived.
        head_complete: the final answer's head has arrived; interim answers don't count.
        body_bytes: how much of the body has arrived, taken or not.
        complete: the whole answer has arrived.
        keep_alive: the connection may carry another request; meaningful once `complete`.
    """

    def __init__(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self.expect(to_head=False)

    def expect(self, *, to_head: bool) -> None:
        """Begin the next answer; `to_head`: it answers a HEAD request, so that no body follows its head."""
        self.status = 0
        self.reason = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.body: list[bytes] = []
        self.begun = False
        self.head_complete = False
        self.complete = False
        self.keep_alive = False
        self.body_bytes = 0
        self._quiet_bytes = 0
        self._problem = ""
        self._head = bytearray() if to_head else None

    def feed(self, data: bytes) -> None:
        """Take the next bytes of the connection.

        Raises:
            httpx.RemoteProtocolError: they are no HTTP/1.1 answer, or its head has no end within bounds.
        """
        self.begun = True
        self._quiet_bytes += len(data)
        try:
            if self._head is None:
                self._parser.feed_data(data)
            else:
                self._feed_head_only(self._head, data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            if not self.complete:  # else: bytes after the end of an answer that announced `Connection: close`
                raise httpx.RemoteProtocolError(f"the answer is not HTTP/1.1: {error}") from error
        if self._problem:
            raise httpx.RemoteProtocolError(self._problem)
        if self._quiet_bytes > QUIET_BYTES_MAX and not self.complete:
            raise httpx.RemoteProtocolError(
                f"the answer's head or trailers: expected at most {QUIET_BYTES_MAX} bytes, found more"
            )

    def end(self) -> None:
        """Take the end of the connection: it completes an answer of no announced length and truncates any other.

        Raises:
            httpx.RemoteProtocolError: the answer is truncated.
        """
        if not self.head_complete:
            raise httpx.RemoteProtocolError("the connection ended within the answer's head")
        if self.complete:
            return
        for name, value in self.headers:
            lower = name.lower()
            if lower == b"content-length":
                raise httpx.RemoteProtocolError(
                    f"the answer is truncated: expected {value.decode('latin-1')} bytes, found {self.body_bytes}"
                )
            if lower == b"transfer-encoding" and value.lower().endswith(b"chunked"):
                raise httpx.RemoteProtocolError(
                    f"the answer is truncated: no last chunk after {self.body_bytes} bytes"
                )
        self.complete = True

    def cut(self) -> None:
        """Take the answer for complete as it is; the connection is spent."""
        self.complete = True
        self.keep_alive = False

    def take_body(self) -> bytes:
        """Return what has arrived of the body since the last call."""
        parts, self.body = self.body, []
        return b"".join(parts)

    def _feed_head_only(self, head: bytearray, data: bytes) -> None:
        """Feed the parser up to the end of the head: it can't be told that the body of a HEAD is absent."""
        searched = max(0, len(head) - len(_HEAD_END) + 1)
        head += data
        while (end := head.find(_HEAD_END, searched)) >= 0:
            end += len(_HEAD_END)
            self._parser.feed_data(bytes(head[:end]))
            del head[:end]
            searched = 0
            if self.head_complete:
                self.complete = True
                self.keep_alive = not head and self._stays_open()
                self._parser = httptools.HttpResponseParser(self)  # the old one waits for a body
                return

    def _stays_open(self) -> bool:
        """Say whether a HEAD's answer leaves the connection open (without a length llhttp would say no)."""
        closing = any(
            name.lower() == b"connection" and b"close" in value.lower() for name, value in self.headers
        )
        return self._parser.get_http_version() == "1.1" and not closing and self.status != 503

    # Callbacks of httptools. After `complete` they report surplus bytes, which condemn the connection only.

    def on_message_begin(self) -> None:
        """A new answer begins; nobody asked for one if the current is complete."""
        if self.complete:
            self.keep_alive = False

    def on_status(self, reason: bytes) -> None:
        """The status line ended, or a part of it did: a reason split between reads comes in pieces."""
        if not self.head_complete:
            self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header ended, or one trailer."""
        if not self.head_complete:
            self.headers.append((name, value))

    def on_headers_complete(self) -> None:
        """The head of an answer, interim or final, ended."""
        if self.complete:
            return
        self.status = self._parser.get_status_code()
        if self.status < 100 or self._parser.get_http_version() not in {"1.1", "1.0"}:
            self._problem = f"the answer's status line is not HTTP/1.1 (status {self.status})"
        self.head_complete = self.status >= 200

    def on_body(self, part: bytes) -> None:
        """A part of the body arrived."""
        if not self.complete:
            self._quiet_bytes = 0
            self.body_bytes += len(part)
            self.body.append(part)

    def on_message_complete(self) -> None:
        """An answer ended; an interim one is forgotten."""
        if self.complete:
            return
        if self.status < 200:
            self.headers.clear()
            self.reason = b""
            return
        self.complete = True
        # llhttp knows only here: it forgets the answer right after. AWS advises a new connection after a 503.
        self.keep_alive = self._parser.should_keep_alive() and self.status != 503
