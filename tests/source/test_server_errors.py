"""What an error of the driver means, told by its SQLSTATE alone; no server is asked."""

from __future__ import annotations

import ssl

import pytest

from daemon.errors import ConfigError, RefusedError, SourceUnfitError
from daemon.retrying import Failure, FailureClass
from daemon.server_errors import Meaning, meaning_of, refused_connection, sqlstate_of, translated


class ServerError(Exception):
    def __init__(self, sqlstate, text="first line\nsecond line"):
        super().__init__(text)
        self.sqlstate = sqlstate


@pytest.mark.parametrize(
    ("sqlstate", "meaning"),
    [
        ("57P01", Meaning.LOST),
        ("08006", Meaning.LOST),
        ("57014", Meaning.CROWDED),
        ("40001", Meaning.CROWDED),
        ("28P01", Meaning.REFUSED),
        ("42501", Meaning.REFUSED),
        ("42P01", Meaning.UNFIT_SCHEMA),
        ("22P02", Meaning.UNFIT_VALUE),
        ("26000", Meaning.POOLED),
        ("XX000", Meaning.STRUGGLING),
        (None, Meaning.STRUGGLING),
    ],
)
def test_a_code_means_what_is_listed_first_for_itself_then_for_its_class(sqlstate, meaning):
    assert meaning_of(sqlstate) is meaning


def test_only_a_text_is_taken_for_a_code():
    assert sqlstate_of(ServerError("42501")) == "42501"
    assert sqlstate_of(ServerError(7)) is None
    assert sqlstate_of(OSError()) is None


@pytest.mark.parametrize(
    ("sqlstate", "kind", "answered"),
    [
        ("57P01", FailureClass.CONNECTION, False),
        ("57014", FailureClass.TIMEOUT, True),
        ("40001", FailureClass.CONFLICT, True),
        ("XX000", FailureClass.SERVER, True),
        ("22P02", FailureClass.UNSUITABLE_VALUE, True),
    ],
)
def test_an_answer_is_a_failure_of_its_kind_that_quotes_one_line_and_no_data(sqlstate, kind, answered):
    found = translated(ServerError(sqlstate), "FETCH", "db:5432")
    assert isinstance(found, Failure)
    assert (found.kind, found.operation, found.answered, found.code) == (kind, "FETCH", answered, sqlstate)
    said = "ServerError" if sqlstate == "22P02" else "first line"
    assert found.message == f"fetch from PostgreSQL at db:5432: {said} (SQLSTATE {sqlstate})"


def test_a_missing_right_a_pooler_and_another_table_end_the_migration():
    refused = translated(ServerError("42501"), "CONNECT", "db")
    assert isinstance(refused, RefusedError)
    assert refused.problem == "connect to PostgreSQL at db: first line (SQLSTATE 42501)"
    assert "GRANT" in refused.hint
    pooled = translated(ServerError("26000"), "FETCH", "db")
    assert isinstance(pooled, RefusedError)
    assert "pooler" in pooled.problem
    unfit = translated(ServerError("42P01"), "SCAN", "db")
    assert isinstance(unfit, SourceUnfitError)
    assert "[[source]]" in unfit.hint


@pytest.mark.parametrize(
    ("error", "kind", "answered", "reason"),
    [
        (TimeoutError(), FailureClass.TIMEOUT, False, "no answer in time"),
        (ValueError("secret"), FailureClass.UNSUITABLE_VALUE, True, "a text is not valid UTF-8"),
        (OSError("reset\nmore"), FailureClass.CONNECTION, False, "connection lost: reset"),
        (OSError(), FailureClass.CONNECTION, False, "connection lost: OSError"),
        (EOFError("secret"), FailureClass.CONNECTION, False, "connection lost: EOFError"),
    ],
)
def test_an_error_without_a_code_is_silence_or_a_text_that_cannot_be_read(error, kind, answered, reason):
    found = translated(error, "WRITE", "db")
    assert isinstance(found, Failure)
    assert (found.kind, found.operation, found.answered, found.code) == (kind, "WRITE", answered, None)
    assert found.message == f"write to PostgreSQL at db: {reason}"


def test_a_connection_that_no_repeating_mends_is_refused():
    found = [refused_connection(ServerError(code), "db") for code in ("28P01", "08P01")]
    assert [type(one) for one in found] == [RefusedError, RefusedError]
    assert found[0].problem == "connect to PostgreSQL at db: refused: first line"
    assert "pg_hba.conf" in found[0].hint
    assert "--iam" in refused_connection(ServerError("28P01"), "db", iam=True).hint
    assert refused_connection(ServerError("57P03"), "db") is None
    assert refused_connection(ConnectionError("reset"), "db") is None


def test_tls_that_does_not_come_about_is_refused():
    refused = ssl.SSLCertVerificationError("verify failed")
    refused.verify_message = "self-signed certificate"
    told = "connect to PostgreSQL at db: TLS failed: "
    assert refused_connection(refused, "db").problem == f"{told}self-signed certificate"
    rejected = refused_connection(ConnectionError("PostgreSQL server rejected SSL upgrade"), "db")
    assert rejected.problem == f"{told}the server does not offer it as sslmode demands"
    assert "sslmode" in rejected.hint


def test_parameters_that_the_driver_cannot_read_are_a_matter_of_the_configuration():
    found = refused_connection(ValueError("secret"), "db")
    assert isinstance(found, ConfigError)
    assert "malformed (ValueError)" in found.problem
    assert "secret" not in str(found)
