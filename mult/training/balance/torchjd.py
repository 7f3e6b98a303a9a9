"""TorchJD's aggregators by name (torchjd.org, the extra `balance`): the rows of the tasks' gradients -> a direction.

Rows are in the order of TASKS. A task without a label in a step is left out of the matrix, for CAGrad and MGDA would stand
still at a row of zeros; only an aggregator with a memory, which has a place for every row, gets that row.
"""

from __future__ import annotations

import difflib
import inspect
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mult.errors import UserError
from mult.runtime import distributed
from mult.training.balance.gradient_method import Combined
from mult.training.balance.gradients import SharedGradients

_NOT_OFFERED = {"Aggregator", "WeightedAggregator", "GramianWeightedAggregator", "Sum", "Mean", "Constant"}
"""Bases, and weighted sums, which `fixed` is."""
_NOT_OPTIONS = {"n_tasks", "f", "projector"}
"""Arguments that follow from the config, or that no YAML can say."""
_A_TASK = {"pref_vector", "leak"}
"""Arguments with a number a task: in a config, a mapping of task to number."""
_MEMORY = {
    "ExcessMTL": ("_weights", "_sq_grad_sum", "_initial_w", "_warmup_w_sum", "_n_steps"),
    "GradVac": ("_phi_t",),
    "NashMTL": ("prvs_alpha", "normalization_factor", "step"),
    "PCD": ("_sq_norm_ema", "_n_steps"),
}
"""What the weighting of each aggregator that remembers must be given back; `state_dict` lacks it or cannot load it."""

OURS = ("fixed", "uncertainty", "dwa", "gradnorm")
"""The methods that need no TorchJD, for messages (their options: BALANCES)."""


def aggregators() -> dict[str, Any]:
    """TorchJD's aggregators that are not ours in other words, by name; UserError without TorchJD."""
    try:
        from torchjd import aggregation
    except ImportError as error:
        raise UserError(
            f"balance.method: got the name of none of ours ({', '.join(OURS)}), and TorchJD is not installed; "
            'expected one of ours, or TorchJD; pip install -e ".[balance]"'
        ) from error
    every = {name: getattr(aggregation, name) for name in aggregation.__all__ if name not in _NOT_OFFERED}
    return {name: kind for name, kind in every.items() if issubclass(kind, aggregation.Aggregator)}


