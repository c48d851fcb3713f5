"""What an undo meets on real servers: versions, object lock, conditions ignored, rights missing."""

from __future__ import annotations

import hashlib
import json
from random import Random

import pytest

from daemon.deleting import Deletion, DeletionPolicy, UndoneSource
from daemon.demo.seaweed import signed_request
from daemon.drain import Drain
from daemon.errors import ExitCode, RefusedError
from daemon.judging import migration_mark
from daemon.layouts import Layout
from daemon.objects import UNCONDITIONAL
from daemon.requesting import RequestPolicy
from daemon.runtime import wall_clock_us
from daemon.transport import S3Transport
from daemon.undo import UndoOptions, created_in, recorded
from daemon.undoing import Reason, Scope
from journal.checkpoint import Order
from journal.entries import Settled
from journal.events import Kind
from journal.lifecycle import UNDONE, Outcome
from journal.log import Journal
from journal.reader import Reader
from tests.s3_faults import drops_request, loses_response
from tests.s3_servers import BUCKET, fresh_prefix

pytestmark = pytest.mark.trio

NOW_US = 1_768_400_000_000_000
VERSIONING = (
    b'<VersioningConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    b"<Status>Enabled</Status></VersioningConfiguration>"
)
KEYS = ["a", "b", "c/d", "ż ó"]


@pytest.fixture(params=["fake", "weed", "rclone", "moto"])
def server(request, s3_servers):
    return s3_servers.get(request.param)


@pytest.fixture(params=["weed", "moto"])
def versioning_server(request, s3_servers):
    return s3_servers.get(request.param)


class Copied:
    """Some keys stored under a prefix by a migration of one source, as the uploader stores them."""

    def __init__(self, path, server, bucket, name=BUCKET):
        self.path, self.server, self.bucket, self.name = path, server, bucket, name
        self.prefix = fresh_prefix()
        journal = Journal.create(path, name="m", cutoff_us=NOW_US, order=Order.NEWEST_FIRST, now_us=NOW_US)
        self.identifier = journal.migration_id
        journal.close()

    async def put(self, key, body, *, ours=True):
        mark = {"x-amz-meta-backfill-migration": migration_mark(self.identifier)} if ours else {}
        return await self.bucket.put(
            self.name,
            self.prefix + key,
            body,
            md5=hashlib.md5(body).digest(),
            headers={"content-type": "text/plain", **mark},
            condition=UNCONDITIONAL,
        )

    async def copy(self, keys=KEYS):
        with Journal.open(self.path, now_us=NOW_US) as journal:
            source = journal.add_source("a", {"table": "a"}, now_us=NOW_US)
            journal.start_session(now_us=NOW_US, facts={})
            journal.begin_pass(source, kind="sweep", now_us=NOW_US)
            journal.seal_chunk(source, [(key, None, 3, None) for key in sorted(keys)], now_us=NOW_US)
            journal.seal_segment(source, excluded={}, unusable=0, unusable_example=None, now_us=NOW_US)
            for key in journal.claim(source, limit=100, window=100, now_us=NOW_US).keys:
                body = key.row_key.encode()
                receipt = await self.put(key.row_key, body)
                md5 = hashlib.md5(body).hexdigest()
                settled = Settled(key.ordinal, Outcome.STORED, len(body), md5, None, receipt.version_id)
                journal.record([settled], now_us=NOW_US)

    async def undo(self, *, confirmed=True):
        with Journal.open(self.path, now_us=NOW_US) as journal, Reader.open(self.path) as reader:

            async def record(write):
                return write(journal, NOW_US)

            drain = Drain()
            deletion = Deletion(
                [UndoneSource(1, "a", self.name, Layout(self.prefix))],
                self.bucket,
                DeletionPolicy(self.identifier, 4, 60.0, RequestPolicy(3, 5.0, Random(1))),
                record=record if confirmed else None,
                who="op",
                now_us=wall_clock_us,
                drain=drain,
            )
            created = created_in(reader, Scope(frozenset({1})), reader.head_seq())
            if confirmed:
                await recorded(deletion, created, record, UndoOptions(confirmed=True), "op", drain)
            else:
                await deletion.run(created)
            return deletion.tally

    async def there(self):
        found, token = [], None
        while True:
            page, token = await self.bucket.list_page(self.name, self.prefix, token=token)
            found += [entry.key.removeprefix(self.prefix) for entry in page]
            if token is None:
                return sorted(found)

    def parked(self):
        with Reader.open(self.path) as reader:
            return {each.failure: each.count for each in reader.status(now_us=0).sources[0].parked}

    def ask(self, method, target, body=b"", headers=None):
        return signed_request(
            self.server.port,
            method,
            target,
            body,
            headers,
            access_key=self.server.access_key,
            secret_key=self.server.secret_key,
        )

    def make_versioned_bucket(self):
        self.name = f"versioned-{fresh_prefix()[:-1]}"
        assert (
            self.ask("PUT", f"/{self.name}", headers={"x-amz-bucket-object-lock-enabled": "true"})[0] == 200
        )
        assert self.ask("PUT", f"/{self.name}?versioning=", VERSIONING)[0] == 200

    def versions(self):
        status, body = self.ask("GET", f"/{self.name}?prefix={self.prefix.replace('/', '%2F')}&versions=")
        assert status == 200
        return body.decode()


