"""Muon (Jordan 2024): momentum of weight matrices made orthogonal, so that every direction is learnt at one rate.

timm has it too, a matrix at a time and always in bfloat16: on a CPU without such instructions 36 times slower than this is in
float32 (rooms6.yaml). Here matrices of one shape go through the iteration together, in what the device multiplies fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from timm.optim.muon import zeropower_via_newtonschulz
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from mult.runtime.precision import multiplies_bf16

Moved = list[tuple[Tensor, Tensor]]
"""Parameters and their gradients."""

# Five steps that take singular values from 1e-3 to 1 near 1 (Jordan's modded-nanogpt, after leloykun).
COEFFICIENTS = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]
RMS = 0.2  # of AdamW's steps (Liu et al. 2025, "Muon is scalable for LLM training"): one rate suits both
FEWEST = 4  # rows or columns of what counts as a matrix
NARROWEST = 128


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon is for a weight: a matrix, or a kernel as one, if it is not all but a vector nor of one input channel."""
    if parameter.ndim < 2 or 1 in parameter.shape[:2]:
        return False
    rows, columns = parameter.flatten(1).shape
    return min(rows, columns) >= FEWEST and max(rows, columns) <= NARROWEST * min(rows, columns)


class Muon(Optimizer):
    """Muon for the groups with `orthogonal: True`, AdamW for the others; weight decay of both is decoupled.

    params: groups {"params", "orthogonal", ...}. betas: AdamW's. momentum: Nesterov's, Muon's. Steps are scaled so that their
    root mean square is that of AdamW's.
    """

    def __init__(
        self,
        params: Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        momentum: float = 0.95,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "momentum": momentum, "weight_decay": weight_decay, "eps": eps}
        super().__init__(params, {**defaults, "orthogonal": False})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # no closure: nobody here has one
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            moved = [(parameter, parameter.grad) for parameter in group["params"] if parameter.grad is not None]
            if moved:
                (self._orthogonal if group["orthogonal"] else self._adamw)(group, moved)

    def _orthogonal(self, group: dict[str, Any], moved: Moved) -> None:
        alike: dict[tuple[torch.Size, torch.device], list[tuple[Tensor, Tensor]]] = {}
        for parameter, gradient in moved:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum = state["momentum"]
            momentum.lerp_(gradient, 1 - group["momentum"])
            update = gradient.lerp(momentum, group["momentum"]).flatten(1)
            alike.setdefault((update.shape, update.device), []).append((parameter, update))
        for (shape, device), matrices in alike.items():
            dtype = torch.bfloat16 if multiplies_bf16(device) else torch.float32
            stacked = torch.stack([update for _, update in matrices])
            steps = zeropower_via_newtonschulz(stacked, len(COEFFICIENTS), COEFFICIENTS, dtype=dtype)
            rate = group["lr"] * RMS * max(shape) ** 0.5
            for (parameter, _), step in zip(matrices, steps, strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(step.reshape(parameter.shape), alpha=-rate)

    def _adamw(self, group: dict[str, Any], moved: Moved) -> None:
        states = [self.state[parameter] for parameter, _ in moved]
        for state, (parameter, _) in zip(states, moved, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        adamw(
            params=[parameter for parameter, _ in moved],
            grads=[gradient for _, gradient in moved],
            exp_avgs=[state["exp_avg"] for state in states],
            exp_avg_sqs=[state["exp_avg_sq"] for state in states],
            max_exp_avg_sqs=[],
            state_steps=[state["step"] for state in states],
            fused=True,
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )
