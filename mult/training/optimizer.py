"""The sections `optim` and `balance` of a config -> what moves the weights: balance, optimiser, schedule. A part of build."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from mult.config import Config, OptimConfig, schema
from mult.config.sections import Count, NonNegative, Positive
from mult.models import MulT
from mult.tasks import TASKS
from mult.training.balance import (
    Aggregated,
    Balance,
    DynamicAverage,
    GradNorm,
    SharedGradients,
    Uncertainty,
    reached_parameters,
)
from mult.training.muon import Muon, is_matrix


@dataclass(frozen=True, kw_only=True)
class FixedOptions:
    """`balance.options` of fixed: none."""


@dataclass(frozen=True, kw_only=True)
class UncertaintyOptions:
    """`balance.options` of uncertainty (Kendall 2018)."""

    lr: Positive | None = None
    """Of the log-variances; None: optim.lr. It follows the schedule."""


@dataclass(frozen=True, kw_only=True)
class DwaOptions:
    """`balance.options` of dwa (Liu 2019)."""

    temperature: Positive = 2.0
    period: Count | None = None
    """Steps whose mean losses are compared; None: as many as an epoch has, rounded."""


@dataclass(frozen=True, kw_only=True)
class GradNormOptions:
    """`balance.options` of gradnorm (Chen 2018)."""

    alpha: NonNegative = 1.5
    """How strongly tasks that lag behind are pulled; 0: all gradients of one norm."""
    lr: Positive = 0.025
    """Of the weights, under Adam; it follows no schedule."""


BALANCES = {"fixed": FixedOptions, "uncertainty": UncertaintyOptions, "dwa": DwaOptions, "gradnorm": GradNormOptions}
"""What is ours by name, and its options; all other methods are TorchJD's."""


def balance(config: Config, model: MulT, views: int) -> Balance:
    """The method of `balance`; ValueError for a name or options that mean nothing, and where it lacks what it works on."""
    method, options, every = config.balance.method, config.balance.options, config.balance.log_cosine_every
    weights = {task: config.tasks[task].weight for task in model.tasks}
    if method not in BALANCES:
        return Aggregated(weights, _shared_gradients(config, model), method, options)
    chosen = schema.read(BALANCES[method], options, f"balance.options of {method}")
    if isinstance(chosen, GradNormOptions):
        return GradNorm(weights, _shared_gradients(config, model), chosen.alpha, chosen.lr)
    gradients = _shared_gradients(config, model) if every else None
    if isinstance(chosen, UncertaintyOptions):
        halved = {task for task in weights if not TASKS[task].categorical}
        return Uncertainty(weights, halved, gradients, every)
    if isinstance(chosen, DwaOptions):
        epoch = round(views / (config.data.batch_size * config.optim.accumulate))
        return DynamicAverage(weights, chosen.temperature, chosen.period or max(1, epoch), gradients, every)
    return Balance(weights, gradients, every)


def _shared_gradients(config: Config, model: MulT) -> SharedGradients:
    """What each task's loss reaches is found with one image, before anything is compiled or wrapped."""
    was_training = model.training
    outputs = model.eval()(torch.zeros(1, 3, *config.data.image_size))
    model.train(was_training)
    gradients = SharedGradients(reached_parameters(outputs, model.parameters()))
    if not gradients.shared:
        raise ValueError(
            f"balance: got {config.balance}, but no parameter that learns is reached by two tasks' losses; expected some; "
            "take balance.method=fixed without log_cosine_every"
        )
    return gradients


def optimizer(config: Config, model: MulT, balance: Balance) -> Optimizer:
    """AdamW or Muon; the first of its groups learns at `optim.lr`. ValueError for rates of an encoder that does not learn."""
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
        raise ValueError(
            f"optim.freeze_encoder: got true, with encoder_lr {optim.encoder_lr} and layer_decay {optim.layer_decay}; expected "
            "no rates of an encoder that does not learn; leave them out"
        )
    layers = model.encoder.layers()
    last = max(layers.values())
    if optim.layer_decay < 1 and last == 0:
        raise ValueError(
            f"optim.layer_decay: got {optim.layer_decay} with {model.encoder.name}, whose layers are not known; expected "
            "1.0 there; leave it out or take another model.backbone"
        )
    return {f"encoder.{name}": rate * optim.layer_decay ** (last - layer) for name, layer in layers.items()}


def schedule(optim: OptimConfig) -> Callable[[int], float]:
    """Step -> factor of every learning rate. A function of the step alone, so that a resumed run may be made longer."""
    last = max(1, optim.steps - optim.warmup)

    def factor(step: int) -> float:
        if optim.schedule == "onecycle":
            return _one_cycle(step, optim.warmup, optim.steps)
        if step < optim.warmup:
            return (step + 1) / optim.warmup
        left = 1 - min(1.0, (step - optim.warmup) / last)
        if optim.schedule == "poly":
            return left**optim.power
        return 1.0 if optim.schedule == "constant" else 0.5 * (1 - math.cos(math.pi * left))

    return factor


def _one_cycle(step: int, warmup: int, steps: int) -> float:
    """torch's OneCycleLR with its defaults, but that the betas stay: a cosine from 1 / 25 up to 1 at the last step of the
    warmup, another down to 1 / 250,000 at the last of all.
    """
    start, end, top = 1 / 25, 1 / 250_000, max(0, warmup - 1)
    if step < top:
        return start + (1 - start) * 0.5 * (1 - math.cos(math.pi * step / top))
    down = min(1.0, (step - top) / max(1, steps - 1 - top))
    return end + (1 - end) * 0.5 * (1 + math.cos(math.pi * down))
