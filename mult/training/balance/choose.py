"""The section `balance` of a config -> a balance method. METHODS is the list of ours; every other name is TorchJD's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mult.config import BalanceConfig, Config, schema
from mult.errors import UserError, suggest
from mult.models import MulT
from mult.models.stacked import split_parameters
from mult.tasks import TASKS
from mult.training.balance.balance import Balance, Setup
from mult.training.balance.dynamic_average import DynamicAverage, DynamicAverageOptions
from mult.training.balance.fixed import Fixed, FixedOptions
from mult.training.balance.gradients import SharedGradients, reached_parts
from mult.training.balance.gradnorm import GradNorm, GradNormOptions
from mult.training.balance.torchjd import TorchJDMethod, check_option_names, find_aggregators
from mult.training.balance.uncertainty import Uncertainty, UncertaintyOptions

METHODS: dict[str, tuple[Callable[[Setup, Any], Balance], type]] = {
    "fixed": (Fixed, FixedOptions),
    "uncertainty": (Uncertainty, UncertaintyOptions),
    "dwa": (DynamicAverage, DynamicAverageOptions),
    "gradnorm": (GradNorm, GradNormOptions),
}
"""`balance.method` -> the class, and the dataclass of its `balance.options`."""


def build_balance(config: Config, model: MulT, views: int) -> Balance:
    """The method of `balance`, for a training set of so many views.

    Raises UserError for a name or options that mean nothing, and where the method needs parameters that two losses reach and
    there are none.
    """
    setup = Setup(
        task_weights={task: config.tasks[task].weight for task in model.tasks},
        categorical={task for task in model.tasks if TASKS[task].categorical},
        find_gradients=lambda: _find_gradients(config, model),
        measure_every=config.balance.log_cosine_every,
        steps_per_epoch=max(1, round(views / (config.data.batch_size * config.optim.accumulate))),
    )
    return find_method(config.balance)(setup)


def find_method(config: BalanceConfig) -> Callable[[Setup], Balance]:
    """The class of `balance.method` with its options; UserError for a name or names of options that mean nothing."""
    method, options = config.method, config.options
    if method in METHODS:
        build, options_class = METHODS[method]
        own_options = schema.read(options_class, options, f"balance.options of {method}")
        return lambda setup: build(setup, own_options)
    try:
        aggregators = find_aggregators()
    except ImportError as error:
        remedy = suggest(method, METHODS, "take one of these,")
        raise UserError(
            f"balance.method: got {method!r}; expected one of {', '.join(METHODS)}, or an aggregator of TorchJD, which is not "
            f'installed; {remedy} or pip install "mult-dense[balance]"'
        ) from error
    if method not in aggregators:
        names = [*METHODS, *aggregators]
        remedy = suggest(method, names, "take one of them")
        raise UserError(f"balance.method: got {method!r}; expected one of {', '.join(names)}; {remedy}")
    check_option_names(method, aggregators[method], options)
    return lambda setup: TorchJDMethod(setup, method, aggregators[method], options)


def _find_gradients(config: Config, model: MulT) -> SharedGradients:
    """Find what each task's loss reaches with one image, before the model is compiled or wrapped."""
    was_training = model.training
    outputs = model.eval()(torch.zeros(1, 3, *config.data.image_size))
    model.train(was_training)
    gradients = SharedGradients(reached_parts(outputs, split_parameters(model)))
    if not gradients.shared:
        raise UserError(
            f"balance: got {config.balance}, but no parameter that learns is reached by two tasks' losses; expected some; "
            "take balance.method=fixed without log_cosine_every"
        )
    return gradients
