"""The methods that weigh the losses, against their papers' equations."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mult.training.balance.uncertainty import Uncertainty
from tests.training.balance.toy import Toy

approx: Any = pytest.approx  # its own type says that it never equals a tuple


# --- fixed ---


def test_fixed_is_the_weighted_sum(toy: Toy) -> None:
    log = toy.step(toy.build("fixed", {"a": 3.0, "b": 0.5}), {"a": 4.0, "b": 7.0}, parts=2)
    assert toy.grad() == approx([3 * 1 - 0.5 * 1, 0.5 * 1])
    assert (toy.grad("a"), toy.grad("b")) == (approx([3 * 2.0]), approx([0.5 * 3.0]))
    assert log == {"weight/a": 3.0, "weight/b": 0.5}


def test_cosines_of_a_weighted_sum_are_measured_every_so_often(toy: Toy) -> None:
    balance = toy.build("fixed", {"a": 5.0, "b": 1.0}, measure_every=3)
    logs = [toy.step(balance, {"a": 1.0, "b": 1.0}, parts=2, step=step) for step in range(5)]
    assert [step for step, log in enumerate(logs) if "cosine/a/b" in log] == [0, 3]
    for log in (logs[0], logs[3]):
        assert log["cosine/a/b"] == approx(-(2**-0.5))
        assert (log["a/grad_norm"], log["b/grad_norm"]) == (approx(1.0), approx(2**0.5))  # of the losses without weights
    assert toy.grad() == approx([5.0 - 1.0, 1.0])


# --- uncertainty ---


def build_uncertainty(toy: Toy, **arguments: Any) -> Uncertainty:
    balance = toy.build("uncertainty", **arguments)
    assert isinstance(balance, Uncertainty)
    return balance


@pytest.mark.parametrize("parts", [1, 2])
def test_uncertainty_descends_the_paper_s_loss(toy: Toy, parts: int) -> None:
    """Against torch's gradient of loss_a / sigma_a^2 + log sigma_a + loss_b / (2 sigma_b^2) + log sigma_b."""
    balance = build_uncertainty(toy, weights={"a": 1.0, "b": 4.0}, categorical={"a"})
    with torch.no_grad():
        balance.log_variances.copy_(torch.tensor([0.7, -0.4]))
    log = toy.step(balance, {"a": 5.0, "b": 3.0}, parts)
    got = toy.grad(), toy.grad("b"), balance.log_variances.grad

    sigma = torch.tensor([0.7, -0.4]).div(2).exp().requires_grad_()
    losses = toy.losses({"a": 5.0, "b": 3.0})
    toy.shared.grad = toy.own.grad = None
    (losses["a"] / sigma[0] ** 2 + sigma[0].log() + 4 * losses["b"] / (2 * sigma[1] ** 2) + sigma[1].log()).backward()
    assert got[:2] == (approx(toy.grad()), approx(toy.grad("b")))
    assert sigma.grad is not None
    assert got[2] is not None
    assert got[2].tolist() == approx((sigma.grad * sigma.detach() / 2).tolist())  # d sigma / d s = sigma / 2
    assert log == {"weight/a": approx(math.exp(-0.7)), "weight/b": approx(2 * math.exp(0.4))}


def test_uncertainty_learns_nothing_of_a_task_without_labels(toy: Toy) -> None:
    balance = build_uncertainty(toy, categorical={"a", "b"})
    toy.step(balance, {"a": 5.0, "b": 0.0})
    assert balance.log_variances.grad is not None
    assert balance.log_variances.grad.tolist() == [0.5 - 5.0, 0.0]


def test_uncertainty_settles_where_the_weight_is_one_over_twice_the_loss(toy: Toy) -> None:
    balance = build_uncertainty(toy, categorical={"a"})
    optimizer = torch.optim.SGD(balance.parameters(), lr=0.1)
    log = {}
    for _ in range(300):
        log = toy.step(balance, {"a": 0.25, "b": 4.0})
        optimizer.step()
    assert log == {"weight/a": approx(1 / (2 * 0.25), rel=1e-3), "weight/b": approx(1 / (2 * 4.0), rel=1e-3)}


# --- dwa ---


def test_dwa_weighs_by_how_losses_fell(toy: Toy) -> None:
    balance = toy.build("dwa", {"a": 1.0, "b": 10.0}, temperature=2.0, period=2)
    logs = [toy.step(balance, {"a": a, "b": b}) for a, b in [(5, 3), (3, 3), (1, 4), (1, 0), (9, 9), (9, 9), (1, 1)]]
    for log in logs[:4]:
        assert log == {"weight/a": 1.0, "weight/b": 10.0}
    # Means: a 4 then 1; b 3 then 4 (the step without labels does not count).
    e = [math.exp(1 / 4 / 2), math.exp(4 / 3 / 2)]
    for log in logs[4:6]:
        assert log == {"weight/a": approx(2 * e[0] / sum(e)), "weight/b": approx(20 * e[1] / sum(e))}
    assert toy.grad() == approx([logs[6]["weight/a"] - logs[6]["weight/b"], logs[6]["weight/b"]])
    e = [math.exp(9 / 1 / 2), math.exp(9 / 4 / 2)]
    assert logs[6]["weight/a"] == approx(2 * e[0] / sum(e))


def test_dwa_treats_a_task_without_labels_for_a_period_as_steady(toy: Toy) -> None:
    balance = toy.build("dwa", temperature=1.0)  # the toy's epoch has one step
    for a, b in [(2, 3), (1, 0)]:
        toy.step(balance, {"a": a, "b": b})
    e = [math.exp(0.5), math.exp(1.0)]
    assert toy.step(balance, {"a": 1, "b": 1})["weight/b"] == approx(2 * e[1] / sum(e))
