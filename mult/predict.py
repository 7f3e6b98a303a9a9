"""Predictor: an image of any size -> typed maps in physical units, at the image's own size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from mult.config import Config, load_config
from mult.data import EvalTransform
from mult.data.sample import Sample
from mult.models import MulT
from mult.runs import find_checkpoint
from mult.tasks import TASKS


class Predictor:
    """A trained model and the size it looks at images: images are resized to it, maps back to the image's own size."""

    def __init__(self, model: MulT, image_size: tuple[int, int], device: str | torch.device = "cpu") -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.classes = model.classes
        self.tasks = {task: TASKS[task] for task in model.tasks}
        self.transform = EvalTransform(image_size)

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str | torch.device = "cpu") -> Predictor:
        """From a run's folder (its best checkpoint) or a checkpoint's; ValueError where it cannot be read."""
        model, config = load_checkpoint(path)
        return cls(model, config.data.image_size, device)

    @torch.inference_mode()
    def __call__(self, image: Image.Image) -> dict[str, NDArray[Any]]:
        """An image of any mode -> {task: map}: class ids (H, W) int64, all else (C, H, W) float32 in the task's unit."""
        pixels = np.array(as_rgb(image), np.float32) / 255
        sample: Sample = {"image": torch.from_numpy(pixels).permute(2, 0, 1), "targets": {}, "valid": {}, "id": ""}
        outputs = self.model(self.transform(sample)["image"][None].to(self.device))
        size = (image.height, image.width)
        return {task: self.tasks[task].predict(output, size)[0].cpu().numpy() for task, output in outputs.items()}


def as_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode in RGB; 16-bit gray is scaled, where Pillow's `convert` alone would cut it at 255."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    return image.convert("RGB")


def load_checkpoint(path: str | Path) -> tuple[MulT, Config]:
    """The model, in eval mode, and the config it was trained with, of a checkpoint or of a run's best one."""
    folder = find_checkpoint(path)
    model = MulT.from_pretrained(folder)
    for task in model.tasks:
        if task not in TASKS:
            raise ValueError(f"{folder}: got a model of task {task!r}; expected tasks among {', '.join(TASKS)}")
    return model, load_config(folder / "config.yaml")
