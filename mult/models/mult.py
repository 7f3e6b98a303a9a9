"""MulT (Bhattacharjee et al., CVPR 2022): one encoder, a decoder for each task, attention shared with a reference task.

A single-task MulT, the paper's "1-task Swin", is this class with one task. mult/models/README.md describes the method, its
variants and the two wirings of the decoders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mult.errors import UserError
from mult.files import read_json, write_file, write_json
from mult.models.arguments import DecoderName, check_unused, resolve_num_heads, resolve_pyramid_heads, resolve_reference
from mult.models.attention import LEARNED, find_leader
from mult.models.card import write_card
from mult.models.decoder import Attention, Decoder, Skip
from mult.models.encoder import Encoder
from mult.models.first_version import stack_weights
from mult.models.fpn import FPNDecoder
from mult.models.pyramid import PyramidDecoder
from mult.models.stacked import stacked_tasks

FORMAT_VERSION = 2
"""1: a parameter a task, which `first_version` converts."""


class MulT(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="mult",
):
    """Images (B, 3, H, W) float32 in [0, 1], any H and W -> {task: (B, channels, H, W)} raw outputs, in the order of `tasks`.

    tasks: task -> output channels. reference: the task whose query and key all tasks share, or "learned", a mix of the maps of
    all; needed for `attention: shared` with more than one task. backbone, backbone_args: see `Encoder`. pretrained: False, True
    (timm's weights), "package" (packaged.py) or a local file. attention: "shared" (the method), "independent" (every task its
    own query and key from the encoder map), "self" (query, key and value from the task's own stream) or "none". decoder:
    "paper" or "released", how its blocks are wired, "pyramid", shared attention in a feature pyramid, which alone goes without
    attention too, or "fpn", a plain convolutional decoder, which takes no argument of the attention.
    skip: "none" (the paper) or "add", whether the encoder's finer maps are added to the streams. window_size, num_heads,
    drop_path, dropout: of the decoders; num_heads is one number, one a stage from fine to coarse, or None for the backbone's
    own.

    `classes` (categorical task -> class names) is empty until build.py sets it from the dataset, and is saved with the model.
    So is `origin`: the size of its images, its data and its scores, which mult/share.py collects from a run.

    Raises UserError for arguments that are unknown or do not fit together.
    """

    def __init__(
        self,
        tasks: Mapping[str, int],
        reference: str | None = None,
        backbone: str = "swin_tiny_patch4_window7_224",
        pretrained: bool | str = False,
        attention: Attention = "shared",
        decoder: DecoderName = "paper",
        window_size: int = 7,
        num_heads: int | Sequence[int] | None = None,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        backbone_args: Mapping[str, Any] | None = None,
        skip: Skip = "none",
    ) -> None:
        super().__init__()
        reference = resolve_reference(tasks, reference, attention, decoder, skip)
        self.arguments: dict[str, Any] = {
            "tasks": dict(tasks),
            "reference": reference,
            "backbone": backbone,
            "pretrained": False,
            "attention": attention,
            "decoder": decoder,
            "window_size": window_size,
            "num_heads": num_heads,
            "drop_path": drop_path,
            "dropout": dropout,
            "backbone_args": dict(backbone_args) if backbone_args else None,
            "skip": skip,
        }
        self.classes: dict[str, list[str]] = {}
        self.origin: dict[str, Any] = {}
        self.encoder = Encoder(backbone, pretrained, backbone_args)
        if decoder == "fpn":
            check_unused(decoder, "attention", window_size=window_size, num_heads=num_heads, drop_path=drop_path)
            self.decoder: Any = FPNDecoder(tasks, self.encoder.channels, dropout)
        elif decoder == "pyramid":
            check_unused(decoder, "blocks to drop", drop_path=drop_path)
            self.decoder = PyramidDecoder(
                tasks,
                reference or next(iter(tasks)),
                attention,
                self.encoder.channels,
                resolve_pyramid_heads(num_heads),
                window_size,
                dropout,
            )
        else:
            self.decoder = Decoder(
                tasks,
                reference or next(iter(tasks)),
                attention,
                decoder,
                self.encoder.channels,
                resolve_num_heads(num_heads, self.encoder),
                window_size,
                drop_path,
                dropout,
                skip,
            )

    @property
    def tasks(self) -> list[str]:
        return list(self.decoder.heads)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return self.decode(self.encode(images), (images.shape[-2], images.shape[-1]))

    def encode(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) in [0, 1] -> four maps (B, C_s, H_s, W_s) at strides 4, 8, 16, 32, fine to coarse."""
        return self.encoder(images)

    def decode(self, features: Sequence[Tensor], size: tuple[int, int]) -> dict[str, Tensor]:
        """The maps of `encode` and the image's (height, width) -> {task: (B, channels, height, width)} raw outputs."""
        return self.decoder(features, size)

    def reference_shares(self) -> dict[int, dict[str, float]]:
        """Where the reference is learned: stride of each decoder stage -> task -> its share of the map that all use."""
        if self.arguments["reference"] != LEARNED:
            return {}
        query_keys = self.decoder.query_keys()
        return {stride: dict(zip(made.owners, made.gate.shares().tolist(), strict=True)) for stride, made in query_keys.items()}

    def prune_to_leader(self) -> MulT:
        """Of a model whose reference is learned, the one with the same weights whose reference is the leader; on the CPU.

        The leader is the task with the largest mean share over all stages: one for the model, though a stage may have another.
        Raises UserError where the reference is not learned.
        """
        shares = self.reference_shares()
        if not shares:
            reference = self.arguments["reference"]
            raise UserError(f"prune_to_leader: got a model of reference {reference}; expected {LEARNED}; nothing is to prune")
        pruned = MulT(**self.arguments | {"reference": find_leader(shares.values())})
        pruned.start_from(self)
        pruned.classes = self.classes
        pruned.origin = {**self.origin, "evaluations": []} if self.origin else {}  # the scores are of the maps that were mixed
        return pruned.train(self.training)

    def start_from(self, other: MulT) -> dict[str, str]:
        """Copy another model's weights, to train on from them; returns {task: reason} for tasks that keep some of their own.

        A task that the other model does not have keeps all its weights; a task whose head has another number of channels (the
        classes of another dataset) keeps its head. Raises UserError where any other weight does not fit.
        """
        other_weights, channels, other_channels = other._weights_by_task(), self.arguments["tasks"], other.arguments["tasks"]
        reasons = {}
        for task in self.tasks:
            if task not in other_channels:
                reasons[task] = "not in the model to start from"
            elif channels[task] != other_channels[task]:
                reasons[task] = f"its head has {channels[task]} channels instead of {other_channels[task]}"
        for (name, owner), weight in self._weights_by_task().items():
            other_weight = other_weights.get((name, owner))
            if other_weight is not None and other_weight.shape == weight.shape:
                weight.copy_(other_weight)
            elif owner not in reasons or (owner in other_channels and not name.startswith("decoder.heads.")):
                got = "nothing" if other_weight is None else str(tuple(other_weight.shape))
                raise UserError(f"{name}: got {got}; expected {tuple(weight.shape)}")
        return reasons

    def _weights_by_task(self) -> dict[tuple[str, str | None], Tensor]:
        """(name, task) -> what a task has of a stacked weight, or a weight of its head; (name, None) -> any other weight."""
        stacked = stacked_tasks(self)
        weights: dict[tuple[str, str | None], Tensor] = {}
        for name, weight in self.state_dict().items():
            if name in stacked:
                weights |= {(name, task): weight[index] for index, task in enumerate(stacked[name])}
            else:
                weights[name, name.split(".")[2] if name.startswith("decoder.heads.") else None] = weight
        return weights

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Have the backward pass compute the blocks' activations again: less memory, more time, the same gradients."""
        self.encoder.set_grad_checkpointing(enable)
        self.decoder.set_grad_checkpointing(enable)

    def compile_blocks(self, backend: Any = "inductor") -> int:
        """Compile the blocks of encoder and decoders in place and return their number; `backend` is torch.compile's.

        By block, because one graph of the whole model takes minutes to compile and is no faster. A block that is not one graph
        is an error. Every block is compiled anew for each input shape, and blocks that differ in a constant (the rate of drop
        path) share no graph. Beyond eight graphs torch would run a block uncompiled without a message, so this limit is raised,
        and reaching it becomes an error.
        """
        blocks = self.encoder.list_blocks() + self.decoder.list_blocks()
        dynamo: Any = torch._dynamo.config
        dynamo.recompile_limit = max(dynamo.recompile_limit, 4 * len(blocks))
        dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, 16 * len(blocks))
        dynamo.fail_on_recompile_limit_hit = True
        for block in blocks:
            block.compile(backend=backend, fullgraph=True, dynamic=False)
        return len(blocks)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters to train without weight decay, by timm's convention.

        Norms, biases, position tables, and the class and register tokens of plain ViTs.
        """
        stacked = stacked_tasks(self)
        vectors = {name for name, p in self.named_parameters() if p.ndim <= (2 if name in stacked else 1)}
        tables = ("position_bias", "logit_scale", "pos_embed", "cls_token", "reg_token")
        return vectors | {name for name, _ in self.named_parameters() if any(map(name.__contains__, tables))}

    def _save_pretrained(self, save_directory: Path) -> None:
        weights = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        content = save(weights, {"format": "pt"})
        write_file(save_directory / "model.safetensors", lambda file: file.write(content))
        config = {
            "format_version": FORMAT_VERSION,
            **self.arguments,
            "mean": self.encoder.mean.flatten().tolist(),
            "std": self.encoder.std.flatten().tolist(),
            "classes": self.classes,
        }
        if self.origin:
            config["origin"] = self.origin
        write_json(save_directory / "config.json", config)

    def generate_model_card(self, *args: Any, **options: Any) -> ModelCard:
        """The card that the mixin's `save_pretrained` writes as README.md."""
        return ModelCard(write_card(self.arguments, self.classes, self.origin))

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> MulT:
        """A model from a folder that `save_pretrained` wrote, or from the Hugging Face hub; in evaluation mode.

        Raises UserError for a damaged folder, for another format version and for weights that do not fit.
        """
        folder = Path(pretrained_model_name_or_path)
        if (folder / "checkpoints").is_dir():
            raise UserError(
                f"model: got {folder}, the folder of a run; expected one that save_pretrained wrote; give a checkpoint in it, "
                f"such as {folder / 'checkpoints' / 'last'}, or take Predictor.from_checkpoint"
            )
        if folder.is_dir():
            _read_config(folder / "config.json")  # the mixin's own error on a damaged file does not name the file
        try:
            return super().from_pretrained(pretrained_model_name_or_path, **options)
        except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"model: got {pretrained_model_name_or_path}, no folder, and not on the hub as far as it can be reached "
                f"({reason:.200}); expected a folder that save_pretrained wrote or USER/NAME; correct it"
            ) from error

    @classmethod
    def _from_pretrained(
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
        **arguments: Any,
    ) -> MulT:
        """Called by the mixin with the arguments of config.json; the weights must fit exactly."""

        def locate(name: str) -> Path:
            if Path(model_id).is_dir():
                return Path(model_id) / name
            return Path(
                hf_hub_download(
                    model_id,
                    name,
                    revision=revision,
                    cache_dir=cache_dir,
                    force_download=force_download,
                    local_files_only=local_files_only,
                    token=token,
                )
            )

        config_path = locate("config.json")
        config = _read_config(config_path)
        for name in ("proxies", "resume_download"):  # of huggingface_hub below 1
            arguments.pop(name, None)
        try:
            model = cls(**{**arguments, "pretrained": False})  # whatever the file says, nothing is fetched from elsewhere
            model.classes = config["classes"]
            model.origin = config.get("origin", {})
            if not isinstance(model.origin, dict):
                raise TypeError("its origin is no mapping")
        except (TypeError, KeyError) as error:
            raise UserError(
                f"{config_path}: got an incomplete description of a model ({error}); expected the config.json that "
                "save_pretrained writes; it is damaged: take another checkpoint"
            ) from error
        weights_path = locate("model.safetensors")
        try:
            weights = load_file(weights_path)
            model.load_state_dict(stack_weights(model, weights) if config["format_version"] == 1 else weights)
        except (SafetensorError, RuntimeError, FileNotFoundError, KeyError) as error:
            reason = " ".join(str(error).split("\n")[:2])  # torch lists every weight, a line each
            raise UserError(
                f"{weights_path}: not the weights of the model in config.json beside it ({reason}); expected a folder "
                "written by save_pretrained; it is damaged or of another architecture: take another checkpoint"
            ) from error
        return model.eval()


def _read_config(path: Path) -> dict[str, Any]:
    config = read_json(path, "take another checkpoint")
    version = config.get("format_version")
    if version not in (1, FORMAT_VERSION):
        raise UserError(
            f"{path}: got format_version {version}; expected {FORMAT_VERSION}; take the version of mult that wrote it, or "
            "another folder if mult did not"
        )
    return config
