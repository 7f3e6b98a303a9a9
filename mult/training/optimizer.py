"""The section `optim` of a config -> the optimiser, with a learning rate and a weight decay for each group of parameters."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import AdamW, Optimizer

from mult.config import Config, OptimConfig
from mult.errors import UserError
from mult.models import MulT
from mult.models.stacked import stacked_tasks
from mult.training.balance.balance import Balance
from mult.training.muon import Muon, is_matrix


def build_optimizer(config: Config, model: MulT, balance: Balance) -> Optimizer:
    """AdamW or Muon over the parameters that learn, grouped by rate, decay and kind; the first group learns at `optim.lr`.

    Raises UserError for rates of an encoder that does not learn.
    """
    optim, undecayed, encoder_rates = config.optim, model.no_weight_decay(), find_encoder_rates(config.optim, model)
    stacked = stacked_tasks(model)
    by_kind: dict[tuple[float, bool, bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            no_decay = name in undecayed
            # Tables of positions are matrices by their shape alone; they are among the parameters without decay.
            matrix = parameter[0] if name in stacked else parameter
            is_orthogonal = optim.name == "muon" and not no_decay and is_matrix(matrix)
            kind = encoder_rates.get(name, optim.lr), no_decay, is_orthogonal, is_orthogonal and name in stacked
            by_kind.setdefault(kind, []).append(parameter)
    for parameter in balance.parameters():
        by_kind.setdefault((balance.lr or optim.lr, True, False, False), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {"params": by_kind[kind], "lr": rate, "weight_decay": 0.0 if no_decay else optim.weight_decay}
        | ({"orthogonal": is_orthogonal, "stacked": is_stacked} if optim.name == "muon" else {})
        for kind in sorted(by_kind, key=lambda kind: (kind[0] != optim.lr, -kind[0], *kind[1:]))
        for rate, no_decay, is_orthogonal, is_stacked in [kind]
    ]
    if optim.name == "muon":
        return Muon(groups, lr=optim.lr, betas=optim.betas)
    return AdamW(groups, lr=optim.lr, betas=optim.betas, fused=True)


def find_encoder_rates(optim: OptimConfig, model: MulT) -> dict[str, float]:
    """Name of each of the encoder's parameters -> its learning rate."""
    rate = optim.encoder_lr or optim.lr
    if optim.freeze_encoder and (optim.encoder_lr is not None or optim.layer_decay < 1):
        raise UserError(
            f"optim.freeze_encoder: got true, with encoder_lr {optim.encoder_lr} and layer_decay {optim.layer_decay}; expected "
            "no rates of an encoder that does not learn; leave them out"
        )
    layers = model.encoder.number_layers()
    last = max(layers.values())
    if optim.layer_decay < 1 and last == 0:
        raise UserError(
            f"optim.layer_decay: got {optim.layer_decay} with {model.encoder.name}, whose layers are not known; expected "
            "1.0 there; leave it out or take another model.backbone"
        )
    return {f"encoder.{name}": rate * optim.layer_decay ** (last - layer) for name, layer in layers.items()}
