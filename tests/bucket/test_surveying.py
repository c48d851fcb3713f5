"""What an endpoint is found to do: on servers that are known to do it, and from documents that lie."""

from __future__ import annotations

import hashlib

import pytest
import trio

from daemon.answers import GarbledAnswerError
from daemon.bucket_documents import LifecycleRule, read_lifecycle, read_object_lock, read_versioning
from daemon.classifying import Answer
from daemon.findings import Level
from daemon.objects import PROBE_KEY_NAME, UNCONDITIONAL
from daemon.rendering_endpoint import endpoint_line
from daemon.runtime import wall_clock_us
from daemon.survey_findings import QUESTIONS, survey_findings
from daemon.surveying import FIRST, Survey, survey
from daemon.transport import S3Transport
from tests.s3_servers import RunningServers, fresh_prefix

ALL = {
    "put": "accepted",
    "etag": "md5",
    "if_none_match": "honoured",
    "if_match": "honoured",
    "content_md5": "verified",
    "list": "allowed",
    "delete": "allowed",
    "url_encoding": "honoured",
    "head_of_missing": "404",
}
KNOWN = {
    "fake": ALL,
    "weed": {**ALL, "payload_hash": "ignored", "checksum_sha256": "verified", "checksum_returned": "yes"},
    "rclone": {
        **ALL,
        "if_none_match": "ignored",
        "if_match": "ignored",
        "payload_hash": "ignored",
        "delete_if_match": "ignored",
    },
    "moto": {**ALL, "content_md5": "ignored", "payload_hash": "ignored", "delete_if_match": "honoured"},
}


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


async def surveyed(bucket, server, prefix):
    return await survey(bucket, server.bucket, prefix, now_us=wall_clock_us)


async def test_a_server_is_found_to_do_what_it_is_known_to_do_and_nothing_is_left(server, bucket):
    prefix = fresh_prefix()
    found = await surveyed(bucket, server, prefix)
    known = KNOWN[server.name]
    assert {question: found.found.get(question) for question in known} == known
    assert set(found.found) <= set(QUESTIONS)
    assert found.left == []
    assert await bucket.list_page(server.bucket, prefix, token=None) == ([], None)


async def test_an_object_of_somebody_else_under_its_name_is_left_alone(server, bucket):
    prefix = fresh_prefix()
    digest = hashlib.md5(b"precious", usedforsecurity=False).digest()
    await bucket.put(
        server.bucket, prefix + FIRST, b"precious", md5=digest, headers={}, condition=UNCONDITIONAL
    )
    found = await surveyed(bucket, server, prefix)
    assert found.found["put"] == "occupied"
    assert (await bucket.get(server.bucket, prefix + FIRST, size_max=100))[1] == b"precious"
    assert "another object is under" in survey_findings(found)[0].text


class Versioned:
    """A bucket on which every request but those about the bucket itself succeeds, and is remembered."""

    def __init__(self, *, lock: bytes = b"", lifecycle: bytes = b"", status: int = 200) -> None:
        self.documents = {"object-lock": lock, "lifecycle": lifecycle}
        self.status = status
        self.asked = []
        self._versions = 0

    async def ask(self, subject, fields=(), *, query=None, body=b"", payload_sha256=None):
        await trio.lowlevel.checkpoint()
        self.asked.append((subject.operation, subject.key, dict(query or {})))
        if subject.operation == "LIST":
            document = next((self.documents.get(name) for name in query or {}), None)
            return Answer(200, {}, document) if document else Answer(404)
        if subject.operation == "HEAD":
            return Answer(404)
        if subject.operation == "PUT":
            self._versions += 1
            headers = {"etag": '"x"', "x-amz-version-id": f"v{self._versions}"}
            return Answer(self.status, headers if self.status == 200 else {})
        return Answer(204)


async def test_every_version_that_it_wrote_is_deleted_for_good():
    target = Versioned()
    await survey(target, "b", "p/", now_us=wall_clock_us)
    written = sum(operation == "PUT" for operation, _, _ in target.asked)
    deleted = [query["versionId"] for operation, _, query in target.asked if operation == "DELETE" and query]
    assert sorted(deleted) == sorted(f"v{number}" for number in range(1, written + 1))


async def test_under_a_default_retention_nothing_is_written():
    lock = (
        b"<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>"
        b"<Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
    )
    target = Versioned(lock=lock)
    found = await survey(target, "b", "p/", now_us=wall_clock_us)
    assert {operation for operation, _, _ in target.asked} == {"LIST"}
    assert "object lock keeps every new object" in survey_findings(found)[0].text


