"""The end of a migration's session when nothing more can succeed, in the operator's words."""

from __future__ import annotations

from daemon.errors import BackfillError, ExitCode
from daemon.retrying import Failure, FailureClass


class MigrationHalted(BackfillError):  # noqa: N818 -- the name is the message
    """Nothing more can succeed; carries the exit code that says why."""

    def __init__(self, problem: str, hint: str, exit_code: ExitCode, *, keys: tuple[str, ...] = ()) -> None:
        super().__init__(problem, hint, keys=keys)
        self.exit_code = exit_code


_HINTS = {
    FailureClass.FORBIDDEN: "check the credentials and their rights; `backfillctl check` prints the smallest set",
    FailureClass.EXPIRED_CREDENTIALS: "renew the credentials, then start again",
    FailureClass.NO_SUCH_BUCKET: "create the bucket or correct s3.bucket; nothing is created for you",
    FailureClass.WRONG_REGION: "correct s3.region",
    FailureClass.REDIRECTED: "correct s3.endpoint and s3.region; credentials are never sent along a redirect",
}


def halted(failure: Failure, exit_code: ExitCode, *, subject: str = "") -> MigrationHalted:
    """Return the halt that `failure` causes, with the hint that fits the end that failed."""
    where = f"{subject}: " if subject else ""
    key = "postgres.dsn and the server" if failure.operation == "FETCH" else "s3.endpoint and the network"
    if exit_code is ExitCode.UNREACHABLE:
        return MigrationHalted(
            f"{where}out of reach: {failure.message}",
            f"check {key}; upload.give_up_after sets how long silence is borne once a migration runs",
            exit_code,
            keys=failure.keys,
        )
    return MigrationHalted(
        f"{where}{failure.operation} refused for good: {failure.message}",
        _HINTS.get(failure.kind, f"check {key}; run `backfillctl check`"),
        exit_code,
        keys=failure.keys,
    )
