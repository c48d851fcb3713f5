from __future__ import annotations

import stat
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.objects import ListedObject
from daemon.verification_stage import LEFTOVER_PAGE, STAGE_SUFFIX, ListingStage


def stage_beside(directory):
    return ListingStage(directory / "journal.db")


def test_the_stage_is_private_and_goes_with_its_context(tmp_path):
    with stage_beside(tmp_path) as stage:
        assert stage.path == tmp_path / f"journal.db{STAGE_SUFFIX}"
        assert stat.S_IMODE(stage.path.stat().st_mode) == 0o600
        stage.add(0, [ListedObject("a", 1, "e")])
    assert list(tmp_path.iterdir()) == []


def test_the_stage_goes_when_its_context_fails(tmp_path):
    def interrupted():
        with stage_beside(tmp_path):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_not_believed(tmp_path):
    killed = stage_beside(tmp_path)
    with closing(killed._file):
        killed.add(0, [ListedObject("a", 1, "e")])
        with stage_beside(tmp_path) as stage:
            assert stage.find(0, ["a"]) == {}


def test_a_link_in_its_place_is_replaced_and_its_target_kept(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / f"journal.db{STAGE_SUFFIX}").symlink_to(precious)
    with stage_beside(tmp_path) as stage:
        stage.add(0, [ListedObject("a", 1, "e")])
    assert precious.read_text() == "kept"


def test_scopes_do_not_see_each_other(tmp_path):
    with stage_beside(tmp_path) as stage:
        stage.add(0, [ListedObject("a", 1, "zero")])
        stage.add(1, [ListedObject("a", 2, "one")])
        stage.mark(0, ["a"])
        assert stage.find(1, ["a", "b"]) == {"a": ListedObject("a", 2, "one")}
        assert list(stage.leftovers(0)) == []
        assert list(stage.leftovers(1)) == [[ListedObject("a", 2, "one")]]


def test_a_key_listed_twice_counts_once(tmp_path):
    with stage_beside(tmp_path) as stage:
        stage.add(0, [ListedObject("a", 1, "old")])
        stage.add(0, [ListedObject("a", 2, "new"), ListedObject("b", 3, "b")])
        assert list(stage.leftovers(0)) == [[ListedObject("a", 2, "new"), ListedObject("b", 3, "b")]]


def test_leftovers_come_in_pages_and_each_once(tmp_path):
    keys = [f"{number:05d}" for number in range(2 * LEFTOVER_PAGE + 1)]
    with stage_beside(tmp_path) as stage:
        stage.add(0, [ListedObject(key, 0, "") for key in reversed(keys)])
        pages = list(stage.leftovers(0))
    assert [len(page) for page in pages] == [LEFTOVER_PAGE, LEFTOVER_PAGE, 1]
    assert [item.key for page in pages for item in page] == keys


@given(st.lists(st.text(st.characters(), min_size=1), unique=True))
def test_any_key_that_a_bucket_may_hold_comes_back_as_it_was(tmp_path_factory, keys):
    with stage_beside(tmp_path_factory.mktemp("stage")) as stage:
        stage.add(0, [ListedObject(key, index, "") for index, key in enumerate(keys)])
        assert set(stage.find(0, keys)) == set(keys)
        assert {item.key for page in stage.leftovers(0) for item in page} == set(keys)
