"""`run.deterministic`: whether two runs on the same machine are equal to the bit, which on a GPU costs speed."""

from __future__ import annotations

import os
from typing import Literal

import torch


def resolve_deterministic(deterministic: bool | Literal["auto"], device: torch.device) -> bool:
    """ "auto" is true on the CPU, where it costs nothing, and false elsewhere."""
    return device.type == "cpu" if deterministic == "auto" else deterministic


def set_deterministic(deterministic: bool) -> None:
    """Have torch take deterministic algorithms alone in this process, or whichever are fastest.

    cuBLAS repeats itself only with a workspace of fixed size, which it reads from the environment at this process's first
    product on a GPU; so this is called before. A value that the user has set stays.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)
    # torch would also fill every new tensor with NaN, which takes time; nothing here reads a tensor before it is written.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
