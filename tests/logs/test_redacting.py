"""No form in which a message quotes a key survives redaction, and nothing else is touched."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon import rendering_units as units
from daemon.redacting import UNNAMED, Redactor

KEYS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
REDACTOR = Redactor("migration")


@given(KEYS)
def test_every_form_of_a_key_becomes_its_hash(key):
    hashed = REDACTOR.hashed(key)
    for form in (key, repr(key)[1:-1], ascii(key)[1:-1], units.shown(key), units.one_line(key), quote(key)):
        assert REDACTOR.redacted(form, [key]) == hashed


@given(KEYS, KEYS)
def test_the_same_key_has_the_same_hash_and_another_key_another(one, other):
    assert (REDACTOR.hashed(one) == REDACTOR.hashed(other)) == (one == other)
    assert re.fullmatch(r"key#[0-9a-f]{16}", REDACTOR.hashed(one))


def test_another_migration_hashes_differently():
    assert REDACTOR.hashed("k") != Redactor("another").hashed("k")


def test_a_row_key_inside_its_object_key_is_hashed_as_part_of_it():
    assert REDACTOR.redacted("PUT a/k1: k1", ["k1", "a/k1"]) == (
        f"PUT {REDACTOR.hashed('a/k1')}: {REDACTOR.hashed('k1')}"
    )


def test_a_short_key_does_not_spoil_longer_words_and_numbers():
    assert REDACTOR.redacted("57 rows in 7 s, x7", ["7"]) == f"57 rows in {REDACTOR.hashed('7')} s, x7"


def test_before_the_migration_is_known_a_key_is_hidden_without_a_hash():
    assert Redactor().redacted("parked 'k1'", ["k1"]) == f"parked '{UNNAMED}'"


@pytest.mark.parametrize("keys", [[], [""]])
def test_nothing_to_redact_leaves_the_text_alone(keys):
    assert REDACTOR.redacted("text", keys) == "text"
