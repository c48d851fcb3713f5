from __future__ import annotations

import datetime as dt
from hashlib import sha256
from typing import TYPE_CHECKING

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from aws_requests_auth import aws_auth
from hypothesis import given
from hypothesis import strategies as st

from daemon.signing import EMPTY_SHA256, Credentials, Signer, canonical_query, encode_key

if TYPE_CHECKING:
    from collections.abc import Sequence

EXAMPLE = Credentials("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY")
EXAMPLE_HOST = "examplebucket.s3.amazonaws.com"
MAY_24_2013_US = 1_369_353_600_000_000

Headers = list[tuple[bytes, bytes]]


def signed(
    *,
    method: str = "GET",
    path: str = "/",
    query: str = "",
    headers: Headers | None = None,
    payload: str = EMPTY_SHA256,
    credentials: Credentials = EXAMPLE,
    now_us: int = MAY_24_2013_US,
    signer: Signer | None = None,
    host: str = EXAMPLE_HOST,
) -> dict[str, str]:
    answer = (signer or Signer("us-east-1")).sign(
        method,
        host=host,
        raw_path=path,
        query=query,
        headers=headers or [],
        payload_sha256=payload,
        credentials=credentials,
        now_us=now_us,
    )
    return {name.decode().lower(): value.decode("latin-1") for name, value in answer}


def signature(**parts: object) -> str:
    return signed(**parts)["authorization"].rpartition("Signature=")[2]  # type: ignore[arg-type]


# The four examples of AWS, "Signature Calculations for the Authorization Header: Transferring Payload in a
# Single Chunk (AWS Signature Version 4)".


def test_the_published_example_get_object_with_range_is_reproduced() -> None:
    headers = signed(path="/test.txt", headers=[(b"Range", b"bytes=0-9")])

    assert headers["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request, "
        "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date, "
        "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    )
    assert headers["x-amz-date"] == "20130524T000000Z"
    assert headers["host"] == EXAMPLE_HOST


def test_the_published_example_put_object_is_reproduced() -> None:
    found = signature(
        method="PUT",
        path=encode_key("/test$file.text"),
        headers=[
            (b"Date", b"Fri, 24 May 2013 00:00:00 GMT"),
            (b"x-amz-storage-class", b"REDUCED_REDUNDANCY"),
        ],
        payload=sha256(b"Welcome to Amazon S3.").hexdigest(),
    )

    assert found == "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"


def test_the_published_example_get_bucket_lifecycle_is_reproduced() -> None:
    found = signature(query=canonical_query({"lifecycle": ""}))

    assert found == "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543"


def test_the_published_example_list_objects_is_reproduced() -> None:
    found = signature(query=canonical_query({"prefix": "J", "max-keys": "2"}))

    assert found == "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"


def signature_of_botocore(
    method: str,
    url: str,
    headers: Sequence[tuple[str, str]],
    credentials: Credentials,
    body: bytes,
    now_us: int,
) -> str:
    request = botocore.awsrequest.AWSRequest(method=method, url=url, data=body)
    for name, value in headers:
        request.headers[name] = value
    auth = botocore.auth.S3SigV4Auth(
        botocore.credentials.Credentials(credentials.access_key, credentials.secret_key, credentials.token),
        "s3",
        "eu-west-3",
    )
    moment = dt.datetime.fromtimestamp(now_us // 1_000_000, tz=dt.UTC)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.auth, "get_current_datetime", lambda: moment)
        auth.add_auth(request)
    return str(request.headers["Authorization"])


key_text = st.text(
    st.one_of(
        st.sampled_from(list(" +%~/!*'();:@&=$,?#[]<>\\\"^`{}|-_.")),
        st.characters(exclude_categories=("Cs", "Cc")),
    ),
    min_size=1,
    max_size=60,
)
header_value = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=40)
header_name = st.one_of(
    st.sampled_from(["content-md5", "Content-Type", "If-None-Match", "If-Match", "Range", "x-amz-tagging"]),
    st.from_regex(r"x-amz-meta-[a-z0-9_.-]{1,12}", fullmatch=True),
)
secret = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)


@given(
    method=st.sampled_from(["PUT", "GET", "HEAD", "DELETE"]),
    key=key_text,
    parameters=st.dictionaries(
        st.sampled_from(["list-type", "prefix", "continuation-token", "encoding-type", "versionId", "a b"]),
        key_text | st.just(""),
        max_size=4,
    ),
    headers=st.lists(st.tuples(header_name, header_value), max_size=12, unique_by=lambda h: h[0].lower()),
    credentials=st.builds(
        Credentials,
        st.from_regex(r"[A-Z0-9]{4,20}", fullmatch=True),
        secret,
        st.none() | st.from_regex(r"[A-Za-z0-9+/=]{4,80}", fullmatch=True),
    ),
    body=st.binary(max_size=20),
    now_us=st.integers(0, 4_000_000_000_000_000),
    host=st.sampled_from(["b.s3.eu-west-3.amazonaws.com", "127.0.0.1:8333", "[::1]:9000"]),
)
def test_signatures_agree_with_botocore_on_generated_requests(
    method, key, parameters, headers, credentials, body, now_us, host
) -> None:
    path = "/" + encode_key(key)
    query = canonical_query(parameters)
    expected = signature_of_botocore(
        method, f"http://{host}{path}" + (f"?{query}" if query else ""), headers, credentials, body, now_us
    )

    found = Signer("eu-west-3").sign(
        method,
        host=host,
        raw_path=path,
        query=query,
        headers=[(name.encode(), value.encode()) for name, value in headers],
        payload_sha256=sha256(body).hexdigest(),
        credentials=credentials,
        now_us=now_us,
    )

    assert dict(found)[b"Authorization"].decode() == expected


