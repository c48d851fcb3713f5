"""One suite for every S3 implementation: what the bucket relies on, and where one of them deviates."""

from __future__ import annotations

import hashlib

import pytest
import trio

from daemon.objects import IF_ABSENT, PROBE_KEY_NAME, UNCONDITIONAL, PreconditionFailed, if_match
from daemon.probing import BODY
from daemon.retrying import Failure, FailureClass
from daemon.runtime import wall_clock_us

pytestmark = pytest.mark.trio

TWENTY_MINUTES_US = 20 * 60 * 1_000_000


def digest(body: bytes) -> bytes:
    return hashlib.md5(body).digest()


async def put(bucket, server, key, body=b"value", *, condition=IF_ABSENT, md5=None, **metadata):
    headers = {"content-type": "application/octet-stream"}
    headers |= {f"x-amz-meta-{name.replace('_', '-')}": value for name, value in metadata.items()}
    return await bucket.put(
        server.bucket,
        key,
        body,
        md5=digest(body) if md5 is None else md5,
        headers=headers,
        condition=condition,
    )


async def listed(bucket, server, prefix):
    found, token, pages = {}, None, 0
    while pages == 0 or token is not None:
        objects, token = await bucket.list_page(server.bucket, prefix, token=token)
        for entry in objects:
            assert entry.key not in found
            found[entry.key] = entry
        pages += 1
    return found, pages


async def failure_of(operation):
    with pytest.raises(Failure) as caught:
        await operation
    return caught.value


async def test_what_was_put_is_what_head_shows(bucket, server, prefix):
    body = b"some bytes \x00\xff"
    receipt = await put(bucket, server, f"{prefix}a", body, backfill_md5=digest(body).hex(), name="%C3%A9")
    facts = await bucket.head(server.bucket, f"{prefix}a")
    assert receipt.etag == facts.etag == digest(body).hex()
    assert facts.size == len(body)
    assert facts.metadata["backfill-md5"] == digest(body).hex()
    assert facts.metadata["name"] == "%C3%A9"


async def test_an_empty_value_is_an_object(bucket, server, prefix):
    await put(bucket, server, f"{prefix}empty", b"")
    assert (await bucket.head(server.bucket, f"{prefix}empty")).size == 0
    assert await bucket.get_digest(server.bucket, f"{prefix}empty", size_max=0) == (digest(b"").hex(), 0)


async def test_a_value_hashed_off_the_loop_arrives_whole(bucket, server, prefix):
    body = bytes(range(256)) * 8192
    await put(bucket, server, f"{prefix}large", body)
    found = await bucket.get_digest(server.bucket, f"{prefix}large", size_max=len(body))
    assert found == (digest(body).hex(), len(body))


@pytest.mark.parametrize(
    "name",
    [
        "plain",
        "a b",
        "a+b",
        "a%20b",
        "100%",
        "ä/ö/ü",
        "日本語",
        "emoji-🙂",
        "tilde~-._",
        "(!$&'*,;=:@)",
        'q"uo<t>e',
        "#?x=y&z",
    ],
)
async def test_a_key_survives_the_way_there_and_the_listing(bucket, server, prefix, name):
    key = f"{prefix}{name}"
    await put(bucket, server, key, name.encode())
    found, _ = await listed(bucket, server, prefix)
    assert list(found) == [key]
    assert found[key].size == len(name.encode())
    assert found[key].etag == digest(name.encode()).hex()
    assert (await bucket.get_digest(server.bucket, key, size_max=1000))[0] == digest(name.encode()).hex()


async def test_head_of_nothing_is_none(bucket, server, prefix):
    assert await bucket.head(server.bucket, f"{prefix}nothing") is None


async def test_a_second_conditional_put_is_refused_and_changes_nothing(bucket, server, prefix):
    await put(bucket, server, f"{prefix}k", b"first")
    if server.capabilities.honours_conditions:
        with pytest.raises(PreconditionFailed):
            await put(bucket, server, f"{prefix}k", b"second")
        expected = b"first"
    else:
        await put(bucket, server, f"{prefix}k", b"second")
        expected = b"second"
    assert (await bucket.head(server.bucket, f"{prefix}k")).etag == digest(expected).hex()


