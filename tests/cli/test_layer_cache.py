from __future__ import annotations

import pytest

from daemon.layer_cache import TABLES, bucket_of, problems_in, sources
from daemon.settings_models import LayerCacheSection

GOLDEN = {
    "cas": ("cas", "si-layer-cache-cas-production"),
    "workspace_snapshot": ("workspace_snapshots", "si-layer-cache-workspace-snapshots-production"),
    "encrypted_secret": ("encrypted_secrets", "si-layer-cache-encrypted-secrets-production"),
    "rebase_batch": ("rebase_batches", "si-layer-cache-rebase-batches-production"),
    "change_batch": ("change_batches", "si-layer-cache-change-batches-production"),
    "split_snapshot_subgraph": (
        "split_snapshot_subgraphs",
        "si-layer-cache-split-snapshot-subgraphs-production",
    ),
    "split_snapshot_supergraph": (
        "split_snapshot_supergraphs",
        "si-layer-cache-split-snapshot-supergraphs-production",
    ),
    "split_snapshot_rebase_batch": (
        "split_snapshot_rebase_batches",
        "si-layer-cache-split-snapshot-rebase-batches-production",
    ),
}


def section(*caches: str, suffix: str | None = "production") -> LayerCacheSection:
    return LayerCacheSection(caches=list(caches), bucket_prefix="si-layer-cache", bucket_suffix=suffix)


def test_the_eight_caches_have_their_tables_and_buckets() -> None:
    made = {source.name: (source.table_name, source.bucket) for source in sources(section(*GOLDEN))}
    assert made == GOLDEN
    assert list(TABLES) == list(GOLDEN)


def test_every_cache_is_a_source_of_the_same_shape() -> None:
    for source in sources(section(*GOLDEN)):
        assert (source.schema_name, source.key, source.created_at, source.value) == (
            "public",
            ("key",),
            "created_at",
            "value",
        )
        assert (source.layout, source.reverse_key, source.prefix, source.where) == ("tiered", False, "", None)


def test_d12_the_columns_beside_the_value_go_along_as_metadata() -> None:
    assert sources(section("cas"))[0].metadata == ("serialization_lib", "sort_key")


@pytest.mark.parametrize(("created_at", "value"), [("include", "empty"), ("exclude", "exclude")])
def test_what_becomes_of_nulls_is_decided_for_every_cache_at_once(created_at: str, value: str) -> None:
    decided = LayerCacheSection.model_validate(
        {"caches": list(GOLDEN), "bucket_prefix": "si", "null_created_at": created_at, "null_value": value}
    )
    made = sources(decided)
    assert [(one.null_created_at, one.null_value) for one in made] == [(created_at, value)] * len(GOLDEN)


def test_without_a_word_on_nulls_planning_asks_once_it_meets_one() -> None:
    assert {(one.null_created_at, one.null_value) for one in sources(section(*GOLDEN))} == {(None, None)}


def test_without_a_suffix_the_bucket_ends_with_the_table() -> None:
    assert bucket_of(section("cas", suffix=None), "cas") == "si-layer-cache-cas"


def test_naming_no_cache_is_a_problem_that_lists_them_all() -> None:
    found = problems_in(section())
    assert len(found) == 1
    assert all(name in found[0] for name in GOLDEN)


@pytest.mark.parametrize("name", ["cass", "workspace_snapshots", "", "CAS"])
def test_an_unknown_cache_is_a_problem_that_lists_those_known(name: str) -> None:
    found = problems_in(section("cas", name))
    assert len(found) == 1
    assert f'"{name}"' in found[0]
    assert "split_snapshot_rebase_batch" in found[0]


def test_a_cache_named_twice_is_a_problem() -> None:
    assert problems_in(section("cas", "cas")) == ['layer_cache.caches: "cas" is named more than once']


def test_a_bucket_name_that_grows_too_long_is_a_problem() -> None:
    long = LayerCacheSection(
        caches=["split_snapshot_rebase_batch"], bucket_prefix="p" * 40, bucket_suffix=None
    )
    assert "more than 63 characters" in problems_in(long)[0]
