"""What there is to see while `backfillctl demo --keep` leaves its servers up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon.demo.seaweed import REGION

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from daemon.demo.postgres import EmbeddedPostgres
    from daemon.demo.seaweed import EmbeddedSeaweed


def hints(
    *,
    directory: Path,
    secrets: Mapping[str, str],
    bucket: str,
    postgres: EmbeddedPostgres,
    seaweed: EmbeddedSeaweed,
) -> list[str]:
    """Return lines that may be pasted into a shell, each group under a line that says what it shows."""
    environment = {**secrets, "AWS_ENDPOINT_URL": seaweed.endpoint, "AWS_REGION": REGION}
    return [
        "in another terminal, as the same user:",
        f"  cd {directory}",
        *(f"  export {name}={value}" for name, value in environment.items()),
        "the migration:",
        "  backfillctl status -c backfill.toml",
        "  backfillctl events -c backfill.toml --kind keys_recovered",
        "the rows, through this server's own psql:",
        f"  {postgres.psql} \\",
        f"    -h 127.0.0.1 -p {postgres.port} -U postgres postgres",
        "the objects, through any S3 client, such as the AWS CLI:",
        f"  aws s3 ls s3://{bucket}/ --recursive",
        "the journal, through a copy (never open or copy its file itself):",
        "  backfillctl journal backup copy.db -c backfill.toml",
        "  sqlite-utils tables copy.db --counts --table",
    ]
