"""MulT (Bhattacharjee et al., CVPR 2022): one encoder, one decoder a task, attention shared with a reference task.

A single-task MulT, the paper's "1-task Swin", is this class with one task.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mult.errors import UserError
from mult.files import read_json, write_file, write_json
from mult.models.decoder import Attention, Decoder, Wiring
from mult.models.encoder import Encoder
from mult.models.first_version import stack_weights
from mult.models.stacked import stacked_tasks

FORMAT_VERSION = 2
"""1: a parameter a task, which `first_version` converts."""


class MulT(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="mult",
    paper_url="https://arxiv.org/abs/2205.08303",
    license="mit",
    pipeline_tag="image-segmentation",
):
    """Images (B, 3, H, W) float32 in [0, 1], any H and W -> {task: (B, channels, H, W)} raw outputs, in the order of `tasks`.

    tasks: task -> output channels. reference: the task whose query and key all tasks share; needed for `attention: shared`
    with more than one task. backbone, pretrained, backbone_args: see `Encoder`; pretrained is False, True (timm's weights) or
    a local file. attention: "shared" (the method), "independent" (every task its own query and key from the encoder map)
    or "self" (query, key and value from the task's own stream). decoder: "paper" or "released" (paper.md).
    window_size, num_heads, drop_path, dropout: of the decoders; num_heads is one number, one a stage from fine to coarse, or
    None for the backbone's own.

    `classes` (categorical task -> class names) is set by whoever knows the dataset and is saved with the model.

    Raises UserError for arguments that do not fit together.
    """

    def __init__(
        self,
        tasks: Mapping[str, int],
        reference: str | None = None,
        backbone: str = "swin_tiny_patch4_window7_224",
        pretrained: bool | str = False,
        attention: Attention = "shared",
        decoder: Wiring = "paper",
        window_size: int = 7,
        num_heads: int | Sequence[int] | None = None,
        drop_path: float = 0.0,
        dropout: float = 0.0,
        backbone_args: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        reference = _reference(tasks, reference, attention, decoder)
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
        }
        self.classes: dict[str, list[str]] = {}
        self.encoder = Encoder(backbone, pretrained, backbone_args)
        self.decoder = Decoder(
            tasks,
            reference or next(iter(tasks)),
            attention,
            decoder,
            self.encoder.channels,
            _num_heads(num_heads, self.encoder),
            window_size,
            drop_path,
            dropout,
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

    def start_from(self, other: MulT) -> dict[str, str]:
        """Take another model's weights, to train on from them; returns what could not be taken: {task: why}.

        Tasks that only one of the two has are passed over, and so is the head of a task with another number of channels
        (classes of another dataset). Raises UserError where anything else differs.
        """
        ours, theirs = _by_task(self), _by_task(other)
        anew = {task: "not in the model to start from" for task in self.tasks if task not in other.tasks}
        for task in self.tasks:
            if task not in anew and self.arguments["tasks"][task] != other.arguments["tasks"][task]:
                was, now = other.arguments["tasks"][task], self.arguments["tasks"][task]
                anew[task] = f"its head has {now} channels instead of {was}"
        for (name, owner), weight in ours.items():
            given = theirs.get((name, owner))
            if given is not None and given.shape == weight.shape:
                weight.copy_(given)
            elif not any(task == owner and (task not in other.tasks or "heads" in name) for task in anew):
                got = "nothing" if given is None else str(tuple(given.shape))
                raise UserError(f"{name}: got {got}; expected {tuple(weight.shape)}")
        return anew

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether the backward pass computes the blocks' activations again: less memory, more time, the same gradients."""
        self.encoder.set_grad_checkpointing(enable)
        for stage in self.decoder.stages:
            stage.grad_checkpointing = enable

    def compile_blocks(self, backend: Any = "inductor") -> int:
        """Compile the blocks of encoder and decoders in place, each whole or with an error; returns how many they are.

        By block, because one graph of everything takes minutes to compile and gains no more. Every block is a graph of its own
        (rates of drop path are constants in it), for each shape it meets: torch's limit of eight, beyond which it would go
        on uncompiled and say nothing, is raised and made an error. `backend` is torch.compile's.
        """
        blocks = self.encoder.blocks() + [block for stage in self.decoder.stages for block in stage.blocks]
        dynamo: Any = torch._dynamo.config
        dynamo.recompile_limit = max(dynamo.recompile_limit, 4 * len(blocks))
        dynamo.accumulated_recompile_limit = max(dynamo.accumulated_recompile_limit, 16 * len(blocks))
        dynamo.fail_on_recompile_limit_hit = True
        for block in blocks:
            block.compile(backend=backend, fullgraph=True, dynamic=False)
        return len(blocks)

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that decay would harm: norms, biases and position tables (timm's convention)."""
        stacked = stacked_tasks(self)
        vectors = {name for name, p in self.named_parameters() if p.ndim <= (2 if name in stacked else 1)}
        return vectors | {name for name, _ in self.named_parameters() if "position_bias" in name or "logit_scale" in name}

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
        write_json(save_directory / "config.json", config)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **options: Any) -> MulT:
        """A model from a folder that `save_pretrained` wrote, or from the Hugging Face hub; in evaluation mode.

        Raises UserError for a damaged folder, one of another format version and weights that do not fit.
        """
        folder = Path(pretrained_model_name_or_path)
        if folder.is_dir():
            _read_config(folder / "config.json")  # first: the mixin's error on a damaged file does not name it
        return super().from_pretrained(pretrained_model_name_or_path, **options)

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
        """The mixin's hook: `arguments` are those of config.json. Weights must fit exactly."""

        def path(name: str) -> Path:
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

        config = _read_config(path("config.json"))
        try:
            model = cls(**arguments)
            model.classes = config["classes"]
        except (TypeError, KeyError) as error:
            raise UserError(
                f"{path('config.json')}: got no whole description of a model ({error}); expected the config.json that "
                "save_pretrained writes; it is damaged: take another checkpoint"
            ) from error
        weights_path = path("model.safetensors")
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


def _by_task(model: MulT) -> dict[tuple[str, str | None], Tensor]:
    """(name, task) -> what the task has of a weight or its whole head's; (name, None) -> a weight of no single task."""
    stacked, weights = stacked_tasks(model), {}
    for name, weight in model.state_dict().items():
        head = name.split(".")[2] if name.startswith("decoder.heads.") else None
        for index, task in enumerate(stacked.get(name, [head])):
            weights[name, task] = weight[index] if name in stacked else weight
    return weights


def _read_config(path: Path) -> dict[str, Any]:
    config = read_json(path, "take another checkpoint")
    version = config.get("format_version")
    if version not in (1, FORMAT_VERSION):
        raise UserError(
            f"{path}: got format_version {version}; expected {FORMAT_VERSION}; take the version of mult that wrote it, or "
            "another folder if mult did not"
        )
    return config


def _reference(tasks: Mapping[str, int], reference: str | None, attention: str, decoder: str) -> str | None:
    """Check what belongs together, and fill in the reference where only one task can be it."""
    if not tasks:
        raise UserError("tasks: got none; expected task: output channels; name at least one")
    for name, value, choices in (("attention", attention, Attention), ("decoder", decoder, Wiring)):
        if value not in get_args(choices):
            raise UserError(f"model.{name}: got {value!r}; expected {' or '.join(get_args(choices))}; take one of them")
    if decoder == "released" and attention == "self":
        raise UserError(
            "model.attention: got self with decoder released; expected shared or independent there; take one of them, or "
            "decoder paper"
        )
    if reference is not None and reference not in tasks:
        raise UserError(
            f"model.reference: got {reference!r}; expected one of {', '.join(tasks)}; name one of the model's tasks"
        )
    if reference is None and attention == "shared" and len(tasks) > 1:
        raise UserError(
            f"model.reference: got none; expected one of {', '.join(tasks)}: with attention 'shared' every task uses the "
            "reference's query and key; name one, or take attention 'independent' or 'self'"
        )
    return next(iter(tasks)) if reference is None and len(tasks) == 1 else reference


def _num_heads(num_heads: int | Sequence[int] | None, encoder: Encoder) -> list[int]:
    """Heads a stage, fine to coarse: as given, else the backbone's, else one a 32 channels."""
    stages = len(encoder.channels)
    if isinstance(num_heads, int):
        num_heads = [num_heads] * stages
    if num_heads is None:
        guess = [own or max(1, c // 32) for own, c in zip(encoder.heads, encoder.channels, strict=True)]
    else:
        guess = list(num_heads)
    if len(guess) != stages or any(h < 1 or c % h for h, c in zip(guess, encoder.channels, strict=False)):
        raise UserError(
            f"model.num_heads: got {guess} for channels {encoder.channels} of {encoder.name}; expected {stages} divisors of "
            "them, fine to coarse; set model.num_heads"
        )
    return guess
