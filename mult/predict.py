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

from mult.data.batches.transforms import EvalTransform, mirror
from mult.data.disk.images import to_rgb
from mult.data.sample import Sample
from mult.models import MulT
from mult.models.attention_maps import AttentionMap, record_attention
from mult.runs.checkpoint import load_checkpoint
from mult.tasks import TASKS, Task

Averaging = Literal["none", "flip"]
Maps = dict[str, NDArray[Any]]
"""{task: map}: class ids (H, W) int64, all else (C, H, W) float32 in the task's unit."""


class Predictor:
    """A trained model and the size of its images: images are resized to it, maps back to the image's own size.

    tta "flip": the raw outputs (of classes the logits) are averaged with those of the mirror image, mirrored back.
    """

    def __init__(
        self, model: MulT, image_size: tuple[int, int], device: str | torch.device = "cpu", tta: Averaging = "none"
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.classes = model.classes
        self.transform = EvalTransform(image_size)
        self.tta = tta

    @property
    def tasks(self) -> dict[str, Task]:
        """The records of the model's tasks. Not an attribute, since their functions could not be pickled with a Predictor."""
        return {task: TASKS[task] for task in self.model.tasks}

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str | torch.device = "cpu", tta: Averaging = "none") -> Predictor:
        """From a run's folder (its best checkpoint) or a checkpoint's; UserError where it cannot be read."""
        model, config = load_checkpoint(path)
        return cls(model, config.data.image_size, device, tta)

    def __call__(self, image: Image.Image) -> Maps:
        """The maps of one image, of any mode, turned as its EXIF orientation says."""
        return next(self.batch([image]))

    @torch.inference_mode()
    def batch(self, images: Sequence[Image.Image]) -> Iterator[Maps]:
        """The maps of each image, as of `__call__`, of any size, from one pass through the network.

        Outputs become maps at an image's own size when its turn comes, so that the maps of a batch of photographs are not in
        memory at once.
        """
        pictures = [to_rgb(image) for image in images]
        outputs = self._run_network(torch.stack([self._resize(picture) for picture in pictures]).to(self.device))
        for index, image in enumerate(pictures):
            size = (image.height, image.width)
            yield {
                task: self.tasks[task].predict(output[index : index + 1], size)[0].cpu().numpy()
                for task, output in outputs.items()
            }

    @torch.inference_mode()
    def attention(self, image: Image.Image) -> list[AttentionMap]:
        """The attention maps of one image, of every decoder stage, H/32 first (see `record_attention`)."""
        with record_attention(self.model.decoder) as maps:
            self.model(self._resize(to_rgb(image))[None].to(self.device))
        return maps

    def _resize(self, image: Image.Image) -> Tensor:
        """An image in RGB at the network's size, (3, *image_size) in [0, 1]."""
        pixels = np.array(image, np.float32) / 255
        view = torch.from_numpy(pixels).permute(2, 0, 1)
        sample: Sample = {"image": view, "targets": {}, "valid": {}, "id": "", "derived": ()}
        return self.transform(sample)["image"]

    def _run_network(self, images: Tensor) -> dict[str, Tensor]:
        """Raw outputs of a batch (B, 3, H, W)."""
        outputs: dict[str, Tensor] = self.model(images)
        if self.tta == "flip":
            mirrored = self.model(images.flip(-1))
            outputs = {task: (output + mirror(task, mirrored[task])) / 2 for task, output in outputs.items()}
        return outputs
