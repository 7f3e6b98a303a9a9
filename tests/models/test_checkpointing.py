"""Activation checkpointing: the same bits in the gradients, and fewer activations stored between the passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mult.models import MulT

TASKS = {"depth_zbuffer": 1, "normal": 3, "reshading": 1}
SWIN = {"embed_dim": 16, "depths": (2, 2, 2, 2), "num_heads": (1, 2, 4, 8), "drop_path_rate": 0.3}
VIT = {"embed_dim": 64, "depth": 4, "num_heads": 4, "drop_path_rate": 0.3}
BACKBONES: list[tuple[str, dict[str, Any]]] = [
    ("swin_tiny_patch4_window7_224", SWIN),
    ("pvt_v2_b0", {"embed_dims": (16, 32, 48, 64), "num_heads": (1, 2, 4, 8), "drop_path_rate": 0.3}),
    ("resnet18", {"channels": (16, 32, 48, 64)}),
    ("vit_small_patch14_dinov2", VIT),
    ("vit_small_patch16_dinov3", VIT),
]


def network(backbone: str, arguments: dict[str, Any], decoder: Any = "paper") -> MulT:
    torch.manual_seed(0)
    drop_path = 0.0 if decoder == "pyramid" else 0.3
    return MulT(TASKS, "normal", backbone, False, "shared", decoder, 4, None, drop_path, 0.2, arguments)


def measure_saved_bytes(model: MulT, images: Tensor) -> tuple[Tensor, int]:
    """A scalar of the outputs, and the bytes of distinct tensors that its graph saves for the backward pass."""
    saved: dict[int, int] = {}
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    torch.manual_seed(1)  # drop path and dropout
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        outputs = model(images)
    return torch.stack([output.square().mean() for output in outputs.values()]).sum(), sum(saved.values())


@pytest.mark.parametrize("decoder", ["paper", "released", "pyramid"])
@pytest.mark.parametrize(("backbone", "arguments"), BACKBONES, ids=[name for name, _ in BACKBONES])
def test_gradients_are_the_same_bits_from_fewer_saved_activations(
    backbone: str, arguments: dict[str, Any], decoder: str
) -> None:
    images = torch.rand(2, 3, 64, 64)
    gradients, sizes = [], []
    for enable in (False, True):
        model = network(backbone, arguments, decoder=decoder).train()
        model.set_grad_checkpointing(enable)
        loss, saved = measure_saved_bytes(model, images)
        loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
        sizes.append(saved)
    for name, gradient in gradients[0].items():
        again = gradients[1][name]
        assert gradient is not None
        assert again is not None
        assert torch.equal(gradient, again), name
    assert sizes[1] < 0.5 * sizes[0]


def test_it_can_be_switched_off_again() -> None:
    model = network("swin_tiny_patch4_window7_224", SWIN).train()
    images = torch.rand(1, 3, 64, 64)
    full = measure_saved_bytes(model, images)[1]
    model.set_grad_checkpointing()
    model.set_grad_checkpointing(False)
    assert measure_saved_bytes(model, images)[1] == full
