"""How the C library hands memory back, once values are so large that what it keeps matters."""

from __future__ import annotations

import ctypes
import functools
import gc

M_MMAP_THRESHOLD = -3
"""malloc.h of glibc."""
LARGE_BYTES = 128 * 1024
"""glibc's own first threshold (mallopt(3))."""
HUGE_BYTES = 64 * 2**20
"""Values from this size on are worth it; with the default budget those below stay within twice that budget anyway."""


GARBAGE_THRESHOLDS = 50_000, 20, 50
"""gc.set_threshold's: by default a fifth of the CPU of planning went into looking through rows for cycles."""


def collect_less_often() -> None:
    """Let the garbage collector look for cycles less often: what there is most of, rows and keys, makes none."""
    gc.set_threshold(*GARBAGE_THRESHOLDS)


@functools.cache
def hand_back_large_blocks() -> None:
    """From now on let blocks of LARGE_BYTES and more go back to the system as soon as they are freed; glibc's malloc only.

    Left to itself the threshold rises with what is freed, up to 32 MiB, and the pieces of 256 KiB in which a value
    arrives stay behind in a heap that can't shrink: three values of 256 MiB took 883 MB, 615 with the threshold kept. At
    1 MiB a value that would cost a fifth of the rate, in page faults.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
