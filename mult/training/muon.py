"""Muon (Jordan 2024): steps along orthogonalised momentum, so that every direction of a weight matrix learns at one rate.

timm's Muon takes one matrix at a time, always in bfloat16: on a CPU without instructions for bfloat16 it is 36 times slower
than this one in float32 (configs/rooms6.yaml). Here matrices of one shape are orthogonalised together, in the type that the
device multiplies fast.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from timm.optim.muon import MUON_EPS, zeropower_via_newtonschulz
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.adamw import adamw

from mult.runtime.precision import multiplies_bf16

Gradients = list[tuple[Tensor, Tensor]]
"""(parameter, its gradient)."""

NEWTON_SCHULZ_COEFFICIENTS = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]
"""Of five iterations that bring singular values between 1e-3 and 1 close to 1 (Jordan's modded-nanogpt, after leloykun)."""
ADAMW_STEP_RMS = 0.2
"""The root mean square of AdamW's steps at rate 1 (Liu et al. 2025, "Muon is scalable for LLM training"): Muon's steps are
scaled to it, so that one learning rate suits both."""
MIN_SIDE = 4
MAX_ASPECT_RATIO = 128


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon trains a weight: a matrix, or a kernel flattened to (outputs, the rest).

    Not one with a side below MIN_SIDE or with sides of a ratio above MAX_ASPECT_RATIO, nor a kernel of one input channel.
    """
    if parameter.ndim < 2 or 1 in parameter.shape[:2]:
        return False
    rows, columns = parameter.flatten(1).shape
    return min(rows, columns) >= MIN_SIDE and max(rows, columns) <= MAX_ASPECT_RATIO * min(rows, columns)


class Muon(Optimizer):
    """Muon for the groups with `orthogonal: True`, AdamW for the others, both with decoupled weight decay.

    params: groups {"params", "orthogonal", "stacked", ...}; with `stacked` a parameter is several matrices (N, rows, ...),
    each made orthogonal by itself. betas: of AdamW. momentum: of Muon, Nesterov's.
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
        # `fused`: with this word torch moves a state's `step`, when it loads one, to the device of the parameter.
        super().__init__(params, {**defaults, "orthogonal": False, "stacked": False, "fused": True})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]  # without torch's closure, which nothing here passes
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            gradients = [(parameter, parameter.grad) for parameter in group["params"] if parameter.grad is not None]
            if gradients:
                (self._step_orthogonal if group["orthogonal"] else self._step_adamw)(group, gradients)

    def _step_orthogonal(self, group: dict[str, Any], gradients: Gradients) -> None:
        by_shape: dict[tuple[torch.Size, torch.device], list[tuple[Tensor, Tensor]]] = {}
        for parameter, gradient in gradients:
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            momentum = state["momentum"]
            momentum.lerp_(gradient, 1 - group["momentum"])
            update = gradient.lerp(momentum, group["momentum"])
            matrices = update.flatten(2) if group["stacked"] else update.flatten(1)[None]
            by_shape.setdefault((matrices.shape[1:], update.device), []).append((parameter, matrices))
        for (shape, device), updates in by_shape.items():
            dtype = torch.bfloat16 if multiplies_bf16(device) else torch.float32
            stacked = torch.cat([matrices for _, matrices in updates])
            steps = _orthogonalize(stacked, dtype)
            # An orthogonal matrix has a root mean square of 1 / sqrt(its longer side).
            rate = group["lr"] * ADAMW_STEP_RMS * max(shape) ** 0.5
            for (parameter, _), step in zip(updates, steps.split([len(matrices) for _, matrices in updates]), strict=True):
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(step.reshape(parameter.shape), alpha=-rate)

    def _step_adamw(self, group: dict[str, Any], gradients: Gradients) -> None:
        states = [self.state[parameter] for parameter, _ in gradients]
        for state, (parameter, _) in zip(states, gradients, strict=True):
            if not state:
                state["step"] = torch.zeros((), device=parameter.device)
                state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        adamw(
            params=[parameter for parameter, _ in gradients],
            grads=[gradient for _, gradient in gradients],
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


def _orthogonalize(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """(N, rows, columns) -> the same, with singular values close to 1, computed in float32 or bfloat16.

    Not by Gram matrices in bfloat16: their rounding there is larger than their small values, and the iteration diverges.
    """
    rows, columns = sorted(matrices.shape[1:])
    if dtype == torch.float32 and columns >= 2 * rows:
        return iterate_on_gram_matrices(matrices)
    coefficients = NEWTON_SCHULZ_COEFFICIENTS
    return zeropower_via_newtonschulz(matrices, len(coefficients), coefficients, dtype=dtype)


def iterate_on_gram_matrices(matrices: Tensor) -> Tensor:
    """The Newton-Schulz iteration of (N, rows, columns), with two products of the longer side in place of ten.

    An iteration X <- P X, with P = a + b G + c G^2 and G = X X^T, makes P G P of G, since P and G commute. So G alone can be
    iterated, and the product of all P be applied to X. The rounding of G is relative to its largest value and grows up to 17
    times in an iteration, so G is computed from X once more, after three: the result is then as close as that of iterating X.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=MUON_EPS)
    for coefficients in (NEWTON_SCHULZ_COEFFICIENTS[:3], NEWTON_SCHULZ_COEFFICIENTS[3:]):
        gram = x @ x.mT
        factor = product = _factor(gram, coefficients[0])
        for each in coefficients[1:]:
            gram = factor @ gram @ factor
            factor = _factor(gram, each)
            product = factor @ product
        x = product @ x
    return x.mT if is_tall else x


def _factor(gram: Tensor, coefficients: tuple[float, float, float]) -> Tensor:
    """P = a + b G + c G^2."""
    a, b, c = coefficients
    factor = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
    factor.diagonal(dim1=-2, dim2=-1).add_(a)
    return factor
