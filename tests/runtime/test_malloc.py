"""Memory that is freed and used again: counted in page faults of a new process, in which nothing else decides."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource, sys
import numpy as np
from mult.runtime.malloc import reuse_freed_memory
if sys.argv[1] == "reuses":
    reuse_freed_memory()
for _ in range(2):  # the first time, the memory comes from the system in any case
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    np.ones(2**26, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    """Page faults while 64 MiB are written to that have been freed before."""
    return int(subprocess.run([sys.executable, "-c", COUNT, mode], capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc's")
def test_a_freed_block_is_used_again() -> None:
    assert faults("reuses") < 10
    assert faults("leaves it") > 20  # 32 if the system's pages are of 2 MiB
