from __future__ import annotations

import httpx
import pytest

from daemon.classifying import Answer, Subject, classify, legible_line, unanswered
from daemon.retrying import FailureClass

NOW_US = 1_700_000_000_000_000  # Tue, 14 Nov 2023 22:13:20 GMT
PUT = Subject("PUT", "photos", "a/b")


def document(code, message="words", **fields):
    further = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
    return f"<Error><Code>{code}</Code><Message>{message}</Message>{further}</Error>".encode()


def classified(status, body=b"", subject=PUT, secrets=(), **headers):
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return classify(Answer(status, named, body), subject, signed_us=NOW_US, secrets=secrets)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "RequestTimeTooSkewed", FailureClass.CLOCK_SKEW),
        (400, "ExpiredToken", FailureClass.EXPIRED_CREDENTIALS),
        (403, "ExpiredToken", FailureClass.EXPIRED_CREDENTIALS),
        (403, "AccessDenied", FailureClass.FORBIDDEN),
        (403, "InvalidAccessKeyId", FailureClass.FORBIDDEN),
        (403, "SignatureDoesNotMatch", FailureClass.FORBIDDEN),
        (400, "InvalidToken", FailureClass.FORBIDDEN),
        (400, "KMS.DisabledException", FailureClass.FORBIDDEN),
        (403, "SomethingNew", FailureClass.FORBIDDEN),
        (404, "NoSuchBucket", FailureClass.NO_SUCH_BUCKET),
        (400, "InvalidBucketName", FailureClass.NO_SUCH_BUCKET),
        (301, "PermanentRedirect", FailureClass.WRONG_REGION),
        (307, "TemporaryRedirect", FailureClass.REDIRECTED),
        (400, "BadDigest", FailureClass.CORRUPTED),
        (400, "InvalidDigest", FailureClass.CORRUPTED),
        (400, "XAmzContentSHA256Mismatch", FailureClass.CORRUPTED),
        (400, "IncompleteBody", FailureClass.CORRUPTED),
        (400, "RequestTimeout", FailureClass.TIMEOUT),
        (409, "ConditionalRequestConflict", FailureClass.CONFLICT),
        (409, "OperationAborted", FailureClass.CONFLICT),
        (409, "SomethingNew", FailureClass.CONFLICT),
        (503, "SlowDown", FailureClass.THROTTLED),
        (503, "ServiceUnavailable", FailureClass.THROTTLED),
        (429, "SomethingNew", FailureClass.THROTTLED),
        (400, "ThrottlingException", FailureClass.THROTTLED),
        (400, "KMS.ThrottlingException", FailureClass.THROTTLED),
        (500, "InternalError", FailureClass.SERVER),
        (502, "SomethingNew", FailureClass.SERVER),
        (504, "SomethingNew", FailureClass.SERVER),
        (501, "NotImplemented", FailureClass.REJECTED),
        (400, "MetadataTooLarge", FailureClass.METADATA_TOO_LARGE),
        (400, "KeyTooLongError", FailureClass.REJECTED),
        (400, "InvalidURI", FailureClass.REJECTED),
        (400, "InvalidArgument", FailureClass.REJECTED),
        (400, "EntityTooLarge", FailureClass.REJECTED),
        (400, "SomethingNew", FailureClass.REJECTED),
    ],
)
def test_a_code_decides_and_its_status_where_the_code_is_new(status, code, kind):
    failure = classified(status, document(code))
    assert (failure.kind, failure.code, failure.http_status) == (kind, code, status)
    assert failure.answered


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (301, FailureClass.REDIRECTED),
        (307, FailureClass.REDIRECTED),
        (400, FailureClass.REJECTED),
        (401, FailureClass.FORBIDDEN),
        (403, FailureClass.FORBIDDEN),
        (429, FailureClass.THROTTLED),
        (431, FailureClass.METADATA_TOO_LARGE),
        (500, FailureClass.SERVER),
        (502, FailureClass.SERVER),
        (503, FailureClass.THROTTLED),
        (504, FailureClass.SERVER),
    ],
)
def test_head_has_no_body_so_its_status_decides(status, kind):
    assert classified(status, subject=Subject("HEAD", "photos", "a")).kind is kind


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html><body>Not Found</body></html>",
        b"<Error><Code>NoSuchBucket</Code>",
        b"\xff\xfe\x00",
        b'<!DOCTYPE x [<!ENTITY a "NoSuchBucket">]><Error><Code>&a;</Code></Error>',
        b"<Error>" * 200,
    ],
)
def test_a_404_that_is_no_s3_error_document_is_garbled_not_a_verdict_on_the_bucket(body):
    assert classified(404, body).kind is FailureClass.GARBLED


def test_a_code_of_unlikely_form_is_no_code():
    assert classified(403, document("Access Denied, see &lt;a&gt;")).code is None


