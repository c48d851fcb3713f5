from __future__ import annotations

import json
from typing import TYPE_CHECKING

from daemon.config import Config, load
from daemon.errors import ExitCode
from daemon.permissions import grants_sql, iam_policy, iam_policy_json

from .conftest import SMALLEST, Invoke, WriteConfig

if TYPE_CHECKING:
    from pathlib import Path


def config_of(path: Path) -> Config:
    return load(path, {}, {}, now_us=0)


def test_grants_name_the_role_database_schema_and_table(write_config: WriteConfig) -> None:
    text = SMALLEST.replace('"public.attachments"', '\'public."At""t"\'')
    text += '[postgres]\ndsn = "postgresql://back%20fill:hunter2@h/app"\n'
    statements = [line.partition(";")[0] for line in grants_sql(config_of(write_config(text))).splitlines()]
    assert statements[1:] == [
        'GRANT CONNECT ON DATABASE "app" TO "back fill"',
        'GRANT USAGE ON SCHEMA "public" TO "back fill"',
        'GRANT SELECT ON TABLE "public"."At""t" TO "back fill"',
        'GRANT pg_read_all_stats TO "back fill"',
    ]


def test_grants_say_what_the_readings_need(write_config: WriteConfig) -> None:
    text = SMALLEST + '[throttle]\nactive_sessions = 5\nquery = "select 1"\nquery_threshold = 2\n'
    stats, query = grants_sql(config_of(write_config(text))).splitlines()[-2:]
    assert "; -- needed by throttle.active_sessions; else late" in stats
    assert query == '-- and SELECT on what throttle.query reads, to "reader"'


def test_the_policy_allows_objects_under_the_prefix_and_nothing_else(write_config: WriteConfig) -> None:
    policy = iam_policy(config_of(write_config(SMALLEST + 'prefix = "a*/"\n')))
    copy, listing, probe = policy["Statement"]
    assert copy["Action"] == ["s3:PutObject", "s3:GetObject"]
    assert copy["Resource"] == ["arn:aws:s3:::blobs/a${*}/*"]
    assert (listing["Action"], listing["Resource"]) == ("s3:ListBucket", ["arn:aws:s3:::blobs"])
    assert listing["Condition"] == {"StringLike": {"s3:prefix": ["a${*}/*"]}}
    assert probe["Resource"] == ["arn:aws:s3:::blobs/a${*}/.backfill-probe"]


def test_the_policy_grows_with_tags_and_kms(write_config: WriteConfig) -> None:
    text = SMALLEST.replace(
        'bucket = "blobs"',
        'bucket = "blobs"\nsse = "aws:kms"\nkms_key_id = "arn:aws:kms:x:1:key/2"\ntags = {a = "b"}',
    )
    statements = iam_policy(config_of(write_config(text)))["Statement"]
    assert "s3:PutObjectTagging" in statements[0]["Action"]
    assert statements[3]["Resource"] == "arn:aws:kms:x:1:key/2"


def test_the_policy_as_text_is_the_policy(smallest: Path) -> None:
    config = config_of(smallest)
    assert json.loads(iam_policy_json(config)) == iam_policy(config)


RDS = '[postgres]\ndsn = "postgresql://reader@db.test/app?sslmode=verify-full"\nauth = "rds-iam"\n'


def test_logging_in_by_token_needs_a_role_and_a_statement_of_its_own(write_config: WriteConfig) -> None:
    config = config_of(write_config(SMALLEST + RDS))
    assert 'GRANT rds_iam TO "reader"' in grants_sql(config)
    *_, statement = iam_policy(config)["Statement"]
    assert statement["Action"] == "rds-db:connect"
    assert statement["Resource"] == "arn:aws:rds-db:us-east-1:*:dbuser:*/reader"


def test_the_databases_region_may_be_another_than_the_buckets(write_config: WriteConfig) -> None:
    config = config_of(write_config(SMALLEST + RDS + 'region = "eu-west-1"\n'))
    assert (config.postgres.region, config.s3.region) == ("eu-west-1", "us-east-1")


def test_a_password_needs_neither_region_nor_rights_of_iam(write_config: WriteConfig) -> None:
    config = config_of(write_config(SMALLEST))
    assert config.postgres.region is None
    assert "rds" not in grants_sql(config) + iam_policy_json(config)


def test_only_undo_may_delete_what_was_copied(write_config: WriteConfig) -> None:
    config = config_of(write_config(SMALLEST + 'prefix = "a/"\n'))
    without, with_undo = iam_policy(config)["Statement"], iam_policy(config, undo=True)["Statement"]
    (added,) = [statement for statement in with_undo if statement not in without]
    assert "s3:DeleteObject" in added["Action"]
    assert added["Resource"] == ["arn:aws:s3:::blobs/a/*"]
    deleting = [one for one in without if "s3:DeleteObject" in one["Action"]]
    assert [one["Resource"] for one in deleting] == [["arn:aws:s3:::blobs/a/.backfill-probe"]]


def test_the_rights_of_undo_are_printed_with_those_of_iam_only(invoke: Invoke, smallest: Path) -> None:
    assert '"Undo"' in invoke("check", "--iam", "--undo", "-c", smallest).stdout
    assert invoke("check", "--undo", "-c", smallest).exit_code == ExitCode.USAGE
