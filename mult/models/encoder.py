"""The shared encoder: any timm backbone with maps at strides 4, 8, 16 and 32, which are brought to one layout, or a plain ViT.

timm's Swin models take any image size with `strict_img_size=False` and pad inside, after an embedding of 4 x 4 patches; images
for plain ViTs (vit.py) are padded to multiples of 16, for other backbones of 32. The maps of hierarchical backbones have no
output norm.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from timm.layers.format import Format
from torch import Tensor, nn

from mult.errors import UserError
from mult.models.backbone import create_backbone
from mult.models.vit import PlainViT

STRIDES = (4, 8, 16, 32)
_SWIN_MODULES = ("swin_transformer", "swin_transformer_v2", "swin_transformer_v2_cr")
_VIT_MODULES = ("vision_transformer", "eva")


class Encoder(nn.Module):
    """Images (B, 3, H, W) in [0, 1] -> four maps (B, C_s, ceil(H / s), ceil(W / s)) for s in 4, 8, 16, 32.

    channels: C_s, fine to coarse. heads: the backbone's own attention heads a stage, None where a stage has none.

    Raises UserError for a backbone that timm does not know, that has no such maps or that does not take `backbone_args`, and
    for weights that cannot be downloaded or read or that are not the backbone's.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, backbone: str, pretrained: bool | str, backbone_args: Mapping[str, Any] | None) -> None:
        super().__init__()
        args = dict(backbone_args or {})
        is_swin, is_vit = _is_of(backbone, _SWIN_MODULES), _is_of(backbone, _VIT_MODULES)
        self.name = backbone
        if is_vit:
            vit = create_backbone(backbone, pretrained, args, {"num_classes": 0, "dynamic_img_size": True})
            self.body: nn.Module = PlainViT(vit, backbone)
        else:
            defaults = {"features_only": True} | ({"strict_img_size": False} if is_swin else {})
            self.body = create_backbone(backbone, pretrained, args, defaults)
        info: Any = self.body.feature_info
        reductions = info.reduction()
        if any(reductions.count(stride) != 1 for stride in STRIDES):
            raise UserError(
                f"model.backbone: {backbone} has maps at strides {reductions}; expected one each at {list(STRIDES)}; "
                "take a hierarchical backbone such as swin_tiny_patch4_window7_224 or convnext_tiny, or a plain ViT"
            )
        self.stages = [reductions.index(stride) for stride in STRIDES]
        self.channels = [info.channels()[stage] for stage in self.stages]
        self.channels_last = Format(getattr(self.body, "output_fmt", "NCHW")) == Format.NHWC
        self.multiple = 4 if is_swin else 16 if is_vit else 32
        config: Any = self.body.default_cfg
        is_fixed = config.get("fixed_input_size", False) and not is_swin and not is_vit
        self.fixed_size = _to_pair(args.get("img_size", config["input_size"][1:])) if is_fixed else None
        self.heads = _find_heads(self.body, self.channels)
        for block in self.list_blocks():
            if getattr(block, "dynamic_mask", False):
                vars(block)["get_attn_mask"] = _KeptMask(block)  # no parameter, buffer or module: those are kept elsewhere
        self._fused_attentions: list[Any] = [module for module in self.body.modules() if getattr(module, "fused_attn", False)]
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(config[name]).view(1, 3, 1, 1))

    def check_size(self, size: tuple[int, int]) -> None:
        """Raise UserError if the backbone takes images of one size only and (height, width) is another."""
        if self.fixed_size is not None and size != self.fixed_size:
            raise UserError(
                f"image size: got {size}; expected {self.fixed_size}, as {self.name} takes no other; set data.image_size, or "
                "build the backbone for your size by model.backbone_args.img_size"
            )

    def list_blocks(self) -> list[nn.Module]:
        """The members of every `blocks`, as timm names the list of a stage's repeated blocks; empty if there is none."""
        containers: list[Any] = [module.blocks for module in self.body.modules() if hasattr(module, "blocks")]
        return [block for container in containers for block in container]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Have the backward pass compute the activations of the backbone's blocks again instead of storing them.

        Block by block in timm's stages that can do so, else stage by stage in timm's wrapper around them.
        """
        capable: list[Any] = [module for module in self.body.modules() if hasattr(module, "grad_checkpointing")]
        for module in [module for module in capable if module is not self.body] or capable:
            module.grad_checkpointing = enable

    def train(self, mode: bool = True) -> Encoder:
        """As for any module, but a frozen encoder stays in evaluation mode: it drops no path and updates no statistics."""
        return super().train(mode and any(parameter.requires_grad for parameter in self.parameters()))

    def freeze(self) -> None:
        """Keep the backbone's weights as they are; the pyramid of a plain ViT, which is never pretrained, goes on learning."""
        backbone = self.body.vit if isinstance(self.body, PlainViT) else self.body
        backbone.requires_grad_(False)

    def number_layers(self) -> dict[str, int]:
        """Name of a parameter -> the number of its layer: 0 for the stem, then one a block, fine to coarse.

        What stands between two stages has the number of the next stage's first block. In a plain ViT the last layer is the
        pyramid.
        """
        if isinstance(self.body, PlainViT):
            return {f"body.{name}": layer for name, layer in self.body.number_layers().items()}
        modules = self.body.feature_info.module_name()  # type: ignore[operator, union-attr]
        stages = [modules[stage].replace(".", "_") for stage in self.stages]
        positions = {}
        for name, _ in self.named_parameters():
            _, stage, rest = name.split(".", 2)
            block = re.match(r"(?:blocks\.)?(\d+)\.", rest)
            positions[name] = (stages.index(stage) + 1, int(block[1]) if block else 0) if stage in stages else (0, 0)
        order = sorted(set(positions.values()))
        return {name: order.index(position) for name, position in positions.items()}

    def forward(self, images: Tensor) -> list[Tensor]:
        """Raises UserError for images of another shape or dtype, and for maps that do not cover the image."""
        if images.ndim != 4 or images.shape[1] != 3 or 0 in images.shape:
            raise UserError(f"images: got shape {tuple(images.shape)}; expected (B, 3, H, W); add the batch dimension")
        height, width = images.shape[-2:]
        if not images.is_floating_point():
            raise UserError(f"images: got {images.dtype}; expected floating point in [0, 1]; divide 8-bit values by 255")
        self.check_size((height, width))
        images = (images - self.mean) / self.std
        pad_height, pad_width = -height % self.multiple, -width % self.multiple
        if pad_height or pad_width:
            images = F.pad(images, (0, pad_width, 0, pad_height))
        self._choose_attention(images.device)
        maps = self.body(images)
        features = []
        for stage, stride in zip(self.stages, STRIDES, strict=True):
            feature = maps[stage].permute(0, 3, 1, 2) if self.channels_last else maps[stage]
            if feature.shape[2] * stride < height or feature.shape[3] * stride < width:
                raise UserError(
                    f"model.backbone: the map of {self.name} at stride {stride} is {tuple(feature.shape[2:])} for images of "
                    f"{(height, width)}; expected one that covers them; take a backbone that pads its convolutions"
                )
            # Tokens of padding alone are cut off, so that nothing after the encoder attends to them.
            features.append(feature[:, :, : -(-height // stride), : -(-width // stride)])
        return features

    def _choose_attention(self, device: torch.device) -> None:
        """Have timm compute attention from its parts where the backward pass of torch's fused kernel is slower: in training in
        bfloat16 on a CPU, where the encoder then takes 0.79 (PVTv2-B0, 160 pixels) to 0.86 of the time (Swin-T, 224)."""
        is_slow = device.type == "cpu" and torch.is_autocast_enabled("cpu") and torch.is_grad_enabled()
        for module in self._fused_attentions:
            module.fused_attn = not is_slow


def _find_heads(body: nn.Module, channels: Sequence[int]) -> list[int | None]:
    """The number of attention heads at each width, from the modules that have `num_heads` and a projection; None elsewhere."""
    heads_at: dict[int, int] = {}
    for module in body.modules():
        heads = getattr(module, "num_heads", None)
        projection = getattr(module, "qkv", None) or getattr(module, "q", None) or getattr(module, "q_proj", None)
        if isinstance(heads, int) and isinstance(projection, nn.Linear):
            heads_at[projection.in_features] = heads
    return [heads_at.get(width) for width in channels]


class _KeptMask:
    """timm's `get_attn_mask` of a Swin block, with the mask made once for a size of maps and not in every pass."""

    def __init__(self, block: Any) -> None:
        self.block = block
        self.masks: dict[Any, Tensor | None] = {}

    def __call__(self, tokens: Tensor) -> Tensor | None:
        if torch.compiler.is_compiling():  # a compiled block has the mask in its one graph
            return self._make(tokens)
        key = (tokens.shape[1:3], tokens.device, tokens.dtype)
        if key not in self.masks:
            with torch.inference_mode(False):  # training may be next to use it, and autograd saves no tensor of inference mode
                self.masks = {key: self._make(tokens)}
        return self.masks[key]

    def _make(self, tokens: Tensor) -> Tensor | None:
        # The class's own: the block's attribute of this name is this object.
        mask: Tensor | None = type(self.block).get_attn_mask(self.block, tokens)
        return mask


def _is_of(backbone: str, modules: Sequence[str]) -> bool:
    """Whether one of these modules of timm has the model."""
    return timm.is_model(backbone) and timm.models.is_model_in_modules(backbone.split(".")[0], modules)


def _to_pair(size: int | Sequence[int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size[0], size[1])
