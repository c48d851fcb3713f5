"""What real servers can't be made to do, scripted; and what goes over the wire, as the fake saw it."""

from __future__ import annotations

import hashlib
from random import Random

import httpx
import pytest
import trio

from daemon.activity import Activity
from daemon.objects import IF_ABSENT, PROBE_KEY_NAME, UNCONDITIONAL, PreconditionFailed
from daemon.probing import BODY
from daemon.retrying import Failure, FailureClass
from daemon.rows import FetchedRow
from daemon.runtime import wall_clock_us
from daemon.uploader import Conditional, Destination, Uploader, UploadPolicy
from tests import s3_fake, s3_faults
from tests.s3_fake import FakeS3
from tests.s3_servers import BUCKET, fake_server

pytestmark = pytest.mark.trio


class Stream(httpx.AsyncByteStream):
    """A body of at most 1000 pieces that ends in `error`; counts what was taken and whether it was closed."""

    def __init__(self, piece, error=None):
        self._piece = piece
        self._error = error
        self.taken = 0
        self.closed = False

    async def __aiter__(self):
        for _ in range(1000):
            self.taken += 1
            yield self._piece
            if self._error is not None:
                raise self._error

    async def aclose(self):
        self.closed = True


class OneAnswer(httpx.AsyncBaseTransport):
    def __init__(self, status, stream):
        self._response = httpx.Response(status, stream=stream)

    async def handle_async_request(self, request):
        return self._response


def put(bucket, key="k", body=b"value", *, condition=IF_ABSENT, **headers):
    md5 = hashlib.md5(body).digest()
    return bucket.put(BUCKET, key, body, md5=md5, headers=headers, condition=condition)


async def failure_of(operation):
    with pytest.raises(Failure) as caught:
        await operation
    return caught.value


async def test_a_lost_response_is_silence_and_the_object_is_there(scripted, fake):
    fake.script(s3_faults.loses_response())
    failure = await failure_of(put(scripted))
    assert (failure.kind, failure.answered) == (FailureClass.CONNECTION, False)
    with pytest.raises(PreconditionFailed):
        await put(scripted)
    assert fake.puts_taken == {(BUCKET, "k"): 1}


async def test_a_request_that_never_arrived_leaves_nothing(scripted, fake):
    fake.script(s3_faults.drops_request(httpx.ConnectTimeout))
    failure = await failure_of(put(scripted))
    assert (failure.kind, failure.answered) == (FailureClass.TIMEOUT, False)
    assert fake.objects(BUCKET) == {}


async def test_a_bit_flipped_on_the_way_is_refused_by_the_server(scripted, fake):
    fake.script(s3_faults.flips_bit())
    assert (await failure_of(put(scripted))).kind is FailureClass.CORRUPTED
    assert fake.objects(BUCKET) == {}


async def test_an_answer_that_breaks_off_counts_as_answered(scripted, fake):
    await put(scripted)
    fake.script(s3_faults.truncates(), times=2)
    failure = await failure_of(scripted.get_digest(BUCKET, "k", size_max=10))
    assert (failure.kind, failure.answered) == (FailureClass.GARBLED, True)
    failure = await failure_of(scripted.list_page(BUCKET, "", token=None))
    assert (failure.kind, failure.answered) == (FailureClass.GARBLED, True)


@pytest.mark.parametrize(
    "answer",
    [
        s3_faults.answers(200),
        s3_faults.answers(200, body=b"<html>sign in to the network</html>", etag='"e"'),
        s3_faults.answers(200, body=b"x" * 100_000, etag='"e"'),
        s3_faults.answers(204, etag='"e"'),
    ],
)
async def test_a_success_that_s3_would_not_send_is_garbled(scripted, fake, answer):
    fake.script(answer)
    assert (await failure_of(put(scripted))).kind is FailureClass.GARBLED
    assert fake.objects(BUCKET) == {}


