from __future__ import annotations

import datetime as dt
import json
import os
import shlex
import sys
import threading
from typing import TYPE_CHECKING

import pytest
import trio

from daemon.credentials import RETRY_SECONDS, CredentialSource
from daemon.errors import RefusedError, UnreachableError
from daemon.signing import Credentials

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "s3cr3t-canary"


async def in_loop(function):
    await trio.lowlevel.checkpoint()
    return function()


@pytest.fixture
def aws_home(monkeypatch, tmp_path) -> Path:
    """No credentials but those a test puts there; the metadata service is never asked."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    return tmp_path


def write_keys(home: Path, access_key: str, *, profile: str = "default") -> None:
    home.joinpath("credentials").write_text(
        f"[{profile}]\naws_access_key_id = {access_key}\naws_secret_access_key = {SECRET}\n"
    )


def write_process(home: Path, command: str) -> None:
    home.joinpath("config").write_text(f"[default]\ncredential_process = {command}\n")


async def test_keys_come_from_the_environment(aws_home, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKENV")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")

    assert await CredentialSource().current() == Credentials("AKENV", SECRET, "token")


async def test_keys_come_from_the_named_profile(aws_home, monkeypatch) -> None:
    write_keys(aws_home, "AKPROFILE", profile="other")
    monkeypatch.setenv("AWS_PROFILE", "other")

    assert (await CredentialSource().current()).access_key == "AKPROFILE"


async def test_no_credentials_are_a_refusal_that_names_where_to_put_them(aws_home) -> None:
    with pytest.raises(RefusedError) as caught:
        await CredentialSource().current()

    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


async def test_a_missing_file_of_credentials_is_named(aws_home, monkeypatch) -> None:
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(aws_home / "absent-file"))

    with pytest.raises(
        RefusedError, match=r"AWS_SHARED_CREDENTIALS_FILE names .*absent-file, which is not a file"
    ):
        await CredentialSource().current()


async def test_a_missing_profile_is_named(aws_home, monkeypatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "absent")

    with pytest.raises(RefusedError, match="absent"):
        await CredentialSource().current()


async def test_half_a_pair_of_keys_is_a_refusal(aws_home, monkeypatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKENV")

    with pytest.raises(RefusedError, match="AWS_SECRET_ACCESS_KEY"):
        await CredentialSource().current()


@pytest.mark.parametrize(
    "script",
    [
        f"import sys; sys.stderr.write('{SECRET}'); sys.exit(1)",
        f"print('not json {SECRET}')",
        f"import json; print(json.dumps(dict(Version=1, SecretAccessKey='{SECRET}')))",
    ],
    ids=["fails", "garbage", "incomplete"],
)
async def test_what_a_failing_credential_program_prints_is_withheld(aws_home, script) -> None:
    write_process(aws_home, f"{shlex.quote(sys.executable)} -c {shlex.quote(script)}")

    with pytest.raises(RefusedError) as caught:
        await CredentialSource().current()

    error: BaseException | None = caught.value
    assert SECRET not in str(error)
    assert error.__suppress_context__


async def test_a_credential_program_that_is_missing_is_a_refusal(aws_home) -> None:
    write_process(aws_home, str(aws_home / "absent-program"))

    with pytest.raises(RefusedError, match="absent-program"):
        await CredentialSource().current()


async def test_refresh_reads_what_was_rotated_on_disk(aws_home) -> None:
    write_keys(aws_home, "AKOLD")
    source = CredentialSource()
    old = await source.current()
    write_keys(aws_home, "AKNEW")

    assert (await source.current()) == old
    assert (await source.refresh(old)).access_key == "AKNEW"
    assert (await source.current()).access_key == "AKNEW"


async def test_temporary_credentials_are_asked_for_again_before_they_expire(aws_home) -> None:
    answer = aws_home / "answer.json"
    write_process(aws_home, f"cat {shlex.quote(str(answer))}")

    def answer_with(access_key: str, expiration: str) -> None:
        answer.write_text(
            json.dumps(
                {
                    "Version": 1,
                    "AccessKeyId": access_key,
                    "SecretAccessKey": SECRET,
                    "SessionToken": "t",
                    "Expiration": expiration,
                }
            )
        )

    soon = (dt.datetime.now(dt.UTC) + dt.timedelta(minutes=12)).isoformat()
    answer_with("AKSOON", soon)
    source = CredentialSource()
    assert (await source.current()).access_key == "AKSOON"
    answer_with("AKLATER", "2999-01-01T00:00:00Z")

    assert (await source.current()).access_key == "AKLATER"


class Frozen:
    token = None
    secret_key = SECRET

    def __init__(self, access_key: str) -> None:
        self.access_key = access_key


class FixedChain:
    def __init__(self, access_key: str) -> None:
        self.access_key = access_key

    def get_frozen_credentials(self) -> Frozen:
        return Frozen(self.access_key)


class ExpiringChain(FixedChain):
    """Temporary credentials whose provider can't be reached; `seconds_left` is set by the test."""

    def __init__(self, access_key: str) -> None:
        super().__init__(access_key)
        self.seconds_left = 10_000.0
        self.asked = 0

    def refresh_needed(self, refresh_in: float = 900) -> bool:
        return self.seconds_left < refresh_in

    def get_frozen_credentials(self) -> Frozen:
        from botocore.exceptions import EndpointConnectionError

        self.asked += 1
        if self.seconds_left <= 0:
            raise EndpointConnectionError(endpoint_url="http://127.0.0.1/")
        return super().get_frozen_credentials()


