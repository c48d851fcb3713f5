"""backfillctl: moves blobs out of PostgreSQL into S3 and can prove that it did."""

from __future__ import annotations

__version__ = "0.1.0"
