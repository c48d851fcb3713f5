"""The event-sourced record of one migration, in one SQLite file: synchronous, no network, usable alone."""
