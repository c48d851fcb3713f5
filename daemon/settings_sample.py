"""The configuration that `backfillctl init` writes: every key, its default and what it is for."""

from __future__ import annotations

SAMPLE = """\
# A migration of backfillctl. Next: edit, then `backfillctl check -c THIS_FILE`.
# Every key of one value may also come from the environment: BACKFILL_<SECTION>_<KEY>.
# Nobody but you may have the right to write this file: `where` and `query` are SQL that runs as written.

[migration]
name = "example"
journal = "journal.db"                    # on a local disk; a relative path begins at this file
# cutoff = 2026-01-14T15:30:45.123456Z    # rows created before it, zone required; default: when planning begins
# order = "newest-first"                  # or "oldest-first"
# deadline = 2026-03-01T06:00:00Z         # when it should be done: only status and alerts look at it
# disk_reserve = "256MiB"                 # free space of the journal's disk below which nothing goes on; "0B": none

[postgres]
dsn = "postgresql://reader@localhost/app" # password from PG* variables or ~/.pgpass; a replica will do
# connections = 4
# statement_timeout = "30s"
# lock_timeout = "1s"
# auth = "rds-iam"                        # an IAM token instead of a password, made anew for each connection
# region = "eu-west-1"                    # of the database, for the token; default: s3.region
# late_grace = "5m"                       # wait for late transactions where pg_read_all_stats is not granted

[s3]
region = "us-east-1"                      # credentials come from where the AWS CLI finds them
# endpoint = "http://127.0.0.1:8333"      # leave out for AWS
bucket = "example-blobs"
# addressing = "auto"                     # or "path", "virtual"
# existing = "compare"                    # what is there already: compare, "overwrite" or "skip" it
# sse = "aws:kms"                         # or "AES256", "aws:kms:dsse"
# kms_key_id = "alias/blobs"
# storage_class = "STANDARD_IA"
# tags = { origin = "backfill" }
# expected_bucket_owner = "123456789012"
# connect_timeout = "10s"
# io_timeout = "60s"

# [upload]
# concurrency = 64                        # uploads at once, over all sources, at most
# adaptive = true                         # fewer where the endpoint refuses or is silent; false: always `concurrency`
# processes = 1                           # that fetch and upload; "auto": one less than there are cores
# max_in_flight = "256MiB"                # bytes of values held in memory
# max_attempts = 8                        # answers a key may get before it is parked
# max_failures = 100                      # keys parked in one session before all stops, or a share: "0.1%"
# give_up_after = "15m"                   # silence of PostgreSQL or S3 after which all stops
# drain_deadline = "30s"                  # what uploads get to end after SIGTERM or Ctrl-C
# key_batch_size = 1000
# checkpoint_interval_secs = 30           # seconds between progress lines

# [throttle]                              # all of it off unless set
# rows_per_second = 500                   # most that is read from PostgreSQL; `backfillctl set` changes it in mid-run
# bytes_per_second = "20M"
# timetable = "08:00,20M 19:00,off"       # bytes per second from HH:MM on, or DAY-HH:MM: "Sat-08:00,off"
# timetable_zone = "UTC"                  # or such as "Europe/Berlin"
# replica_lag = "10s"                     # above it nothing new begins, until it is below again
# replica_lag_hibernate = "60s"           # above it nothing happens for `hibernate`
# active_sessions = 40                    # sessions of others at work on the server, in any database
# active_sessions_hibernate = 80
# query = "select count(*) from public.queue where state = 'new'" # one row, one number; SQL that runs as written
# query_threshold = 1000
# query_hibernate = 10000
# check_interval = "5s"
# reading_timeout = "3s"                  # a reading that takes longer, or fails, throttles too
# hibernate = "60s"

# [limits]                                # a session of run ends there with exit code 8; the next one resumes
# max_duration = "2h"
# max_bytes = "10GiB"                     # by planned sizes; one key at least
# limit = 1000                            # keys

# [hooks]                                 # commands that `run` runs at its end, without a shell
# on_complete = ["/bin/sh", "/etc/backfill/tell", "done"]
# on_parked = ["/bin/sh", "/etc/backfill/tell", "keys parked"]
# on_halt = ["/bin/sh", "/etc/backfill/page"]
# timeout = "60s"

# [log]                                   # of run, plan and verify, on stderr
# format = "text"                         # or "json": one object a line
# redact_keys = false                     # true: keys only as a hash that `explain` finds again

# [metrics]                               # served by `run` once a port is set: /metrics, the status page at /
# port = 9847
# address = "127.0.0.1"                   # whoever reaches another address reads counts and example keys
# linger = "60s"                          # how long it stays after the end, for the last scrape
# allowed_hosts = ["db1.example.net"]     # names it may be called by, beside localhost and IP addresses

# [control]
# socket = "control.sock"                 # where `pause`, `set`, `drain` reach the daemon; default: the journal's name
#                                         # with .sock, under systemd in its runtime directory

[[source]]
name = "attachments"
table = "public.attachments"
key = "id"                                # or a list of columns
created_at = "created_at"                 # leave out if there is none
# created_at_zone = "UTC"                 # needed where the column is a timestamp without time zone
value = "data"
# where = "kind <> 'draft'"               # only such rows
# null_created_at = "exclude"             # or "include"; asked for once such rows are met
# null_value = "exclude"                  # or "empty"; asked for once such rows are met
prefix = "attachments/"
# layout = "flat"                         # or "tiered": ab/cd/ef/abcdef...
# reverse_key = false
# bucket = "another-bucket"
# content_type = "application/octet-stream"
# metadata = ["kind"]                     # columns that go along as x-amz-meta-*

# [layer_cache]                           # layer cache tables as ready sources, each to a bucket of its own
# caches = ["cas", "workspace_snapshot"]  # no default: name all
# bucket_prefix = "si-layer-cache"
# bucket_suffix = "production"
# null_created_at = "exclude"             # as in [[source]], for all caches
# null_value = "exclude"
"""
