"""`undo` as an operator types it, against a real PostgreSQL and SeaweedFS."""

from __future__ import annotations

import json
import re

import pytest

from daemon.demo.seaweed import signed_request
from daemon.errors import ExitCode
from journal.entries import Revocation
from journal.log import Journal
from journal.reader import Reader
from tests.cli.migrations import Migration, refused
from tests.s3_servers import BUCKET

NOW_US = 1_768_400_000_000_000


def request(migration: Migration, method: str, key: str, body: bytes = b"") -> tuple[int, bytes]:
    return signed_request(
        migration.server.port,
        method,
        f"/{BUCKET}/{migration.prefix}{key}",
        body,
        access_key=migration.server.access_key,
        secret_key=migration.server.secret_key,
    )


def there(migration: Migration) -> dict[str, bytes]:
    """Every object under the prefix, with its bytes."""
    keys = re.findall(rf"<Key>{re.escape(migration.prefix)}([^<]*)</Key>", migration.listing())
    return {key: request(migration, "GET", key)[1] for key in keys}


def events(migration: Migration, *kinds: str) -> list[dict]:
    flags = [word for kind in kinds for word in ("--kind", kind)]
    return [json.loads(line) for line in migration("events", "--json", *flags).stdout.splitlines()]


@pytest.fixture
def copied(inside: Migration) -> Migration:
    assert inside("run").returncode == ExitCode.DONE
    return inside


def test_what_to_undo_must_be_said(inside):
    assert "which objects is not clear" in refused(inside("undo"), ExitCode.USAGE)
    refused(inside("undo", "--all", "--source", "attachments"), ExitCode.USAGE)


def test_unknown_sources_and_keys_are_all_named_and_nothing_is_touched(copied):
    with copied.untouched():
        done = copied("undo", "--source", "nope", "--key", "7", "--key", "x\x1by", "--yes")
    assert done.returncode == ExitCode.USAGE
    assert '--source: found "nope"; expected a source of this journal: attachments' in done.stderr
    assert '--key: found "x\\x1by"; no source has planned a row with this key' in done.stderr


def test_without_yes_it_counts_and_changes_nothing(copied):
    with copied.untouched():
        done = copied("undo", "--all")
    assert done.returncode == ExitCode.DONE
    assert "would delete 20 objects, 31 B" in done.stdout
    assert "nothing was deleted; the same command with --yes deletes" in done.stdout


def test_with_yes_every_object_goes_and_the_record_says_so(copied):
    done = copied("undo", "--all", "--yes")
    assert done.returncode == ExitCode.DONE
    assert "deleted 20 objects, 31 B" in done.stdout
    assert there(copied) == {}
    started, revoked, *deleted, finished = events(
        copied, "undo_started", "outcomes_revoked", "objects_deleted", "undo_finished"
    )
    assert started["kind"] == "undo_started"
    assert started["data"]["scope"] == {"sources": [], "row_keys": [], "before_us": None}
    assert revoked["kind"] == "outcomes_revoked"
    assert revoked["seq"] < deleted[0]["seq"]
    assert finished["data"]["deleted"] == 20
    assert finished["data"]["problem"] == ""
    assert copied("journal check").returncode == ExitCode.DONE


def test_afterwards_the_keys_are_parked_and_requeue_and_run_bring_all_back(copied):
    before = there(copied)
    copied("undo", "--all", "--yes")
    status = " ".join(copied("status").stdout.split())
    assert (
        "next: 20 keys undone: `backfillctl requeue --failure undone` and `backfillctl run` copy them"
        in status
    )
    assert "mend the cause" not in status
    assert "every key is settled; 20 keys undone since" in status
    assert copied("run").returncode == ExitCode.PARKED
    assert copied("requeue", "--failure", "undone").returncode == ExitCode.DONE
    assert copied("run", "--verify").returncode == ExitCode.DONE
    assert there(copied) == before


