"""Plain vision transformers of timm (DINOv2, DINOv3, MAE, CLIP, SigLIP, ...): four maps from the last one.

The maps are made as in ViTDet (Li et al., ECCV 2022): a simple feature pyramid over the last map at stride 16. Patches of 14
pixels are brought to that stride by scaling the image by 14 / 16, so that a token is 16 x 16 pixels of the image whatever the
patch. (Others scale the kernel of the embedding to 16 x 16 instead: tokens are nearly the same, but the weights are no longer
those of the file.) The class and register tokens take part in the attention and are then dropped.
"""

from __future__ import annotations

import re
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.norm import LayerNorm2d
from timm.models import FeatureInfo
from torch import Tensor, nn

from mult.errors import UserError

STRIDE = 16
PATCHES = (14, STRIDE)


class FeaturePyramid(nn.Module):
    """A map (B, C, h, w) at stride 16 -> maps at strides 4, 8, 16 and 32 of C/4, C/2, C and C channels.

    Transposed convolutions of 2 x 2 double the map, each followed by a LayerNorm over the channels; a maximum over 2 x 2 halves
    it, the last row and column alone where their number is odd. ViTDet then has convolutions to 256 channels at every stride,
    which are left out: the decoders take each map at its own width. The map at stride 16 is given on as it is.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.to_4 = nn.Sequential(*_double(dim), nn.GELU(), *_double(dim // 2))
        self.to_8 = nn.Sequential(*_double(dim))
        self.to_32 = nn.MaxPool2d(2, ceil_mode=True)

    def forward(self, feature: Tensor) -> list[Tensor]:
        return [self.to_4(feature), self.to_8(feature), feature, self.to_32(feature)]


def _double(dim: int) -> tuple[nn.Module, nn.Module]:
    return nn.ConvTranspose2d(dim, dim // 2, 2, stride=2), LayerNorm2d(dim // 2)


class PlainViT(nn.Module):
    """Normalised images (B, 3, H, W), both sides multiples of 16 -> maps at strides 4, 8, 16 and 32, fine to coarse.

    vit: a timm model with `dynamic_img_size`, which resamples its table of positions to the image's grid. Its head and pooling
    are taken off. The last block's tokens pass the model's own final norm, where it has one before the pooling.

    Raises UserError for patches of another size than 14 or 16, for a width that the pyramid cannot halve twice, and without
    `dynamic_img_size`.
    """

    def __init__(self, vit: Any, name: str) -> None:
        super().__init__()
        self.name = name
        self.patch = max(vit.patch_embed.patch_size)
        dim = vit.embed_dim
        if self.patch not in PATCHES:
            raise UserError(
                f"model.backbone: {name} has patches of {self.patch} pixels; expected a plain ViT with patches of "
                f"{' or '.join(map(str, PATCHES))}; take another, such as vit_small_patch14_dinov2"
            )
        if not vit.dynamic_img_size:
            raise UserError(
                f"model.backbone_args.dynamic_img_size: got false for {name}; expected true, since images may have any size; "
                "leave it out"
            )
        if dim % 4:
            raise UserError(
                f"model.backbone_args.embed_dim: got {dim} for {name}; expected a multiple of 4, since the finest map has a "
                "quarter of the channels; change it"
            )
        vit.prune_intermediate_layers(1, prune_norm=False, prune_head=True)
        self.vit = vit
        self.grid: tuple[int, int] = tuple(vit.patch_embed.grid_size)
        self.pyramid = FeaturePyramid(dim)
        self.default_cfg = vit.default_cfg
        maps = [(4, dim // 4), (8, dim // 2), (16, dim), (32, dim)]
        self.feature_info = FeatureInfo(
            [{"module": "pyramid", "reduction": stride, "num_chs": channels} for stride, channels in maps], (0, 1, 2, 3)
        )

    def train(self, mode: bool = True) -> PlainViT:
        """As for any module, but a frozen transformer under a pyramid that learns stays in evaluation mode."""
        super().train(mode)
        self.vit.train(mode and any(parameter.requires_grad for parameter in self.vit.parameters()))
        return self

    def number_layers(self) -> dict[str, int]:
        """Name of a parameter -> its layer: 0 for embedding, positions and tokens, one a block, the pyramid last.

        The final norm is of the last block's layer, as timm has it.
        """
        layers = {}
        for name, _ in self.named_parameters():
            block = re.match(r"vit\.blocks\.(\d+)\.", name)
            if block:
                layers[name] = int(block[1]) + 1
            elif name.startswith("pyramid."):
                layers[name] = len(self.vit.blocks) + 1
            else:
                layers[name] = len(self.vit.blocks) if name.startswith("vit.norm.") else 0
        return layers

    def forward(self, images: Tensor) -> list[Tensor]:
        """Raises UserError where the gradient of resampled positions is to be deterministic on a GPU."""
        rows, columns = (side // STRIDE for side in images.shape[-2:])
        size = (rows * self.patch, columns * self.patch)
        if self.patch != STRIDE:
            images = F.interpolate(images, size=size, mode="bilinear", align_corners=False, antialias=True)
        table = self.vit.pos_embed
        learns = table is not None and table.requires_grad and torch.is_grad_enabled()
        if learns and images.is_cuda and torch.are_deterministic_algorithms_enabled() and self.grid != (rows, columns):
            raise UserError(
                f"run.deterministic: got true for {self.name}, whose {self.grid} positions are resampled to {(rows, columns)}; "
                "expected false, since torch has no deterministic gradient of that on a GPU; change it, or give "
                f"model.backbone_args.img_size={list(size)}"
            )
        (feature,) = self.vit.forward_intermediates(images, indices=1, norm=True, intermediates_only=True)
        return self.pyramid(feature)
