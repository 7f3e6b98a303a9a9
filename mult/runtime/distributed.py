"""The processes of a training or an evaluation under torchrun: which one this is, and sums and messages over all of them.

Without a process group, which means one process, every function returns what it was given.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mult.errors import UserError, suggest


def pick_device(name: str) -> torch.device:
    """`run.device`: "auto" is this process's GPU if there is one, else the CPU; other names are torch's.

    Where a scheduler shows each process its own GPU alone, that is the first, whatever the process's LOCAL_RANK.
    Raises UserError for a name that is no device of this machine, and for mps.
    """
    if name == "auto":
        number = os.environ.get("LOCAL_RANK", "0") if torch.cuda.device_count() > 1 else "0"
        name = f"cuda:{number}" if torch.cuda.is_available() else "cpu"
    check_device_name(name)
    device = torch.device(name)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"run.device: got {name!r} ({str(error).splitlines()[0]}); expected auto, cpu or a device of this machine; take "
            "auto, or see to the device"
        ) from error
    return device


def check_device_name(name: str) -> None:
    """Raise UserError for a name that no machine has a device of, and for mps."""
    if name.split(":")[0] == "mps":
        raise UserError(
            f"run.device: got {name}; expected auto, cpu or cuda: label counts and metrics are of float64, which mps lacks; "
            "take cpu"
        )
    try:
        torch.device("cpu" if name == "auto" else name)
    except RuntimeError as error:  # whose message lists every kind that torch was ever built for
        remedy = suggest(name, ("auto", "cpu", "cuda"), "take auto")
        raise UserError(
            f"run.device: got {name!r}; expected auto, cpu, cuda, or cuda:N for one of several GPUs; {remedy}"
        ) from error


def start(device: torch.device) -> None:
    """Join the process group that torchrun, or a scheduler, describes in the environment; without one, do nothing.

    Raises UserError where the description is incomplete.
    """
    if number_of_processes() > 1:
        for name in ("RANK", "MASTER_PORT"):
            if not os.environ.get(name, "").isdecimal():
                got = os.environ.get(name)
                raise UserError(f"{name}: got {got!r} with WORLD_SIZE; expected a number; start by torchrun, or set it")
        if device.type == "cuda":
            torch.cuda.set_device(device)
        # Gradients are on the GPU and metrics on the CPU, which nccl does not support.
        try:
            dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        except dist.DistNetworkError as error:
            if "EADDRINUSE" not in str(error) and "in use" not in str(error):
                raise
            port = os.environ["MASTER_PORT"]
            raise UserError(
                f"MASTER_PORT: got {port}, which another process uses; expected a free port; set another one"
            ) from error


def number_of_processes() -> int:
    """WORLD_SIZE, as torchrun or a scheduler sets it; 1 where it is not set. Raises UserError where it is no number."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"WORLD_SIZE: got {text!r}; expected a number of processes; unset it, or start by torchrun")
    return int(text)


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def process_group(device: torch.device) -> Iterator[None]:
    """The body between `start` and `stop`.

    Where another process ended, this one exits with status 1 and a message, since the other has reported the cause. (gloo may
    end this process by SIGABRT before Python gets the error.)
    """
    start(device)
    try:
        yield
    except RuntimeError as error:
        if world_size() == 1 or not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        sys.exit("stopped: another process ended; its output says why")
    stop()


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """The number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """Whether this is the process that writes files and prints, the one of rank 0."""
    return rank() == 0


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum over all processes, in place; the device must be one the process group supports."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor


def all_gather_rows(rows: Tensor) -> list[Tensor]:
    """The CPU tensors of all processes in the order of their ranks; first axes may differ, the others must not."""
    if not dist.is_initialized():
        return [rows]
    lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(world_size())]
    dist.all_gather(lengths, torch.tensor([len(rows)]))
    max_length = max(int(length) for length in lengths)
    padded = rows.new_zeros(max_length, *rows.shape[1:])
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return [part[: int(length)] for part, length in zip(parts, lengths, strict=True)]


def all_gather_texts(texts: list[str]) -> list[str]:
    """The texts of all processes, in the order of their ranks; one small sum where no process has any."""
    if not dist.is_initialized() or not int(all_reduce_sum(torch.tensor(len(texts)))):
        return texts
    parts: list[list[str]] = [[] for _ in range(world_size())]
    dist.all_gather_object(parts, texts)
    return [text for part in parts for text in part]


def any_process(flag: bool) -> bool:
    """Whether the flag is set on any process; all processes get the same answer."""
    return bool(all_reduce_sum(torch.tensor(int(flag)))) if dist.is_initialized() else flag


def broadcast(tensor: Tensor) -> Tensor:
    """Overwrite the tensor, in place, with that of the main process."""
    if dist.is_initialized():
        dist.broadcast(tensor, src=0)
    return tensor


def broadcast_buffers(module: nn.Module) -> None:
    """Give all processes the main process's buffers, among them the running statistics of batch norm.

    In training each process normalises by the statistics of its own part of a batch, and its running ones are its own.
    """
    for buffer in module.buffers():
        broadcast(buffer)


def broadcast_numbers(numbers: list[float]) -> list[float]:
    """The main process's numbers, on all processes; every process gives a list of the same length."""
    return broadcast(torch.tensor(numbers, dtype=torch.float64)).tolist() if dist.is_initialized() else numbers


@contextmanager
def main_first() -> Iterator[None]:
    """The body on the main process and then on the others, which find the files that it wrote."""
    if not is_main():
        barrier()
    yield
    if is_main():
        barrier()


def barrier() -> None:
    """Wait for all processes, on the CPU: nccl's barrier fails when a process works for minutes before it."""
    any_process(False)