def test_what_is_not_provably_ours_stays_byte_for_byte(copied):
    request(copied, "PUT", "3", b"somebody else's")
    request(copied, "PUT", "4", b"4")
    request(copied, "PUT", "extra", b"no row")
    request(copied, "DELETE", "5")
    done = copied("undo", "--all", "--yes")
    assert done.returncode == ExitCode.MISMATCH
    assert there(copied) == {"3": b"somebody else's", "4": b"4", "extra": b"no row"}
    text = " ".join(done.stdout.split())
    assert "deleted 17 objects" in text
    assert "gone already: 1 object" in text
    assert "replaced since: another object is under the key: 1 object" in text
    assert "of another migration, or of nobody that it tells: 1 object" in text
    assert f"{copied.prefix}3 (15 bytes, expected 1)" in text
    with Reader.open(copied.journal) as reader:
        assert sorted(one.row_key for one in reader.objects().objects) == ["3", "4"]


def test_an_object_that_was_there_before_is_never_deleted(inside):
    request(inside, "PUT", "7", b"7")
    assert inside("run").returncode == ExitCode.DONE
    done = inside("undo", "--all", "--yes")
    assert done.returncode == ExitCode.DONE
    assert there(inside) == {"7": b"7"}
    assert "present: there before this migration" in " ".join(done.stdout.split())


def test_a_key_and_a_time_narrow_it(copied):
    assert "would delete 0 objects" in copied("undo", "--older-than", "1h").stdout
    assert "would delete 20 objects" in copied("undo", "--older-than", "0s").stdout
    assert copied("undo", "--key", "3", "--key", "12", "--older-than", "0s", "--yes").returncode == 0
    assert sorted(there(copied)) == sorted({str(n) for n in range(1, 21)} - {"3", "12"})


def test_it_goes_on_where_it_was_killed_between_word_and_deed(copied):
    with Reader.open(copied.journal) as reader:
        ordinals = [reader.explain(key)[0].ordinal for key in ("1", "2", "3")]
    with Journal.open(copied.journal, now_us=NOW_US) as journal:
        journal.revoke(ordinals, Revocation.UNDO, message="m", who="w", now_us=NOW_US)
    request(copied, "DELETE", "1")
    done = copied("undo", "--all", "--yes")
    assert done.returncode == ExitCode.DONE
    assert "deleted 19 objects" in done.stdout
    assert "gone already: 1 object" in done.stdout
    assert there(copied) == {}
    again = copied("undo", "--all", "--yes")
    assert again.returncode == ExitCode.DONE
    assert "deleted 0 objects" in again.stdout
    assert "gone already" not in again.stdout


def test_a_running_daemon_is_named(copied):
    with Journal.open(copied.journal, now_us=NOW_US):
        message = refused(copied("undo", "--all", "--yes"), ExitCode.JOURNAL)
        assert re.search(r"pid \d+ on ", message)
        assert copied("undo", "--all").returncode == ExitCode.DONE


def test_another_migrations_journal_is_refused_also_to_be_looked_at(copied):
    copied.changes["prefix"] = "elsewhere/"
    assert "attachments.prefix" in refused(copied("undo", "--all"), ExitCode.USAGE)
    assert "attachments.prefix" in refused(copied("undo", "--all", "--yes"), ExitCode.USAGE)


def test_a_row_copied_twice_is_undone_once_and_its_first_copy_is_not_claimed_again(copied):
    copied.database.sql("update attachments set data = 'longer than before' where id = '9'")
    assert copied("plan", "--reconcile").returncode == ExitCode.DONE
    assert copied("run").returncode == ExitCode.DONE
    assert there(copied)["9"] == b"longer than before"
    done = copied("undo", "--key", "9", "--yes")
    assert "deleted 1 object, 18 B" in done.stdout
    assert "9" not in there(copied)
    verified = copied("verify")
    assert verified.returncode == ExitCode.DONE, verified.stdout
