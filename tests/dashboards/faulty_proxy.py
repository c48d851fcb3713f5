"""A proxy before an S3 server that lets some PUTs fail once, loses one, and refuses all where told so."""

from __future__ import annotations

import hashlib
import socket
import threading
from typing import BinaryIO

from tests.faults.counting_proxy import CountingProxy

ERROR = '<?xml version="1.0"?><Error><Code>{code}</Code><Message>by the test</Message></Error>'
STATUS = {"InternalError": 500, "SlowDown": 503, "AccessDenied": 403}


class FaultyProxy(CountingProxy):
    """PUTs of keys that end in 5 meet an internal error first, in 7 a request to slow down.

    Attributes:
        refusing: every PUT is answered with 403.
        lost: the PUT of the key that ends so is answered as if it had been stored, and isn't.
    """

    def __init__(self, upstream_port: int, *, lost: str) -> None:
        super().__init__(upstream_port)
        self.refusing = False
        self._lost = lost
        self._seen: set[bytes] = set()
        self._seeing = threading.Lock()

    def _exchange(
        self, head: bytes, body: bytes, client: socket.socket, server: socket.socket, answers: BinaryIO
    ) -> bool:
        method, target, _ = head.split(b" ", 2)
        if method == b"PUT":
            with self._seeing:
                first = target not in self._seen
                self._seen.add(target)
            code = {b"5": "InternalError", b"7": "SlowDown"}.get(target[-1:]) if first else None
            if self.refusing:
                code = "AccessDenied"
            if code is not None:
                client.sendall(_answer(STATUS[code], ERROR.format(code=code)))
                return True
            if target.decode().endswith(self._lost):
                etag = hashlib.md5(body, usedforsecurity=False).hexdigest()
                client.sendall(_answer(200, "", f'ETag: "{etag}"'))
                return True
        return super()._exchange(head, body, client, server, answers)


def _answer(status: int, document: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} by-the-test", f"Content-Length: {len(document)}", *headers, "", document]
    return "\r\n".join(lines).encode()