async def test_many_refusals_at_once_walk_the_chain_once() -> None:
    walks: list[int] = []

    def resolve() -> FixedChain:
        walks.append(1)
        return FixedChain(f"AK{len(walks)}")

    source = CredentialSource(resolve=resolve, run_sync=in_loop)
    old = await source.current()
    found: set[str] = set()

    async def refused() -> None:
        found.add((await source.refresh(old)).access_key)

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(refused)

    assert found == {"AK2"}
    assert len(walks) == 2


async def test_many_first_askers_walk_the_chain_once() -> None:
    walks: list[int] = []

    def resolve() -> FixedChain:
        walks.append(1)
        return FixedChain("AK")

    source = CredentialSource(resolve=resolve, run_sync=in_loop)

    async with trio.open_nursery() as nursery:
        for _ in range(100):
            nursery.start_soon(source.current)

    assert len(walks) == 1


async def test_the_same_credentials_stay_the_same_object() -> None:
    source = CredentialSource(resolve=lambda: FixedChain("AK"), run_sync=in_loop)
    first = await source.current()

    assert await source.refresh(first) is first


async def test_a_provider_in_trouble_is_asked_at_intervals_while_the_old_credentials_live(
    autojump_clock,
) -> None:
    chain = ExpiringChain("AK")
    source = CredentialSource(resolve=lambda: chain, run_sync=in_loop)
    await source.current()
    chain.seconds_left = 600
    for _ in range(50):
        await source.current()
    assert chain.asked == 2
    autojump_clock.jump(RETRY_SECONDS + 1)

    await source.current()

    assert chain.asked == 3


async def test_an_unreachable_provider_of_expired_credentials_is_unreachable() -> None:
    chain = ExpiringChain("AK")
    source = CredentialSource(resolve=lambda: chain, run_sync=in_loop)
    await source.current()
    chain.seconds_left = 0

    with pytest.raises(UnreachableError, match="EndpointConnectionError"):
        await source.current()


async def test_a_source_shows_no_secret_in_its_repr() -> None:
    source = CredentialSource(resolve=lambda: FixedChain("AK"), run_sync=in_loop)
    await source.current()

    assert SECRET not in repr(source) + repr(vars(source))


async def test_a_lookup_that_hangs_is_abandoned_when_cancelled_and_leaves_nothing_behind() -> None:
    begun, release, walked = trio.Event(), threading.Event(), []

    def hangs_first() -> FixedChain:
        walked.append(1)
        if len(walked) == 1:
            trio.from_thread.run_sync(begun.set)
            assert release.wait(5)
            return FixedChain("AKLATE")
        return FixedChain("AKNEW")

    found = CredentialSource(resolve=hangs_first)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(found.current)
            await begun.wait()
            nursery.cancel_scope.cancel()
    release.set()
    assert (await found.current()).access_key == "AKNEW"


async def test_when_temporary_credentials_expire_is_known_and_fixed_ones_never_do(aws_home) -> None:
    expiry = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(hours=3)
    document = {
        "Version": 1,
        "AccessKeyId": "AKTEMPORARY",
        "SecretAccessKey": SECRET,
        "SessionToken": "token",
        "Expiration": expiry.isoformat(),
    }
    write_process(
        aws_home, f"{shlex.quote(sys.executable)} -c {shlex.quote(f'print({json.dumps(document)!r})')}"
    )
    temporary = CredentialSource()
    assert temporary.expire_us is None
    await temporary.current()
    assert temporary.expire_us == round(expiry.timestamp() * 1e6)

    aws_home.joinpath("config").unlink()
    write_keys(aws_home, "AKFIXED")
    fixed = CredentialSource()
    await fixed.current()
    assert fixed.expire_us is None
