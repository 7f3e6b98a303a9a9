"""GradNorm against its paper's loss, and where it settles."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.training.balance.toy import Toy

approx: Any = pytest.approx  # its own type says that it never equals a tuple


def test_gradnorm_descends_the_paper_s_loss() -> None:
    """The first step of Adam goes `lr` against the sign of the gradient that torch finds of sum_i |G_i - G r_i^alpha|."""
    toy = Toy((3.0, 4.0), (0.0, 2.0))
    balance = toy.build("gradnorm", {"a": 1.0, "b": 0.5}, alpha=1.5, lr=0.1)
    log = toy.step(balance, {"a": 4.0, "b": 6.0}, parts=2)
    assert toy.grad() == approx([3.0, 4.0 + 0.5 * 2.0])  # w = 1 at first
    assert toy.grad("b") == approx([0.5 * 3.0])
    assert (log["weight/a"], log["weight/b"]) == (1.0, 0.5)
    assert (log["a/grad_norm"], log["b/grad_norm"]) == (approx(5.0), approx(2.0))
    assert log["cosine/a/b"] == approx(0.8)
    # G = (5, 1), their mean 3, r = (1, 1): a's weight falls, b's rises; the sum is 2 already.
    second = toy.step(balance, {"a": 1.0, "b": 6.0})
    assert (second["weight/a"], second["weight/b"]) == (approx(0.9), approx(0.5 * 1.1))
    assert toy.grad("b") == approx([0.5 * 1.1 * 3.0])  # a weight multiplies the loss, for all parameters

    w = torch.tensor([0.9, 1.1], dtype=torch.float64, requires_grad=True)
    norms = w * torch.tensor([5.0, 1.0], dtype=torch.float64)
    progress = torch.tensor([1 / 4, 6 / 6], dtype=torch.float64)
    target = (norms.mean() * (progress / progress.mean()) ** 1.5).detach()
    (norms - target).abs().sum().backward()
    reference = torch.optim.Adam([start := torch.ones(2, dtype=torch.float64)], lr=0.1)
    for gradient in (torch.tensor([5.0, -1.0], dtype=torch.float64), w.grad):
        start.grad = gradient
        reference.step()
        start *= 2 / start.sum()
    third = toy.step(balance, {"a": 1.0, "b": 6.0})
    assert (third["weight/a"], third["weight/b"]) == (approx(float(start[0])), approx(0.5 * float(start[1])))


@pytest.mark.parametrize(("alpha", "expected"), [(0.0, [0.5, 1.5]), (1.0, [1 / 4, 7 / 4])])
def test_gradnorm_settles_where_norms_are_in_step_with_progress(alpha: float, expected: list[float]) -> None:
    """Norms 3 and 1. alpha 0: equal norms. alpha 1: G_i / G_j = r_i / r_j = 3 / 7."""
    toy = Toy((3.0, 0.0), (0.0, 1.0))
    balance = toy.build("gradnorm", alpha=alpha, lr=0.003)
    toy.step(balance, {"a": 7.0, "b": 1.0})
    log = {}
    for _ in range(800):
        log = toy.step(balance, {"a": 3.0, "b": 1.0})
    assert [log["weight/a"], log["weight/b"]] == approx(expected, rel=0.03)


def test_gradnorm_leaves_a_task_without_labels_out(toy: Toy) -> None:
    balance = toy.build("gradnorm", alpha=1.0, lr=0.1)
    log = toy.step(balance, {"a": 2.0, "b": 0.0})
    assert "cosine/a/b" not in log
    assert log["b/grad_norm"] == 0
    assert toy.grad() == approx([1.0, 0.0])
    assert toy.step(balance, {"a": 2.0, "b": 3.0})["weight/b"] == 1.0  # alone, a is its own mean: nothing moved


def test_a_weight_of_gradnorm_stays_positive() -> None:
    toy = Toy((100.0, 0.0), (0.0, 0.01))
    balance = toy.build("gradnorm", alpha=0.0, lr=0.5)
    for _ in range(20):
        log = toy.step(balance, {"a": 1.0, "b": 1.0})
        assert min(log["weight/a"], log["weight/b"]) > 0.005
        assert log["weight/a"] + log["weight/b"] == approx(2.0)