async def test_a_page_of_a_proxy_is_no_object(scripted, fake):
    """Under existing = skip a key for which HEAD met one was settled with nothing under it."""
    fake.script(s3_faults.answers(200, body=b"<html>sign in to the network</html>"), times=2)
    failure = await failure_of(scripted.head(BUCKET, "k"))
    assert (failure.kind, failure.operation) == (FailureClass.GARBLED, "HEAD")
    failure = await failure_of(scripted.get(BUCKET, "k", size_max=100))
    assert (failure.kind, failure.operation) == (FailureClass.GARBLED, "GET")


async def test_a_listing_that_is_a_page_of_a_proxy_is_garbled(scripted, fake):
    fake.script(s3_faults.answers(200, body=b"<html>maintenance</html>"))
    failure = await failure_of(scripted.list_page(BUCKET, "", token=None))
    assert (failure.kind, failure.operation) == (FailureClass.GARBLED, "LIST")


async def test_a_listing_without_end_is_cut(scripted, fake, monkeypatch):
    monkeypatch.setattr("daemon.bucket.PAGE_BODY_BYTES_MAX", 1000)
    fake.script(s3_faults.answers(200, body=b" " * 5000))
    failure = await failure_of(scripted.list_page(BUCKET, "", token=None))
    assert failure.kind is FailureClass.GARBLED
    assert "at most 1000 bytes" in failure.message


async def test_a_long_error_page_is_cut_and_judged_by_its_status(scripted, fake):
    fake.script(s3_faults.answers(502, body=b"<html>" + b"x" * 1_000_000))
    failure = await failure_of(put(scripted))
    assert (failure.kind, failure.http_status) == (FailureClass.SERVER, 502)


@pytest.mark.parametrize("status", [200, 500])
async def test_a_body_without_end_is_left_and_closed(status):
    stream = Stream(b"x" * 16_384)
    await failure_of(put(fake_server().bucket_over(OneAnswer(status, stream))))
    assert stream.taken == 5
    assert stream.closed


async def test_a_body_that_was_read_is_closed_too():
    stream = Stream(b"", httpx.ReadError("reset"))
    failure = await failure_of(put(fake_server().bucket_over(OneAnswer(200, stream))))
    assert (failure.kind, failure.answered) == (FailureClass.CONNECTION, True)
    assert stream.closed


async def test_a_length_that_the_body_does_not_have_is_garbled(scripted, fake):
    fake.script(s3_faults.answers(200, body=b"four", content_length="5"))
    assert (await failure_of(scripted.get_digest(BUCKET, "k", size_max=10))).kind is FailureClass.GARBLED
    fake.script(s3_faults.answers(200, content_length="five"))
    assert (await failure_of(scripted.head(BUCKET, "k"))).kind is FailureClass.GARBLED


async def test_slow_down_is_throttling_and_tells_the_request_id(scripted, fake):
    fake.script(s3_faults.slow_down())
    failure = await failure_of(put(scripted))
    assert failure.kind is FailureClass.THROTTLED
    assert failure.request_id.startswith("FAKE")
    await put(scripted)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_no_redirect_is_followed(scripted, fake, status):
    fake.script(s3_faults.answers(status, location="https://elsewhere.example/k"))
    failure = await failure_of(put(scripted))
    assert failure.kind is FailureClass.REDIRECTED
    assert [seen.status for seen in fake.seen] == [status]


async def test_a_wrong_region_is_named_with_the_right_one(fake):
    server = fake_server(fake)
    server.region = "us-east-1"
    failure = await failure_of(put(server.bucket_over(fake)))
    assert failure.kind is FailureClass.WRONG_REGION
    assert s3_fake.REGION in failure.message


async def test_expired_credentials_are_told_apart(scripted, fake):
    fake.expired.add(s3_fake.ACCESS_KEY)
    assert (await failure_of(put(scripted))).kind is FailureClass.EXPIRED_CREDENTIALS


async def test_a_refresh_tells_which_credentials_were_refused(scripted, fake):
    source = scripted.credentials
    await scripted.refresh_credentials()
    fake.script(s3_faults.slow_down())
    await failure_of(put(scripted))
    await scripted.refresh_credentials()
    fake.expired.add(s3_fake.ACCESS_KEY)
    await failure_of(put(scripted))
    await scripted.refresh_credentials()
    assert source.refused == [None, None, await source.current()]


