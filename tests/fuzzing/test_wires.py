"""What other processes and operators say: any line is a request, a reply, a status or a clear refusal."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.control_protocol import (
    Action,
    Done,
    MalformedRequestError,
    Request,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)
from daemon.errors import BackfillError
from daemon.process_wire import FRAME_BYTES_MAX, BrokenWireError, Wire
from daemon.status_codec import status_of
from daemon.timetables import Timetable, parsed, zone_name, zone_named
from tests.fuzzing.hostile import DIGITS, FUZZED, JSON, TEXTS, mutated

NESTED = st.integers(1, 3000).map(
    lambda depth: b'{"action":"set","words":' + b"[" * depth + b"]" * depth + b"}"
)
REQUEST = encode_request(Request(Action.REQUEUE, "/j.db", source="s", keys=("a", "b")))
REPLY = encode_reply(Done("said", {"a": [1, {"b": None}]}))


@FUZZED
@given(
    st.one_of(
        st.binary(max_size=100), mutated(REQUEST), JSON.map(lambda one: json.dumps(one).encode()), NESTED
    )
)
def test_any_line_is_a_request_that_is_written_as_it_is_read_or_malformed(line: bytes) -> None:
    with contextlib.suppress(MalformedRequestError):
        found = decode_request(line)
        assert decode_request(encode_request(found)) == found


@FUZZED
@given(
    st.one_of(st.binary(max_size=100), mutated(REPLY), JSON.map(lambda one: json.dumps(one).encode()), NESTED)
)
def test_any_line_is_a_reply_or_a_clear_refusal(line: bytes) -> None:
    with contextlib.suppress(BackfillError):
        decode_reply(line)


@FUZZED
@given(JSON | st.dictionaries(st.sampled_from(["name", "state", "sources", "head_seq", "session"]), JSON))
def test_any_document_is_a_status_or_a_clear_refusal(document) -> None:
    with contextlib.suppress(BackfillError):
        status_of(document)


class Silent:
    """A stream that says some bytes and ends."""

    def __init__(self, data: bytes) -> None:
        self._left = [data, b""]

    async def receive_some(self, _max_bytes: int) -> bytes:
        return self._left.pop(0)


@pytest.mark.parametrize("claimed", [FRAME_BYTES_MAX + 1, 2**32 - 1, 5])
async def test_a_frame_that_is_none_is_a_broken_wire_before_its_bytes_are_believed(claimed: int) -> None:
    wire = Wire(Silent(claimed.to_bytes(4, "big") + b"abc"))
    with pytest.raises(BrokenWireError):
        await anext(wire.frames())


SLOTS = st.lists(
    st.sampled_from(
        ["08:00,20M", "Mon-08:00,off", "sun-23:59,1K", "24:00,1M", "08:00,", "\u0660\u0668:\u0660\u0660,1M"]
    )
    | TEXTS
    | DIGITS,
    max_size=5,
)


@FUZZED
@given(SLOTS.map(" ".join) | JSON, st.integers(-(2**55), 2**55))
def test_any_value_is_a_timetable_that_always_says_a_limit_or_a_value_error(value, now_us: int) -> None:
    with contextlib.suppress(ValueError):
        found = parsed(value)
        assert isinstance(found, Timetable)
        assert parsed(str(found)).slots == found.slots
        assert found.at(now_us % 4_000_000_000_000_000, zone_named("UTC")).until_us > 0


@FUZZED
@given(
    TEXTS | JSON | st.sampled_from(["../../etc/passwd", "posix/UTC", "UTC/", "zone.tab", "a" * 300, "right"])
)
def test_any_value_is_a_zone_or_a_value_error(value) -> None:
    with contextlib.suppress(ValueError):
        assert zone_named(zone_name(value)) is not None
