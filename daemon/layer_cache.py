"""Turn `[layer_cache]` into sources: the eight tables that this program was first written for; pure."""

from __future__ import annotations

from daemon.settings_models import LayerCacheSection, SourceConfig

TABLES = {
    "cas": "cas",
    "workspace_snapshot": "workspace_snapshots",
    "encrypted_secret": "encrypted_secrets",
    "rebase_batch": "rebase_batches",
    "change_batch": "change_batches",
    "split_snapshot_subgraph": "split_snapshot_subgraphs",
    "split_snapshot_supergraph": "split_snapshot_supergraphs",
    "split_snapshot_rebase_batch": "split_snapshot_rebase_batches",
}
"""Cache name to table name; every cache is one table of the same columns."""

_ALLOWED = ", ".join(TABLES)
_BUCKET_BYTES_MAX = 63
"""The S3 naming rules."""


def problems_in(section: LayerCacheSection) -> list[str]:
    """Return what is wrong with the caches named, each beginning with its place; empty if nothing is."""
    if not section.caches:
        return [f"layer_cache.caches: no cache is named and there is no default; name any of {_ALLOWED}"]
    problems = [
        f'layer_cache.caches: found the unknown cache "{name}"; expected any of {_ALLOWED}'
        for name in section.caches
        if name not in TABLES
    ]
    problems += [
        f'layer_cache.caches: "{name}" is named more than once'
        for name in dict.fromkeys(section.caches)
        if section.caches.count(name) > 1
    ]
    too_long = [
        bucket_of(section, name)
        for name in section.caches
        if name in TABLES and len(bucket_of(section, name)) > _BUCKET_BYTES_MAX
    ]
    if too_long:
        problems.append(
            f"layer_cache.bucket_prefix and bucket_suffix: make bucket names of more than {_BUCKET_BYTES_MAX} "
            f"characters: {', '.join(too_long)}"
        )
    return problems


def bucket_of(section: LayerCacheSection, cache: str) -> str:
    """Return the cache's own bucket: prefix-table[-suffix], underscores turned to hyphens."""
    parts = [section.bucket_prefix, TABLES[cache]]
    if section.bucket_suffix is not None:
        parts.append(section.bucket_suffix)
    return "-".join(parts).replace("_", "-")


def sources(section: LayerCacheSection) -> list[SourceConfig]:
    """Return one ready source per cache named, in the order named.

    The section has passed `problems_in`.
    """
    return [
        SourceConfig(
            name=cache,
            schema_name="public",
            table_name=TABLES[cache],
            key=("key",),
            created_at="created_at",
            value="value",
            null_created_at=section.null_created_at,
            null_value=section.null_value,
            layout="tiered",
            reverse_key=False,
            bucket=bucket_of(section, cache),
            metadata=("serialization_lib", "sort_key"),
        )
        for cache in section.caches
    ]
