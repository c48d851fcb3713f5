"""The smallest rights a configuration needs: GRANTs for PostgreSQL, an IAM policy for S3; pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from daemon.objects import PROBE_KEY_NAME

if TYPE_CHECKING:
    from daemon.config import Config


def grants_sql(config: Config) -> str:
    """Return the GRANTs that reading needs, to be run by the tables' owner or a superuser.

    SELECT is granted on whole tables: sweeps read ctid, which no list of columns includes.
    """
    user, database = _user_and_database(config.postgres.dsn)
    role = _quoted(user or "reader")
    tables = dict.fromkeys((source.schema_name, source.table_name) for source in config.sources)
    lines = ["-- the smallest grants for this configuration"]
    if database:
        lines.append(f"GRANT CONNECT ON DATABASE {_quoted(database)} TO {role};")
    lines += [
        f"GRANT USAGE ON SCHEMA {_quoted(schema)} TO {role};"
        for schema in dict.fromkeys(s for s, _ in tables)
    ]
    lines += [
        f"GRANT SELECT ON TABLE {_quoted(schema)}.{_quoted(table)} TO {role};" for schema, table in tables
    ]
    lines.append(f"GRANT pg_read_all_stats TO {role}; -- {_need_of_stats(config)}")
    if config.throttle.query is not None:
        lines.append(f"-- and SELECT on what throttle.query reads, to {role}")
    if config.postgres.auth == "rds-iam":
        lines.append(
            f"GRANT rds_iam TO {role}; -- a role of RDS: it logs in by token, and by no password any more"
        )
    return "\n".join(lines)


def _need_of_stats(config: Config) -> str:
    keys = [
        f"throttle.{key}"
        for key in ("replica_lag", "active_sessions")
        if getattr(config.throttle, key) is not None
    ]
    late = "else late transactions are waited for, not seen to have ended"
    return f"needed by {' and '.join(keys)}; {late}" if keys else late


def iam_policy(config: Config, *, undo: bool = False) -> dict[str, Any]:
    """Return the policy that copying, comparing and verifying need, as the JSON document that IAM takes.

    With `undo` also what that needs: to delete under the prefixes, and to see beforehand what object lock keeps.
    """
    partition = "aws-cn" if config.s3.region.startswith("cn-") else "aws"
    places = [(f"arn:{partition}:s3:::{source.bucket}", source.prefix) for source in config.sources]
    objects = ["s3:PutObject", "s3:GetObject"]
    if config.s3.tags:
        objects.append("s3:PutObjectTagging")
    statements: list[dict[str, Any]] = [
        {
            "Sid": "CopyAndCompare",
            "Effect": "Allow",
            "Action": objects,
            "Resource": [f"{bucket}/{_literal(prefix)}*" for bucket, prefix in places],
        },
        {
            "Sid": "ListToVerify",
            "Effect": "Allow",
            "Action": "s3:ListBucket",
            "Resource": list(dict.fromkeys(bucket for bucket, _ in places)),
        },
        {
            "Sid": "RemoveTheProbe",
            "Effect": "Allow",
            "Action": ["s3:DeleteObject", "s3:DeleteObjectVersion"],
            "Resource": [f"{bucket}/{_literal(prefix)}{PROBE_KEY_NAME}" for bucket, prefix in places],
        },
    ]
    if undo:
        statements.append(
            {
                "Sid": "Undo",
                "Effect": "Allow",
                "Action": [
                    *("s3:DeleteObject", "s3:DeleteObjectVersion"),
                    *("s3:GetObjectRetention", "s3:GetObjectLegalHold"),
                ],
                "Resource": [f"{bucket}/{_literal(prefix)}*" for bucket, prefix in places],
            }
        )
    prefixes = list(dict.fromkeys(prefix for _, prefix in places))
    if "" not in prefixes:
        statements[1]["Condition"] = {
            "StringLike": {"s3:prefix": [f"{_literal(prefix)}*" for prefix in prefixes]}
        }
    if config.s3.sse in {"aws:kms", "aws:kms:dsse"}:
        key = config.s3.kms_key_id or ""
        statements.append(
            {
                "Sid": "EncryptWithKms",
                "Effect": "Allow",
                "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
                "Resource": key if key.startswith("arn:") and ":key/" in key else "*",
            }
        )
    if config.postgres.auth == "rds-iam":
        user, _ = _user_and_database(config.postgres.dsn)
        statements.append(
            {
                "Sid": "LogInToTheDatabase",
                "Effect": "Allow",
                "Action": "rds-db:connect",
                "Resource": f"arn:{partition}:rds-db:{config.postgres.region}:*:dbuser:*/{_literal(user) or '*'}",
            }
        )
    return {"Version": "2012-10-17", "Statement": statements}


def iam_policy_json(config: Config, *, undo: bool = False) -> str:
    """Return the IAM policy as text: valid JSON with a line per statement member, so that it fits a screen."""
    policy = iam_policy(config, undo=undo)
    statements = []
    for statement in policy["Statement"]:
        members = ",\n   ".join(
            f"{json.dumps(name)}: {json.dumps(value)}" for name, value in statement.items()
        )
        statements.append(f"  {{{members}}}")
    return '{"Version": "2012-10-17", "Statement": [\n' + ",\n".join(statements) + "\n]}"


def _literal(prefix: str) -> str:
    """Return `prefix` with what IAM would take for wildcards or variables written as itself.

    IAM User Guide, "Policy elements: Variables": ${*}, ${?} and ${$} stand for the characters.
    """
    return "".join(f"${{{character}}}" if character in "*?$" else character for character in prefix)


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'


def _user_and_database(dsn: str) -> tuple[str, str]:
    """Return user and database that the DSN names itself, empty where PG* variables or services do."""
    parts = urlsplit(dsn)
    user = parts.netloc.rpartition("@")[0].partition(":")[0]
    return unquote(user), unquote(parts.path.lstrip("/"))
