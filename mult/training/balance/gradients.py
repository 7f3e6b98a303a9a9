"""The gradients of the tasks apart from each other: a row a task, over the parameters that more than one task's loss reaches.

DistributedDataParallel reduces what `backward` leaves in `.grad` and nothing else, so rows are added over processes here.
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

    What the graph connects is not enough: tasks whose values are multiplied in one product are all connected, by gradients
    of zero. So NaN goes backward from the output: a factor of 0, such as a scale that starts there, lets it through, and a
    part of a tensor that another task owns does not.
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

    reached: task -> the parameters its loss reaches. `shared` are those of more than one task, `own[task]` those of the task
    alone. Losses are such that their mean over processes is the loss of the step.
    """

    matrix: Tensor
    """(tasks, numbers in `shared`), zero where a task's loss does not reach."""

    def __init__(self, reached: Mapping[str, Sequence[nn.Parameter]]) -> None:
        reaches = Counter(id(parameter) for parameters in reached.values() for parameter in parameters)
        every = {id(parameter): parameter for parameters in reached.values() for parameter in parameters}
        self.tasks = list(reached)
        self.shared = [parameter for key, parameter in every.items() if reaches[key] > 1]
        self.own = {task: [p for p in parameters if reaches[id(p)] == 1] for task, parameters in reached.items()}
        self._reached = {task: {id(parameter) for parameter in parameters} for task, parameters in reached.items()}

    def clear(self) -> None:
        """Begin a step."""
        columns = sum(parameter.numel() for parameter in self.shared)
        self.matrix = torch.zeros(len(self.tasks), columns, device=self.shared[0].device)

    def add(self, losses: Mapping[str, Tensor], scaler: GradScaler, own: Mapping[str, float] | None = None) -> None:
        """Add a micro-batch's gradients, scaled, to the rows, and with `own` each task's times that to its own `.grad`.

        The graph is kept if there is no `own`: somebody else goes through it again.
        """
        for row, task in enumerate(self.tasks):
            into = [
                (view, parameter)
                for view, parameter in zip(self.split(self.matrix[row]), self.shared, strict=True)
                if id(parameter) in self._reached[task]
            ]
            alone = [] if own is None else self.own[task]
            keep = own is None or row < len(self.tasks) - 1
            inputs = [parameter for _, parameter in into] + alone
            gradients = torch.autograd.grad(scaler.scale(losses[task]), inputs, retain_graph=keep)
            torch._foreach_add_([view for view, _ in into], gradients[: len(into)])
            for parameter, gradient in zip(alone, gradients[len(into) :], strict=True):
                assert own is not None
                weighted = gradient * own[task]
                parameter.grad = weighted if parameter.grad is None else parameter.grad.add_(weighted)

    def reduce(self, scaler: GradScaler) -> None:
        """Sum the rows over processes and take the loss scale out."""
        distributed.all_reduce_sum(self.matrix).div_(scaler.get_scale() * distributed.world_size())

    def reduce_own(self) -> None:
        """Average the tasks' own gradients over processes, in one message."""
        if distributed.world_size() > 1:
            gradients = [p.grad for parameters in self.own.values() for p in parameters if p.grad is not None]
            flat = distributed.all_reduce_sum(torch.cat([gradient.flatten() for gradient in gradients]))
            flat.div_(distributed.world_size())
            parts = flat.split([gradient.numel() for gradient in gradients])
            torch._foreach_copy_(gradients, [p.view_as(g) for p, g in zip(parts, gradients, strict=True)])

    def split(self, vector: Tensor) -> list[Tensor]:
        """A vector of a row's length -> views of it in the shapes of `shared`."""
        parts = vector.split([parameter.numel() for parameter in self.shared])
        return [part.view_as(parameter) for part, parameter in zip(parts, self.shared, strict=True)]

    def measure(self) -> dict[str, float]:
        """For the log: the norm of each row, and the cosine of the angle between each two that are not zero."""
        norms = self.matrix.norm(dim=1)
        cosines = (self.matrix @ self.matrix.T / norms.outer(norms)).tolist()
        lengths = dict(zip(self.tasks, norms.tolist(), strict=True))
        pairs = combinations(enumerate(self.tasks), 2)
        return {f"{task}/grad_norm": length for task, length in lengths.items()} | {
            f"cosine/{one}/{other}": cosines[i][j] for (i, one), (j, other) in pairs if lengths[one] and lengths[other]
        }
