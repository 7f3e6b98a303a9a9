"""What every test shares: one thread a process, so that parallel tests do not fight and bits are always the same."""

from __future__ import annotations

import os

# Read when torch is first imported, here and in the commands that tests start.
os.environ["OMP_NUM_THREADS"] = "1"
