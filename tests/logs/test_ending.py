"""The frame of run, plan and verify: whatever happens inside, the last line comes, and comes last."""

from __future__ import annotations

import errno
import json
import logging

import pytest

from daemon.config import load
from daemon.ending import concluded
from daemon.errors import BackfillError, ConfigError, ExitCode, RefusedError, UnreachableError

FILE = """
[migration]
name = "blobs"
journal = "journal.db"
[s3]
endpoint = "http://127.0.0.1:9"
bucket = "blobs"
[[source]]
name = "attachments"
table = "public.attachments"
key = "id"
value = "data"
[log]
format = "json"
redact_keys = true
"""


@pytest.fixture(autouse=True)
def root_logger():
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "backfill.toml"
    path.write_text(FILE)
    path.chmod(0o600)
    return load(path, {}, {}, now_us=1)


def told(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def raising(error):
    def work(_config, _ending):
        raise error

    return work


def test_the_exit_code_is_the_works_and_the_outcome_what_it_said(config, capsys):
    def work(_config, ending):
        ending.outcome = "ended with 1 parked key"
        return ExitCode.PARKED

    assert concluded(lambda: config, work, log_format="text") is ExitCode.PARKED
    (ended,) = told(capsys)
    assert (ended["event"], ended["level"], ended["exit_code"]) == ("ended", "warning", 3)
    assert ended["outcome"] == "ended with 1 parked key"


def test_what_stays_behind_after_the_work_does_not_count_as_its_duration(config, capsys):
    def work(_config, ending):
        ending.over = ending.begun + 5
        return ExitCode.DONE

    concluded(lambda: config, work, log_format="text")
    assert told(capsys)[-1]["seconds"] == 5.0


@pytest.mark.parametrize("began", [False, True])
def test_a_failure_is_told_before_the_last_line(config, capsys, began):
    def work(_config, ending):
        if began:
            ending.begin([])
        raise RefusedError("no right to write", "grant it")

    assert concluded(lambda: config, work, log_format="text") is ExitCode.REFUSED
    failed, ended = told(capsys)
    assert (failed["event"], failed["message"], failed["hint"]) == ("failed", "no right to write", "grant it")
    assert (ended["event"], ended["level"]) == ("ended", "error")
    assert ended["outcome"] == ("halted" if began else "did not start")


def test_of_several_failures_each_is_told_once_and_the_gravest_decides(config, capsys):
    group = ExceptionGroup(
        "", [UnreachableError("a"), ExceptionGroup("", [RefusedError("b"), UnreachableError("a")])]
    )
    assert concluded(lambda: config, raising(group), log_format="text") is ExitCode.REFUSED
    assert [line["message"] for line in told(capsys)[:-1]] == ["a", "b"]


def test_a_key_in_a_failure_is_redacted(config, capsys):
    error = BackfillError("PUT s3://blobs/patient-7: refused", keys=("patient-7",))
    concluded(lambda: config, raising(error), log_format="text")
    assert told(capsys)[0]["message"] == "PUT s3://blobs/[key]: refused"


@pytest.mark.parametrize("error", [KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt()])])
def test_an_interruption_is_told_and_exits_130(config, capsys, error):
    assert concluded(lambda: config, raising(error), log_format="text") is ExitCode.INTERRUPTED
    failed, ended = told(capsys)
    assert failed["message"] == ended["outcome"] == "interrupted"


@pytest.mark.parametrize(
    "error",
    [
        ZeroDivisionError("a bug"),
        ExceptionGroup("", [ZeroDivisionError("a bug"), RefusedError("refused")]),
        OSError(errno.EPIPE, "stdout"),
    ],
    ids=["bug", "bug and failure", "stdout"],
)
def test_what_nobody_expects_is_raised_after_the_last_line(config, capsys, error):
    with pytest.raises(type(error)) as raised:
        concluded(lambda: config, raising(error), log_format="text")
    assert raised.value is error
    ended = told(capsys)[-1]
    assert (ended["event"], ended["exit_code"]) == ("ended", ExitCode.FAILED)


def test_a_configuration_that_is_wrong_is_told_in_the_format_of_the_flag(capsys):
    def load_nothing():
        raise ConfigError(["s3.bucket: missing", "s3.region: missing"], "correct it")

    code = concluded(load_nothing, raising(AssertionError("not reached")), log_format="json")
    assert code is ExitCode.USAGE
    failed, ended = told(capsys)
    assert failed["message"] == "2 problems:\n  s3.bucket: missing\n  s3.region: missing"
    assert (ended["outcome"], ended["migration"]) == ("did not start", None)
    assert "stored" not in ended