async def test_secrets_that_a_server_echoes_stay_out_of_the_failure(fake):
    bucket = fake_server(fake).bucket_over(fake, token="token-canary")
    echo = b"<Error><Code>AccessDenied</Code><Message>fake-secret-canary token-canary</Message></Error>"
    fake.script(s3_faults.answers(403, body=echo))
    failure = await failure_of(put(bucket))
    assert "canary" not in failure.message
    assert "[secret] [secret]" in failure.message


async def test_head_that_is_forbidden_is_forbidden_not_absent(scripted, fake):
    fake.denied.add("HEAD")
    failure = await failure_of(scripted.head(BUCKET, "k"))
    assert (failure.kind, failure.operation) == (FailureClass.FORBIDDEN, "HEAD")


async def test_without_the_right_to_list_a_missing_object_looks_forbidden(scripted, fake):
    fake.denied.add("LIST")
    assert (await failure_of(scripted.head(BUCKET, "k"))).kind is FailureClass.FORBIDDEN


async def test_the_learnt_clock_is_corrected_when_it_changes_again(scripted, fake):
    for minutes in (20, -40, 0):
        fake.clock_offset_us = minutes * 60_000_000
        with pytest.raises(Failure, match="RequestTimeTooSkewed"):
            await put(scripted, f"{minutes}")
        await put(scripted, f"{minutes}")
        assert abs(scripted.clock_offset_us - fake.clock_offset_us) < 10_000_000


async def test_every_put_carries_what_the_configuration_says_of_storage(fake):
    bucket = fake_server(fake).bucket_over(
        fake,
        sse="aws:kms",
        kms_key_id="arn:aws:kms:eu-west-1:123456789012:key/k",
        storage_class="STANDARD_IA",
        tags={"team": "data & co", "env": "ä"},
        expected_bucket_owner="123456789012",
    )
    receipt = await put(bucket)
    await bucket.head(BUCKET, "k")
    sent, asked = (seen.headers for seen in fake.seen)
    assert sent["x-amz-server-side-encryption"] == "aws:kms"
    assert sent["x-amz-server-side-encryption-aws-kms-key-id"].endswith("key/k")
    assert sent["x-amz-storage-class"] == "STANDARD_IA"
    assert dict(httpx.QueryParams(sent["x-amz-tagging"])) == {"team": "data & co", "env": "ä"}
    assert sent["x-amz-expected-bucket-owner"] == asked["x-amz-expected-bucket-owner"] == "123456789012"
    assert not {"x-amz-storage-class", "x-amz-tagging", "x-amz-server-side-encryption"} & set(asked)
    assert receipt.encryption == "aws:kms"


async def test_a_plain_put_says_nothing_of_storage(scripted, fake):
    await put(scripted, condition=UNCONDITIONAL)
    assert not {
        name for name in fake.seen[0].headers if name.startswith(("if-", "x-amz-s", "x-amz-t", "x-amz-e"))
    }


async def test_virtual_addressing_puts_the_bucket_into_the_host(fake):
    bucket = fake_server(fake).bucket_over(fake, addressing="virtual")
    await put(bucket, "a/b")
    await bucket.list_page(BUCKET, "", token=None)
    assert {seen.headers["host"] for seen in fake.seen} == {f"{BUCKET}.{s3_fake.DOMAIN}"}
    assert fake.objects(BUCKET) == {"a/b": b"value"}


async def test_metadata_of_exactly_two_kilobytes_goes_out_and_one_byte_more_does_not(scripted, fake):
    failure = await failure_of(put(scripted, **{"x-amz-meta-n": "v" * 2048}))
    assert failure.kind is FailureClass.METADATA_TOO_LARGE
    assert fake.seen == []
    await put(scripted, **{"x-amz-meta-n": "v" * 2047})


