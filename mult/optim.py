"""The sections `optim` and `balance` of a config -> what moves the weights: balance, optimiser, schedule. A part of build."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from timm.optim.muon import Muon
from torch import nn
from torch.optim import AdamW, Optimizer

from mult import schema
from mult.balance import Aggregated, Balance, DynamicAverage, GradNorm, SharedGradients, Uncertainty, reached_parameters
from mult.config import Config, Count, NonNegative, OptimConfig, Positive
from mult.models import MulT
from mult.tasks import TASKS


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
    optim, spared = config.optim, model.no_weight_decay()
    groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
    for name, parameter in model.named_parameters():
        groups[name not in spared].append(parameter)
    learnt = list(balance.parameters())
    rate = config.balance.options.get("lr") or optim.lr
    parts: list[dict[str, Any]] = [
        {"params": groups[True], "weight_decay": optim.weight_decay},
        {"params": groups[False], "weight_decay": 0.0},
        *([{"params": learnt, "weight_decay": 0.0, "lr": rate}] if learnt else []),
    ]
    if optim.name == "muon":
        for part in parts[1:]:
            part["use_fallback"] = True  # position tables are matrices by shape alone
        return Muon(parts, lr=optim.lr, betas=optim.betas, nesterov=True)
    return AdamW(parts, lr=optim.lr, betas=optim.betas, fused=True)


def schedule(optim: OptimConfig) -> Callable[[int], float]:
    """Step -> factor of the learning rate: a line from 1 / warmup to 1, then as `schedule` says, to 0 at the end."""

    def factor(step: int) -> float:
        if step < optim.warmup:
            return (step + 1) / optim.warmup
        if optim.schedule == "constant":
            return 1.0
        progress = (step - optim.warmup) / max(1, optim.steps - optim.warmup)
        return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

    return factor
