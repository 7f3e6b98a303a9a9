"""timm's backbones and their weights: which arguments a config may give, and the reading of weights files.

A config may come with a stranger's checkpoint. timm reads files and asks addresses that some of its arguments name
(checkpoint_path, pretrained_cfg, ...), so only those in ARGUMENTS reach it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from mult.errors import UserError, suggest
from mult.models.packaged import find_package, read_packaged_weights

_ARGUMENTS = """
    act_layer always_partition attn_drop_rate attn_ratio attn_types base_dim base_dims base_width block_config bn_size
    cardinality channels conv_bias conv_mlp crpe_window depth depths dim dim_mul dims down_kernel_size drop_path_rate drop_rate
    dynamic_img_size embed_dim embed_dims expand_ratio expansion_ratio focal_levels focal_windows growth_rate growth_rates
    head_dim head_mul heads img_size init_values kernel_size kernel_sizes key_dim layer_scale layer_scale_init_value layers
    levels linear ls_init_value mlp_bias mlp_ratio mlp_ratios norm_eps norm_layer num_heads num_levels parallel_depth
    patch_kernel patch_size patch_stride pos_drop_rate proj_drop_rate q_stride qk_dim qkv_bias reduction serial_depths sr_ratios
    stages stem_chs stem_size stem_width strict_img_size use_grn weight_init width widths window_ratio window_size window_sizes
"""
ARGUMENTS = frozenset(_ARGUMENTS.split())
"""The sizes, rates and layers of timm's hierarchical backbones and plain ViTs."""

WEIGHTS_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")
"""Where the weights stand in a file that holds more, in timm's order."""


def check_weights(backbone: str, pretrained: bool | str) -> None:
    """Raise UserError for a backbone that timm does not know, and for weights that are not there."""
    if not timm.is_model(backbone.split(".")[0]):
        raise UserError(
            f"model.backbone: got {backbone!r}; expected a model of timm {timm.__version__}; "
            "choose from timm.list_models('*swin*')"
        )
    if pretrained == "package":
        find_package(backbone)
    elif isinstance(pretrained, str) and not Path(pretrained).is_file():
        remedy = suggest(pretrained, ("true", "false", "package"), "correct the path")
        raise UserError(f"model.pretrained: got {pretrained!r}; expected true, false, 'package' or a weights file; {remedy}")


def create_backbone(backbone: str, pretrained: bool | str, args: Mapping[str, Any], defaults: Mapping[str, Any]) -> nn.Module:
    """timm's model with its weights; `args`, the user's, win over `defaults`, which may be any arguments of `create_model`.

    pretrained: see `MulT`. Raises UserError for arguments and weights that do not fit, as `Encoder` says.
    """
    _check_arguments(args)
    check_weights(backbone, pretrained)
    overlay: dict[str, Any] = {}
    file_weights: dict[str, Tensor] = {}
    is_packaged = pretrained == "package"
    if is_packaged:
        pretrained = False  # timm fetches nothing; the package's weights are loaded below
    if isinstance(pretrained, str):
        file_weights = _read_weights(pretrained)
        # The tensors and not the file, which timm would read again, by its own rules.
        overlay = {"pretrained_cfg_overlay": {"state_dict": file_weights}}
    try:
        body = timm.create_model(backbone, pretrained=bool(pretrained), **overlay, **{**defaults, **args})
    except TypeError as error:
        raise UserError(
            f"model.backbone_args: got {dict(args)}; expected arguments that timm's {backbone} takes ({error}); leave out "
            "the others"
        ) from error
    except OSError as error:
        raise UserError(
            f"model.pretrained: the weights of {backbone} could not be downloaded ({type(error).__name__}); expected a network "
            "or a file; download them elsewhere and give the file: model.pretrained=PATH"
        ) from error
    except (RuntimeError, AttributeError, AssertionError) as error:
        # timm raises these alike for a model without features_only, an unknown tag, sizes that do not go together and weights
        # of another architecture.
        raise UserError(
            f"model.backbone: got {backbone} with {dict(args)}, which timm cannot build ({error}); expected a hierarchical "
            "backbone with features_only or a plain ViT; take another, such as swin_tiny_patch4_window7_224"
        ) from error
    if isinstance(pretrained, str):
        for timm_config in (body.default_cfg, body.pretrained_cfg):
            timm_config.pop("state_dict", None)  # type: ignore[operator, union-attr]
        _check_loaded(body, file_weights, pretrained, backbone, "patch_size" in args)
    if is_packaged:
        packaged = read_packaged_weights(backbone)
        body.load_state_dict({name: packaged[name] for name in body.state_dict()})
    return body


