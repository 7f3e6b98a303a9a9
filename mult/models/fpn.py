"""The plain rival of the shared-attention decoders: a feature pyramid network for each task (Lin et al., CVPR 2017).

No attention and nothing shared between tasks but the encoder. With a ResNet as the encoder it is the usual multi-task CNN.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 64
GROUPS = 8


class Pyramid(nn.Module):
    """Four encoder maps -> the output of one task: from coarse to fine each map is reduced, added and smoothed.

    Laterals are 1x1 convolutions to WIDTH channels; after each addition comes a 3x3 convolution with GroupNorm and ReLU.
    """

    def __init__(self, dims: Sequence[int], channels: int, dropout: float) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(dim, WIDTH, 1) for dim in dims)
        self.smooth = nn.ModuleList(
            nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.GroupNorm(GROUPS, WIDTH), nn.ReLU())
            for _ in dims
        )
        self.dropout = nn.Dropout2d(dropout)
        self.output = nn.Conv2d(WIDTH, channels, 1)

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> Tensor:
        """Maps (B, C_s, H_s, W_s), fine to coarse -> (B, channels, *size); a token of H/4 stands for 4 x 4 pixels."""
        levels = [lateral(feature) for lateral, feature in zip(self.laterals, features, strict=True)]
        image = self.smooth[-1](levels[-1])
        for level, smooth in zip(levels[-2::-1], list(self.smooth)[-2::-1], strict=True):
            image = smooth(level + F.interpolate(image, size=level.shape[-2:], mode="bilinear", align_corners=False))
        image = self.output(self.dropout(image))
        covered = (4 * image.shape[2], 4 * image.shape[3])
        return F.interpolate(image, size=covered, mode="bilinear", align_corners=False)[:, :, : size[0], : size[1]]


class FPNDecoder(nn.Module):
    """A `Pyramid` a task. dims: the encoder's channels, fine to coarse. It is not compiled, and keeps all its activations."""

    def __init__(self, tasks: Mapping[str, int], dims: Sequence[int], dropout: float) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({task: Pyramid(dims, channels, dropout) for task, channels in tasks.items()})

    def forward(self, features: Sequence[Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """Four maps (B, C_s, H_s, W_s), fine to coarse, and the image's size -> task -> (B, channels, *size)."""
        return {task: head(features, size) for task, head in self.heads.items()}

    def list_blocks(self) -> list[nn.Module]:
        """None."""
        return []

    def set_grad_checkpointing(self, enable: bool) -> None:
        """Nothing to set."""

    def query_keys(self) -> dict[int, nn.Module]:
        """None: it has no attention (see `Decoder.query_keys`)."""
        return {}