def test_repeated_headers_are_joined_in_the_order_they_are_sent() -> None:
    apart = signature(headers=[(b"x-amz-meta-a", b"2"), (b"x-amz-meta-a", b"1")])

    assert apart == signature(headers=[(b"x-amz-meta-a", b"2,1")])


def test_the_key_derivation_is_that_of_aws_requests_auth(monkeypatch) -> None:
    before = signature()
    monkeypatch.setattr(aws_auth, "getSignatureKey", lambda *_: b"k" * 32)

    assert signature() != before


def test_the_key_of_a_day_is_derived_once(monkeypatch) -> None:
    derived: list[tuple[str, ...]] = []
    real = aws_auth.getSignatureKey
    monkeypatch.setattr(aws_auth, "getSignatureKey", lambda *of: (derived.append(of), real(*of))[1])
    signer = Signer("us-east-1")

    for second in range(10):
        signature(signer=signer, now_us=MAY_24_2013_US + second * 1_000_000)

    assert derived == [(EXAMPLE.secret_key, "20130524", "us-east-1", "s3")]


@pytest.mark.parametrize("seconds", [1, 86_400])
def test_a_signer_that_has_signed_before_signs_as_a_new_one_does(seconds) -> None:
    signer = Signer("us-east-1")
    signature(signer=signer)
    later = MAY_24_2013_US + seconds * 1_000_000

    assert signature(signer=signer, now_us=later) == signature(now_us=later)


def test_new_credentials_are_signed_with_at_once() -> None:
    signer = Signer("us-east-1")
    signature(signer=signer)
    other = Credentials(EXAMPLE.access_key, "another secret")

    assert signature(signer=signer, credentials=other) == signature(credentials=other)


@pytest.mark.parametrize(
    "name", [b"X-Amz-Meta-Backfill-Md5", b"Content-MD5", b"content-type", b"If-None-Match", b"x-amz-tagging"]
)
def test_what_decides_over_the_object_is_signed(name) -> None:
    headers = signed(headers=[(name, b"1")])

    assert name.decode().lower() in headers["authorization"].partition("SignedHeaders=")[2]
    assert signature(headers=[(name, b"1")]) != signature(headers=[(name, b"2")])


def test_the_session_token_is_sent_and_signed() -> None:
    headers = signed(credentials=Credentials("A", "S", "T0ken"))

    assert headers["x-amz-security-token"] == "T0ken"
    assert "x-amz-security-token" in headers["authorization"]


@pytest.mark.parametrize("name", [b"Content-Length", b"User-Agent", b"Connection", b"Transfer-Encoding"])
def test_what_a_proxy_may_change_is_sent_unsigned(name) -> None:
    headers = signed(headers=[(name, b"7")])

    assert headers[name.decode().lower()] == "7"
    assert signature(headers=[(name, b"7")]) == signature()


@pytest.mark.parametrize("poison", ["\r", "\n", "\0", "a\r\nx-amz-meta-b: c"])
@pytest.mark.parametrize("place", ["name", "value"])
def test_a_line_break_in_a_header_is_refused_without_showing_the_value(poison, place) -> None:
    header = (b"x-amz-meta-a" + poison.encode(), b"canary")
    if place == "value":
        header = (b"x-amz-meta-a", b"canary" + poison.encode())

    with pytest.raises(ValueError, match="line break or NUL") as caught:
        signed(headers=[header])

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("poison", [" ", "\r\n", "\0", "é", "\x7f"])
@pytest.mark.parametrize("place", ["path", "query", "host"])
def test_a_target_outside_visible_ascii_is_refused(poison, place) -> None:
    with pytest.raises(ValueError, match=f"^sign: {place} holds .*percent-encode"):
        signed(**{place: "/a" + poison})


@pytest.mark.parametrize("name", [b"host", b"X-Amz-Date", b"Authorization", b"x-amz-security-token"])
def test_a_header_that_the_signer_adds_is_refused(name) -> None:
    with pytest.raises(ValueError, match="added by the signer"):
        signed(headers=[(name, b"x")])


@pytest.mark.parametrize("credentials", [Credentials("A\r\nB", "S"), Credentials("A", "S", "canary\n")])
def test_credentials_that_would_break_the_header_are_refused_unshown(credentials) -> None:
    with pytest.raises(ValueError, match="outside visible ASCII") as caught:
        signed(credentials=credentials)

    assert "canary" not in str(caught.value)


def test_a_secret_shows_in_no_repr() -> None:
    shown = repr(Credentials("AKID", "s3cr3t-canary", "t0k3n-canary"))

    assert "canary" not in shown


@pytest.mark.parametrize(
    ("key", "encoded"),
    [
        ("a b", "a%20b"),
        ("a+b%20c", "a%2Bb%2520c"),
        ("~-_.aZ9", "~-_.aZ9"),
        ("ä/日", "%C3%A4/%E6%97%A5"),
        ("q?x=1&y#z", "q%3Fx%3D1%26y%23z"),
    ],
)
def test_keys_are_encoded_as_uri_encode_does(key, encoded) -> None:
    assert encode_key(key) == encoded


def test_a_query_is_sorted_by_encoded_name_and_keeps_no_plus_or_slash() -> None:
    query = canonical_query({"prefix": "a/b c+d", "list-type": "2", "continuation-token": "1/x=="})

    assert query == "continuation-token=1%2Fx%3D%3D&list-type=2&prefix=a%2Fb%20c%2Bd"