def _check_arguments(args: Mapping[str, Any]) -> None:
    for name, value in args.items():
        if name not in ARGUMENTS:
            raise UserError(
                f"model.backbone_args: got {name!r}; expected sizes, rates and layers of a network, such as depths (ARGUMENTS "
                f"in mult/models/backbone.py lists them); {suggest(name, ARGUMENTS, 'leave it out')}"
            )
        if not _is_plain(value):
            raise UserError(
                f"model.backbone_args.{name}: got {value!r}; expected numbers, true, false, a layer's name or lists of these; "
                "give such values"
            )


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float) or (isinstance(value, str) and value.isidentifier())


def _numpy_globals() -> list[Any]:
    """What torch may call to make the NumPy scalars and arrays that stand beside the weights in some files."""
    functions = {"scalar": np.float64(0).__reduce__()[0], "_reconstruct": np.zeros(0).__reduce__()[0]}
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")  # NumPy 1 and 2
    named = [(function, f"{module}.{name}") for name, function in functions.items() for module in modules]
    dtypes = {type(np.dtype(code)) for code in np.typecodes["AllInteger"] + np.typecodes["AllFloat"] + "?"}
    return [*named, np.ndarray, np.dtype, *dtypes]


def _read_weights(path: str) -> dict[str, Tensor]:
    try:
        if path.endswith(".safetensors"):
            content: Any = load_file(path)
        else:
            with torch.serialization.safe_globals(_numpy_globals()):
                content = torch.load(path, map_location="cpu", weights_only=True)
        key = next((key for key in WEIGHTS_KEYS if content.get(key) is not None), None)
        weights = timm.models.clean_state_dict(content if key is None else content[key])
        return {name: value for name, value in weights.items() if isinstance(value, Tensor)}
    except Exception as error:  # torch raises nearly any exception for a file without weights, KeyError and EOFError included
        # torch's advice for a file that would run code is to let it.
        reason = str(error).split("WeightsUnpickler error: ")[-1].split(". Please use")[0]
        raise UserError(
            f"model.pretrained: {path} cannot be read ({type(error).__name__}: {reason}); expected a state dict, .safetensors "
            "or .pth; it is damaged or another kind of file"
        ) from error


def _check_loaded(body: nn.Module, file_weights: Mapping[str, Tensor], path: str, backbone: str, other_patches: bool) -> None:
    """UserError unless every weight matrix is from the file; timm skips names that it does not find there without a message.

    Names in the file and in the model differ, so weights are matched by their size and sum. timm resamples the tables of
    positions to the model's grid, and the embedding of patches to another patch size (`other_patches`), so these are not.
    """
    resampled = ("position", "pos_embed", *(["patch_embed"] if other_patches else []))
    in_file = {(weight.numel(), float(weight.double().sum())) for weight in file_weights.values()}
    weights = {name: p for name, p in body.named_parameters() if p.ndim >= 2 and not any(map(name.__contains__, resampled))}
    missing = [name for name, p in weights.items() if (p.numel(), float(p.detach().double().sum())) not in in_file]
    prefixes = {name.split(".")[0] for name in file_weights}
    if missing and len(prefixes) == 1:
        (prefix,) = prefixes
        raise UserError(
            f"model.pretrained: all weights in {path} are named {prefix}.*; expected timm's names for {backbone}; save them "
            f"without '{prefix}.', or give the file of that architecture if {backbone} is another"
        )
    if missing:
        raise UserError(
            f"model.pretrained: {path} lacks {len(missing)} of the {len(weights)} weight matrices of {backbone} "
            f"(first: {missing[0]}); expected a checkpoint of that architecture; give its file or change model.backbone"
        )
