"""The aggregators of TorchJD (torchjd.org, the extra `balance`) as balance methods: rows of gradients -> a direction.

Rows are in the order of TASKS. A task without a label in a step is left out of the matrix, since CAGrad and MGDA would return
zero for a matrix with a row of zeros. An aggregator with a memory has a place for every task and gets the row of zeros.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mult.errors import UserError, suggest
from mult.runtime import distributed
from mult.training.balance.balance import Setup
from mult.training.balance.gradient_method import GradientMethod

_NOT_OFFERED = {"Aggregator", "WeightedAggregator", "GramianWeightedAggregator", "Sum", "Mean", "Constant"}
"""Base classes, and the weighted sums, which the method fixed computes in one backward pass."""
_NOT_OPTIONS = {"n_tasks", "f", "projector"}
"""Arguments that follow from the config, or whose values are Python objects."""
_PER_TASK_OPTIONS = {"pref_vector", "leak"}
"""Arguments with a number for each task: in a config, a mapping of task to number."""
_MEMORY = {
    "ExcessMTL": ("_weights", "_sq_grad_sum", "_initial_w", "_warmup_w_sum", "_n_steps"),
    "GradVac": ("_phi_t",),
    "NashMTL": ("prvs_alpha", "normalization_factor", "step"),
    "PCD": ("_sq_norm_ema", "_n_steps"),
}
"""Aggregator with a memory -> the attributes of its weighting that a checkpoint must hold; `state_dict` lacks them."""


def find_aggregators() -> dict[str, type[Any]]:
    """TorchJD's aggregators by name; raises ImportError where TorchJD is not installed."""
    from torchjd import aggregation

    classes = {name: getattr(aggregation, name) for name in aggregation.__all__ if name not in _NOT_OFFERED}
    return {name: cls for name, cls in classes.items() if issubclass(cls, aggregation.Aggregator)}


def check_option_names(name: str, aggregator: type[Any], options: Mapping[str, Any]) -> None:
    """Raise UserError for an option that is no argument of the aggregator."""
    expected = [parameter for parameter in inspect.signature(aggregator).parameters if parameter not in _NOT_OPTIONS]
    for option in options:
        if option not in expected:
            names = f"one of {', '.join(expected)}" if expected else "none"
            remedy = suggest(option, expected, "leave it out")
            raise UserError(f"balance.options: got {option!r} for {name}; expected {names}; {remedy}")


class TorchJDMethod(GradientMethod):
    """Applies a TorchJD aggregator once a step.

    name, aggregator: of `find_aggregators`. options: the aggregator's arguments; those with a number for each task are mappings
    of task to number.

    Raises UserError for options that the aggregator does not take, for an aggregator whose memory no checkpoint would hold, and
    where a solver that it calls is not installed.
    """

    def __init__(self, setup: Setup, name: str, aggregator: type[Any], options: Mapping[str, Any]) -> None:
        super().__init__(setup)
        self.name, self._class, self._options = name, aggregator, dict(options)
        self._check_options()
        has_memory = hasattr(aggregator, "reset")
        if has_memory and name not in _MEMORY:
            raise UserError(
                f"balance.method: got {name!r}, which has a memory that no checkpoint would hold; expected a method without "
                f"one, or {', '.join(_MEMORY)}; take another"
            )
        # In a list, since `state_dict` would add parts of a module of its own.
        self._with_memory = [self._build(self.gradients.tasks)] if has_memory else []

    def _check_options(self) -> None:
        """Check the names of the options, then, by calling the aggregator once, their values."""
        check_option_names(self.name, self._class, self._options)
        tasks = self.gradients.tasks
        for name, value in self._options.items():
            if name in _PER_TASK_OPTIONS and not (isinstance(value, Mapping) and set(value) == set(tasks)):
                raise UserError(
                    f"balance.options: got {name!r} for {self.name} with {value!r}; expected a mapping with a number for each "
                    f"of {', '.join(tasks)}; complete it"
                )
        try:
            _aggregate(self._build(tasks), torch.eye(len(tasks)))
        except (TypeError, ValueError) as error:
            raise UserError(
                f"balance.options: got {self._options} for {self.name} and {len(tasks)} tasks; expected what TorchJD takes: "
                f"{error}; change the options"
            ) from error

    def _build(self, tasks: Sequence[str], device: torch.device | None = None) -> Any:
        """An aggregator for the rows of these tasks."""
        options = {
            name: torch.tensor([float(value[task]) for task in tasks], device=device) if name in _PER_TASK_OPTIONS else value
            for name, value in self._options.items()
        }
        if "n_tasks" in inspect.signature(self._class).parameters:
            options["n_tasks"] = len(tasks)
        return self._class(**options)

    def combine(self, matrix: Tensor, losses: Mapping[str, float]) -> tuple[Tensor, dict[str, float]]:
        direction, factors = matrix.new_zeros(matrix.shape[1]), {}
        # Some aggregators draw random numbers and some call a solver, so the main process decides for all.
        if distributed.is_main():
            labelled = matrix.any(1).tolist()
            rows = [row for row, is_labelled in enumerate(labelled) if is_labelled or self._with_memory]
            tasks = [self.gradients.tasks[row] for row in rows]
            if any(labelled):
                aggregator = self._with_memory[0] if self._with_memory else self._build(tasks, matrix.device)
                direction, weights = _aggregate(aggregator, matrix[rows])
                factors = dict(zip(tasks, weights, strict=True)) if weights else {}
        return distributed.broadcast(direction), factors

    def get_extra_state(self) -> Any:
        """The memory of the aggregator as tensors and plain values."""
        return {name: _to_plain(getattr(self._weighting(), name)) for name in _MEMORY.get(self.name, ())}

    def set_extra_state(self, state: Any) -> None:
        if not self._with_memory:
            return
        # A first call makes the aggregator create what it holds beside its memory.
        shared = self.gradients.shared
        device, columns = shared[0].parameter.device, sum(part.numel() for part in shared)
        _aggregate(self._with_memory[0], torch.eye(len(self.gradients.tasks), columns, device=device))
        weighting = self._weighting()
        for name, value in state.items():
            current = getattr(weighting, name)
            if isinstance(current, np.ndarray):
                value = value.numpy()
            elif isinstance(value, Tensor):
                value = value.to(current.device if isinstance(current, Tensor) else device)
            setattr(weighting, name, value)

    def _weighting(self) -> Any:
        """The part of the aggregator that has the memory."""
        return getattr(self._with_memory[0], "gramian_weighting", None) or self._with_memory[0].weighting


def _aggregate(aggregator: Any, matrix: Tensor) -> tuple[Tensor, list[float] | None]:
    """The aggregator's direction for `matrix`, and the weights of the rows where the direction is their weighted sum."""
    from torchjd.aggregation import WeightedAggregator

    # NashMTL: cvxpy warns of the kind of its problem at every call; at a row of zeros it divides by 0 and returns its last
    # weights.
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.filterwarnings("ignore", message="You are solving a parameterized problem that is not DPP")
        if not isinstance(aggregator, WeightedAggregator):
            return aggregator(matrix), None
        weights = aggregator.weighting(matrix)
    return weights @ matrix, weights.tolist()


def _to_plain(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
