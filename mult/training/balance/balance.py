"""What the training loop calls of a balance method, and what every method is built from."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.amp import GradScaler

from mult.training.balance.gradients import SharedGradients


@dataclass(frozen=True)
class Setup:
    """What a method can be built from, beside its options."""

    task_weights: Mapping[str, float]
    """Task -> its weight in the config, in the order of TASKS."""
    categorical: Collection[str]
    """The tasks of classes; the others are of values."""
    find_gradients: Callable[[], SharedGradients]
    """Finds what each task's loss reaches, which takes a forward pass; UserError where no two losses reach a parameter."""
    measure_every: int
    """`balance.log_cosine_every`: steps between two measurements of the tasks' gradients; 0: none."""
    steps_per_epoch: int


class Balance(nn.Module):
    """Turns the tasks' losses of a step into the gradient of every parameter that learns.

    In each step the loop calls
    - `start_step(step)`, the number of finished steps;
    - `backward(losses, scaler)` with the losses of each micro-batch, {task: scalar};
    - `finish_step(losses, scaler)` with the losses of the step over all micro-batches and processes, {task: number}, 0 where no
      pixel has a label of the task. It returns what the log shall have of the step.
    After `finish_step` the gradient, times the scale of `scaler`, is in the `.grad` of every parameter. The losses that
    `backward` gets are such that the step's loss is their sum over micro-batches and their mean over processes.

    `parameters()` are trained together with the model's; `state_dict()` holds all that a resumed run needs.
    """

    reduces_gradients = False
    """Whether the method sums gradients over processes itself, so that DistributedDataParallel must not."""
    lr: float | None = None
    """The learning rate of `parameters()`; None: optim.lr."""

    def __init__(self, setup: Setup) -> None:
        super().__init__()
        self.task_weights = dict(setup.task_weights)

    def weights(self) -> dict[str, float]:
        """What each task's loss is multiplied by in this step: the weight in the config times what the method learnt."""
        return self.task_weights

    def start_step(self, step: int) -> None:
        raise NotImplementedError

    def backward(self, losses: Mapping[str, Tensor], scaler: GradScaler) -> None:
        raise NotImplementedError

    def finish_step(self, losses: Mapping[str, float], scaler: GradScaler) -> dict[str, float]:
        raise NotImplementedError