async def test_large_values_are_digested_by_the_runner_once_and_small_ones_are_not(scripted, fake):
    digested = []

    async def runner(function):
        digested.append(function())
        return digested[-1]

    uploader = Uploader(
        scripted,
        UploadPolicy("m/1", "compare", max_attempts=1, give_up_after=1.0),
        record=None,
        random=Random(1),
        digest_runner=runner,
        activity=Activity(),
    )
    destination = Destination(BUCKET, "application/octet-stream", Conditional.ATOMIC)
    values = {"small": b"x" * 65_536, "large": b"x" * 65_537}
    for ordinal, (key, value) in enumerate(values.items()):
        await uploader.copy(ordinal, destination, key, FetchedRow(key, len(value), value))
    large = values["large"]
    assert digested == [
        (hashlib.md5(large, usedforsecurity=False).digest(), hashlib.sha256(large).hexdigest())
    ]
    assert fake.objects(BUCKET) == values


@pytest.mark.parametrize("versioned", [False, True])
async def test_the_probe_removes_every_version_it_made(scripted, fake, versioned):
    fake.versioned = versioned
    fake.conditions = "ignored"
    assert (await scripted.probe(BUCKET, "p/")).deletable
    assert fake.buckets[BUCKET] == {}


async def test_a_probe_that_may_not_delete_says_so_and_still_works_the_next_time(scripted, fake):
    fake.denied.add("DELETE")
    for _ in range(2):
        finding = await scripted.probe(BUCKET, "p/")
        assert (finding.conditional, finding.deletable) == ("atomic", False)
    assert list(fake.objects(BUCKET)) == [f"p/{PROBE_KEY_NAME}"]


async def test_a_probe_that_may_not_delete_versions_takes_its_object_out_of_sight(scripted, fake):
    fake.versioned = True
    fake.denied.add("DELETE_VERSION")
    assert (await scripted.probe(BUCKET, "p/")).deletable
    assert fake.objects(BUCKET) == {}


async def test_an_endpoint_that_refuses_conditions_is_found_out_and_left_clean(scripted, fake):
    fake.conditions = "refused"
    finding = await scripted.probe(BUCKET, "")
    assert (finding.conditional, finding.deletable) == ("refused", True)
    assert fake.objects(BUCKET) == {}


async def test_a_probe_whose_every_put_is_rejected_says_why_instead_of_blaming_the_condition(scripted, fake):
    fake.script(s3_faults.answers(400, "InvalidStorageClass"), operation="PUT")
    fake.script(s3_faults.answers(400, "InvalidTag"), operation="PUT")
    failure = await failure_of(scripted.probe(BUCKET, ""))
    assert failure.code == "InvalidStorageClass"
    assert failure.__cause__.code == "InvalidTag"


@pytest.mark.parametrize("at", [1, 2, 3, 4])
async def test_a_probe_interrupted_anywhere_can_be_repeated(scripted, fake, at):
    for _ in range(at - 1):
        fake.script(s3_faults.delays(0))
    fake.script(s3_faults.loses_response())
    await failure_of(scripted.probe(BUCKET, ""))
    finding = await scripted.probe(BUCKET, "")
    assert (finding.conditional, finding.deletable) == ("atomic", True)
    assert fake.objects(BUCKET) == {}


@pytest.mark.parametrize("conditions", ["atomic", "ignored", "refused"])
async def test_a_probe_leaves_alone_what_it_did_not_make_and_names_it(scripted, fake, conditions):
    fake.conditions = conditions
    for body in (b"a row's value", bytes(len(BODY))):
        fake.place(f"p/{PROBE_KEY_NAME}", body, BUCKET)
        failure = await failure_of(scripted.probe(BUCKET, "p/"))
        assert failure.kind is FailureClass.REJECTED
        assert f"p/{PROBE_KEY_NAME}" in failure.message
        assert fake.objects(BUCKET) == {f"p/{PROBE_KEY_NAME}": body}
    assert {seen.operation for seen in fake.seen} <= {"HEAD", "GET"}


async def test_a_probe_knows_what_an_earlier_one_left_under_kms(scripted, fake):
    fake.place(PROBE_KEY_NAME, BODY, BUCKET, x_amz_server_side_encryption="aws:kms")
    finding = await scripted.probe(BUCKET, "")
    assert (finding.conditional, finding.deletable) == ("atomic", True)
    assert fake.objects(BUCKET) == {}