async def test_if_match_overwrites_exactly_the_object_it_names(bucket, server, prefix):
    first = await put(bucket, server, f"{prefix}k", b"first")
    second = await put(bucket, server, f"{prefix}k", b"second", condition=if_match(first.etag))
    assert second.etag == digest(b"second").hex()
    if server.capabilities.honours_conditions:
        with pytest.raises(PreconditionFailed):
            await put(bucket, server, f"{prefix}k", b"third", condition=if_match(first.etag))
    else:
        await put(bucket, server, f"{prefix}k", b"third", condition=if_match(first.etag))


async def test_if_match_where_nothing_is_any_more_is_a_failed_condition(bucket, server, prefix):
    condition = if_match(digest(b"gone").hex())
    if server.capabilities.honours_conditions:
        with pytest.raises(PreconditionFailed):
            await put(bucket, server, f"{prefix}k", b"new", condition=condition)
    else:
        await put(bucket, server, f"{prefix}k", b"new", condition=condition)


async def test_of_puts_at_once_under_one_key_exactly_one_wins(bucket, server, prefix):
    won, lost, failed = [], [], []

    async def attempt(number):
        try:
            await put(bucket, server, f"{prefix}race", b"%d" % number)
            won.append(number)
        except PreconditionFailed:
            lost.append(number)
        except Failure as failure:
            failed.append(failure.kind)

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(attempt, number)
    facts = await bucket.head(server.bucket, f"{prefix}race")
    if server.capabilities.honours_conditions:
        assert (len(won), len(lost)) == (1, 7)
        assert facts.etag == digest(b"%d" % won[0]).hex()
    else:
        assert lost == []
        assert set(failed) <= {FailureClass.SERVER}  # rclone answers some of them 500


async def test_a_body_that_contradicts_its_md5_is_not_stored(bucket, server, prefix):
    attempt = put(bucket, server, f"{prefix}k", b"flipped", md5=digest(b"flapped"))
    if server.capabilities.checks_md5:
        failure = await failure_of(attempt)
        assert (failure.kind, failure.code) == (FailureClass.CORRUPTED, "BadDigest")
        assert await bucket.head(server.bucket, f"{prefix}k") is None
    else:
        assert (await attempt).etag == digest(b"flipped").hex()


async def test_a_wrong_secret_is_forbidden_and_told_without_any_secret(server, transport, prefix):
    stranger = server.bucket_over(transport, secret_key="wrong-canary")
    attempt = put(stranger, server, f"{prefix}k")
    if not server.capabilities.authenticates:
        await attempt
        return
    failure = await failure_of(attempt)
    assert failure.kind is FailureClass.FORBIDDEN
    assert failure.code == "SignatureDoesNotMatch"
    assert "canary" not in str(failure.message) + repr(failure)
    assert server.bucket in failure.message


async def test_an_unknown_access_key_is_forbidden(server, transport, prefix):
    stranger = server.bucket_over(transport, access_key="AKIANOBODY")
    attempt = put(stranger, server, f"{prefix}k")
    if not server.capabilities.authenticates:
        await attempt
        return
    failure = await failure_of(attempt)
    assert failure.kind is FailureClass.FORBIDDEN
    assert "AKIANOBODY" not in failure.message


async def test_a_missing_bucket_is_named_and_not_created(bucket, server, prefix):
    for _ in range(2):
        failure = await failure_of(
            bucket.put(
                "missing-bucket", f"{prefix}k", b"", md5=digest(b""), headers={}, condition=UNCONDITIONAL
            )
        )
        assert failure.kind is FailureClass.NO_SUCH_BUCKET
        assert "s3://missing-bucket/" in failure.message
    assert (
        await failure_of(bucket.list_page("missing-bucket", "", token=None))
    ).kind is FailureClass.NO_SUCH_BUCKET


async def test_every_object_is_listed_once_over_many_pages(bucket, server, prefix, monkeypatch):
    monkeypatch.setattr("daemon.bucket.LIST_KEYS_MAX", 7)
    names = [f"{prefix}{group}/{number}" for group in ("b", "b-", "b0", "a") for number in range(6)]
    for name in names:
        await put(bucket, server, name, name.encode())
    found, pages = await listed(bucket, server, prefix)
    assert sorted(found) == sorted(names)
    assert pages >= 4
    assert all(found[name].etag == digest(name.encode()).hex() for name in names)


async def test_a_prefix_with_nothing_under_it_lists_nothing(bucket, server, prefix):
    assert await bucket.list_page(server.bucket, prefix, token=None) == ([], None)


async def test_a_deleted_object_is_gone_and_deleting_nothing_succeeds(bucket, server, prefix):
    await put(bucket, server, f"{prefix}k")
    await bucket.delete(server.bucket, f"{prefix}k")
    assert await bucket.head(server.bucket, f"{prefix}k") is None
    await bucket.delete(server.bucket, f"{prefix}k")


