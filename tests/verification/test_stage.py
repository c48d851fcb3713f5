from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon import verification_stage
from daemon.objects import ListedObject
from daemon.verification_stage import LEFTOVER_PAGE, STAGE_SUFFIX, ListingStage
from journal.errors import JournalError, JournalFull


def stage_beside(directory, run=7):
    return ListingStage(directory / "journal.db", run)


def add(stage, scope, objects, token=None):
    stage.add(scope, objects, token=token)


def test_the_stage_is_private_and_goes_with_its_context(tmp_path):
    with stage_beside(tmp_path) as stage:
        assert stage.path == tmp_path / f"journal.db{STAGE_SUFFIX}"
        assert stat.S_IMODE(stage.path.stat().st_mode) == 0o600
        add(stage, 0, [ListedObject("a", 1, "e")])
    assert list(tmp_path.iterdir()) == []


def interrupted(directory, run=7):
    def work():
        with stage_beside(directory, run) as stage:
            add(stage, 0, [ListedObject("a", 1, "e")], token="t")
            add(stage, 1, [ListedObject("b", 1, "e")])
            stage.mark(0, ["a"])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()


def test_an_interrupted_run_finds_what_it_had_listed_and_where_it_goes_on(tmp_path):
    interrupted(tmp_path)
    with stage_beside(tmp_path) as stage:
        assert stage.find(0, ["a"]) == {"a": ListedObject("a", 1, "e")}
        assert stage.reached(0) == (1, "t", False)
        assert stage.reached(1) == (1, None, True)
        assert stage.reached(2) == (0, None, False)
        assert list(stage.leftovers(0)) == []
    assert list(tmp_path.iterdir()) == []


def fill(stage):
    stage._file.execute("PRAGMA max_page_count = 20")
    add(stage, 0, [ListedObject(f"k{n}" * 100, 1, "e") for n in range(1000)])


def spoil(stage):
    stage._file.execute("DROP TABLE listed")
    stage.mark(0, ["k"])


def staged(directory, write):
    with stage_beside(directory) as stage:
        write(stage)


@pytest.mark.parametrize("write", [fill, spoil])
def test_a_listing_that_can_not_be_written_is_told_with_what_helps(tmp_path, write):
    with pytest.raises(JournalError) as caught:
        staged(tmp_path, write)
    assert str(tmp_path / f"journal.db{STAGE_SUFFIX}") in caught.value.problem
    assert caught.value.hint


def test_a_listing_that_filled_the_disk_gives_its_space_back(tmp_path):
    with pytest.raises(JournalFull, match="the disk is full"):
        staged(tmp_path, fill)
    assert list(tmp_path.iterdir()) == []


def test_another_run_believes_nothing_of_what_is_left(tmp_path):
    interrupted(tmp_path)
    with stage_beside(tmp_path, run=8) as stage:
        assert stage.find(0, ["a"]) == {}
        assert stage.reached(0) == (0, None, False)


def test_what_was_left_before_the_last_boot_is_not_believed(tmp_path, monkeypatch):
    interrupted(tmp_path)
    (tmp_path / "boot_id").write_text("another")
    monkeypatch.setattr(verification_stage, "BOOT_ID", tmp_path / "boot_id")
    with stage_beside(tmp_path) as stage:
        assert stage.find(0, ["a"]) == {}


def test_a_file_cut_short_is_replaced(tmp_path):
    interrupted(tmp_path)
    path = tmp_path / f"journal.db{STAGE_SUFFIX}"
    path.write_bytes(path.read_bytes()[:100])
    with stage_beside(tmp_path) as stage:
        assert stage.reached(0) == (0, None, False)


def test_keys_of_one_beginning_are_no_leftovers(tmp_path):
    with stage_beside(tmp_path) as stage:
        add(stage, 0, [ListedObject(key, 1, "e") for key in ("p/.probe", "p/.probe-2", "p/.prob", "p/x")])
        stage.mark_beginning(0, "p/.probe")
        assert [item.key for page in stage.leftovers(0) for item in page] == ["p/.prob", "p/x"]


def test_a_link_in_its_place_is_replaced_and_its_target_kept(tmp_path):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / f"journal.db{STAGE_SUFFIX}").symlink_to(precious)
    with stage_beside(tmp_path) as stage:
        add(stage, 0, [ListedObject("a", 1, "e")])
    assert precious.read_text() == "kept"


def test_scopes_do_not_see_each_other(tmp_path):
    with stage_beside(tmp_path) as stage:
        add(stage, 0, [ListedObject("a", 1, "zero")])
        add(stage, 1, [ListedObject("a", 2, "one")])
        stage.mark(0, ["a"])
        assert stage.find(1, ["a", "b"]) == {"a": ListedObject("a", 2, "one")}
        assert list(stage.leftovers(0)) == []
        assert list(stage.leftovers(1)) == [[ListedObject("a", 2, "one")]]


def test_a_key_listed_twice_counts_once(tmp_path):
    with stage_beside(tmp_path) as stage:
        add(stage, 0, [ListedObject("a", 1, "old")])
        add(stage, 0, [ListedObject("a", 2, "new"), ListedObject("b", 3, "b")])
        assert list(stage.leftovers(0)) == [[ListedObject("a", 2, "new"), ListedObject("b", 3, "b")]]


def test_leftovers_come_in_pages_and_each_once(tmp_path):
    keys = [f"{number:05d}" for number in range(2 * LEFTOVER_PAGE + 1)]
    with stage_beside(tmp_path) as stage:
        add(stage, 0, [ListedObject(key, 0, "") for key in reversed(keys)])
        pages = list(stage.leftovers(0))
    assert [len(page) for page in pages] == [LEFTOVER_PAGE, LEFTOVER_PAGE, 1]
    assert [item.key for page in pages for item in page] == keys


@given(st.lists(st.text(st.characters(), min_size=1), unique=True))
def test_any_key_that_a_bucket_may_hold_comes_back_as_it_was(tmp_path_factory, keys):
    with stage_beside(tmp_path_factory.mktemp("stage")) as stage:
        add(stage, 0, [ListedObject(key, index, "") for index, key in enumerate(keys)])
        assert set(stage.find(0, keys)) == set(keys)
        assert {item.key for page in stage.leftovers(0) for item in page} == set(keys)
