"""What every session with PostgreSQL is set to, so that no role, database or server default decides it; pure."""

from __future__ import annotations

IDLE_IN_TRANSACTION_SECONDS = 60.0
"""How long a scan's consumer may dwell on one batch."""

MEANING = {"search_path": "", "timezone": "UTC", "datestyle": "ISO, YMD"}
"""What decides which rows a `where` means."""
_ALWAYS = {
    **MEANING,
    "default_transaction_read_only": "on",
    "row_security": "off",
    "bytea_output": "hex",
    "standard_conforming_strings": "on",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "plan_cache_mode": "force_custom_plan",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_SECONDS * 1000:.0f}",
}
FETCH_SETTINGS = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}
"""A fetch goes by the key's index or not at all: a stale estimate must not read someone's production table."""
WRITING = {"default_transaction_read_only": "off"}
"""Of the session of `restore` alone."""


def session_settings(lock_timeout: float, statement_timeout: float) -> dict[str, str]:
    """Return the settings of a session that reads; timeouts in seconds."""
    return {
        **_ALWAYS,
        "lock_timeout": f"{lock_timeout * 1000:.0f}",
        "statement_timeout": f"{statement_timeout * 1000:.0f}",
    }