@pytest.fixture
async def transport(server):
    if server.fake is not None:
        yield server.fake
        return
    real = S3Transport(connections_max=8, connect_timeout=10, io_timeout=30)
    yield real
    await real.aclose()


@pytest.fixture
async def copied(tmp_path, server, transport):
    copied = Copied(tmp_path / "journal.db", server, server.bucket_over(transport))
    await copied.copy()
    return copied


@pytest.fixture
async def versioned(tmp_path, versioning_server):
    transport = S3Transport(connections_max=8, connect_timeout=10, io_timeout=30)
    copied = Copied(tmp_path / "journal.db", versioning_server, versioning_server.bucket_over(transport))
    copied.make_versioned_bucket()
    await copied.copy()
    yield copied
    await transport.aclose()


async def test_every_server_gives_up_our_objects_and_keeps_all_others(copied):
    await copied.put("a", b"another")
    await copied.put("foreign", b"f", ours=False)
    looked = await copied.undo(confirmed=False)
    assert (looked.deleted, looked.left(Reason.REPLACED)) == (3, 1)
    assert await copied.there() == sorted([*KEYS, "foreign"])
    tally = await copied.undo()
    assert (tally.deleted, tally.left(Reason.REPLACED), tally.exit_code) == (3, 1, ExitCode.MISMATCH)
    assert await copied.there() == ["a", "foreign"]
    assert copied.parked() == {UNDONE: 3}


async def test_on_a_versioned_bucket_our_version_goes_for_good_and_others_stay(versioned):
    await versioned.put("b", b"newer, another's", ours=False)
    tally = await versioned.undo()
    assert (tally.deleted, tally.left(Reason.REPLACED)) == (3, 1)
    listing = versioned.versions()
    assert "<DeleteMarker>" not in listing
    assert listing.count("<Version>") == 2
    assert await versioned.there() == ["b"]
    with Reader.open(versioned.path) as reader:
        (noted,) = reader.events(kinds=[Kind.OBJECTS_DELETED])
    assert len(set(noted.data["versions"])) == 3


async def test_what_object_lock_keeps_is_told_and_not_fought(versioned):
    path = f"/{versioned.name}/{versioned.prefix}a"
    hold = b"<LegalHold><Status>ON</Status></LegalHold>"
    md5 = __import__("base64").b64encode(hashlib.md5(hold).digest()).decode()
    status, answer = versioned.ask("PUT", f"{path}?legal-hold=", hold, {"content-md5": md5})
    assert status == 200, answer
    tally = await versioned.undo()
    assert (tally.deleted, tally.left(Reason.LOCKED), tally.exit_code) == (3, 1, ExitCode.MISMATCH)
    assert await versioned.there() == ["a"]
    assert versioned.parked() == {UNDONE: 3}