@pytest.mark.parametrize(
    "failure",
    [
        classified(400, document("AuthorizationHeaderMalformed", Region="eu-west-3")),
        classified(400, document("AuthorizationHeaderMalformed"), x_amz_bucket_region="eu-west-3"),
        classified(301, document("PermanentRedirect"), x_amz_bucket_region="eu-west-3"),
        classified(301, subject=Subject("HEAD", "photos", "a"), x_amz_bucket_region="eu-west-3"),
    ],
)
def test_a_wrong_region_names_the_right_one(failure):
    assert failure.kind is FailureClass.WRONG_REGION
    assert "eu-west-3" in failure.message


def test_a_malformed_authorization_header_without_a_region_is_forbidden():
    assert classified(400, document("AuthorizationHeaderMalformed")).kind is FailureClass.FORBIDDEN


@pytest.mark.parametrize(
    "failure",
    [
        classified(307, document("TemporaryRedirect", Endpoint="elsewhere.example")),
        classified(302, location="https://elsewhere.example/login?token=canary"),
    ],
)
def test_a_redirect_names_the_host_and_nothing_more_of_the_location(failure):
    assert failure.kind is FailureClass.REDIRECTED
    assert "elsewhere.example" in failure.message
    assert "canary" not in failure.message


@pytest.mark.parametrize(
    ("date", "kind"),
    [
        ("Tue, 14 Nov 2023 22:28:20 GMT", FailureClass.CLOCK_SKEW),
        ("Tue, 14 Nov 2023 21:58:20 GMT", FailureClass.CLOCK_SKEW),
        ("Tue, 14 Nov 2023 22:28:20 -0000", FailureClass.CLOCK_SKEW),
        ("Tue, 14 Nov 2023 22:28:19 GMT", FailureClass.FORBIDDEN),
        ("yesterday", FailureClass.FORBIDDEN),
    ],
)
def test_a_403_without_a_code_is_the_clocks_fault_if_the_clocks_differ_by_15_minutes(date, kind):
    assert classified(403, subject=Subject("HEAD", "photos", "a"), date=date).kind is kind


@pytest.mark.parametrize("code", ["AccessDenied", "SomethingNew"])
def test_a_403_with_a_code_is_not_the_clocks_fault(code):
    assert (
        classified(403, document(code), date="Wed, 15 Nov 2023 22:13:20 GMT").kind is FailureClass.FORBIDDEN
    )


def test_a_message_names_operation_bucket_key_status_code_and_the_servers_words():
    message = classified(403, document("AccessDenied", "not authorized to perform: s3:PutObject")).message
    assert message == (
        "PUT s3://photos/a/b: expected success, found 403 AccessDenied: not authorized to perform: s3:PutObject"
    )


def test_secrets_and_signatures_that_the_server_echoes_are_cut_out():
    echoed = document("SignatureDoesNotMatch", f"secret s3cr3t, token t0k3n, signature {'0a' * 32}")
    message = classified(403, echoed, secrets=("s3cr3t", "t0k3n", "")).message
    assert "s3cr3t" not in message
    assert "t0k3n" not in message
    assert "0a0a" not in message


def test_a_key_that_is_itself_a_digest_stays_legible():
    key = "0123456789abcdef" * 4
    assert key in classified(500, subject=Subject("PUT", "photos", key)).message


def test_a_strangers_words_become_one_bounded_printable_line():
    line = legible_line("a\nb\x1b[31m\u202e " + "x" * 5000)
    assert "\n" not in line
    assert line.isprintable()
    assert len(line) < 400


def test_a_key_with_control_characters_is_escaped():
    assert r"'a\nb'" in str(Subject("PUT", "photos", "a\nb"))


@pytest.mark.parametrize(
    ("error", "kind", "answered"),
    [
        (httpx.ConnectTimeout("t"), FailureClass.TIMEOUT, False),
        (httpx.ReadTimeout("t"), FailureClass.TIMEOUT, False),
        (httpx.WriteTimeout("t"), FailureClass.TIMEOUT, False),
        (httpx.PoolTimeout("t"), FailureClass.TIMEOUT, False),
        (httpx.ConnectError("c"), FailureClass.CONNECTION, False),
        (httpx.ReadError("c"), FailureClass.CONNECTION, False),
        (httpx.WriteError("c"), FailureClass.CONNECTION, False),
        (httpx.RemoteProtocolError("r"), FailureClass.GARBLED, True),
        (httpx.LocalProtocolError("l"), FailureClass.REJECTED, True),
    ],
)
def test_silence_is_no_answer_and_garbage_is_one(error, kind, answered):
    failure = unanswered(error, PUT)
    assert (failure.kind, failure.answered) == (kind, answered)
    assert "s3://photos/a/b" in failure.message


def test_a_connection_that_breaks_after_the_head_has_answered():
    failure = unanswered(httpx.ReadError("reset"), PUT, head_arrived=True)
    assert (failure.kind, failure.answered) == (FailureClass.CONNECTION, True)
