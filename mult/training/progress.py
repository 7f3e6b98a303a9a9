"""What a person sees of a training while it runs: the bar, metrics.jsonl, TensorBoard, and how much the machine has to do."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from mult.errors import UserError
from mult.files import write_file
from mult.runs.folder import Run


class Watch:
    """The log of one process of a training; only that of the main process writes and speaks.

    images: of all processes a step, for the throughput. TensorBoard forgets what is later than `step`: it comes again.
    """

    def __init__(self, run: Run, step: int, images: int, is_main: bool) -> None:
        self.run, self.images, self.is_main = run, images, is_main
        self.bar = tqdm(total=run.config.optim.steps, initial=step, desc="train", disable=not is_main, smoothing=0.05)
        self.board = _board(run.folder / "tensorboard", step) if is_main and run.config.run.tensorboard else None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()
        if self.board is not None:
            self.board.close()

    def step(self, step: int, losses: Mapping[str, float], line: Mapping[str, float]) -> None:
        """One step of training: `line` is for the log, with "seconds" and of these "data_seconds" without data."""
        throughput, waiting = self.images / line["seconds"], line["data_seconds"] / line["seconds"]
        self.bar.update()
        shown = {"images/s": f"{throughput:.3g}", "data": f"{waiting:.0%}"} | {
            task: f"{loss:.3f}" for task, loss in losses.items()
        }
        self.bar.set_postfix(shown, refresh=False)
        self.log(step, "train", line)
        self._scalars(step, "machine", {"images_per_second": throughput, "data_share": waiting})

    def log(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """A line of metrics.jsonl, its numbers for TensorBoard too."""
        if self.is_main:
            self.run.log(step, split, values)
        self._scalars(step, split, values)

    def picture(self, step: int, name: str, image: Image.Image) -> None:
        """<run>/<name>.png, of which the newest is kept, and for TensorBoard all."""
        write_file(self.run.folder / f"{name}.png", lambda file: image.save(file, format="png"))
        if self.board is not None:
            self.board.add_image(name, np.asarray(image.convert("RGB")), step, dataformats="HWC")

    def _scalars(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        if self.board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self.board.add_scalar(f"{split}/{name}", value, step)


def peak_memory_mib(device: torch.device) -> float:
    """The most memory this process has used so far, in MiB: of the GPU, or on the CPU of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def _board(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise UserError(
            "run.tensorboard: got true without the package tensorboard; expected it installed; "
            'pip install -e ".[tensorboard]", or run.tensorboard=false'
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1)
