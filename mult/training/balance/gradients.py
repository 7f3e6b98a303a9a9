"""The gradient of each task alone: a row for each task, over the parameters that the losses of two or more tasks reach.

The decoders keep the layers of several tasks in one parameter, of which each task's loss reaches a slice: so what is said here
of parameters holds for each part of such a parameter by itself.

The rows are not in `.grad`, which is all that DistributedDataParallel sums over processes, so they are summed here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from mult.models.stacked import Part
from mult.runtime import distributed


def reached_parts(outputs: Mapping[str, Tensor], parts: Iterable[Part]) -> dict[str, list[Part]]:
    """Task -> those of `parts`, in their order, that the gradient of its output reaches.

    Connection in the graph is not enough: tasks that are computed in one product are all connected, with gradients of zero. So
    NaN is sent backward from the output: it passes a factor of 0, such as a scale that starts at 0, but not the part of a
    tensor that belongs to another task.
    """
    learnt = [part for part in parts if part.parameter.requires_grad]
    parameters = _parameters(learnt)
    reached = {}
    for task, output in outputs.items():
        start = torch.full_like(output, torch.nan)
        found = torch.autograd.grad(output, parameters, start, retain_graph=True, allow_unused=True)
        gradients = {parameter: gradient for parameter, gradient in zip(parameters, found, strict=True) if gradient is not None}
        reached[task] = [
            part for part in learnt if part.parameter in gradients and part.of(gradients[part.parameter]).isnan().any()
        ]
    return reached


class SharedGradients:
    """Sums over micro-batches and processes of each task's gradient.

    reached: task -> the parts its loss reaches. `shared` are those of two or more tasks, `own[task]` those of this task
    alone. The losses are such that their mean over processes is the step's loss.
    """

    matrix: Tensor
    """(tasks, numbers of `shared`), zero where a task's loss does not reach."""

    def __init__(self, reached: Mapping[str, Sequence[Part]]) -> None:
        number_of_tasks = Counter(part for parts in reached.values() for part in parts)
        self.tasks = list(reached)
        self.shared = [part for part, number in number_of_tasks.items() if number > 1]
        self.own = {task: [part for part in parts if number_of_tasks[part] == 1] for task, parts in reached.items()}
        self._reached = {task: set(parts) for task, parts in reached.items()}

    def clear(self) -> None:
        """Start a step: all rows are zero."""
        columns = sum(part.numel() for part in self.shared)
        self.matrix = torch.zeros(len(self.tasks), columns, device=self.shared[0].parameter.device)

    def backward(
        self, losses: Mapping[str, Tensor], scaler: GradScaler, own_weights: Mapping[str, float] | None = None
    ) -> None:
        """Add the scaled gradient of each task's loss of a micro-batch to its row.

        With `own_weights`, {task: weight}, also add the weighted gradient of each task's own parameters to their `.grad`.
        Without, keep the graph, for the backward pass of the weighted sum that follows.
        """
        for row, task in enumerate(self.tasks):
            targets = [
                (view, part)
                for view, part in zip(self.split(self.matrix[row]), self.shared, strict=True)
                if part in self._reached[task]
            ]
            own = [] if own_weights is None else self.own[task]
            retain_graph = own_weights is None or row < len(self.tasks) - 1
            parameters = _parameters([part for _, part in targets] + own)
            found = torch.autograd.grad(scaler.scale(losses[task]), parameters, retain_graph=retain_graph)
            gradients = dict(zip(parameters, found, strict=True))
            torch._foreach_add_([view for view, _ in targets], [part.of(gradients[part.parameter]) for _, part in targets])
            for part in own:
                assert own_weights is not None
                _grad(part).add_(part.of(gradients[part.parameter]), alpha=own_weights[task])

    def all_reduce(self, scaler: GradScaler) -> None:
        """Average the rows over processes and divide them by the loss scale."""
        distributed.all_reduce_sum(self.matrix).div_(scaler.get_scale() * distributed.world_size())

    def all_reduce_own(self) -> None:
        """Average the gradients of the tasks' own parameters over processes, in one message."""
        if distributed.world_size() > 1:
            gradients = [_grad(part) for parts in self.own.values() for part in parts]
            flat = distributed.all_reduce_sum(torch.cat([gradient.flatten() for gradient in gradients]))
            reduced = flat.div_(distributed.world_size()).split([gradient.numel() for gradient in gradients])
            torch._foreach_copy_(gradients, [r.view_as(g) for r, g in zip(reduced, gradients, strict=True)])

    def set_shared(self, vector: Tensor) -> None:
        """Put a vector of a row's length into the `.grad` of the shared parameters."""
        for part, gradient in zip(self.shared, self.split(vector), strict=True):
            _grad(part).copy_(gradient)

    def split(self, vector: Tensor) -> list[Tensor]:
        """A vector of a row's length -> views of it in the shapes of `shared`."""
        views = vector.split([part.numel() for part in self.shared])
        return [view.view_as(part.of(part.parameter)) for view, part in zip(views, self.shared, strict=True)]

    def measure(self) -> dict[str, float]:
        """For the log: the norm of each row, and the cosine of the angle between each two rows that are not zero."""
        norms = self.matrix.norm(dim=1)
        cosines = (self.matrix @ self.matrix.T / norms.outer(norms)).tolist()
        norm_of = dict(zip(self.tasks, norms.tolist(), strict=True))
        pairs = combinations(enumerate(self.tasks), 2)
        return {f"{task}/grad_norm": norm for task, norm in norm_of.items()} | {
            f"cosine/{one}/{other}": cosines[i][j] for (i, one), (j, other) in pairs if norm_of[one] and norm_of[other]
        }


def _parameters(parts: Iterable[Part]) -> list[nn.Parameter]:
    """The parameters that the parts are of, each once."""
    return list(dict.fromkeys(part.parameter for part in parts))


def _grad(part: Part) -> Tensor:
    """The part of its parameter's `.grad`, which begins as zeros."""
    if part.parameter.grad is None:
        part.parameter.grad = torch.zeros_like(part.parameter)
    return part.of(part.parameter.grad)
