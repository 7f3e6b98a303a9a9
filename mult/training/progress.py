"""What a training shows while it runs: the progress bar, metrics.jsonl, bad_files.txt, loggers, and use of the machine."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from mult.files import write_file
from mult.runs.folder import Run
from mult.runtime import distributed
from mult.training.loggers import open_loggers


class Progress:
    """The log of a run. All processes have one, but only that of the main process prints and writes.

    step: the steps done; the resumed run logs later ones again. images_per_step: over all processes.
    """

    def __init__(self, run: Run, step: int, images_per_step: int) -> None:
        self.run, self.images_per_step, self.is_main = run, images_per_step, distributed.is_main()
        config = run.config
        self._bar = tqdm(total=config.optim.steps, initial=step, desc="train", disable=not self.is_main, smoothing=0.05)
        self._loggers = open_loggers(run, step) if self.is_main else []

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.close()
        for logger in self._loggers:
            logger.close()

    def log_step(self, step: int, losses: Mapping[str, float], line: Mapping[str, float]) -> None:
        """Log a training step: `line` has its "seconds" and, of these, the "data_seconds" that it waited for data."""
        images_per_second = self.images_per_step / line["seconds"]
        data_share = line["data_seconds"] / line["seconds"]
        self._bar.update()
        postfix = {"images/s": f"{images_per_second:.3g}", "data": f"{data_share:.0%}"}
        self._bar.set_postfix(postfix | {task: f"{loss:.3f}" for task, loss in losses.items()}, refresh=False)
        self.log(step, "train", line)
        self._add_scalars(step, "machine", {"images_per_second": images_per_second, "data_share": data_share})

    def log(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        """One line of metrics.jsonl; its numbers go to the loggers of `run.log` too."""
        if self.is_main:
            self.run.log(step, split, values)
        self._add_scalars(step, split, values)

    def list_bad_files(self, messages: list[str]) -> dict[str, int]:
        """Add the messages of all processes to bad_files.txt; returns their number for the log. {} with on_bad_file: error."""
        if self.run.config.data.on_bad_file != "skip":
            return {}
        messages = distributed.all_gather_texts(messages)
        if self.is_main:
            self.run.list_bad_files(messages)
        return {"bad_samples": len(messages)}

    def save_image(self, step: int, name: str, image: Image.Image) -> None:
        """Overwrite <run>/<name>.png; the loggers keep the image of every step."""
        write_file(self.run.folder / f"{name}.png", lambda file: image.save(file, format="png"))
        for logger in self._loggers:
            logger.add_image(step, name, image)

    def _add_scalars(self, step: int, split: str, values: Mapping[str, Any]) -> None:
        scalars = {f"{split}/{name}": value for name, value in values.items() if isinstance(value, int | float)}
        for logger in self._loggers:
            logger.add_scalars(step, scalars)


def measure_peak_memory_mib(device: torch.device) -> float | None:
    """The largest memory that this process has used so far, in MiB: on the GPU, or on the CPU by all of the process.

    None on the CPU of a system that does not tell (Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)
