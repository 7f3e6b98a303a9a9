"""Methods that see every task's gradient of the shared parameters: one direction out of the rows. Here GradNorm's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler

from mult.training.balance.gradients import SharedGradients
from mult.training.balance.weighted_sum import Balance


class Combined(Balance):
    """One backward pass a task. Shared parameters get `combine` of the weighted rows, all others their own task's gradient.

    A row of zeros is a task that no pixel of the step has a label of, or whose weight is 0.
    """

    reduces = True

    def __init__(self, weights: Mapping[str, float], gradients: SharedGradients) -> None:
        super().__init__(weights)
        self.rows = gradients

    def combine(self, matrix: Tensor, losses: Mapping[str, float]) -> tuple[Tensor, dict[str, float]]:
        """The weighted gradients, (tasks, numbers) -> the shared parameters' gradient, and factors of the weights to log."""
        raise NotImplementedError

    def begin(self, step: int) -> None:
        self.rows.clear()

    def add(self, losses: Mapping[str, Tensor], scaler: GradScaler) -> None:
        self.rows.add(losses, scaler, own=self.weights())

    def finish(self, losses: Mapping[str, float], scaler: GradScaler) -> dict[str, float]:
        rows, weights = self.rows, self.weights()
        rows.reduce(scaler)
        rows.reduce_own()
        log = rows.measure()
        matrix = rows.matrix.mul_(torch.tensor([[weights[task]] for task in rows.tasks]).to(rows.matrix))
        if matrix.isfinite().all():
            vector, factors = self.combine(matrix, losses)
        else:
            vector, factors = matrix.sum(0), {}  # for the loop to find: no method can make something of it
        for parameter, gradient in zip(rows.shared, rows.split(vector * scaler.get_scale()), strict=True):
            parameter.grad = gradient
        return log | {f"weight/{task}": weights[task] * factor for task, factor in factors.items()}


class GradNorm(Combined):
    """Chen et al. (ICML 2018): weights w, of sum T, at which the tasks' gradients have norms in step with their progress.

    With G_i the norm of w_i's gradient, G their mean, and r_i the task's loss over its first one, divided by the mean of that
    over tasks, w descends |G_i - G r_i^alpha| with the target held fixed, by Adam at `rate`, and is brought back to sum T.
    Deviations: norms are over all shared parameters, not those of one layer; a weight is at least 0.01; the tasks without a
    label in a step are left out of it.
    """

    def __init__(self, weights: Mapping[str, float], gradients: SharedGradients, alpha: float, rate: float) -> None:
        super().__init__(weights, gradients)
        self.alpha = alpha
        self._first: dict[str, float] = {}
        # Plain, not of the module: they stay on the CPU, with numbers that are the same on every process.
        self._learnt = torch.ones(len(weights), dtype=torch.float64)
        self._optimizer = torch.optim.Adam([self._learnt], lr=rate)

    def weights(self) -> dict[str, float]:
        learnt = zip(self.task_weights.items(), self._learnt.tolist(), strict=True)
        return {task: weight * factor for (task, weight), factor in learnt}

    def combine(self, matrix: Tensor, losses: Mapping[str, float]) -> tuple[Tensor, dict[str, float]]:
        norms = matrix.norm(dim=1).double().cpu()
        seen = norms > 0
        self._first = {task: loss for task, loss in losses.items() if loss} | self._first
        progress = torch.tensor([loss / self._first.get(task, 1.0) for task, loss in losses.items()], dtype=torch.float64)
        target = norms[seen].mean() * (progress / progress[seen].mean()) ** self.alpha
        self._learnt.grad = torch.where(seen, (norms - target).sign() * norms / self._learnt, 0.0)
        self._optimizer.step()
        self._learnt.clamp_(min=0.01).mul_(len(norms) / self._learnt.sum())
        return matrix.sum(0), dict.fromkeys(self.rows.tasks, 1.0)

    def get_extra_state(self) -> Any:
        return {"first": self._first, "weights": self._learnt, "optimizer": self._optimizer.state_dict()}

    def set_extra_state(self, state: Any) -> None:
        self._first = dict(state["first"])
        self._learnt.copy_(state["weights"])
        self._optimizer.load_state_dict(state["optimizer"])