class Aggregated(Combined):
    """The direction of a TorchJD aggregator, once a step.

    method: the aggregator's name. options: its arguments, but those with a number a task are mappings of task to number.

    Raises UserError for a name or options that mean nothing and for an aggregator that cannot be resumed, and where
    TorchJD, or a solver that it calls, is missing.
    """

    def __init__(
        self, weights: Mapping[str, float], gradients: SharedGradients, method: str, options: Mapping[str, Any]
    ) -> None:
        super().__init__(weights, gradients)
        kinds = aggregators()
        if method not in kinds:
            raise UserError(f"balance.method: got {method!r}; expected {_choice(method, [*OURS, *kinds])}")
        self.method, self._kind, self._options = method, kinds[method], dict(options)
        self._check_options()
        # A method with a memory has one aggregator, in a list: as a module it would add parts of itself to `state_dict`.
        self._kept = [self._make(self.rows.tasks)] if hasattr(self._kind, "reset") else []
        if self._kept and method not in _MEMORY:
            raise UserError(
                f"balance.method: got {method!r}, which has a memory that no checkpoint would hold; expected a method without "
                f"one, or {', '.join(_MEMORY)}; take another"
            )

    def _check_options(self) -> None:
        """Names first; then whether TorchJD takes the values, by a trial."""
        tasks = self.rows.tasks
        expected = [name for name in inspect.signature(self._kind).parameters if name not in _NOT_OPTIONS]
        for name, value in self._options.items():
            where = f"balance.options: got {name!r} for {self.method}"
            if name not in expected:
                raise UserError(f"{where}; expected {_choice(name, expected)}")
            if name in _A_TASK and not (isinstance(value, Mapping) and set(value) == set(tasks)):
                raise UserError(
                    f"{where} with {value!r}; expected a mapping with a number for each of {', '.join(tasks)}; complete it"
                )
        try:
            _direction(self._make(tasks), torch.eye(len(tasks)))
        except (TypeError, ValueError) as error:
            raise UserError(
                f"balance.options: got {self._options} for {self.method} and {len(tasks)} tasks; expected what TorchJD takes: "
                f"{error}; change the options"
            ) from error

    def _make(self, tasks: Sequence[str], device: torch.device | None = None) -> Any:
        """An aggregator for the rows of these tasks."""
        options = {
            name: torch.tensor([float(value[task]) for task in tasks], device=device) if name in _A_TASK else value
            for name, value in self._options.items()
        }
        if "n_tasks" in inspect.signature(self._kind).parameters:
            options["n_tasks"] = len(tasks)
        return self._kind(**options)

    def combine(self, matrix: Tensor, losses: Mapping[str, float]) -> tuple[Tensor, dict[str, float]]:
        vector, factors = matrix.new_zeros(matrix.shape[1]), {}
        # Some draw random numbers and some call a solver: one process decides for all.
        if distributed.is_main():
            labelled = matrix.any(1).tolist()
            rows = [row for row, given in enumerate(labelled) if given or self._kept]
            tasks = [self.rows.tasks[row] for row in rows]
            if any(labelled):
                vector, weights = _direction(self._kept[0] if self._kept else self._make(tasks, matrix.device), matrix[rows])
                factors = dict(zip(tasks, weights, strict=True)) if weights else {}
        return distributed.broadcast(vector), factors

    def get_extra_state(self) -> Any:
        """What the aggregator remembers, as tensors and plain values."""
        return {name: _plain(getattr(self._memory(), name)) for name in _MEMORY.get(self.method, ())}

    def set_extra_state(self, state: Any) -> None:
        if not self._kept:
            return
        # A first call lays out all that the aggregator keeps beside its memory.
        device, columns = self.rows.shared[0].device, sum(parameter.numel() for parameter in self.rows.shared)
        _direction(self._kept[0], torch.eye(len(self.rows.tasks), columns, device=device))
        memory = self._memory()
        for name, value in state.items():
            laid = getattr(memory, name)
            if isinstance(laid, np.ndarray):
                value = value.numpy()
            elif isinstance(value, Tensor):
                value = value.to(laid.device if isinstance(laid, Tensor) else device)
            setattr(memory, name, value)

    def _memory(self) -> Any:
        return getattr(self._kept[0], "gramian_weighting", None) or self._kept[0].weighting


def _direction(aggregator: Any, matrix: Tensor) -> tuple[Tensor, list[float] | None]:
    """The aggregator's vector for `matrix`, and the weights of the rows where it is their sum."""
    from torchjd.aggregation import WeightedAggregator

    # NashMTL's problem is always of the kind that cvxpy warns of; at a row of zeros it divides by 0 and keeps its last weights.
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.filterwarnings("ignore", message="You are solving a parameterized problem that is not DPP")
        if not isinstance(aggregator, WeightedAggregator):
            return aggregator(matrix), None
        weights = aggregator.weighting(matrix)
    return weights @ matrix, weights.tolist()


def _plain(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value


def _choice(name: str, expected: Iterable[str]) -> str:
    """What was expected instead of `name`, and what to do; capitals and hyphens do not matter."""
    spelt = {each.lower(): each for each in expected}
    near = difflib.get_close_matches(name.lower().replace("-", ""), spelt, n=1)
    known = f"one of {', '.join(spelt.values())}" if spelt else "none"
    remedy = f"did you mean {spelt[near[0]]!r}?" if near else "take one of them" if spelt else "leave it out"
    return f"{known}; {remedy}"