async def test_a_right_that_is_missing_is_a_finding_and_no_failure():
    found = await survey(Versioned(status=403), "b", "p/", now_us=wall_clock_us)
    assert found.found["put"] == "403"
    assert survey_findings(found)[0].level is Level.WARNING


RULES = b"""<LifecycleConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<Rule><ID>old</ID><Status>Enabled</Status><Prefix>logs/</Prefix><Expiration><Days>7</Days></Expiration></Rule>
<Rule><ID>all</ID><Status>Enabled</Status><Filter/><Expiration><Date>2030-01-01T00:00:00Z</Date></Expiration></Rule>
<Rule><ID>cold</ID><Status>Enabled</Status><Filter><Prefix>blobs/a/</Prefix></Filter>
 <Transition><Days>30</Days><StorageClass>GLACIER</StorageClass></Transition>
 <NoncurrentVersionExpiration><NoncurrentDays>9</NoncurrentDays></NoncurrentVersionExpiration></Rule>
<Rule><ID>tagged</ID><Status>Enabled</Status><Filter><And><Prefix>blobs/</Prefix><Tag><Key>k</Key><Value>v</Value></Tag></And></Filter>
 <Expiration><Days>1</Days></Expiration></Rule>
<Rule><ID>sized</ID><Status>Enabled</Status><Filter><ObjectSizeGreaterThan>5</ObjectSizeGreaterThan></Filter>
 <Expiration><Days>2</Days></Expiration></Rule>
<Rule><ID>off</ID><Status>Disabled</Status><Prefix/><Expiration><Days>1</Days></Expiration></Rule>
<Rule><ID>uploads</ID><Status>Enabled</Status><Prefix/><AbortIncompleteMultipartUpload>
 <DaysAfterInitiation>1</DaysAfterInitiation></AbortIncompleteMultipartUpload></Rule>
<Rule><ID>markers</ID><Status>Enabled</Status><Prefix/><Expiration>
 <ExpiredObjectDeleteMarker>true</ExpiredObjectDeleteMarker></Expiration></Rule>
</LifecycleConfiguration>"""


def test_lifecycle_rules_are_read_with_their_filters():
    assert read_lifecycle(RULES) == [
        LifecycleRule("old", "logs/", False, "expires", "7 days"),
        LifecycleRule("all", "", False, "expires", "2030-01-01T00:00:00Z"),
        LifecycleRule("cold", "blobs/a/", False, "moves to GLACIER", "30 days"),
        LifecycleRule("cold", "blobs/a/", False, "expires earlier versions", "9 days"),
        LifecycleRule("tagged", "blobs/", True, "expires", "1 days"),
        LifecycleRule("sized", "", True, "expires", "2 days"),
    ]


async def test_rules_that_can_touch_the_prefix_are_named_in_a_warning_each():
    found = await survey(Versioned(lifecycle=RULES), "b", "blobs/", now_us=wall_clock_us)
    assert [rule.identifier for rule in found.rules] == ["all", "cold", "cold", "tagged", "sized"]
    warnings = [each.text for each in survey_findings(found) if "lifecycle rule" in each.text]
    assert warnings[1] == (
        'lifecycle rule "cold" of "blobs/a/" moves to GLACIER after 30 days: it can touch "blobs/"'
    )
    assert endpoint_line(found.as_data()).startswith(
        's3://b/blobs/: its ETags are no MD5, lifecycle rule "all" expires in it'
    )


@pytest.mark.parametrize(
    ("status", "word"),
    [("<Status>Enabled</Status>", "enabled"), ("<Status>Suspended</Status>", "suspended"), ("", "off")],
)
def test_versioning_is_read(status, word):
    assert read_versioning(f"<VersioningConfiguration>{status}</VersioningConfiguration>".encode()) == word


@pytest.mark.parametrize("read", [read_versioning, read_object_lock, read_lifecycle])
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html/>",
        b"<LifecycleConfiguration>",
        b'<!DOCTYPE x [<!ENTITY a "b">]><VersioningConfiguration>&a;</VersioningConfiguration>',
        b"<a>" * 100,
    ],
)
def test_a_document_that_is_none_of_s3s_is_garbled(read, body):
    with pytest.raises(GarbledAnswerError):
        read(body)


def test_hostile_names_in_rules_are_shown_as_text():
    found = Survey("b", "p/", {"put": "accepted", "lifecycle": "touches the prefix"})
    found.rules = [LifecycleRule("\x1b[2J", "", False, "expires", "1 days")]
    assert "\\x1b[2J" in survey_findings(found)[-1].text
    assert PROBE_KEY_NAME in FIRST
