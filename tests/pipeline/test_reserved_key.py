from __future__ import annotations

import pytest

from daemon.errors import ExitCode
from daemon.objects import PROBE_KEY_NAME
from tests.pipeline.rig import CUTOFF_US, Rig, source


@pytest.mark.parametrize(
    ("row_key", "settings"),
    [
        (PROBE_KEY_NAME, {}),
        (PROBE_KEY_NAME[::-1], {"reverse_key": True}),
        (PROBE_KEY_NAME, {"layout": "tiered"}),
    ],
)
async def test_a_row_named_like_the_probe_is_counted_and_parked_in_every_session(
    tmp_path, autojump_clock, row_key, settings
):
    rig = Rig(tmp_path, sources=(source("t", **settings),))
    rig.table.insert(row_key, CUTOFF_US - 1)
    rig.table.insert("a", CUTOFF_US - 1)
    for _ in range(2):
        assert (await rig.session()).exit_code is ExitCode.PARKED
        assert (rig.counts().unusable, rig.counts().parked, rig.counts().stored) == (1, 1, 1)
        assert len(rig.fake.objects()) == 1
    (parked,) = rig.status().sources[0].parked
    assert (parked.example_key, parked.failure) == (row_key, "unusable_key")
