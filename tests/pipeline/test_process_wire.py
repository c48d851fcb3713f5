"""Messages between processes: whole and in order however the bytes arrive, and never half a one."""

from __future__ import annotations

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from daemon.process_wire import COMPANY_SECONDS, FRAME_BYTES_MAX, BrokenWireError, Wire

MESSAGES = st.lists(st.one_of(st.integers(), st.binary(max_size=300), st.text(max_size=20)), max_size=30)


async def received(wire):
    return [message async for frame in wire.frames() for message in frame]


async def sent(messages):
    """The bytes that `messages` become."""
    ours, theirs = trio.testing.memory_stream_one_way_pair()
    wire = Wire(trio.StapledStream(ours, theirs))
    for message in messages:
        wire.post(message)
    wire.finish()
    await wire.send_posted()
    await ours.aclose()
    found = b""
    while part := await theirs.receive_some():
        found += part
    return found


@given(MESSAGES, st.lists(st.integers(1, 40), min_size=1, max_size=200))
def test_messages_arrive_whole_and_in_order_in_whatever_pieces(messages, cuts):
    async def run():
        data = await sent(messages)
        sender, receiver = trio.testing.memory_stream_one_way_pair()
        wire = Wire(trio.StapledStream(sender, receiver))

        async def feed():
            at = 0
            for cut in cuts:
                await sender.send_all(data[at : at + cut])
                await trio.testing.wait_all_tasks_blocked()
                at += cut
            await sender.send_all(data[at:])
            await sender.aclose()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(feed)
            assert await received(wire) == messages

    trio.run(run)


async def test_an_end_in_the_middle_of_a_frame_is_told():
    data = await sent(["one", "two"])
    sender, receiver = trio.testing.memory_stream_one_way_pair()
    await sender.send_all(data[:-1])
    await sender.aclose()
    with pytest.raises(BrokenWireError, match="unfinished frame"):
        await received(Wire(trio.StapledStream(sender, receiver)))


async def test_a_length_beyond_reason_is_no_frame():
    sender, receiver = trio.testing.memory_stream_one_way_pair()
    await sender.send_all((FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    with pytest.raises(BrokenWireError, match="expected at most"):
        await received(Wire(trio.StapledStream(sender, receiver)))


async def test_what_is_not_urgent_waits_for_company_and_goes_with_what_is(autojump_clock):
    ours, theirs = trio.testing.memory_stream_pair()
    wire, other = Wire(ours), Wire(theirs)
    frames = other.frames()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(wire.send_posted)
        wire.post("first", urgent=False)
        wire.post("second", urgent=False)
        assert await anext(frames) == ["first", "second"]
        assert trio.current_time() == pytest.approx(COMPANY_SECONDS)
        wire.post("third", urgent=False)
        wire.post("asked")
        assert await anext(frames) == ["third", "asked"]
        assert trio.current_time() == pytest.approx(COMPANY_SECONDS)
        nursery.cancel_scope.cancel()
    await frames.aclose()


async def test_what_is_posted_before_the_finish_is_sent_before_the_sender_ends():
    assert await sent(["last"]) != b""
