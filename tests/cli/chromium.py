"""A real Chromium without a window, driven through the DevTools protocol over a pipe: no port, no library."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAM = shutil.which("chromium")
ANSWER_SECONDS = 30.0
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--hide-scrollbars", "--remote-debugging-pipe",
)  # fmt: skip
_PIPE_FD = 20
"""Above the descriptors 3 and 4, which Chromium reads commands from and writes answers to."""


class Page:
    """One page.

    Attributes:
        requests: every URL that was asked for, in order.
        complaints: what was written to the console or broke a policy.
    """

    def __init__(self, commands: int, answers: int) -> None:
        self.requests: list[str] = []
        self.complaints: list[str] = []
        self._commands, self._answers = commands, answers
        self._number = 0
        self._session: str | None = None
        self._unread = b""
        self._seen: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._call(f"{domain}.enable")

    def show(self, url: str, *, width: int, height: int, theme: str) -> None:
        """Load `url` in a window of this size and theme ("light", "dark"); return once it is drawn."""
        feature = {"name": "prefers-color-scheme", "value": theme}
        self._call("Emulation.setEmulatedMedia", features=[feature])
        self._call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self._seen.clear()
        self._call("Page.navigate", url=url)
        while "Page.loadEventFired" not in self._seen:
            self._take()

    def without_scripts(self) -> None:
        """From here on load pages as for somebody who has turned scripts off."""
        self._call("Emulation.setScriptExecutionDisabled", value=True)

    def run(self, expression: str) -> Any:
        """Return the value of a JavaScript expression; a promise is waited for."""
        answer = self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while not self.run(f"new Promise((look) => setTimeout(() => look({condition}), 50))"):
            assert time.monotonic() < deadline, self.run("document.body.innerText")

    def picture(self, path: Path) -> None:
        """Draw all of the page into a PNG."""
        shot = self._call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _call(self, method: str, **parameters: object) -> dict[str, Any]:
        self._number += 1
        command: dict[str, object] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            command["sessionId"] = self._session
        os.write(self._commands, json.dumps(command).encode() + b"\0")
        while True:
            message = self._take()
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])

    def _take(self) -> dict[str, Any]:
        deadline = time.monotonic() + ANSWER_SECONDS
        while b"\0" not in self._unread:
            readable, _, _ = select.select([self._answers], [], [], max(0.0, deadline - time.monotonic()))
            chunk = os.read(self._answers, 1 << 16) if readable else b""
            assert chunk, "Chromium does not answer"
            self._unread += chunk
        text, _, self._unread = self._unread.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, data: dict[str, Any]) -> None:
        self._seen.append(method)
        if method == "Network.requestWillBeSent":
            self.requests.append(data["request"]["url"])
        elif method == "Log.entryAdded":
            self.complaints.append(data["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(str(data["args"]))
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(data["exceptionDetails"]))


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """Yield a page of a browser of its own, which ends with the block."""
    assert PROGRAM is not None
    command_pipe, answer_pipe = os.pipe(), os.pipe()
    theirs = [fcntl.fcntl(one, fcntl.F_DUPFD, _PIPE_FD) for one in (command_pipe[0], answer_pipe[1])]
    start = f'exec "$@" 3<&{theirs[0]} 4>&{theirs[1]}'
    words = ["bash", "-c", start, "bash", PROGRAM, *_FLAGS, f"--user-data-dir={profile}"]
    with subprocess.Popen(
        words, pass_fds=theirs, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as browser:
        for descriptor in (*theirs, command_pipe[0], answer_pipe[1]):
            os.close(descriptor)
        try:
            yield Page(command_pipe[1], answer_pipe[0])
        finally:
            # Closing the pipe is how Chromium is told to end, its children with it.
            os.close(command_pipe[1])
            try:
                browser.wait(timeout=ANSWER_SECONDS)
            finally:
                browser.kill()
                os.close(answer_pipe[0])
