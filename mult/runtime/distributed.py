"""Processes under torchrun: who am I, add over all, wait for all. On one process these do nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from mult.errors import UserError


def pick_device(name: str) -> torch.device:
    """`run.device`: "auto" is this process's GPU if there is one, else the CPU; other names are torch's.

    Raises UserError for a name that is no device of this machine.
    """
    if name == "auto":
        name = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"run.device: got {name!r} ({str(error).splitlines()[0]}); expected auto, cpu or a device of this machine"
        ) from error
    return device


def start(device: torch.device) -> None:
    """Join the process group that torchrun, or a scheduler, announces in the environment, if it does."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Gradients are on the GPU and metrics on the CPU, where nccl does not reach.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")


def stop() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def group(device: torch.device) -> Iterator[None]:
    """The body between `start` and `stop`. A process whose peer is gone ends with status 1 and a word: the peer said why."""
    start(device)
    try:
        yield
    except RuntimeError as error:
        if world() == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        sys.exit("stopped: another process ended, and should have said why")
    stop()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this process writes files and speaks."""
    return rank() == 0


def add(tensor: Tensor) -> Tensor:
    """Sum over all processes, in place; the device must be one the process group can reach."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def gather(rows: Tensor) -> list[Tensor]:
    """The CPU tensors of all processes in the order of their ranks; first axes may differ, the others must not."""
    if not dist.is_initialized():
        return [rows]
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(world())]
    dist.all_gather(lengths, torch.tensor([len(rows)]))
    longest = max(int(length) for length in lengths)
    padded = rows.new_zeros(longest, *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return [part[: int(length)] for part, length in zip(parts, lengths, strict=True)]


def any_of(flag: bool) -> bool:
    """Whether the flag of any process is set; the same on all."""
    return bool(add(torch.tensor(int(flag))))


def gather_texts(texts: list[str]) -> list[str]:
    """The texts of all processes, in the order of their ranks; cheap where there are none."""
    if not dist.is_initialized() or not int(add(torch.tensor(len(texts)))):
        return texts
    parts: list[list[str]] = [[] for _ in range(world())]
    dist.all_gather_object(parts, texts)
    return [text for part in parts for text in part]


def share(tensor: Tensor) -> Tensor:
    """The main process's values to all, in place."""
    if dist.is_initialized():
        dist.broadcast(tensor, src=0)
    return tensor


def from_main(values: list[float]) -> list[float]:
    """The main process's numbers, on all processes; as many are given on each."""
    return share(torch.tensor(values, dtype=torch.float64)).tolist()


@contextmanager
def main_first() -> Iterator[None]:
    """The body, on the main process and then on the others: what it leaves on the disk is made once."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def barrier() -> None:
    """Wait for all, on the CPU: a GPU's barrier gives up on a process that has minutes of work."""
    any_of(False)
