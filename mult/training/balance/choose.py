"""TODOC"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mult.config import Config, schema
from mult.config.sections import Count, NonNegative, Positive
from mult.errors import UserError
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


def build_balance(config: Config, model: MulT, views: int) -> Balance:
    """The method of `balance`; UserError for a name or options that mean nothing, and where it lacks what it works on."""
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
        raise UserError(
            f"balance: got {config.balance}, but no parameter that learns is reached by two tasks' losses; expected some; "
            "take balance.method=fixed without log_cosine_every"
        )
    return gradients
