from __future__ import annotations

import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest
import trio

from daemon.checking_s3 import check_s3
from daemon.config import load
from daemon.errors import ExitCode
from daemon.findings import Finding, Level, finding_lines
from daemon.runtime import wall_clock_us
from journal.log import Journal
from tests.cli.migrations import Migration
from tests.s3_servers import ACCESS_KEY, BUCKET, SECRET_KEY, RunningServers, S3Server, fresh_prefix

from .conftest import SMALLEST, WriteConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@pytest.fixture(scope="module")
def servers() -> Iterator[RunningServers]:
    running = RunningServers()
    yield running
    running.close()


@pytest.fixture
def weed(servers: RunningServers) -> S3Server:
    return servers.get("weed")


@pytest.fixture
def check(
    clean_env: None, write_config: WriteConfig, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[Finding]]:
    def run(
        endpoint: str,
        *,
        bucket: str = BUCKET,
        prefix: str = "",
        region: str = "us-east-1",
        secret_key: str = SECRET_KEY,
        env: Mapping[str, str] | None = None,
        now_us: Callable[[], int] = wall_clock_us,
    ) -> list[Finding]:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret_key)
        text = SMALLEST.replace("http://127.0.0.1:9", endpoint).replace(
            'bucket = "blobs"', f'bucket = "{bucket}"'
        )
        text = text.replace("[s3]", f'[s3]\nregion = "{region}"')
        config = load(write_config(f'{text}prefix = "{prefix}"\n'), {}, {}, now_us=wall_clock_us())
        found: list[Finding] = []

        async def main() -> None:
            await check_s3(config, env or {}, found.append, clock_us=now_us)

        trio.run(main)
        assert SECRET_KEY not in f"{found}"
        return found

    return run


def test_a_good_bucket_is_green_and_the_probe_leaves_nothing(
    check: Callable[..., list[Finding]], weed: S3Server
) -> None:
    prefix = fresh_prefix()
    found = check(weed.endpoint, prefix=prefix)
    assert [finding.level for finding in found] == [Level.OK, Level.OK]
    assert "If-None-Match is honoured" in found[1].text
    again = check(weed.endpoint, prefix=prefix)
    assert [finding.level for finding in again] == [Level.OK, Level.OK]


def test_an_endpoint_that_ignores_conditions_is_yellow(
    check: Callable[..., list[Finding]], servers: RunningServers
) -> None:
    found = check(servers.get("rclone").endpoint, prefix=fresh_prefix())
    assert [finding.level for finding in found] == [Level.OK, Level.WARNING]
    assert "not atomic here" in found[1].text


def test_a_missing_bucket_is_refused_and_not_made(
    check: Callable[..., list[Finding]], weed: S3Server
) -> None:
    for _ in range(2):
        found = check(weed.endpoint, bucket="nowhere")
        assert [finding.exit_code for finding in found] == [ExitCode.REFUSED]
        assert "nothing is created for you" in found[0].hint


def test_a_wrong_secret_is_refused(check: Callable[..., list[Finding]], weed: S3Server) -> None:
    found = check(weed.endpoint, secret_key="not-the-secret")
    assert [finding.exit_code for finding in found] == [ExitCode.REFUSED]
    assert "access key" in found[0].hint


def test_a_clock_that_is_off_is_yellow_and_does_not_hide_the_rest(
    check: Callable[..., list[Finding]], weed: S3Server
) -> None:
    found = check(weed.endpoint, prefix=fresh_prefix(), now_us=lambda: wall_clock_us() + 3600 * 1_000_000)
    assert [finding.level for finding in found] == [Level.OK, Level.OK, Level.WARNING]
    assert found[2].text.startswith(("the endpoint's clock is -3600 s", "the endpoint's clock is -3601 s"))


def test_an_endpoint_that_nobody_serves_is_unreachable(check: Callable[..., list[Finding]]) -> None:
    found = check("http://127.0.0.1:9")
    assert [finding.exit_code for finding in found] == [ExitCode.UNREACHABLE]
    assert "s3.endpoint" in found[0].hint


def test_no_credentials_at_all_is_refused(
    check: Callable[..., list[Finding]], weed: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    found = check(weed.endpoint, secret_key="")
    assert [finding.exit_code for finding in found] == [ExitCode.REFUSED]
    assert "credentials" in found[0].text


def test_a_proxy_variable_that_would_be_ignored_stops_it(
    check: Callable[..., list[Finding]], weed: S3Server
) -> None:
    found = check(weed.endpoint, env={"HTTP_PROXY": "http://user:hunter2@proxy:3128"})
    assert [finding.exit_code for finding in found] == [ExitCode.USAGE]
    assert "HTTP_PROXY" in found[0].text
    assert "NO_PROXY" in found[0].hint
    assert "hunter2" not in f"{found}"


def test_a_bucket_of_another_region_is_a_config_error_that_names_the_key(
    check: Callable[..., list[Finding]],
) -> None:
    class Elsewhere(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = (
                b"<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region 'us-east-1' is wrong; "
                b"expecting 'eu-west-1'</Message><Region>eu-west-1</Region></Error>"
            )
            self.send_response(400)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Elsewhere) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            found = check(f"http://127.0.0.1:{server.server_port}")
        finally:
            server.shutdown()
            thread.join()
    assert [finding.exit_code for finding in found] == [ExitCode.USAGE]
    assert "eu-west-1" in found[0].text
    assert "s3.region" in found[0].hint


def test_a_finding_is_one_line_with_what_helps_below_it() -> None:
    finding = Finding(Level.FAILURE, "bucket b", "gone", "make it", ExitCode.REFUSED)
    assert finding_lines(finding, subject_width=10, colour=False) == (
        "FAIL  bucket b    gone\n                  hint: make it"
    )
    coloured = finding_lines(finding, subject_width=10, colour=True)
    assert coloured.startswith("\x1b[31mFAIL\x1b[0m  bucket b ")


def test_check_probe_tells_what_the_endpoint_does_and_records_it_once_there_is_a_journal(
    inside: Migration,
) -> None:
    before = inside.listing()
    first = inside("check --probe")
    assert first.returncode == 0, first.stdout
    assert "the ETag is the MD5: a listing proves the content" in first.stdout
    assert "there is none yet: what the endpoint does is not on record" in first.stdout
    assert inside.listing() == before
    assert inside("plan").returncode == 0
    assert "what the endpoint does is on record" in inside("check --probe").stdout
    [source] = json.loads(inside("status --json").stdout)["sources"]
    assert source["endpoint"]["found"]["if_none_match"] == "honoured"
    assert "etag md5" in inside("events --kind endpoint_probed").stdout


def test_check_probe_beside_a_daemon_says_that_nothing_was_recorded(inside: Migration) -> None:
    assert inside("plan").returncode == 0
    with Journal.open(inside.journal, now_us=1):
        assert "what the endpoint does is not on record" in inside("check --probe").stdout
