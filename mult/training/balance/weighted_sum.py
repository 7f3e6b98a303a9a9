"""What the training loop knows of balancing, and the methods that only weigh the losses.

The weights of all methods multiply those of the config's `tasks`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from mult.training.balance.gradients import SharedGradients


class Balance(nn.Module):
    """{task: loss} of the micro-batches of a step -> the gradients of the step; here a weighted sum, as `fixed` is.

    A step is `begin(step)`, then `add` with every micro-batch's losses, then `finish` with the losses of the whole step over
    all micro-batches and processes (0 where no pixel has a label). After that every parameter has its gradient, times the
    loss scale, in `.grad`. The sum over micro-batches of the mean over processes of what `add` gets is what `finish` gets.

    `parameters()` are to be learnt with the model's; `state_dict()` is all that a resumed run needs.

    gradients, every: measure the tasks' gradients at every such step, for the log alone; 0: never.
    """

    reduces = False
    """Whether gradients are added over processes here, so that DistributedDataParallel must not wait for them."""

    def __init__(self, weights: Mapping[str, float], gradients: SharedGradients | None = None, every: int = 0) -> None:
        super().__init__()
        self.task_weights = dict(weights)
        self.gradients, self.every = gradients, every
        self._measures = False

    def weights(self) -> dict[str, float]:
        """What each task's loss is multiplied by at this step."""
        return self.task_weights

    def learn(self, losses: Mapping[str, float], scaler: GradScaler) -> None:
        """Let the losses of the step, over all micro-batches and processes, change the weights of those to come."""

    def begin(self, step: int) -> None:
        self._measures = self.every > 0 and step % self.every == 0
        if self._measures and self.gradients is not None:
            self.gradients.clear()

    def add(self, losses: Mapping[str, Tensor], scaler: GradScaler) -> None:
        if self._measures and self.gradients is not None:
            self.gradients.add(losses, scaler)
        weights = self.weights()
        scaler.scale(torch.stack([weights[task] * loss for task, loss in losses.items()]).sum()).backward()

    def finish(self, losses: Mapping[str, float], scaler: GradScaler) -> dict[str, float]:
        """Complete the gradients; returns what to log."""
        log = {f"weight/{task}": weight for task, weight in self.weights().items()}
        self.learn(losses, scaler)
        if self._measures and self.gradients is not None:
            self.gradients.reduce(scaler)
            log |= self.gradients.measure()
        return log


class Uncertainty(Balance):
    """Kendall, Gal and Cipolla (CVPR 2018): the sum of losses / (k sigma^2) + log sigma, k 1 for classes and 2 for values.

    The log-variances s = log sigma^2 are learnt; they start at 0. `halved` are the tasks of k = 2. Where no pixel of a step
    has a label, the task's s has no gradient.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        halved: set[str],
        gradients: SharedGradients | None = None,
        every: int = 0,
    ) -> None:
        super().__init__(weights, gradients, every)
        self.scales = {task: weight * (0.5 if task in halved else 1.0) for task, weight in weights.items()}
        self.log_variances = nn.Parameter(torch.zeros(len(weights)))

    def weights(self) -> dict[str, float]:
        variances = dict(zip(self.scales, self.log_variances.tolist(), strict=True))
        return {task: scale * math.exp(-variances[task]) for task, scale in self.scales.items()}

    def learn(self, losses: Mapping[str, float], scaler: GradScaler) -> None:
        # In closed form, from the losses of the whole step: the same on every process, log sigma counted once.
        slopes = [0.5 - weight * losses[task] if losses[task] else 0.0 for task, weight in self.weights().items()]
        self.log_variances.grad = torch.tensor(slopes).to(self.log_variances) * scaler.get_scale()


class DynamicAverage(Balance):
    """DWA (Liu, Johns and Davison, CVPR 2019): the slower a loss fell from period to period, the larger its weight.

    Weights are tasks * softmax(r / temperature), r the mean loss of the last period over that of the one before; 1 during
    the first two periods. The paper's period is an epoch; here it is `period` steps. A task's mean is over the steps that
    have labels of it; without two means its r is 1.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        temperature: float,
        period: int,
        gradients: SharedGradients | None = None,
        every: int = 0,
    ) -> None:
        super().__init__(weights, gradients, every)
        self.temperature, self.period = temperature, period
        self._clear()
        self._means: list[dict[str, float]] = []

    def _clear(self) -> None:
        self._step, self._sums, self._counts = 0, dict.fromkeys(self.task_weights, 0.0), dict.fromkeys(self.task_weights, 0)

    def weights(self) -> dict[str, float]:
        if len(self._means) < 2:
            return self.task_weights
        before, last = self._means
        rates = [last[task] / before[task] if before.get(task) and task in last else 1.0 for task in self.task_weights]
        shares = torch.softmax(torch.tensor(rates, dtype=torch.float64) / self.temperature, 0).tolist()
        return {
            task: weight * share * len(rates) for (task, weight), share in zip(self.task_weights.items(), shares, strict=True)
        }

    def learn(self, losses: Mapping[str, float], scaler: GradScaler) -> None:
        self._step += 1
        for task, loss in losses.items():
            self._sums[task] += loss
            self._counts[task] += loss != 0
        if self._step == self.period:
            means = {task: self._sums[task] / count for task, count in self._counts.items() if count}
            self._means = [*self._means, means][-2:]
            self._clear()

    def get_extra_state(self) -> Any:
        return {"step": self._step, "sums": self._sums, "counts": self._counts, "means": self._means}

    def set_extra_state(self, state: Any) -> None:
        self._step, self._sums = state["step"], dict(state["sums"])
        self._counts, self._means = dict(state["counts"]), list(state["means"])
