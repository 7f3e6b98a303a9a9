"""The gradient of each task alone: a row for each task, over the parameters that the losses of two or more tasks reach.

The rows are not in `.grad`, which is all that DistributedDataParallel sums over processes, so they are summed here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations

import torch
from torch import Tensor, nn
from torch.amp import GradScaler

from mult.runtime import distributed


def reached_parameters(outputs: Mapping[str, Tensor], parameters: Iterable[nn.Parameter]) -> dict[str, list[nn.Parameter]]:
    """Task -> those of `parameters`, in their order, that the gradient of its output reaches.

    Connection in the graph is not enough: tasks that are computed in one product are all connected, with gradients of zero. So
    NaN is sent backward from the output: it passes a factor of 0, such as a scale that starts at 0, but not the part of a
    tensor that belongs to another task.
    """
    learnt = [parameter for parameter in parameters if parameter.requires_grad]
    reached = {}
    for task, output in outputs.items():
        start = torch.full_like(output, torch.nan)
        gradients = torch.autograd.grad(output, learnt, start, retain_graph=True, allow_unused=True)
        reached[task] = [p for p, g in zip(learnt, gradients, strict=True) if g is not None and bool(g.isnan().any())]
    return reached


class SharedGradients:
    """Sums over micro-batches and processes of each task's gradient.

    reached: task -> the parameters its loss reaches. `shared` are those of two or more tasks, `own[task]` those of this task
    alone. The losses are such that their mean over processes is the step's loss.
    """

    matrix: Tensor
    """(tasks, numbers of `shared`), zero where a task's loss does not reach."""

    def __init__(self, reached: Mapping[str, Sequence[nn.Parameter]]) -> None:
        tasks_of = Counter(id(parameter) for parameters in reached.values() for parameter in parameters)
        by_id = {id(parameter): parameter for parameters in reached.values() for parameter in parameters}
        self.tasks = list(reached)
        self.shared = [parameter for key, parameter in by_id.items() if tasks_of[key] > 1]
        self.own = {task: [p for p in parameters if tasks_of[id(p)] == 1] for task, parameters in reached.items()}
        self._reached = {task: {id(parameter) for parameter in parameters} for task, parameters in reached.items()}

    def clear(self) -> None:
        """Start a step: all rows are zero."""
        columns = sum(parameter.numel() for parameter in self.shared)
        self.matrix = torch.zeros(len(self.tasks), columns, device=self.shared[0].device)

    def backward(
        self, losses: Mapping[str, Tensor], scaler: GradScaler, own_weights: Mapping[str, float] | None = None
    ) -> None:
        """Add the scaled gradient of each task's loss of a micro-batch to its row.

        With `own_weights`, {task: weight}, also add the weighted gradient of each task's own parameters to their `.grad`.
        Without, keep the graph, for the backward pass of the weighted sum that follows.
        """
        for row, task in enumerate(self.tasks):
            targets = [
                (view, parameter)
                for view, parameter in zip(self.split(self.matrix[row]), self.shared, strict=True)
                if id(parameter) in self._reached[task]
            ]
            own = [] if own_weights is None else self.own[task]
            retain_graph = own_weights is None or row < len(self.tasks) - 1
            inputs = [parameter for _, parameter in targets] + own
            gradients = torch.autograd.grad(scaler.scale(losses[task]), inputs, retain_graph=retain_graph)
            torch._foreach_add_([view for view, _ in targets], gradients[: len(targets)])
            for parameter, gradient in zip(own, gradients[len(targets) :], strict=True):
                assert own_weights is not None
                weighted = gradient * own_weights[task]
                parameter.grad = weighted if parameter.grad is None else parameter.grad.add_(weighted)

    def all_reduce(self, scaler: GradScaler) -> None:
        """Average the rows over processes and divide them by the loss scale."""
        distributed.all_reduce_sum(self.matrix).div_(scaler.get_scale() * distributed.world_size())

    def all_reduce_own(self) -> None:
        """Average the gradients of the tasks' own parameters over processes, in one message."""
        if distributed.world_size() > 1:
            gradients = [p.grad for parameters in self.own.values() for p in parameters if p.grad is not None]
            flat = distributed.all_reduce_sum(torch.cat([gradient.flatten() for gradient in gradients]))
            parts = flat.div_(distributed.world_size()).split([gradient.numel() for gradient in gradients])
            torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])

    def split(self, vector: Tensor) -> list[Tensor]:
        """A vector of a row's length -> views of it in the shapes of `shared`."""
        parts = vector.split([parameter.numel() for parameter in self.shared])
        return [part.view_as(parameter) for part, parameter in zip(parts, self.shared, strict=True)]

    def measure(self) -> dict[str, float]:
        """For the log: the norm of each row, and the cosine of the angle between each two rows that are not zero."""
        norms = self.matrix.norm(dim=1)
        cosines = (self.matrix @ self.matrix.T / norms.outer(norms)).tolist()
        norm_of = dict(zip(self.tasks, norms.tolist(), strict=True))
        pairs = combinations(enumerate(self.tasks), 2)
        return {f"{task}/grad_norm": norm for task, norm in norm_of.items()} | {
            f"cosine/{one}/{other}": cosines[i][j] for (i, one), (j, other) in pairs if norm_of[one] and norm_of[other]
        }
