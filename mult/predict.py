"""Predictor: images of any size -> typed maps in physical units, each at its image's own size."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeGuard, cast, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mult.data.batches.fit import Fit, input_size
from mult.data.batches.transforms import EvalTransform, mirror
from mult.data.disk.images import to_rgb
from mult.data.sample import IMAGE, Sample, collate_eval
from mult.draw import TokenAttention
from mult.errors import UserError
from mult.models import MulT
from mult.models.attention import find_leader
from mult.models.attention_maps import AttentionMap, record_attention
from mult.runs.checkpoint import load_checkpoint
from mult.tasks import TASKS, Task, cut

Averaging = Literal["none", "flip"]
Maps = dict[str, NDArray[Any]]
"""{task: map}: class ids (H, W) int64, all else (C, H, W) float32 in the task's unit."""


class Predictor:
    """A trained model and the size of its images: images are brought to it as `fit` says, maps back to the image's own size.

    tta "flip": the raw outputs (of classes the logits) are averaged with those of the mirror image, mirrored back.
    """

    def __init__(
        self,
        model: MulT,
        image_size: tuple[int, int],
        device: str | torch.device = "cpu",
        tta: Averaging = "none",
        fit: Fit = "short_side",
    ) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.classes = model.classes
        self.transform = EvalTransform(image_size, fit)
        self.tta = tta

    @property
    def tasks(self) -> dict[str, Task]:
        """The records of the model's tasks. Not an attribute, since their functions could not be pickled with a Predictor."""
        return {task: TASKS[task] for task in self.model.tasks}

    @classmethod
    def from_checkpoint(cls, path: str | Path, device: str | torch.device = "cpu", tta: Averaging = "none") -> Predictor:
        """From a run's folder (its best checkpoint) or a checkpoint's; UserError where it cannot be read."""
        model, config = load_checkpoint(path)
        return cls(model, config.data.image_size, device, tta, config.data.fit)

    @classmethod
    def from_pretrained(cls, name: str | Path, device: str | torch.device = "cpu", tta: Averaging = "none") -> Predictor:
        """From a folder that `mult push` wrote, or from such a model's name on the Hugging Face hub.

        Raises UserError where there is none, and for a model that does not say the size of its images or has an unknown task.
        """
        model = MulT.from_pretrained(name)
        size, fit = model.origin.get("image_size"), model.origin.get("fit")
        if not _is_size(size) or fit not in get_args(Fit):
            raise UserError(
                f"model: got {name}, whose config.json has image_size {size!r} and fit {fit!r}; expected what `mult push` "
                "writes; write it anew, or take Predictor(MulT.from_pretrained(...), image_size)"
            )
        if unknown := [task for task in model.tasks if task not in TASKS]:
            raise UserError(f"model: got {name} of task {unknown[0]!r}; expected tasks among {', '.join(TASKS)}; take another")
        return cls(model, (size[0], size[1]), device, tta, cast(Fit, fit))

    def __call__(self, image: Image.Image) -> Maps:
        """The maps of one image, of any mode, turned as its EXIF orientation says."""
        return next(self.batch([image]))

    @torch.inference_mode()
    def batch(self, images: Sequence[Image.Image]) -> Iterator[Maps]:
        """The maps of each image, as of `__call__`, of any size, from one pass through the network for each size of its input.

        Outputs become maps at an image's own size when its turn comes, so that the maps of a batch of photographs are not in
        memory at once.
        """
        pictures = [to_rgb(image) for image in images]
        batch = collate_eval([self._fit(image) for image in pictures])
        outputs = [
            {task: maps[i : i + 1] for task, maps in of_run.items()}
            for of_run in map(self._run_network, batch["image"].stack_runs(IMAGE))
            for i in range(len(next(iter(of_run.values()))))
        ]
        for image, output, content in zip(pictures, outputs, batch["content"], strict=True):
            size = (image.height, image.width)
            yield {task: self.tasks[task].predict(cut(maps, content), size)[0].cpu().numpy() for task, maps in output.items()}

    @torch.inference_mode()
    def attention(self, image: Image.Image) -> list[AttentionMap]:
        """The attention maps of one image, without padding, of every decoder stage, H/32 first (see `record_attention`).

        Raises UserError for a model without attention.
        """
        self.check_attention()
        with record_attention(self.model.decoder) as maps:
            self.model(self.transform.scale(_to_tensor(to_rgb(image)))[None].to(self.device))
        return maps

    def map_owners(self) -> list[str]:
        """Whose the maps of `attention` are: tasks, or one word for the mix of a learned reference."""
        return list(dict.fromkeys(owner for made in self.model.decoder.query_keys().values() for owner in made.map_owners))

    def check_attention(self) -> None:
        """Raise UserError for a model whose decoders have no attention."""
        if not self.model.decoder.query_keys():
            decoder, attention = (self.model.arguments[name] for name in ("decoder", "attention"))
            raise UserError(
                f"--attention: got a model with decoder {decoder}, attention {attention}: it has none; expected one with "
                "attention; leave --attention out"
            )

    def input_size(self, image: Image.Image) -> tuple[int, int]:
        """(height, width) of an upright image in the network, without padding; UserError for one that is too narrow."""
        return input_size((image.height, image.width), self.transform.size, self.transform.fit)

    def _fit(self, image: Image.Image) -> Sample:
        """An image in RGB as the network's input."""
        return self.transform({"image": _to_tensor(image), "targets": {}, "valid": {}, "id": "", "derived": ()})

    def _run_network(self, images: Tensor) -> dict[str, Tensor]:
        """Raw outputs of a batch (B, 3, H, W)."""
        images = images.to(self.device)
        outputs: dict[str, Tensor] = self.model(images)
        if self.tta == "flip":
            mirrored = self.model(images.flip(-1))
            outputs = {task: (output + mirror(task, mirrored[task])) / 2 for task, output in outputs.items()}
        return outputs