async def test_a_digest_stops_at_the_size_that_was_agreed(bucket, server, prefix):
    await put(bucket, server, f"{prefix}k", b"x" * 100_000)
    failure = await failure_of(bucket.get_digest(server.bucket, f"{prefix}k", size_max=99_999))
    assert (failure.kind, failure.operation) == (FailureClass.CONFLICT, "GET")


async def test_a_digest_of_what_went_away_is_a_conflict(bucket, server, prefix):
    failure = await failure_of(bucket.get_digest(server.bucket, f"{prefix}k", size_max=10))
    assert failure.kind is FailureClass.CONFLICT


async def test_the_probe_tells_whether_conditions_hold_and_leaves_nothing(bucket, server, prefix):
    for _ in range(2):
        finding = await bucket.probe(server.bucket, prefix)
        assert finding.conditional == ("atomic" if server.capabilities.honours_conditions else "ignored")
        assert finding.deletable
        assert finding.key == f"{prefix}{PROBE_KEY_NAME}"
        assert await bucket.list_page(server.bucket, prefix, token=None) == ([], None)


async def test_a_probe_object_left_by_a_killed_run_does_not_mislead(bucket, server, prefix):
    await put(bucket, server, f"{prefix}{PROBE_KEY_NAME}", BODY)
    finding = await bucket.probe(server.bucket, prefix)
    assert finding.conditional == ("atomic" if server.capabilities.honours_conditions else "ignored")
    assert await bucket.head(server.bucket, finding.key) is None


async def test_a_probe_leaves_alone_what_is_not_its_own(bucket, server, prefix):
    await put(bucket, server, f"{prefix}{PROBE_KEY_NAME}", b"a row's value")
    failure = await failure_of(bucket.probe(server.bucket, prefix))
    assert failure.kind is FailureClass.REJECTED
    found = await bucket.get_digest(server.bucket, f"{prefix}{PROBE_KEY_NAME}", size_max=100)
    assert found == (digest(b"a row's value").hex(), 13)


async def test_a_clock_twenty_minutes_fast_is_learnt_from_the_answer(server, transport, prefix):
    fast = server.bucket_over(transport, clock_us=lambda: wall_clock_us() + TWENTY_MINUTES_US)
    if server.capabilities.checks_clock:
        failure = await failure_of(put(fast, server, f"{prefix}k"))
        assert failure.kind is FailureClass.CLOCK_SKEW
        assert abs(fast.clock_offset_us + TWENTY_MINUTES_US) < 60_000_000
    await put(fast, server, f"{prefix}k")


async def test_head_learns_the_clock_too_although_it_carries_no_code(server, transport, prefix):
    fast = server.bucket_over(transport, clock_us=lambda: wall_clock_us() + TWENTY_MINUTES_US)
    if server.capabilities.checks_clock:
        failure = await failure_of(fast.head(server.bucket, f"{prefix}k"))
        assert failure.kind is FailureClass.CLOCK_SKEW
    assert await fast.head(server.bucket, f"{prefix}k") is None


async def test_metadata_over_two_kilobytes_is_refused_before_anything_is_sent(bucket, server, prefix):
    failure = await failure_of(put(bucket, server, f"{prefix}k", note="n" * 2045))
    assert failure.kind is FailureClass.METADATA_TOO_LARGE
    assert await bucket.head(server.bucket, f"{prefix}k") is None
    # rclone counts other headers too: it refuses 1822 bytes beside a bare minimum of them
    await put(bucket, server, f"{prefix}k", note="n" * (2044 if server.name != "rclone" else 1000))


@pytest.mark.parametrize("server", ["weed", "rclone", "moto"], indirect=True)
async def test_one_connection_serves_successes_and_errors_alike(bucket, server, transport, prefix):
    for number in range(5):
        await put(bucket, server, f"{prefix}{number}")
        await bucket.head(server.bucket, f"{prefix}{number}")
        await bucket.head(server.bucket, f"{prefix}nothing")
        await bucket.list_page(server.bucket, prefix, token=None)
        await bucket.get_digest(server.bucket, f"{prefix}{number}", size_max=100)
        await failure_of(bucket.list_page("missing-bucket", "", token=None))
    statistics = transport.statistics()
    assert statistics.opened == (1 if server.capabilities.keeps_connections else statistics.requests)
