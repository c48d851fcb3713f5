"""The lines of the control socket: what is written is read again, and nothing else is taken for it."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.control_protocol import (
    Action,
    Done,
    Elsewhere,
    MalformedRequestError,
    Refused,
    Request,
    decode_reply,
    decode_request,
    encode_reply,
    encode_request,
)
from daemon.errors import BackfillError, ExitCode

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@st.composite
def requests(draw) -> Request:
    action = draw(st.sampled_from(Action))
    given: dict[str, object] = {}
    if action is Action.SET:
        given["words"] = tuple(draw(st.lists(TEXTS)))
    if action is Action.REQUEUE:
        given["source"], given["failure"] = draw(st.none() | TEXTS), draw(st.none() | TEXTS)
        given["keys"] = tuple(draw(st.lists(TEXTS)))
    return Request(action, draw(st.none() | TEXTS), **given)


REPLIES = st.one_of(
    st.builds(Done, TEXTS, st.dictionaries(TEXTS, JSON)),
    st.builds(Elsewhere, TEXTS),
    st.builds(
        Refused,
        st.lists(TEXTS, min_size=1).map(tuple),
        TEXTS,
        st.sampled_from([ExitCode.USAGE, ExitCode.JOURNAL]),
    ),
)


@given(requests())
def test_a_request_is_read_as_it_was_written_on_one_line(request: Request) -> None:
    line = encode_request(request)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode_request(line) == request


@given(REPLIES)
def test_a_reply_is_read_as_it_was_written_on_one_line(reply) -> None:
    line = encode_reply(reply)
    assert line.count(b"\n") == 1
    assert decode_reply(line) == reply


@given(st.binary())
def test_any_bytes_are_a_request_or_malformed(line: bytes) -> None:
    with contextlib.suppress(MalformedRequestError):
        assert decode_request(line).action in set(Action)


@given(
    st.dictionaries(
        st.sampled_from(["action", "journal", "words", "source", "keys", "failure", "x"]),
        JSON | st.sampled_from(list(Action)),
    )
)
def test_any_object_is_a_request_or_malformed(document: dict[str, object]) -> None:
    line = json.dumps(document).encode()
    try:
        request = decode_request(line)
    except MalformedRequestError:
        return
    assert request.action in set(Action)
    for text in (request.journal, request.source, request.failure, *request.words, *request.keys):
        assert text is None or "\0" not in text.encode().decode()


@given(st.binary())
def test_any_bytes_are_a_reply_or_an_error_that_is_told(line: bytes) -> None:
    with contextlib.suppress(BackfillError):
        assert isinstance(decode_reply(line), Done | Refused | Elsewhere)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"", "no JSON object"),
        (b"[]", "no JSON object"),
        (b"\xff", "no JSON object"),
        (b"[" * 200_000, "no JSON object"),
        (b'{"action": "explode"}', 'found action "explode"'),
        (b'{"action": ["pause"]}', "found action"),
        (b'{"action": "pause", "words": ["a"]}', 'found field "words"'),
        (b'{"action": "set", "words": "concurrency=1"}', "expected texts"),
        (b'{"action": "set", "words": [1]}', "expected texts"),
        (b'{"action": "requeue", "source": 7}', "expected a text"),
        (b'{"action": "requeue", "keys": ["a\\u0000b"]}', "expected texts"),
        (b'{"action": "requeue", "keys": ["\\ud800"]}', "expected texts"),
        (b'{"action": "pause", "journal": {}}', "expected a text"),
    ],
)
def test_what_is_wrong_with_a_request_is_told(line: bytes, told: str) -> None:
    with pytest.raises(MalformedRequestError, match=told.replace("[", "\\[")):
        decode_request(line)


def test_a_message_about_a_request_is_short_however_long_that_is() -> None:
    with pytest.raises(MalformedRequestError) as raised:
        decode_request(json.dumps({"action": "x" * 100_000}).encode())
    assert len(raised.value.problem) < 200
