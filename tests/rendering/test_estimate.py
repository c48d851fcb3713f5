"""The text of a dry run."""

from __future__ import annotations

from daemon.estimating import Tally, total
from daemon.rendering_estimate import estimate_text
from daemon.rows import Exclusions

EXPECTED = """\
attachments: 6 rows to copy, 3.90 MiB (largest 3.90 MiB), of 9 seen
  excluded, where: 3
  1 row can't be an object and would be parked, such as a//b
      empty  ##########                      1
   1.00 KiB  ##############################  3
   2.00 KiB  ##########                      1
   2.00 MiB  ##########                      1
  requests: 5 PUT ($0.00), 1 LIST to verify ($0.00); storage $0.00 a month
  where conditional PUTs don't work: 5 HEAD more ($0.00); list prices of S3
    Standard in us-east-1"""


def test_an_estimate_shows_rows_bytes_exclusions_sizes_requests_and_dollars():
    tally = Tally(seen=9, excluded=Exclusions(where=3), unusable=1, unusable_example="a//b")
    tally.add_sizes([0, 1024, 1100, 2000, 2048, 4_090_000])
    assert estimate_text("attachments", tally.estimate(), width=80) == EXPECTED


def test_dollars_follow_the_requests():
    tally = Tally()
    tally.add_sizes([1] * 100_000)
    text = estimate_text("t", tally.estimate(), width=200)
    assert "100,000 PUT ($0.50), 100 LIST to verify ($0.00)" in text


def test_the_total_of_several_sources_is_what_one_scan_of_all_would_have_found():
    one, other, both = (
        Tally(seen=3),
        Tally(seen=4, excluded=Exclusions(where=1)),
        Tally(seen=7, excluded=Exclusions(where=1)),
    )
    one.add_sizes([0, 5, 1024])
    other.add_sizes([7, 2**20, 2**20 + 1])
    both.add_sizes([0, 5, 1024, 7, 2**20, 2**20 + 1])
    added = total([one.estimate(), other.estimate()])
    assert added.histogram == both.estimate().histogram
    assert (added.seen, added.rows, added.size, added.largest, added.put_requests, added.excluded) == (
        7,
        6,
        both.estimate().size,
        2**20 + 1,
        6,
        both.estimate().excluded,
    )
