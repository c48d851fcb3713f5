"""What only shows or steers may fail by any defect: it is told in full, and the migration goes on."""

from __future__ import annotations

import contextlib
import json
import logging
import socket

import pytest
import trio
import trio.testing

from daemon.bulkhead import behind_bulkhead
from daemon.control_protocol import Action, Request, encode_request
from daemon.control_socket import serve
from daemon.demo.processes import free_ports
from daemon.local_sockets import bound
from daemon.log_events import LogEvent, told_in
from daemon.log_lines import Style, log_line
from daemon.monitoring import monitored
from daemon.runtime import Runtime
from tests.metrics.test_monitoring import config


class DefectError(Exception):
    pass


async def defective() -> None:
    raise DefectError("seven is not nine")


def told(caplog) -> logging.LogRecord:
    (record,) = [record for record in caplog.records if told_in(record).event is LogEvent.PART_FAILED]
    return record


async def test_a_defect_ends_its_part_and_is_told_with_its_traceback(caplog):
    await behind_bulkhead("the part", defective)
    record = told(caplog)
    assert "DefectError: seven is not nine" in record.getMessage()
    assert "in defective" in told_in(record).fields["traceback"]


async def test_a_traceback_has_a_line_for_each_of_its_lines_and_stays_one_field_in_json(caplog):
    await behind_bulkhead("the part", defective)
    record = told(caplog)
    lines = {
        style: log_line(
            style,
            told_in(record),
            record.getMessage(),
            level=record.levelno,
            now_us=0,
            migration="blobs",
            redactor=None,
        ).splitlines()
        for style in Style
    }
    assert lines[Style.TEXT][-1].endswith("DefectError: seven is not nine")
    assert all(line.startswith("<3>") for line in lines[Style.JOURNALD])
    (document,) = map(json.loads, lines[Style.JSON])
    assert document["event"] == "part_failed"
    assert "in defective" in document["traceback"]


async def test_cancellation_passes():
    with trio.CancelScope() as scope:
        scope.cancel()
        await behind_bulkhead("the part", trio.sleep_forever)
        pytest.fail("it was cancelled")


async def test_a_defect_behind_the_metrics_port_closes_it_and_ends_nothing_else(tmp_path, caplog):
    (port,) = free_ports(1)

    def no_clock() -> int:
        raise DefectError("what time is it")

    async with monitored(config(tmp_path, port=port), Runtime(now_us=no_clock)):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            await stream.send_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            with trio.fail_after(30):
                assert await stream.receive_some() == b""
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(OSError, match="failed"):
            await trio.open_tcp_stream("127.0.0.1", port)
    assert "what time is it" in told(caplog).getMessage()


async def test_a_defect_behind_the_control_socket_leaves_nobody_waiting_there(tmp_path, caplog):
    async def answer(_request, _who):
        raise DefectError("who is there")

    path = tmp_path / "control.sock"
    with bound(path) as listening:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(behind_bulkhead, "the control socket", lambda: serve(listening, answer))
            async with (
                await trio.open_unix_socket(path) as stream,
                await trio.open_unix_socket(path) as other,
            ):
                await stream.send_all(encode_request(Request(Action.STATUS)))
                with trio.fail_after(30):
                    assert await stream.receive_some() == b""
                    with contextlib.suppress(trio.BrokenResourceError):
                        assert await other.receive_some() == b""
        with socket.socket(socket.AF_UNIX) as late, pytest.raises(ConnectionRefusedError):
            late.connect(str(path))
    assert "who is there" in told(caplog).getMessage()
