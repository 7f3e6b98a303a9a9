"""Methods that weigh the losses: one backward pass of their weighted sum."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.amp import GradScaler

from mult.training.balance.balance import Balance, Setup


class WeightedSum(Balance):
    """The gradient of sum_t weights()[t] * loss_t. A method overrides `weights` and, if it learns from the losses, `learn`.

    At every `setup.measure_every`-th step the tasks' gradients are computed one by one too, for the log alone.
    """

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup)
        self._measure_every = setup.measure_every
        self._gradients = setup.find_gradients() if setup.measure_every else None
        self._measures_step = False

    def learn(self, losses: Mapping[str, float], scaler: GradScaler) -> None:
        """Change the weights of the steps to come by the losses of this one, over all micro-batches and processes."""

    def start_step(self, step: int) -> None:
        self._measures_step = self._gradients is not None and step % self._measure_every == 0
        if self._gradients is not None and self._measures_step:
            self._gradients.clear()

    def backward(self, losses: Mapping[str, Tensor], scaler: GradScaler) -> None:
        if self._gradients is not None and self._measures_step:
            self._gradients.backward(losses, scaler)
        weights = self.weights()
        weighted_sum = torch.stack([weights[task] * loss for task, loss in losses.items()]).sum()
        scaler.scale(weighted_sum).backward()

    def finish_step(self, losses: Mapping[str, float], scaler: GradScaler) -> dict[str, float]:
        log = {f"weight/{task}": weight for task, weight in self.weights().items()}
        self.learn(losses, scaler)
        if self._gradients is not None and self._measures_step:
            self._gradients.all_reduce(scaler)
            log |= self._gradients.measure()
        return log
