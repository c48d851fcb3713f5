"""What an attacker, a broken proxy or a bad disk may hand to a decoder."""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis import strategies as st

_EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
FUZZED = settings(max_examples=int(_EXAMPLES or 100), derandomize=_EXAMPLES is None, deadline=None)
"""The same examples each time; for a longer search, at random: FUZZ_EXAMPLES=20000 pytest -n 2 tests/fuzzing."""

TEXTS = st.one_of(
    st.text(max_size=30),
    st.sampled_from(
        [
            *("", " ", "\x00", "\x1b[2J", "\x9b31m", "\r\nX: y", "\u202e", "\ufeff", "\U0010ffff", "é"),
            *("<script>", "]]>", "&x;", "../..", "//", "~nobody/x", "=1+1", "a" * 2000, "\u2024", "xn--a"),
        ]
    ),
)
DIGITS = st.sampled_from(
    ["0", "-1", "+1", "1e9", "1.5", "٣", "NaN", "1" * 19, "9" * 400, "9" * 5000, "0x10", "1_000", " 7 ", ""]
)
"""Numbers that are none, or too large for a double, for 64 bits, or for Python's int()."""


@st.composite
def mutated(draw, valid: bytes) -> bytes:
    """`valid` with some bytes flipped, cut out, doubled or put in."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        until = min(len(data), at + draw(st.sampled_from([0, 1, 2, 8, 64])))
        kind = draw(st.sampled_from(["flip", "cut", "double", "insert"]))
        if kind == "flip" and at < len(data):
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at:until]
        elif kind == "double":
            data[at:at] = data[at:until]
        else:
            data[at:at] = draw(st.binary(max_size=8))
    return bytes(data)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