class TestOnTheFake:
    """What real servers can't be made to do."""

    @pytest.fixture
    def server(self, s3_servers):
        return s3_servers.get("fake")

    async def test_where_nothing_may_be_deleted_it_ends_after_the_first_batch(self, copied):
        copied.server.fake.denied.add("DELETE")
        with pytest.raises(RefusedError, match="none of 4 objects may be deleted") as caught:
            await copied.undo()
        assert "s3:DeleteObject" in caught.value.hint
        assert await copied.there() == sorted(KEYS)
        assert copied.parked() == {UNDONE: 4}
        copied.server.fake.denied.clear()
        assert (await copied.undo()).deleted == 4
        assert await copied.there() == []

    async def test_where_nothing_may_be_looked_at_nothing_is_taken_back(self, copied):
        copied.server.fake.denied.add("HEAD")
        with pytest.raises(RefusedError, match="look at objects of bucket"):
            await copied.undo()
        assert copied.parked() == {}

    async def test_a_lost_answer_to_a_delete_is_looked_into_and_counts_as_deleted(
        self, copied, autojump_clock
    ):
        copied.server.fake.script(loses_response(), 2, operation="DELETE")
        copied.server.fake.script(drops_request(), 1, operation="DELETE")
        tally = await copied.undo()
        assert (tally.deleted, tally.exit_code) == (4, ExitCode.DONE)
        assert await copied.there() == []

    async def test_an_object_replaced_between_look_and_delete_is_kept(self, copied):
        fake = copied.server.fake
        original = fake._answer

        def replaced_first(arrived, operation, bucket, key):
            if operation == "DELETE" and key.endswith("/b"):
                fake.place(key, b"just now", BUCKET)
            return original(arrived, operation, bucket, key)

        fake._answer = replaced_first
        tally = await copied.undo()
        assert (tally.deleted, tally.left(Reason.REPLACED)) == (3, 1)
        assert fake.objects(BUCKET) == {copied.prefix + "b": b"just now"}

    async def test_a_server_that_refuses_the_condition_is_asked_without_it(self, copied):
        copied.server.fake.conditions = "refused"
        assert (await copied.undo()).deleted == 4
        assert await copied.there() == []

    async def test_a_bucket_that_is_missing_does_not_pass_for_objects_that_are_gone(self, copied):
        del copied.server.fake.buckets[BUCKET]
        with pytest.raises(Exception, match="NoSuchBucket"):
            await copied.undo()
        assert copied.parked() == {}

    async def test_a_request_to_stop_ends_it_between_objects(self, copied):
        fake = copied.server.fake
        with Journal.open(copied.path, now_us=NOW_US) as journal, Reader.open(copied.path) as reader:

            async def record(write):
                return write(journal, NOW_US)

            drain = Drain()
            deletion = Deletion(
                [UndoneSource(1, "a", BUCKET, Layout(copied.prefix))],
                copied.bucket,
                DeletionPolicy(copied.identifier, 1, 60.0, RequestPolicy(3, 5.0, Random(1))),
                record=record,
                who="op",
                now_us=wall_clock_us,
                drain=drain,
            )
            original = fake._answer

            def stopping(arrived, operation, bucket, key):
                if operation == "DELETE":
                    drain.request("SIGTERM")
                return original(arrived, operation, bucket, key)

            fake._answer = stopping
            created = created_in(reader, Scope(frozenset({1})), reader.head_seq())
            await recorded(deletion, created, record, UndoOptions(confirmed=True), "op", drain)
            fake._answer = original
            finished = journal.latest_note(Kind.UNDO_FINISHED)
        assert finished["deleted"] == 1
        assert finished["problem"] == "stopped on SIGTERM"
        assert len(await copied.there()) == 3
        assert (await copied.undo()).deleted == 3
        assert json.dumps(copied.parked()) == json.dumps({UNDONE: 4})
