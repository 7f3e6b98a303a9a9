"""How processes that load, render or derive views hold memory."""

from __future__ import annotations

import numpy as np


def keep_freed() -> None:
    """Have the memory that one view frees serve the next, not the system, which would hand out its pages one by one anew.

    glibc returns what exceeds twice the largest block that it has seen freed, of at most 32 MiB (mallopt(3)), so one is freed
    here, never written to. Without it reading a view takes a quarter longer, rendering one a seventh. Other allocators are not
    moved by this.
    """
    np.empty(31 * 2**20, np.uint8)