async def test_a_probe_that_may_not_look_deletes_only_what_it_stored(scripted, fake):
    fake.denied.add("HEAD")
    assert (await scripted.probe(BUCKET, "")).deletable
    assert fake.objects(BUCKET) == {}
    fake.place(PROBE_KEY_NAME, b"a row's value", BUCKET)
    finding = await scripted.probe(BUCKET, "")
    assert (finding.conditional, finding.deletable) == ("atomic", False)
    assert fake.objects(BUCKET) == {PROBE_KEY_NAME: b"a row's value"}


async def test_a_probe_that_may_not_look_overwrites_nothing_where_conditions_are_refused(scripted, fake):
    fake.denied.add("HEAD")
    fake.conditions = "refused"
    fake.place(PROBE_KEY_NAME, b"a row's value", BUCKET)
    assert (await failure_of(scripted.probe(BUCKET, ""))).kind is FailureClass.FORBIDDEN
    assert fake.objects(BUCKET) == {PROBE_KEY_NAME: b"a row's value"}


async def test_what_another_stores_during_the_probe_is_not_deleted(scripted, fake, monkeypatch):
    head = scripted.head

    async def head_then_another_stores(bucket, key):
        there = await head(bucket, key)
        if there is None:
            fake.place(key, b"a row's value", bucket)
        return there

    monkeypatch.setattr(scripted, "head", head_then_another_stores)
    assert (await failure_of(scripted.probe(BUCKET, ""))).kind is FailureClass.REJECTED
    assert fake.objects(BUCKET) == {PROBE_KEY_NAME: b"a row's value"}


async def test_a_forbidden_put_ends_the_probe(scripted, fake):
    fake.denied.add("PUT")
    assert (await failure_of(scripted.probe(BUCKET, ""))).kind is FailureClass.FORBIDDEN


async def test_a_token_that_leads_nowhere_new_is_garbled_rather_than_followed_for_ever(scripted, fake):
    document = (
        b"<ListBucketResult><IsTruncated>true</IsTruncated>"
        b"<NextContinuationToken>again</NextContinuationToken></ListBucketResult>"
    )
    fake.script(s3_faults.answers(200, body=document), times=2)
    _, token = await scripted.list_page(BUCKET, "", token=None)
    assert (await failure_of(scripted.list_page(BUCKET, "", token=token))).kind is FailureClass.GARBLED


async def test_a_request_that_lands_late_appears_only_then(autojump_clock):
    def now_us():
        return 1_700_000_000_000_000 + round(trio.current_time() * 1e6)

    fake = FakeS3(now_us, Random(1), buckets=[BUCKET])
    bucket = fake_server(fake).bucket_over(fake, clock_us=now_us)
    fake.script(s3_faults.lands_late(30))
    assert (await failure_of(put(bucket))).kind is FailureClass.TIMEOUT
    await trio.sleep(29)
    assert await bucket.head(BUCKET, "k") is None
    await trio.sleep(2)
    assert (await bucket.head(BUCKET, "k")).size == 5


async def test_the_fake_counts_puts_at_once_in_virtual_time(autojump_clock):
    fake = FakeS3(wall_clock_us, Random(1), buckets=[BUCKET], latency=lambda: 1000.0)
    bucket = fake_server(fake).bucket_over(fake)
    async with trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(put, bucket, str(number))
    assert fake.in_flight_max == 5
    assert fake.in_flight == 0
    assert trio.current_time() - 2000 < 1


async def test_the_fake_refuses_a_header_that_was_added_after_signing(fake):
    bucket = fake_server(fake).bucket_over(fake)
    original = bucket._signer.sign

    def adding(*arguments, **named):
        return [*original(*arguments, **named), (b"x-amz-meta-late", b"1")]

    bucket._signer.sign = adding
    failure = await failure_of(put(bucket))
    assert failure.kind is FailureClass.FORBIDDEN
    assert "not signed" in failure.message


async def test_the_fake_refuses_a_request_changed_after_signing(fake):
    bucket = fake_server(fake).bucket_over(fake)
    original = bucket._signer.sign
    bucket._signer.sign = lambda *arguments, **named: original(*arguments, **{**named, "query": "a=b"})
    assert (await failure_of(put(bucket))).code == "SignatureDoesNotMatch"
