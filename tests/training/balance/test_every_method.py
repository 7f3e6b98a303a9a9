"""What holds for every balance method, ours and TorchJD's; a new one of ours is tested here by being in METHODS."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch

from mult.training.balance.balance import Balance
from mult.training.balance.choose import METHODS
from mult.training.balance.torchjd import find_aggregators
from tests.training.balance.toy import UNSCALED, Toy, list_aggregators

approx: Any = pytest.approx  # its own type says that it never equals a tuple
OPTIONS: dict[str, dict[str, Any]] = {"dwa": {"period": 2}, "gradnorm": {"lr": 0.1}}
NAMES = [*METHODS, *list_aggregators()]


def build(toy: Toy, method: str) -> Balance:
    """With all that it can log: weighted sums measure the cosines of every step."""
    return toy.build(method, categorical={"a"}, measure_every=1, **OPTIONS.get(method, {}))


def aggregators_with_memory() -> list[str]:
    return [method for method in list_aggregators() if hasattr(find_aggregators()[method], "reset")]


def play(toy: Toy, balance: Balance, steps: range, **options: Any) -> list[Any]:
    """Some steps of training on losses and gradients that change -> all that came of them."""
    learnt = list(balance.parameters())
    scale = options.get("scaler", UNSCALED).get_scale()
    seen = []
    for step in steps:
        torch.manual_seed(step)
        rng = np.random.default_rng(step)
        toy.rows = {task: torch.tensor(rng.normal(size=2), dtype=torch.float32) for task in toy.rows}
        a, b = rng.uniform(0.5, 2, 2).tolist()
        log = toy.step(balance, {"a": a, "b": 0.0 if step == 2 else b}, step=step, **options)
        seen.append((log, toy.grad(), toy.grad("a"), toy.grad("b"), [p.grad.tolist() for p in learnt if p.grad is not None]))
        with torch.no_grad():
            for parameter in learnt:
                assert parameter.grad is not None
                parameter.sub_(parameter.grad, alpha=0.1 / scale)
    return seen


@pytest.mark.parametrize("method", NAMES)
def test_a_saved_balance_goes_on_to_the_bit(method: str) -> None:
    toy = Toy()
    balance = build(toy, method)
    uninterrupted = play(toy, balance, range(4)), play(toy, balance, range(4, 7))
    toy = Toy()
    first = build(toy, method)
    assert play(toy, first, range(4)) == uninterrupted[0]
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    second = build(toy, method)
    second.load_state_dict(torch.load(saved, weights_only=True))
    assert play(toy, second, range(4, 7)) == uninterrupted[1]


@pytest.mark.parametrize("method", ["uncertainty", "dwa", "gradnorm", *aggregators_with_memory()])
def test_what_a_balance_remembers_matters(method: str) -> None:
    """So that the test above can fail: without its state it goes on in another way."""
    toy = Toy()
    balance = build(toy, method)
    play(toy, balance, range(4))
    assert play(toy, balance, range(4, 7)) != play(toy, build(toy, method), range(4, 7))


@pytest.mark.parametrize("method", NAMES)
def test_loss_scaling_changes_nothing(method: str) -> None:
    """A scale is a power of two; gradients come out times it, for the scaler to divide by."""
    toy = Toy()
    plain = play(toy, build(toy, method), range(3))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for (log, *gradients), (scaled_log, *scaled) in zip(
        plain, play(toy, build(toy, method), range(3), scaler=scaler), strict=True
    ):
        assert scaled_log == approx(log, rel=1e-6)
        for one, other in zip(gradients, scaled, strict=True):
            assert np.array(other) / 1024 == approx(np.array(one), rel=1e-6)


@pytest.mark.parametrize("method", ["gradnorm", *list_aggregators()])
def test_a_gradient_that_is_not_finite_comes_out_so_and_is_not_learnt_from(toy: Toy, method: str) -> None:
    balance = build(toy, method)
    toy.step(balance, {"a": 1.0, "b": 1.0})
    before = balance.state_dict()
    state = io.BytesIO()
    torch.save(before, state)
    toy.rows["b"] = torch.tensor([math.inf, 1.0])
    toy.step(balance, {"a": 1.0, "b": 1.0})
    assert not all(map(math.isfinite, toy.grad()))
    after = io.BytesIO()
    torch.save(balance.state_dict(), after)
    assert after.getvalue() == state.getvalue()
