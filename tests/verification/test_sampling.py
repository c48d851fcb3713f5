from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.rendering_verification import bound_words
from daemon.sampling import CONFIDENCE, EVERY_KEY, SampleSize, mismatch_bound, parse_sample


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0.1%", SampleSize(share=Fraction(1, 1000))),
        ("2.5 %", SampleSize(share=Fraction(1, 40))),
        ("5000", SampleSize(keys=5000)),
        ("all", EVERY_KEY),
    ],
)
def test_a_sample_is_a_share_a_number_or_all(text, size):
    assert parse_sample(text) == size


@pytest.mark.parametrize("text", ["", "0", "0%", "101%", "-3", "1e3", "0.1", "some", "1,000"])
def test_anything_else_is_refused(text):
    with pytest.raises(ValueError, match="expected a share"):
        parse_sample(text)


@pytest.mark.parametrize(
    ("text", "of", "drawn"),
    [
        ("0.1%", 500, 500),
        ("0.1%", 10_000, 1000),
        ("0.1%", 2_000_001, 2001),
        ("50", 10, 10),
        ("all", 5_000_000, 5_000_000),
        ("2%", 10**9, 1_000_000),
        ("100%", 5_000_000, 5_000_000),
        ("5000000", 5_000_000, 5_000_000),
    ],
)
def test_a_share_is_at_least_a_thousand_keys_and_no_sample_more_than_a_million(text, of, drawn):
    assert parse_sample(text).drawn(of) == drawn


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_at_the_bound_so_many_right_draws_are_as_unlikely_as_stated(keys, more):
    bound = mismatch_bound(keys, keys + more)
    assert 0 < bound < 1
    assert (1 - bound) ** keys == pytest.approx(1 - CONFIDENCE, rel=1e-6)


@given(st.integers(1, 10**5), st.integers(1, 10**5))
def test_more_keys_prove_more(keys, more):
    assert mismatch_bound(keys + more, 10**9) < mismatch_bound(keys, 10**9)


def test_every_key_proves_that_none_is_wrong_and_no_key_proves_nothing():
    assert mismatch_bound(10, 10) == 0
    assert mismatch_bound(0, 10) == 1


@given(st.integers(1, 10**6))
def test_the_rate_in_words_is_never_smaller_than_the_one_proven(keys):
    words = bound_words(keys, 10**9)
    told = float(words.partition("is below ")[2].partition(" %")[0]) / 100
    assert told >= mismatch_bound(keys, 10**9) * (1 - 1e-12)
    assert told <= mismatch_bound(keys, 10**9) * 1.1
