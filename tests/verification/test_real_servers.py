"""The listing tier against S3 implementations that list each in their own way."""

from __future__ import annotations

import hashlib

import pytest
import trio

from daemon.comparing import FindingKind, TierName
from daemon.errors import BackfillError
from daemon.layouts import Layout, object_key
from daemon.objects import PROBE_KEY_NAME, UNCONDITIONAL
from daemon.tier_list import ListTier
from daemon.transport import S3Transport
from daemon.verification import Scope, Verification
from journal.reader import Reader
from tests.s3_servers import RunningServers, fresh_prefix
from tests.verification.worlds import policy, recording, value_of, verified_sources, write_journal

# Names that SeaweedFS lists in the order of its tree, not of bytes; spaces, plus signs and other scripts.
NAMES = ["b", "b/x", "b-", "b0", "b+c d", "żółć", "日本/語", "100%", "é=ü&?#", "n0007", "n0008"]
SECOND_PAGE = [f"page{number:04d}" for number in range(1000)]


def row_keys_for(server):
    if server.name == "rclone":
        return [
            name for name in NAMES if name != "b/x"
        ]  # its memory is a tree: no file "b" beside a folder "b"
    return NAMES if server.name == "moto" else NAMES + SECOND_PAGE


@pytest.fixture(scope="module")
def s3_servers():
    servers = RunningServers()
    yield servers
    servers.close()


@pytest.fixture(params=["fake", "weed", "rclone", "moto"])
def server(request, s3_servers):
    return s3_servers.get(request.param)


@pytest.fixture
async def bucket(server):
    if server.fake is not None:
        yield server.bucket_over(server.fake)
        return
    transport = S3Transport(connections_max=8, connect_timeout=10, io_timeout=30)
    yield server.bucket_over(transport)
    await transport.aclose()


async def put(bucket, name, key, body):
    digest = hashlib.md5(body, usedforsecurity=False).digest()
    await bucket.put(
        name, key, body, md5=digest, headers={"content-type": "text/plain"}, condition=UNCONDITIONAL
    )


async def verified(journal, bucket, name, layout):
    with Reader.open(journal.path) as reader:
        verification = Verification(
            ListTier(journal.path, bucket, journal.latest, policy()),
            verified_sources(journal, {"a": layout}, bucket=name),
            reader,
            latest=journal.latest,
            record=recording(journal),
            scope=Scope((TierName.LIST,), extra_fails=True),
            seed=1,
        )
        return await verification.run()


async def test_a_true_copy_is_found_whole_by_md5_and_each_seeded_fault_is_named(tmp_path, server, bucket):
    layout = Layout(prefix=fresh_prefix())
    row_keys = row_keys_for(server)
    with write_journal(tmp_path / "journal.db", {"a": dict.fromkeys(row_keys, "stored")}) as journal:
        for some in (row_keys[first::8] for first in range(8)):
            async with trio.open_nursery() as nursery:
                for key in some:
                    nursery.start_soon(put, bucket, server.bucket, object_key(layout, key), value_of(key))
        await put(bucket, server.bucket, layout.prefix + PROBE_KEY_NAME, b"probe")
        clean = await verified(journal, bucket, server.bucket, layout)
        assert (clean.checked, clean.by_digest, clean.examples) == (len(row_keys), len(row_keys), ())

        await bucket.delete(server.bucket, object_key(layout, "b-"))
        await put(bucket, server.bucket, object_key(layout, "żółć"), value_of("żółć")[:-1])
        await put(bucket, server.bucket, object_key(layout, "n0007"), value_of("n0008"))
        await put(bucket, server.bucket, layout.prefix + "stray", b"")
        faulty = await verified(journal, bucket, server.bucket, layout)
    assert {(finding.kind, finding.row_key or finding.object_key) for finding in faulty.examples} == {
        (FindingKind.MISSING, "b-"),
        (FindingKind.DIFFERING, "żółć"),
        (FindingKind.DIFFERING, "n0007"),
        (FindingKind.EXTRA, layout.prefix + "stray"),
    }
    assert faulty.exit_code == 4


async def test_a_bucket_that_is_not_there_is_refused_and_named(tmp_path, server, bucket):
    journal = write_journal(tmp_path / "journal.db", {"a": {"k": "stored"}})
    with journal, pytest.raises(BackfillError, match="no-such-bucket"):
        await verified(journal, bucket, "no-such-bucket", Layout(prefix="p/"))
