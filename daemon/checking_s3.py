"""Look at the buckets a configuration names: credentials, rights, region, clock, conditional writes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.endpoints import open_bucket
from daemon.errors import BackfillError, ExitCode
from daemon.findings import Finding, Level, failure, ok, warning
from daemon.retrying import Failure, FailureClass
from daemon.settings_values import is_loopback

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from typing import TypeVar

    from daemon.bucket import Bucket
    from daemon.config import Config, SourceConfig

    Answer = TypeVar("Answer")

_SECOND_US = 1_000_000
_SILENT = (FailureClass.TIMEOUT, FailureClass.CONNECTION)
_CODES = {
    FailureClass.TIMEOUT: ExitCode.UNREACHABLE,
    FailureClass.CONNECTION: ExitCode.UNREACHABLE,
    FailureClass.SERVER: ExitCode.UNREACHABLE,
    FailureClass.THROTTLED: ExitCode.UNREACHABLE,
    FailureClass.FORBIDDEN: ExitCode.REFUSED,
    FailureClass.EXPIRED_CREDENTIALS: ExitCode.REFUSED,
    FailureClass.CLOCK_SKEW: ExitCode.REFUSED,
    FailureClass.NO_SUCH_BUCKET: ExitCode.REFUSED,
    FailureClass.WRONG_REGION: ExitCode.USAGE,
    FailureClass.REDIRECTED: ExitCode.USAGE,
}
_HINTS = {
    FailureClass.TIMEOUT: "check s3.endpoint, the network and the firewall",
    FailureClass.CONNECTION: "check s3.endpoint, the network and the firewall",
    FailureClass.FORBIDDEN: "check the access key and its secret; `backfillctl check --iam` prints the policy needed",
    FailureClass.EXPIRED_CREDENTIALS: "renew the credentials",
    FailureClass.NO_SUCH_BUCKET: "create the bucket or correct s3.bucket; nothing is created for you",
    FailureClass.WRONG_REGION: "correct s3.region",
    FailureClass.REDIRECTED: "correct s3.endpoint and s3.region; credentials are never sent along a redirect",
}


async def check_s3(
    config: Config, env: Mapping[str, str], report: Callable[[Finding], None], *, clock_us: Callable[[], int]
) -> None:
    """Report what is found at the endpoint; the probe object of each source is written and deleted.

    Args:
        config: the configuration.
        env: the environment, for proxy variables and AWS_CA_BUNDLE.
        report: takes each finding as soon as it is made.
        clock_us: wall clock, microseconds since 1970-01-01 UTC.
    """
    host = config.s3.endpoint_host
    if config.s3.endpoint_url.startswith("http:") and not is_loopback(host):
        report(
            warning(
                "s3",
                f"{config.s3.endpoint_url} is not encrypted",
                "use https:// unless the network is trusted",
            )
        )
    try:
        async with open_bucket(config, env, clock_us=clock_us) as bucket:
            await _check_sources(bucket, config.sources, report)
    except BackfillError as error:
        report(failure("s3", error))


async def _check_sources(
    bucket: Bucket, sources: Sequence[SourceConfig], report: Callable[[Finding], None]
) -> None:
    listed: set[str] = set()
    refused: set[str] = set()
    offset_us = 0
    for source in sources:
        if source.bucket in refused:
            continue
        try:
            if source.bucket not in listed:
                await _check_listing(bucket, source, report)
                listed.add(source.bucket)
            await _check_writing(bucket, source, report)
        except Failure as answer:
            refused.add(source.bucket)
            report(_failed(f"bucket {source.bucket}", answer))
            if answer.kind in _SILENT:
                return
        if bucket.clock_offset_us and not offset_us:
            offset_us = bucket.clock_offset_us
            report(
                warning(
                    "clock",
                    f"the endpoint's clock is {offset_us / _SECOND_US:+.0f} s from this machine's",
                    "set this machine's clock (NTP); signing follows the endpoint's meanwhile",
                )
            )


async def _check_listing(bucket: Bucket, source: SourceConfig, report: Callable[[Finding], None]) -> None:
    subject = f"bucket {source.bucket}"
    try:
        await _again_after_skew(lambda: bucket.list_page(source.bucket, source.prefix, token=None))
    except Failure as answer:
        if answer.kind is not FailureClass.FORBIDDEN or answer.code not in {None, "AccessDenied"}:
            raise
        hint = "grant s3:ListBucket: without it verify can't work, and what is missing answers 403 instead of 404"
        report(warning(subject, f"may not be listed: {answer.message}", hint))
    else:
        report(ok(subject, "there, and may be listed"))


async def _check_writing(bucket: Bucket, source: SourceConfig, report: Callable[[Finding], None]) -> None:
    subject = f"bucket {source.bucket}"
    found = await _again_after_skew(lambda: bucket.probe(source.bucket, source.prefix))
    where = f"{source.prefix}* (source {source.name})"
    if found.conditional == "atomic":
        report(ok(subject, f"writable at {where}, If-None-Match is honoured"))
    else:
        text = f"writable at {where}, but If-None-Match is {found.conditional}: writes are not atomic here"
        report(
            warning(
                subject, text, "a HEAD precedes each PUT; let nobody else write there during the migration"
            )
        )
    if not found.deletable:
        report(
            warning(
                subject, f"the probe's object stays: {found.key}", "grant s3:DeleteObject on it, or let it be"
            )
        )


async def _again_after_skew(ask: Callable[[], Awaitable[Answer]]) -> Answer:
    """Ask once more if the clock was called wrong: the answer's Date has corrected it."""
    try:
        return await ask()
    except Failure as answer:
        if answer.kind is not FailureClass.CLOCK_SKEW:
            raise
        return await ask()


def _failed(subject: str, answer: Failure) -> Finding:
    return Finding(
        Level.FAILURE,
        subject,
        answer.message,
        _HINTS.get(answer.kind, ""),
        _CODES.get(answer.kind, ExitCode.FAILED),
    )
