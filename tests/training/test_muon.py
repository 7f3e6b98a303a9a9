"""Muon against the singular values it changes, and AdamW, for the rest, against torch's."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor
from torch.optim import AdamW

from mult.training.muon import NEWTON_SCHULZ_COEFFICIENTS, Muon, is_matrix, iterate_on_gram_matrices

SHAPES = [(12, 40), (12, 40), (40, 12), (8, 5, 3, 3)]
"""Two of one shape, which go through the iteration together; wide, tall and a kernel."""


def orthogonal(update: Tensor) -> Tensor:
    """By singular values: the iteration is a polynomial of them, and leaves the directions."""
    left, values, right = torch.linalg.svd(update.flatten(1).double(), full_matrices=False)
    values = values / values.square().sum().sqrt()
    for a, b, c in NEWTON_SCHULZ_COEFFICIENTS:
        values = a * values + b * values**3 + c * values**5
    return (left * values @ right).reshape(update.shape)


def draw(shapes: Sequence[tuple[int, ...]], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) * (k + 1) for k, shape in enumerate(shapes)]


@pytest.mark.parametrize(("has_bf16", "tolerance"), [(False, 1e-5), (True, 2e-2)])
def test_steps_are_of_orthogonal_momentum(monkeypatch: pytest.MonkeyPatch, has_bf16: bool, tolerance: float) -> None:
    monkeypatch.setattr("mult.training.muon.multiplies_bf16", lambda device: has_bf16)
    lr, decay, keep = 0.03, 0.2, 0.9
    parameters = [torch.nn.Parameter(value) for value in draw(SHAPES, 0)]
    expected = [p.detach().double() for p in parameters]
    momenta = [torch.zeros_like(value) for value in expected]
    optimizer = Muon([{"params": parameters, "orthogonal": True}], lr=lr, momentum=keep, weight_decay=decay)
    for step in range(3):
        gradients = draw(SHAPES, 10 + step)
        for k, (p, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            p.grad = gradient.clone()
            momenta[k] = keep * momenta[k] + (1 - keep) * gradient.double()
            ahead = keep * momenta[k] + (1 - keep) * gradient.double()  # Nesterov's
            rows, columns = p.shape[0], p[0].numel()
            expected[k] = expected[k] * (1 - lr * decay) - lr * 0.2 * max(rows, columns) ** 0.5 * orthogonal(ahead)
        optimizer.step()
        for p, value, gradient in zip(parameters, expected, gradients, strict=True):
            assert float((p.detach() - value).abs().max()) < tolerance
            assert p.grad is not None
            assert torch.equal(p.grad, gradient)
    assert (float((parameters[0].detach() - expected[0]).abs().max()) > 1e-5) == has_bf16  # else the type would not be tested


SPECTRA = {
    "even": torch.ones(24),
    "decay to 1e-3": torch.logspace(0, -3, 24),
    "decay to 1e-8": torch.logspace(0, -8, 24),
    "one large": torch.tensor([1.0] + 23 * [1e-3]),
    "rank 6": torch.tensor(6 * [1.0] + 18 * [0.0]),
    "zero": torch.zeros(24),
}


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 3e-5)])
def test_gram_matrices_give_the_iteration_s_result(spectrum: str, dtype: torch.dtype, tolerance: float) -> None:
    """Also along small singular values, and for singular ones; in float32 the iteration of X itself is off by up to 3e-5."""
    generator = torch.Generator().manual_seed(4)
    left, right = (torch.linalg.qr(torch.randn(3, size, 24, dtype=torch.float64, generator=generator))[0] for size in (24, 96))
    wide = ((left * SPECTRA[spectrum].double()) @ right.mT).to(dtype)
    expected = torch.stack([orthogonal(each) for each in wide]) if spectrum != "zero" else torch.zeros_like(wide).double()
    for matrices, values in ((wide, expected), (wide.mT, expected.mT)):
        error = (iterate_on_gram_matrices(matrices).double() - values).norm(dim=(1, 2)) / values.norm(dim=(1, 2)).clamp(min=1)
        assert float(error.max()) < tolerance


def test_the_rest_is_adamw_to_the_bit() -> None:
    shapes = [(7,), (3, 4), (1, 6, 5)]
    ours, theirs = ([torch.nn.Parameter(value) for value in draw(shapes, 1)] for _ in range(2))
    muon = Muon([{"params": ours, "orthogonal": False}], lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1)
    adamw = AdamW(theirs, lr=1e-2, betas=(0.8, 0.95), weight_decay=0.1, fused=True)
    for step in range(4):
        for mine, other, gradient in zip(ours, theirs, draw(shapes, step), strict=True):
            unused = step == 1 and gradient.ndim == 1  # a parameter without a gradient stays, its moments too
            mine.grad, other.grad = (None, None) if unused else (gradient.clone(), gradient.clone())
        muon.step()
        adamw.step()
    assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("shape", [(12, 40), (12, 8, 3, 3)], ids=["matrices", "kernels"])
def test_stacked_matrices_are_made_orthogonal_each_by_itself(shape: tuple[int, ...]) -> None:
    """As three parameters of one matrix or kernel each."""
    generator = torch.Generator().manual_seed(5)
    values = torch.stack([torch.randn(shape, generator=generator) * scale for scale in (1.0, 10.0, 0.1)])
    stacked, apart = torch.nn.Parameter(values.clone()), [torch.nn.Parameter(value.clone()) for value in values]
    ours = Muon([{"params": [stacked], "orthogonal": True, "stacked": True}], lr=0.03, weight_decay=0.2)
    theirs = Muon([{"params": apart, "orthogonal": True}], lr=0.03, weight_decay=0.2)
    for _ in range(3):
        gradient = torch.randn(values.shape, generator=generator)
        gradient[2] = 0  # a task without labels
        stacked.grad = gradient
        for p, own in zip(apart, gradient, strict=True):
            p.grad = own.clone()
        ours.step()
        theirs.step()
        torch.testing.assert_close(stacked.detach(), torch.stack([p.detach() for p in apart]), rtol=1e-6, atol=1e-6)


def test_a_saved_optimiser_goes_on_to_the_bit() -> None:
    def begun(values: Sequence[Tensor]) -> tuple[list[torch.nn.Parameter], Muon]:
        parameters = [torch.nn.Parameter(value.clone()) for value in values]
        parts = [{"params": parameters[:4], "orthogonal": True}, {"params": parameters[4:], "orthogonal": False}]
        return parameters, Muon(parts, lr=0.01)

    def step(parameters: list[torch.nn.Parameter], optimizer: Muon, seed: int) -> None:
        for p, gradient in zip(parameters, draw([tuple(p.shape) for p in parameters], seed), strict=True):
            p.grad = gradient
        optimizer.step()

    parameters, optimizer = begun(draw([*SHAPES, (9,)], 2))
    step(parameters, optimizer, 3)
    others, other = begun([p.detach() for p in parameters])
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    step(parameters, optimizer, 4)
    step(others, other, 4)
    assert all(torch.equal(one, two) for one, two in zip(parameters, others, strict=True))


@pytest.mark.parametrize("name", ["muon", "adamw"])
def test_a_loaded_state_is_where_its_parameters_are(name: str) -> None:
    """A state read from the disk is on the CPU; the meta device stands for another one."""

    def build(device: str) -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
        parameters = [torch.nn.Parameter(torch.ones(shape, device=device)) for shape in ((8, 12), (8,))]
        groups = [{"params": [p], **({"orthogonal": p.ndim == 2} if name == "muon" else {})} for p in parameters]
        return parameters, Muon(groups, lr=0.01) if name == "muon" else AdamW(groups, lr=0.01, fused=True)

    parameters, saved = build("cpu")
    for p in parameters:
        p.grad = torch.ones_like(p)
    saved.step()
    others, loaded = build("meta")
    loaded.load_state_dict(copy.deepcopy(saved.state_dict()))
    tensors = [tensor for p in others for tensor in loaded.state[p].values()]
    assert len(tensors) == (4 if name == "muon" else 6)
    assert all(tensor.device.type == "meta" for tensor in tensors)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((64, 128), True),
        ((96, 3, 4, 4), True),
        ((4, 512), True),
        ((4, 516), False),  # all but a vector
        ((3, 64), False),
        ((64,), False),
        ((32, 1, 3, 3), False),  # a filter a channel
        ((1, 196, 768), False),
    ],
)
def test_what_is_a_matrix(shape: tuple[int, ...], expected: bool) -> None:
    assert is_matrix(torch.zeros(shape)) == expected
