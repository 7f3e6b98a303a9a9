"""The sections `optim` and `balance` of a config -> what moves the weights: balance, optimiser, schedule. A part of build."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

from mult.config import Config, OptimConfig
from mult.errors import UserError
from mult.models import MulT
from mult.training.balance import (
    Balance,
)
from mult.training.muon import Muon, is_matrix


def build_optimizer(config: Config, model: MulT, balance: Balance) -> Optimizer:
    """AdamW or Muon; the first of its groups learns at `optim.lr`. UserError for rates of an encoder that does not learn."""
    optim, undecayed, rates = config.optim, model.no_weight_decay(), _encoder_rates(config.optim, model)
    groups: dict[tuple[float, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_spared = name in undecayed
            # Position tables, which are spared, are matrices by shape alone.
            is_orthogonal = optim.name == "muon" and not is_spared and is_matrix(parameter)
            groups.setdefault((rates.get(name, optim.lr), is_spared, is_orthogonal), []).append(parameter)
    for parameter in balance.parameters():
        groups.setdefault((config.balance.options.get("lr") or optim.lr, True, False), []).append(parameter)
    parts: list[dict[str, Any]] = [
        {"params": groups[rate, is_spared, is_orthogonal], "lr": rate, "weight_decay": 0.0 if is_spared else optim.weight_decay}
        | ({"orthogonal": is_orthogonal} if optim.name == "muon" else {})
        for rate, is_spared, is_orthogonal in sorted(groups, key=lambda key: (key[0] != optim.lr, -key[0], *key[1:]))
    ]
    if optim.name == "muon":
        return Muon(parts, lr=optim.lr, betas=optim.betas)
    return AdamW(parts, lr=optim.lr, betas=optim.betas, fused=True)


def _encoder_rates(optim: OptimConfig, model: MulT) -> dict[str, float]:
    """Name of each of the encoder's parameters -> its learning rate."""
    rate = optim.encoder_lr or optim.lr
    if optim.freeze_encoder and (optim.encoder_lr is not None or optim.layer_decay < 1):
        raise UserError(
            f"optim.freeze_encoder: got true, with encoder_lr {optim.encoder_lr} and layer_decay {optim.layer_decay}; expected "
            "no rates of an encoder that does not learn; leave them out"
        )
    layers = model.encoder.layers()
    last = max(layers.values())
    if optim.layer_decay < 1 and last == 0:
        raise UserError(
            f"optim.layer_decay: got {optim.layer_decay} with {model.encoder.name}, whose layers are not known; expected "
            "1.0 there; leave it out or take another model.backbone"
        )
    return {f"encoder.{name}": rate * optim.layer_decay ** (last - layer) for name, layer in layers.items()}
