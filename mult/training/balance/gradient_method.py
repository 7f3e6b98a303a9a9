"""Methods that combine the tasks' gradients: one backward pass a task, and one direction out of the rows."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.amp import GradScaler

from mult.training.balance.balance import Balance, Setup


class GradientMethod(Balance):
    """Shared parameters get what `combine` makes of the weighted rows, all others the weighted gradient of their own task.

    A row is zero where no pixel of the step has a label of the task, or where its weight is 0.
    """

    reduces_gradients = True

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self.gradients = setup.find_gradients()

    def combine(self, matrix: Tensor, losses: Mapping[str, float]) -> tuple[Tensor, dict[str, float]]:
        """The weighted rows (tasks, numbers of the shared parameters) -> the shared gradient (numbers,), and {task: factor}.

        The factors are what the method multiplied the rows by, for the log; empty where its direction is no sum of rows. Every
        process must return the same.
        """
        raise NotImplementedError

    def start_step(self, step: int) -> None:
        self.gradients.clear()

    def backward(self, losses: Mapping[str, Tensor], scaler: GradScaler) -> None:
        self.gradients.backward(losses, scaler, own_weights=self.weights())

    def finish_step(self, losses: Mapping[str, float], scaler: GradScaler) -> dict[str, float]:
        gradients, weights = self.gradients, self.weights()
        gradients.all_reduce(scaler)
        gradients.all_reduce_own()
        log = gradients.measure()
        matrix = gradients.matrix.mul_(torch.tensor([[weights[task]] for task in gradients.tasks]).to(gradients.matrix))
        if matrix.isfinite().all():
            direction, factors = self.combine(matrix, losses)
        else:  # the loop finds that the sum is not finite and reports it
            direction, factors = matrix.sum(0), {}
        gradients.set_shared(direction * scaler.get_scale())
        return log | {f"weight/{task}": weights[task] * factor for task, factor in factors.items()}
