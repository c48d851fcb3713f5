"""S3's XML: whatever comes is read as S3 documents it or is a GarbledAnswerError, within bounds of time and memory."""

from __future__ import annotations

import time
import tracemalloc
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.answers import PAGE_BODY_BYTES_MAX, GarbledAnswerError, read_error, read_page
from daemon.bucket_documents import read_lifecycle, read_object_lock, read_versioning
from daemon.classifying import Answer, Subject, classify, garbled
from tests.fuzzing.hostile import DIGITS, FUZZED, TEXTS, mutated

READERS = {
    "Error": read_error,
    "ListBucketResult": lambda body: read_page(body, token="t0"),
    "VersioningConfiguration": read_versioning,
    "ObjectLockConfiguration": read_object_lock,
    "LifecycleConfiguration": read_lifecycle,
}
NAMES = [
    *READERS,
    *("Code", "Message", "Region", "Endpoint", "RequestId", "Contents", "Key", "Size", "ETag", "IsTruncated"),
    *("EncodingType", "NextContinuationToken", "Status", "ObjectLockEnabled", "Rule", "ID", "Filter", "And"),
    *("Prefix", "Expiration", "Days", "Date", "Transition", "StorageClass", "NoncurrentVersionExpiration"),
    "html",
]
MESSAGE_CHARACTERS_MAX = 500


def xml_text(text: str) -> str:
    """`text` in a document; what XML can't hold goes in as it is, for the parser to refuse."""
    return escape(text)


LEAVES = st.one_of(
    TEXTS.map(xml_text), DIGITS, st.sampled_from(["true", "false", "url", "Enabled", "t0", "%FF", "&e;"])
)


@st.composite
def elements(draw, inner=None) -> str:
    name = draw(st.sampled_from(NAMES))
    opened = draw(
        st.sampled_from(["{}", "{}", "{}", "x:{}", '{} xmlns="urn:other"', '{} a="1" a="1"', '{} y="&e;"'])
    )
    content = draw(LEAVES if inner is None else st.lists(inner, max_size=5).map("".join))
    tag = opened.format(name)
    return f"<{tag}>{content}</{tag.partition(' ')[0]}>"


TREES = st.recursive(elements(), elements, max_leaves=12)
PROLOGUES = st.sampled_from(
    [
        "",
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<?xml version="1.0" encoding="UTF-16"?>',
        '<?xml version="1.1" encoding="none"?>',
        '<!DOCTYPE Error [<!ENTITY e "x">]>',
        '<!DOCTYPE Error [<!ENTITY e SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE Error SYSTEM "http://127.0.0.1/x.dtd">',
        "<!-- c --><?pi x?>",
    ]
)
ENCODINGS = st.sampled_from(["utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1", "cp037"])


