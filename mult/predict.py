"""Predictor: images of any size -> typed maps in physical units, each at its image's own size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mult.data import EvalTransform
from mult.data.batches.transforms import mirror
from mult.data.sample import Sample
from mult.models import MulT
from mult.models.attention_maps import AttentionMap, record_attention
from mult.runs.checkpoint import load_checkpoint
from mult.tasks import TASKS

Averaging = Literal["none", "flip"]
Maps = dict[str, NDArray[Any]]
"""{task: map}: class ids (H, W) int64, all else (C, H, W) float32 in the task's unit."""


class Predictor:
    """A trained model and the size it looks at images: images are resized to it, maps back to the image's own size.

    tta "flip" averages the raw outputs (of classes the logits) for the image and, mirrored back, for its mirror image.
    """

    def __init__(
        self, model: MulT, image_size: tuple[int, int], device: str | torch.device = "cpu", tta: Averaging = "none"
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.classes = model.classes
        self.tasks = {task: TASKS[task] for task in model.tasks}
        self.transform = EvalTransform(image_size)
        self.tta = tta

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str | torch.device = "cpu", tta: Averaging = "none") -> Predictor:
        """From a run's folder (its best checkpoint) or a checkpoint's; UserError where it cannot be read."""
        model, config = load_checkpoint(path)
        return cls(model, config.data.image_size, device, tta)

    def __call__(self, image: Image.Image) -> Maps:
        """The maps of one image, of any mode."""
        return next(self.batch([image]))

    @torch.inference_mode()
    def batch(self, images: Sequence[Image.Image]) -> Iterator[Maps]:
        """The maps of each image, of any mode and size, from one pass through the network.

        Images become maps at their own size one at a time, as they are asked for: a batch of photographs does not fill the
        memory with maps.
        """
        outputs = self._outputs(torch.stack([self._resized(image) for image in images]).to(self.device))
        for index, image in enumerate(images):
            size = (image.height, image.width)
            yield {
                task: self.tasks[task].predict(output[index : index + 1], size)[0].cpu().numpy()
                for task, output in outputs.items()
            }

    @torch.inference_mode()
    def attention(self, image: Image.Image) -> list[AttentionMap]:
        """The attention maps of one image, of every decoder stage, H/32 first (see `record_attention`)."""
        with record_attention(self.model.decoder) as maps:
            self.model(self._resized(image)[None].to(self.device))
        return maps

    def _resized(self, image: Image.Image) -> Tensor:
        """An image as the network takes it, (3, *image_size) in [0, 1]."""
        pixels = np.array(as_rgb(image), np.float32) / 255
        view = torch.from_numpy(pixels).permute(2, 0, 1)
        sample: Sample = {"image": view, "targets": {}, "valid": {}, "id": "", "derived": ()}
        return self.transform(sample)["image"]

    def _outputs(self, images: Tensor) -> dict[str, Tensor]:
        """Raw outputs of a batch (B, 3, H, W)."""
        outputs: dict[str, Tensor] = self.model(images)
        if self.tta == "flip":
            mirrored = self.model(images.flip(-1))
            outputs = {task: (output + mirror(task, mirrored[task])) / 2 for task, output in outputs.items()}
        return outputs


def as_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode in RGB; 16-bit gray is scaled, where Pillow's `convert` alone would cut it at 255."""
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
    return image.convert("RGB")
