"""A model for other programs: ONNX, and the .pt2 of torch.export. Images of one size, any number of them, become maps.

Height and width are fixed: how the maps are cut into windows, and which tokens are padding, are constants of the graph. Images
come to that size outside of it, as `fit` of the metadata says.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from mult.data.batches.fit import Fit
from mult.errors import UserError
from mult.models import MulT
from mult.tasks import TASKS

INPUT = "images"
"""The input's name: (batch, 3, height, width) float32, RGB in [0, 1]. The outputs have the names of the tasks."""

LARGEST_ONNX = 2**31 - 2**24
"""Bytes of weights that one ONNX file can hold, with room for the graph: protobuf ends at 2 GiB."""


class DecodedMulT(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> {task: map}: class ids (B, H, W) int64, all else (B, C, H, W) float32 in its unit."""

    def __init__(self, model: MulT) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        size = (images.shape[-2], images.shape[-1])
        return {task: TASKS[task].predict(output, size) for task, output in self.model(images).items()}


def describe(model: MulT, size: tuple[int, int], fit: Fit) -> dict[str, str]:
    """What a reader of the file must know of the model, each value as JSON: size, fit, tasks' units, classes' names."""
    values = {
        "size": size,  # (height, width)
        "fit": fit,
        "units": {task: TASKS[task].unit for task in model.tasks},
        "classes": model.classes,
    }
    return {name: json.dumps(value, ensure_ascii=False) for name, value in values.items()}


def trace(model: MulT, size: tuple[int, int]) -> ExportedProgram:
    """The graph of a `DecodedMulT` in evaluation mode, of images of `size` and any number of them.

    Raises UserError where the backbone does not take this size.
    """
    decoded = DecodedMulT(model).eval()
    images = torch.zeros(2, 3, *size)  # with a batch of one the number would become a constant
    with torch.no_grad():
        decoded(images)  # makes the tensors of the windows, which then are constants of the graph
        return torch.export.export(decoded, (images,), dynamic_shapes=({0: Dim("batch")},), strict=False)


def to_onnx(program: ExportedProgram, tasks: list[str], metadata: dict[str, str]) -> bytes:
    """The content of an ONNX file of what `trace` returned.

    Raises UserError where the extra `onnx` is not installed, and for weights that one file cannot hold.
    """
    check_onnx(program.state_dict)
    shapes: Any = {INPUT: {0: Dim("batch")}}
    converted = torch.onnx.export(
        program, dynamo=True, input_names=[INPUT], output_names=tasks, dynamic_shapes=shapes, verbose=False, optimize=False
    )
    assert converted is not None
    model = converted.model_proto
    for name, value in metadata.items():
        model.metadata_props.add(key=name, value=value)
    return model.SerializeToString()


def check_onnx(weights: dict[str, Tensor]) -> None:
    """Raise UserError where the extra `onnx` is not installed, and for weights that one ONNX file cannot hold."""
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise UserError(
            f'--out: got an .onnx without the package {error.name}; expected it installed; pip install "mult-dense[onnx]", or '
            "give the name of a .pt2, which needs no other package"
        ) from error
    size = sum(weight.numel() * weight.element_size() for weight in weights.values())
    if size > LARGEST_ONNX:
        raise UserError(
            f"--out: got an .onnx for weights of {size / 1e9:.2f} GB; expected at most {LARGEST_ONNX / 1e9:.2f} GB, as much as "
            "one file of the format holds; give the name of a .pt2"
        )


def measure_difference(content: bytes, model: MulT, size: tuple[int, int], batch: int) -> dict[str, float]:
    """Task -> the largest difference between onnxruntime and torch on a batch of noise; of classes, the share of pixels."""
    import onnxruntime

    images = torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(batch))
    with torch.no_grad():
        expected = DecodedMulT(model).eval()(images)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    got = session.run(list(expected), {INPUT: images.numpy()})
    return {
        task: float(np.mean(ours != theirs.numpy()) if TASKS[task].categorical else np.abs(ours - theirs.numpy()).max())
        for (task, theirs), ours in zip(expected.items(), got, strict=True)
    }
