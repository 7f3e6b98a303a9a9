"""What a run left in its folder, read without the library's readers, and runs that something ends."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mult.config import Config
from mult.runs.folder import Run

Configured = Callable[..., Config]
"""The fixture `configured`."""
TrainRun = Callable[..., Path]
"""The fixture `train_run`."""
ALL_RANDOM = ("model.drop_path=0.3", "model.dropout=0.2", "model.backbone_args.drop_path_rate=0.2", "optim.ema=0.9")
"""Overrides: every kind of random draw, and an average."""
REPEATABLE = ("optim.clip=null", "optim.weight_decay=0", "optim.warmup=0", "optim.schedule=constant", "eval.every=0")
"""Overrides: a step is a function of its gradient alone."""


def read_lines(folder: Path, split: str | None = None) -> list[dict[str, Any]]:
    """metrics.jsonl without what the clock and the machine say; of one split: its lines, without the key."""
    read = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    lines = [{key: value for key, value in line.items() if not key.endswith(("seconds", "_mib"))} for line in read]
    return lines if split is None else [line for line in lines if line.pop("split") == split]


def read_weights(folder: Path, checkpoint: str = "last") -> dict[str, Tensor]:
    return load_file(folder / "checkpoints" / checkpoint / "model.safetensors")


def read_state(folder: Path, checkpoint: str = "last") -> dict[str, Any]:
    """All that a checkpoint holds beside the weights: moments, and what the balance method remembers."""
    state: dict[str, Any] = torch.load(folder / "checkpoints" / checkpoint / "state.pt", weights_only=True)
    return state


def find_differences(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> list[str]:
    """The names of the weights that are not equal to the bit."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


def is_same(one: Any, other: Any) -> bool:
    """Whether nested states are equal to the bit."""
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, Mapping):
        return one.keys() == other.keys() and all(is_same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(is_same, one, other))
    return bool(one == other)


class KilledRun(Run):
    """A run that ends in the middle of its third step's work, its line already in the log."""

    def log(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        super().log(step, split, values)
        if step == 3:
            raise KeyboardInterrupt


class SignalledRun(Run):
    """A run whose process gets a signal in the middle of a step."""

    at: tuple[int, signal.Signals]
    """The step and the signal."""

    def log(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        super().log(step, split, values)
        if (step, split) == (self.at[0], "train"):
            os.kill(os.getpid(), self.at[1])


def open_signalled(config: Config, step: int, number: signal.Signals) -> SignalledRun:
    run = SignalledRun.open(config, resume=False)
    assert isinstance(run, SignalledRun)
    run.at = step, number
    return run