@st.composite
def documents(draw) -> bytes:
    root = draw(st.sampled_from(list(READERS)))
    children = "".join(draw(st.lists(TREES, max_size=6)))
    space = draw(st.sampled_from(["", ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"', ' xmlns:x="u"']))
    text = f"{draw(PROLOGUES)}<{root}{space}>{children}</{root}>"
    return text.encode(draw(ENCODINGS), "replace")


PAGE = b"".join(
    [
        b'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">',
        b"<EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>",
        b"<NextContinuationToken>t1</NextContinuationToken>",
        b"<Contents><Key>a%2Fb</Key><Size>17</Size><ETag>&quot;e&quot;</ETag></Contents></ListBucketResult>",
    ]
)
ERROR = b"<Error><Code>SlowDown</Code><Message>Please &lt;wait&gt;</Message><RequestId>R1</RequestId></Error>"


def complaint(read, body: bytes) -> str:
    """What a reader says of a body that it refuses; any other exception is the test's failure."""
    try:
        read(body)
    except GarbledAnswerError as error:
        return str(error)
    return ""


@FUZZED
@given(st.one_of(st.binary(max_size=200), documents(), mutated(PAGE), mutated(ERROR)))
def test_any_bytes_are_read_as_s3_documents_them_or_are_garbled(body: bytes) -> None:
    assert all(len(complaint(read, body)) <= MESSAGE_CHARACTERS_MAX for read in READERS.values())


@FUZZED
@given(documents())
def test_whatever_page_is_read_has_keys_sizes_of_64_bits_and_leads_onward(body: bytes) -> None:
    try:
        page = read_page(body, token="t0")
    except GarbledAnswerError:
        return
    assert all(entry.key and 0 <= entry.size < 2**63 for entry in page.objects)
    assert page.next_token not in {"", "t0"}


HEADERS = st.dictionaries(
    st.sampled_from(["date", "location", "x-amz-bucket-region", "x-amz-request-id", "retry-after"]),
    st.one_of(
        TEXTS,
        DIGITS,
        st.lists(
            st.sampled_from(
                [
                    *(
                        "Mon,",
                        "1",
                        "Jan",
                        "0000",
                        "99999999999",
                        "23:59:60",
                        "GMT",
                        "-9999",
                        "+99999999999999999999",
                    ),
                    *("http:", "//", "[", "]", "@", ":", "xn--a", "\u2024", "%", "?", "#", "٣", "\t"),
                ]
            ),
            max_size=8,
        ).flatmap(lambda words: st.sampled_from([" ".join(words), "".join(words)])),
    ),
)


@FUZZED
@given(
    st.integers(100, 999),
    HEADERS,
    documents() | st.binary(max_size=50),
    st.sampled_from(["GET", "HEAD", "LIST"]),
)
def test_any_answer_is_classified_in_one_bounded_printable_line(status, headers, body, operation) -> None:
    failure = classify(Answer(status, headers, body), Subject(operation, "b", "k"), signed_us=0)
    assert failure.message.isprintable()
    assert len(failure.message) <= 2 * MESSAGE_CHARACTERS_MAX
    request_id = failure.request_id or ""
    assert request_id.isprintable()
    assert len(request_id) <= 128


def test_a_size_longer_than_python_reads_is_garbled() -> None:
    entry = b"<Contents><Key>k</Key><Size>" + b"9" * 5000 + b"</Size></Contents>"
    body = b"<ListBucketResult><IsTruncated>false</IsTruncated>" + entry + b"</ListBucketResult>"
    with pytest.raises(GarbledAnswerError, match="a key and a size"):
        read_page(body, token=None)


@pytest.mark.parametrize(
    "date", ["Mon, 01 Jan 99999999999 00:00:00 GMT", "Mon, 01 Jan 2020 0:0:0 +99999999999999999999"]
)
def test_a_date_beyond_any_calendar_is_no_date(date: str) -> None:
    assert Answer(403, {"date": date}).date_us is None


def test_a_redirect_to_a_name_that_is_no_international_one_is_told_as_it_stands() -> None:
    failure = classify(Answer(302, {"location": "http://xn--a/"}), Subject("GET", "b", "k"), signed_us=0)
    assert "a redirect to xn--a, not followed" in failure.message


def test_a_request_id_of_unlikely_form_is_none() -> None:
    for request_id in ("\x1b[2J", "x" * 1000):
        assert (
            garbled(Subject("GET", "b"), "p", Answer(200, {"x-amz-request-id": request_id})).request_id
            is None
        )
        body = f"<Error><RequestId>{request_id[-500:]}</RequestId></Error>".encode()
        assert classify(Answer(500, {}, body), Subject("GET", "b"), signed_us=0).request_id is None


def filled(root: str, piece: bytes) -> bytes:
    return f"<{root}>".encode() + piece * ((PAGE_BODY_BYTES_MAX - 100) // len(piece)) + f"</{root}>".encode()


@pytest.mark.parametrize(
    "piece",
    [b"x<a/>", b"<a>" * 8 + b"</a>" * 8, b"&#65;"],
    ids=["elements", "deep", "references"],
)
def test_the_largest_page_that_is_read_at_all_costs_less_than_a_hundred_megabytes(piece: bytes) -> None:
    """As many elements as fit took 660 MB."""
    body = filled("ListBucketResult", piece)
    tracemalloc.start()
    begun = time.process_time()
    with pytest.raises(GarbledAnswerError):
        read_page(body, token=None)
    seconds = time.process_time() - begun
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100 * 2**20
    assert seconds < 20
