"""How the C library hands memory back: values are large, come and go, and must not leave their room behind."""

from __future__ import annotations

import ctypes

M_MMAP_THRESHOLD = -3
"""malloc.h of glibc."""
LARGE_BYTES = 128 * 1024
"""glibc's own first threshold (mallopt(3)). Left to itself it rises with what is freed, up to 32 MiB, and smaller blocks
then stay in heaps that can't shrink: three values of 256 MiB, which arrive in pieces of 256 KiB, took 883 MB, 615 with
the threshold kept."""


def hand_back_large_blocks() -> None:
    """Let blocks of LARGE_BYTES and more go back to the system as soon as they are freed; glibc's malloc only."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
