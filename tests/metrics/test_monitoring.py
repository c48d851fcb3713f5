from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from http import HTTPStatus

import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.config import Config, MetricsConfig, MigrationConfig, PostgresConfig, S3Config, UploadConfig
from daemon.controls import Controls
from daemon.drain import Drain
from daemon.ending import Ending
from daemon.errors import ConfigError, ExitCode, UnreachableError
from daemon.log_lines import Style
from daemon.logs import StderrLog
from daemon.monitoring import HEARTBEAT_SECONDS_MAX, Monitor, monitored
from daemon.rendering import status_json
from daemon.rendering_service import LINGERING
from daemon.runtime import Runtime
from daemon.serving import Call
from daemon.status_page import Phase
from daemon.tunables import Tunables
from journal.reader import Reader
from tests.metrics.journals import NOW_US, eventful
from tests.metrics.test_serving import said, statuses
from tests.pipeline.rig import source

LINGER = 60.0
TOLD: list[str] = []
"""What the service manager was told."""
PATHS = ("/", "/status.json", "/metrics", "/healthz", "/readyz")


@dataclass
class Bucket:
    credentials_expire_us: int | None = NOW_US


@dataclass
class Beat:
    age_seconds: float = 1.0


def config(tmp_path, **metrics) -> Config:
    return Config(
        migration=MigrationConfig(name="blobs", journal=tmp_path / "journal.db"),
        postgres=PostgresConfig(),
        s3=S3Config(endpoint="http://127.0.0.1:9", region="us-east-1", bucket="bucket"),
        upload=UploadConfig(),
        metrics=MetricsConfig(**{"linger": f"{LINGER:g}s", **metrics}),
        sources=(source(),),
    )


@pytest.fixture
def monitor(tmp_path) -> Monitor:
    return Monitor(
        config(tmp_path, port=0, allowed_hosts=["db1.example.net"]), Runtime(now_us=lambda: NOW_US)
    )


def working(monitor: Monitor) -> Monitor:
    monitor.watch(Controls(Tunables(16)), Bucket())
    return monitor


def ending(outcome: str = "every key is settled") -> Ending:
    return Ending(StderrLog(Style.TEXT), outcome)


async def ask(monitor: Monitor, path: str, host: str = "localhost", **fields: str):
    return await monitor.answer(Call(path, {"host": host, **fields}))


@pytest.mark.parametrize("path", PATHS)
async def test_a_foreign_host_reads_nothing(monitor, path):
    reply = await ask(monitor, path, "evil.example")
    assert reply.status is HTTPStatus.MISDIRECTED_REQUEST
    assert b"blobs" not in reply.body
    assert (await ask(monitor, path, "db1.example.net:9187")).status is not HTTPStatus.MISDIRECTED_REQUEST


@pytest.mark.parametrize("path", PATHS)
async def test_no_answer_may_be_kept_sniffed_or_read_by_another_origin(monitor, path):
    fields = (await ask(monitor, path)).fields
    assert fields["cache-control"] == "no-store"
    assert fields["x-content-type-options"] == "nosniff"
    assert not any(name.startswith("access-control") for name in fields)


async def test_what_is_not_there_says_what_is(monitor):
    reply = await ask(monitor, "/admin")
    assert reply.status is HTTPStatus.NOT_FOUND
    assert b"/metrics" in reply.body


async def test_metrics_are_served_before_there_is_a_journal(monitor):
    reply = await ask(monitor, "/metrics")
    assert reply.status is HTTPStatus.OK
    assert b"backfill_build_info{" in reply.body
    assert b'backfill_journal_disk_reserve_bytes{migration="blobs"}' in reply.body
    assert b"backfill_planned_rows{" not in reply.body
    assert b"backfill_concurrency_limit{" not in reply.body


async def test_metrics_tell_the_record_and_what_the_session_works_with(monitor, tmp_path):
    with eventful(tmp_path / "journal.db"):
        body = (await ask(working(monitor), "/metrics")).body.decode()
    assert 'backfill_planned_rows{migration="blobs",source="a"} 12.0' in body
    assert 'backfill_concurrency_limit{migration="blobs"} 16.0' in body
    assert 'backfill_credentials_expiry_timestamp_seconds{migration="blobs"} 1.76e+09' in body


async def test_a_closed_journal_is_read_and_keeps_no_side_files(monitor, tmp_path):
    eventful(tmp_path / "journal.db").close()
    reply = await ask(monitor, "/metrics")
    assert b'backfill_planned_rows{migration="blobs",source="a"} 12.0' in reply.body
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["journal.db"]


async def test_a_journal_that_can_not_be_read_is_a_failed_scrape(monitor, tmp_path):
    (tmp_path / "journal.db").write_bytes(b"no journal at all" * 400)
    for path in ("/metrics", "/status.json"):
        reply = await ask(monitor, path)
        assert reply.status is HTTPStatus.SERVICE_UNAVAILABLE
        assert b"journal.db" in reply.body


async def test_one_reading_serves_for_a_second(monitor, tmp_path, autojump_clock):
    journal = eventful(tmp_path / "journal.db")
    before = (await ask(monitor, "/status.json")).body
    journal.pause(who="alice", now_us=NOW_US)
    assert (await ask(monitor, "/status.json")).body == before
    await trio.sleep(1)
    assert json.loads((await ask(monitor, "/status.json")).body)["state"] == "paused"
    journal.close()


