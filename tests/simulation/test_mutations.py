"""That the list of breaks still fits the product, and that some are found; the command looks for all of them."""

from __future__ import annotations

import shutil

import pytest

from tests.simulation.breaks import BREAKS
from tests.simulation.mutations import ROOT, look_for

FOUND_AT_ONCE = ("checkpoint off by one", "claim after PUT", "budget ignored")


@pytest.mark.parametrize("broken", BREAKS, ids=lambda broken: broken.name)
def test_a_break_fits_the_product(broken, tmp_path):
    (tmp_path / broken.file).parent.mkdir()
    shutil.copy(ROOT / broken.file, tmp_path / broken.file)
    broken.apply(tmp_path)
    compile((tmp_path / broken.file).read_text(), broken.file, "exec")


def test_a_break_that_fits_no_more_says_so(tmp_path):
    (tmp_path / "journal").mkdir()
    (tmp_path / BREAKS[0].file).write_text("another text\n")
    with pytest.raises(ValueError, match=r"0 times in journal/checkpoint\.py"):
        BREAKS[0].apply(tmp_path)


@pytest.mark.parametrize("name", FOUND_AT_ONCE)
def test_the_simulation_finds_a_break(name):
    (broken,) = [broken for broken in BREAKS if broken.name == name]
    found = look_for(broken, seeds=30)
    assert found.seed is not None
    assert not found.hung