Shares = Mapping[int, Mapping[str, float]]
"""Stride -> task -> its share of the maps of a learned reference, as of `MulT.reference_shares`; empty of other models."""


def attend(
    maps: Iterable[AttentionMap], size: tuple[int, int], point: tuple[float, float], shares: Shares
) -> dict[str, list[TokenAttention]]:
    """What a point of an image attends to: {the maps' owner: a stage each, H/32 first}.

    maps: of `Predictor.attention`. size: (height, width) of the image in the network, of `Predictor.input_size`. point: (x, y),
    fractions of the width and height.
    """
    height, width = size
    stages_of: dict[str, list[TokenAttention]] = {}
    for attention in maps:
        stride = attention.stride
        covered = (height / stride, width / stride)
        row, column = (
            min(int(at * tokens), side - 1)
            for at, tokens, side in zip(point[::-1], covered, attention.windows.size, strict=True)
        )
        weights, visible = attention.select(row, column)
        note = _describe_leader([shares[stride]]) if shares else ""
        stage = TokenAttention(stride, weights.cpu().numpy(), visible.cpu().numpy(), (row, column), covered, note)
        stages_of.setdefault(attention.owner, []).append(stage)
    return stages_of


def describe_source(owner: str, owners: Sequence[str], shares: Shares) -> str:
    """Of what the maps of an owner are made, one of those that a model's maps have."""
    if shares:
        return f"a mix of all tasks' maps, led by {_describe_leader(list(shares.values()))}"
    return f"{owner.replace('_', ' ')}'s query and key" + (", for all tasks" if len(owners) == 1 else "")


def _describe_leader(shares: Collection[Mapping[str, float]]) -> str:
    """The task with the largest mean share of these maps, and that share."""
    leader = find_leader(shares)
    return f"{leader.replace('_', ' ')}, {100 * statistics.mean(of_map[leader] for of_map in shares):.0f} %"


def _to_tensor(image: Image.Image) -> Tensor:
    """An image in RGB, (3, H, W) in [0, 1]."""
    return torch.from_numpy(np.array(image, np.float32) / 255).permute(2, 0, 1)


def _is_size(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and len(value) == 2 and all(type(side) is int and side >= 32 for side in value)