async def test_the_status_is_the_one_that_the_command_prints(monitor, tmp_path):
    assert (await ask(monitor, "/status.json")).status is HTTPStatus.SERVICE_UNAVAILABLE
    with eventful(tmp_path / "journal.db") as journal:
        await trio.testing.wait_all_tasks_blocked()
        fresh = Monitor(monitor._config, Runtime(now_us=lambda: NOW_US))
        reply = await ask(fresh, "/status.json")
        with Reader.open(journal.path) as reader:
            expected = status_json(reader.status(now_us=NOW_US), now_us=NOW_US)
    assert json.loads(reply.body) == json.loads(json.dumps(expected))


@pytest.mark.parametrize(
    ("beat", "status"),
    [
        (None, HTTPStatus.OK),
        (Beat(HEARTBEAT_SECONDS_MAX), HTTPStatus.OK),
        (Beat(HEARTBEAT_SECONDS_MAX + 0.1), HTTPStatus.SERVICE_UNAVAILABLE),
    ],
)
async def test_it_is_healthy_while_the_heart_beats(monitor, beat, status):
    monitor.heartbeat = beat
    reply = await ask(monitor, "/healthz")
    assert reply.status is status
    facts = json.loads(reply.body)
    assert facts["healthy"] == (status is HTTPStatus.OK)
    assert ("why" in facts) != facts["healthy"]


async def test_it_is_ready_once_both_ends_have_answered(monitor):
    reply = await ask(monitor, "/readyz")
    assert reply.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert "PostgreSQL" in json.loads(reply.body)["why"]
    assert (await ask(working(monitor), "/readyz")).status is HTTPStatus.OK


async def test_a_session_that_ended_by_itself_lingers_for_as_long_as_configured(monitor, autojump_clock):
    TOLD.clear()
    async with working(monitor).lingering(Drain(), ending(), TOLD.append):
        await trio.sleep(5)
    assert trio.current_time() == 5 + LINGER
    assert TOLD == [LINGERING]
    assert monitor.phase is Phase.LINGERING


async def test_a_halt_lingers_says_why_at_once_and_is_raised_then(monitor, autojump_clock, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(UnreachableError):
        async with working(monitor).lingering(Drain(), ending(""), TOLD.append):
            raise UnreachableError("connect to S3: no answer")
    assert trio.current_time() == LINGER
    assert "connect to S3: no answer; status page" in caplog.text


@pytest.mark.parametrize("cause", ["SIGTERM", "SIGINT"])
async def test_nothing_lingers_after_a_signal(monitor, autojump_clock, cause):
    drain = Drain()
    async with working(monitor).lingering(drain, ending(), TOLD.append):
        drain.request(cause)
    assert trio.current_time() == 0


async def test_a_session_that_never_began_does_not_linger(monitor, autojump_clock):
    with pytest.raises(ConfigError):
        async with monitor.lingering(Drain(), ending(""), TOLD.append):
            raise ConfigError(["wrong"])
    assert trio.current_time() == 0


async def test_a_signal_ends_the_lingering(monitor, autojump_clock):
    drain = Drain()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_after, 7, drain.request, "SIGTERM")
        async with working(monitor).lingering(drain, ending(), TOLD.append):
            pass
        assert trio.current_time() == 7


async def test_a_session_stopped_by_a_limit_lingers_until_a_signal(monitor, autojump_clock):
    drain = Drain()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_after, 7, drain.cancel)
        async with working(monitor).lingering(drain, ending(), TOLD.append):
            drain.request("max_duration = 2h")
        assert trio.current_time() == 7


async def test_without_a_port_nothing_is_served_and_nothing_lingers(tmp_path, autojump_clock):
    async with (
        monitored(config(tmp_path), Runtime()) as monitor,
        working(monitor).lingering(Drain(), ending(), TOLD.append),
    ):
        pass
    assert trio.current_time() == 0


async def test_a_port_in_use_is_a_problem_of_the_configuration(tmp_path):
    with trio.socket.socket() as taken:
        await taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1 port {port}: address already in use") as caught:
            async with monitored(config(tmp_path, port=port), Runtime()):
                raise AssertionError("it must not begin")
    assert caught.value.exit_code is ExitCode.USAGE
    assert "metrics.port" in caught.value.hint


async def test_the_log_says_where_it_is_and_warns_where_others_can_reach_it(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    async with monitored(config(tmp_path, port=0), Runtime()):
        pass
    assert "http://127.0.0.1:" in caplog.text
    assert "other machines" not in caplog.text
    async with monitored(config(tmp_path, port=0, address="0.0.0.0"), Runtime()):
        pass
    assert "other machines" in caplog.text


async def _after(seconds: float, act, *arguments) -> None:
    await trio.sleep(seconds)
    act(*arguments)


async def test_a_disk_that_can_not_be_asked_is_a_failed_scrape(tmp_path):
    gone = Monitor(config(tmp_path / "gone", port=0), Runtime())
    reply = await ask(gone, "/metrics")
    assert reply.status is HTTPStatus.SERVICE_UNAVAILABLE
    assert b"gone" in reply.body


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(PATHS),
    accept=st.one_of(
        st.binary(max_size=80),
        st.lists(
            st.sampled_from(
                [b"application/openmetrics-text", b"text/plain", b"version=", b"1.0.0", b"abc", b"1..0", b"escaping=",
                 b"q=0.5", b";", b",", b"=", b" ", b"\xe9", b"\x01"]
            ),
            max_size=12,
        ).map(b"".join),
    ),
)  # fmt: skip
def test_no_header_can_break_an_answer(monitor, path, accept):
    request = b"GET %s HTTP/1.1\r\nHost: localhost\r\nAccept: %s\r\n\r\n" % (path.encode(), accept)
    answers = trio.run(said, request, monitor.answer)
    assert set(statuses(answers)) <= {b"200", b"400", b"503"}
    assert len(statuses(answers)) >= 1
