from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daemon.answers import GarbledAnswerError, read_error, read_page, unquoted

ENTRY = "<Contents><Key>{key}</Key><Size>{size}</Size><ETag>&quot;e&quot;</ETag></Contents>"


def page(entries="", *, truncated="false", further="<EncodingType>url</EncodingType>"):
    namespace = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
    return (
        f"<ListBucketResult {namespace}>{further}<IsTruncated>{truncated}</IsTruncated>{entries}</ListBucketResult>"
    ).encode()


def keys(body):
    return [entry.key for entry in read_page(body, token=None).objects]


def test_keys_are_decoded_with_plus_as_space():
    assert keys(page(ENTRY.format(key="a+b%2Bc%20d%E6%97%A5", size=1))) == ["a b+c d日"]


def test_keys_stay_as_they_are_where_the_server_does_not_say_that_they_are_encoded():
    assert keys(page(ENTRY.format(key="a+b%2B", size=1), further="")) == ["a+b%2B"]


def test_bytes_that_are_no_utf8_become_a_key_that_no_row_can_have():
    assert keys(page(ENTRY.format(key="a%FFb", size=1))) == ["a\\xffb"]


def test_namespace_prefixes_and_unknown_elements_do_not_matter():
    body = b'<x:ListBucketResult xmlns:x="u"><x:IsTruncated>false</x:IsTruncated><New><Key>k</Key></New></x:ListBucketResult>'
    assert read_page(body, token=None).objects == []


def test_a_page_with_more_to_come_names_its_token():
    body = page(truncated="true", further="<NextContinuationToken>t&amp;1</NextContinuationToken>")
    assert read_page(body, token="t0").next_token == "t&1"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>maintenance</html>",
        b"<Error><Code>SlowDown</Code></Error>",
        page()[:-5],
        page(truncated="perhaps"),
        page(truncated="true"),
        page(truncated="true", further="<NextContinuationToken>same</NextContinuationToken>"),
        page("<Contents><Size>1</Size></Contents>"),
        page("<Contents><Key>k</Key></Contents>"),
        page(ENTRY.format(key="k", size="-1")),
        page(ENTRY.format(key="k", size="٣")),
        b"<!DOCTYPE x>" + page(),
        page("<a>" * 50 + "</a>" * 50),
    ],
)
def test_a_page_that_is_none_is_refused(body):
    with pytest.raises(GarbledAnswerError):
        read_page(body, token="same")


def test_no_entity_can_expand():
    bomb = b'<!DOCTYPE b [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><Error><Code>&b;</Code></Error>'
    with pytest.raises(GarbledAnswerError, match="document type"):
        read_error(bomb)


FRAGMENTS = [
    *(b"<ListBucketResult>", b"</ListBucketResult>", b"<Error>", b"</Error>", b"<Code>", b"</Code>"),
    *(
        b"<Contents>",
        b"</Contents>",
        b"<Key>",
        b"</Key>",
        b"<Size>",
        b"</Size>",
        b"<IsTruncated>false</IsTruncated>",
    ),
    *(
        b"<IsTruncated>true</IsTruncated>",
        b"<EncodingType>url</EncodingType>",
        b"%FF",
        b"%",
        b"1",
        b"&amp;",
        b"&x;",
    ),
    *(
        b"<?xml version='1.0' encoding='utf-16'?>",
        b"<?xml version='1.0' encoding='none'?>",
        b"<![CDATA[",
        b"]]>",
        b"\xff",
    ),
]


@given(st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(FRAGMENTS), max_size=12).map(b"".join)))
def test_no_bytes_at_all_make_the_reader_fail_otherwise(body):
    for reader in (read_error, lambda data: read_page(data, token=None)):
        try:
            reader(body)
        except GarbledAnswerError:
            continue


@pytest.mark.parametrize(("etag", "bare"), [('"a"', "a"), ("a", "a"), ('"', '"'), ("", ""), (' "a" ', "a")])
def test_an_etag_loses_its_quotes(etag, bare):
    assert unquoted(etag) == bare
