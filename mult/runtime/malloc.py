"""A setting of glibc's malloc for processes that load, render or derive views."""

from __future__ import annotations

import numpy as np


def reuse_freed_memory() -> None:
    """Have this process keep the memory that one view frees for the next one, instead of returning it to the system.

    glibc returns blocks larger than twice the largest block freed so far, of at most 32 MiB (mallopt(3), M_MMAP_THRESHOLD).
    So one block of nearly that size is allocated and freed here; it is never written to. Without this, reading a view takes a
    quarter longer and rendering one a seventh. Other allocators are not affected.
    """
    np.empty(31 * 2**20, np.uint8)
