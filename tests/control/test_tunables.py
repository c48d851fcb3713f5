"""What an operator may set: words, what they come to, and what is in force."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.errors import ConfigError, ExitCode
from daemon.settings_values import BYTES_PER_SECOND_MAX, BYTES_PER_SECOND_MIN, ROWS_PER_SECOND_MAX
from daemon.tunables import CONCURRENCY_MAX, Tunables, as_set, in_force, merged, parse

CONFIGURED = Tunables(64, 100.0, None)


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        (["concurrency=16"], {"concurrency": 16}),
        (["concurrency=1", "rows-per-second=5"], {"concurrency": 1, "rows_per_second": 5}),
        (["bytes-per-second=20MiB"], {"bytes_per_second": 20 * 2**20}),
        (["bytes-per-second=20M"], {"bytes_per_second": 20 * 2**20}),
        (["rows_per_second=off"], {"rows_per_second": None}),
        (["concurrency=config"], {"concurrency": "config"}),
    ],
)
def test_words_come_to_changes(words, changes):
    assert parse(words) == changes


@pytest.mark.parametrize(
    "word",
    [
        "concurrency=0",
        f"concurrency={CONCURRENCY_MAX + 1}",
        "concurrency=off",
        "concurrency=1.5",
        "concurrency=٣",
        "concurrency=",
        "concurrency",
        "rows-per-second=0",
        "rows-per-second=-1",
        "rows-per-second=nan",
        "rows-per-second=inf",
        "bytes-per-second=0",
        "bytes-per-second=fast",
        "table=public.other",
        "=1",
        "",
    ],
)
def test_what_is_unknown_or_out_of_range_is_refused_by_its_name(word):
    with pytest.raises(ConfigError) as refused:
        parse([word])
    assert refused.value.exit_code is ExitCode.USAGE
    assert word.partition("=")[0] in refused.value.problem


def test_all_problems_are_told_at_once():
    with pytest.raises(ConfigError) as refused:
        parse(["concurrency=0", "speed=1", "rows-per-second=x", "concurrency=1", "concurrency=2"])
    assert len(refused.value.problems) == 4


def test_nothing_to_set_is_refused():
    with pytest.raises(ConfigError, match="nothing to set"):
        parse([])


def test_what_is_set_holds_over_the_configuration_until_it_is_given_back():
    overrides = merged({}, parse(["concurrency=16", "rows-per-second=off"]))
    assert in_force(CONFIGURED, overrides) == Tunables(16, None, None)
    overrides = merged(overrides, parse(["concurrency=config"]))
    assert in_force(CONFIGURED, overrides) == Tunables(64, None, None)
    assert in_force(CONFIGURED, merged(overrides, parse(["rows-per-second=config"]))) == CONFIGURED


@given(st.text())
def test_any_word_is_a_change_or_told(word):
    try:
        changes = parse([word])
    except ConfigError:
        return
    assert in_force(CONFIGURED, merged({}, changes)).concurrency >= 1


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "concurrency": st.integers(1, CONCURRENCY_MAX),
            "rows_per_second": st.none() | st.integers(1, ROWS_PER_SECOND_MAX),
            "bytes_per_second": st.none() | st.integers(BYTES_PER_SECOND_MIN, BYTES_PER_SECOND_MAX),
        },
    )
)
def test_what_is_told_as_set_can_be_typed_again(overrides):
    assert (parse(as_set(overrides)) if overrides else {}) == overrides
