"""Every method of balancing against its equations, on two tasks whose gradients are known numbers."""

from __future__ import annotations

import contextlib
import io
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mult.errors import UserError
from mult.models import MulT
from mult.training.balance import (
    Aggregated,
    Balance,
    DynamicAverage,
    GradNorm,
    SharedGradients,
    Uncertainty,
    aggregators,
    reached_parameters,
)

OFF = torch.amp.GradScaler("cpu", enabled=False)
ONES = {"a": 1.0, "b": 1.0}
Values = Mapping[str, float]
approx: Any = pytest.approx  # its own type says that it never equals a tuple


class Toy:
    """The loss of a task is row . shared + slope * own + a given value, at shared = own = 0."""

    def __init__(self, a: Sequence[float] = (1.0, 0.0), b: Sequence[float] = (-1.0, 1.0)) -> None:
        self.rows = {"a": torch.tensor(a), "b": torch.tensor(b)}
        self.shared = nn.Parameter(torch.zeros(len(a)))
        self.own = {"a": nn.Parameter(torch.zeros(())), "b": nn.Parameter(torch.zeros(()))}
        self.slopes = {"a": 2.0, "b": 3.0}
        self.gradients = SharedGradients(reached_parameters(self.losses({"a": 0, "b": 0}), [self.shared, *self.own.values()]))

    def losses(self, values: Values, share: float = 1.0) -> dict[str, Tensor]:
        """A value of 0 is a task without labels: no gradient either. `share`: the part of the step's gradient."""
        return {
            task: share * (value != 0) * (row @ self.shared + self.slopes[task] * self.own[task]) + value
            for (task, value), row in zip(values.items(), self.rows.values(), strict=True)
        }

    def step(self, balance: Balance, values: Values, parts: int = 1, scaler: Any = OFF, step: int = 0) -> dict[str, float]:
        """One step as the loop takes it, in equal micro-batches -> what is logged."""
        for parameter in (self.shared, *self.own.values()):
            parameter.grad = None
        balance.begin(step)
        for _ in range(parts):
            balance.add(self.losses({task: value / parts for task, value in values.items()}, 1 / parts), scaler)
        return balance.finish(values, scaler)

    def grad(self, task: str | None = None) -> list[float]:
        """The gradient of what is shared, or of what a task owns."""
        gradient = self.shared.grad if task is None else self.own[task].grad
        assert gradient is not None
        return gradient.flatten().tolist()


@pytest.fixture
def toy() -> Toy:
    """The two gradients fight: their product is -1."""
    return Toy()


# --- Weights on the losses ---


def test_fixed_is_the_weighted_sum(toy: Toy) -> None:
    log = toy.step(Balance({"a": 3.0, "b": 0.5}), {"a": 4.0, "b": 7.0}, parts=2)
    assert toy.grad() == approx([3 * 1 - 0.5 * 1, 0.5 * 1])
    assert (toy.grad("a"), toy.grad("b")) == (approx([3 * 2.0]), approx([0.5 * 3.0]))
    assert log == {"weight/a": 3.0, "weight/b": 0.5}


@pytest.mark.parametrize("parts", [1, 2])
def test_uncertainty_descends_the_paper_s_loss(toy: Toy, parts: int) -> None:
    """Against torch's gradient of loss_a / sigma_a^2 + log sigma_a + loss_b / (2 sigma_b^2) + log sigma_b."""
    balance = Uncertainty({"a": 1.0, "b": 4.0}, halved={"b"})
    with torch.no_grad():
        balance.log_variances.copy_(torch.tensor([0.7, -0.4]))
    log = toy.step(balance, {"a": 5.0, "b": 3.0}, parts)
    got = toy.grad(), toy.grad("b"), balance.log_variances.grad

    sigma = torch.tensor([0.7, -0.4]).div(2).exp().requires_grad_()
    losses = toy.losses({"a": 5.0, "b": 3.0})
    toy.shared.grad = toy.own["b"].grad = None
    (losses["a"] / sigma[0] ** 2 + sigma[0].log() + 4 * losses["b"] / (2 * sigma[1] ** 2) + sigma[1].log()).backward()
    assert got[:2] == (approx(toy.grad()), approx(toy.grad("b")))
    assert sigma.grad is not None
    assert got[2] is not None
    assert got[2].tolist() == approx((sigma.grad * sigma.detach() / 2).tolist())  # d sigma / d s = sigma / 2
    assert log == {"weight/a": approx(math.exp(-0.7)), "weight/b": approx(2 * math.exp(0.4))}


def test_uncertainty_learns_nothing_of_a_task_without_labels(toy: Toy) -> None:
    balance = Uncertainty(ONES, halved=set())
    toy.step(balance, {"a": 5.0, "b": 0.0})
    assert balance.log_variances.grad is not None
    assert balance.log_variances.grad.tolist() == [0.5 - 5.0, 0.0]


def test_uncertainty_settles_where_the_weight_is_one_over_twice_the_loss(toy: Toy) -> None:
    balance = Uncertainty(ONES, halved={"b"})
    optimizer = torch.optim.SGD(balance.parameters(), lr=0.1)
    log = {}
    for _ in range(300):
        log = toy.step(balance, {"a": 0.25, "b": 4.0})
        optimizer.step()
    assert log == {"weight/a": approx(1 / (2 * 0.25), rel=1e-3), "weight/b": approx(1 / (2 * 4.0), rel=1e-3)}


def test_dwa_weighs_by_how_losses_fell(toy: Toy) -> None:
    balance = DynamicAverage({"a": 1.0, "b": 10.0}, temperature=2.0, period=2)
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
    balance = DynamicAverage(ONES, temperature=1.0, period=1)
    for a, b in [(2, 3), (1, 0)]:
        toy.step(balance, {"a": a, "b": b})
    e = [math.exp(0.5), math.exp(1.0)]
    assert toy.step(balance, {"a": 1, "b": 1})["weight/b"] == approx(2 * e[1] / sum(e))


# --- GradNorm ---


def test_gradnorm_descends_the_paper_s_loss() -> None:
    """The first step of Adam goes `rate` against the sign of the gradient that torch finds of sum_i |G_i - G r_i^alpha|."""
    toy = Toy((3.0, 4.0), (0.0, 2.0))
    balance = GradNorm({"a": 1.0, "b": 0.5}, toy.gradients, alpha=1.5, rate=0.1)
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
    balance = GradNorm(ONES, toy.gradients, alpha, rate=0.003)
    toy.step(balance, {"a": 7.0, "b": 1.0})
    log = {}
    for _ in range(800):
        log = toy.step(balance, {"a": 3.0, "b": 1.0})
    assert [log["weight/a"], log["weight/b"]] == approx(expected, rel=0.03)


def test_gradnorm_leaves_a_task_without_labels_out(toy: Toy) -> None:
    balance = GradNorm(ONES, toy.gradients, alpha=1.0, rate=0.1)
    log = toy.step(balance, {"a": 2.0, "b": 0.0})
    assert "cosine/a/b" not in log
    assert log["b/grad_norm"] == 0
    assert toy.grad() == approx([1.0, 0.0])
    assert toy.step(balance, {"a": 2.0, "b": 3.0})["weight/b"] == 1.0  # alone, a is its own mean: nothing moved


def test_a_weight_of_gradnorm_stays_positive() -> None:
    toy = Toy((100.0, 0.0), (0.0, 0.01))
    balance = GradNorm(ONES, toy.gradients, alpha=0.0, rate=0.5)
    for _ in range(20):
        log = toy.step(balance, {"a": 1.0, "b": 1.0})
        assert min(log["weight/a"], log["weight/b"]) > 0.005
        assert log["weight/a"] + log["weight/b"] == approx(2.0)


# --- Aggregators of TorchJD ---

torchjd = pytest.importorskip("torchjd.aggregation", reason="the extra `balance` is not installed")

REQUIRED: dict[str, dict[str, Any]] = {
    "CAGrad": {"c": 0.4},
    "FairGrad": {"alpha": 1.0},
    "Krum": {"n_byzantine": 0},
    "NashMTL": {"update_weights_every": 3},
    "TrimmedMean": {"trim_number": 0},
}
"""The options without which an aggregator cannot be made, or whose memory is hardly felt."""
ALL = sorted(set(aggregators()) - {"Krum"})  # Krum votes, which takes three


def aggregated(toy: Toy, method: str, weights: Values = ONES, **options: Any) -> Aggregated:
    return Aggregated(weights, toy.gradients, method, REQUIRED.get(method, {}) | options)


def cagrad(rows: np.ndarray, c: float) -> np.ndarray:
    """The paper's dual by brute force: g0 + sqrt(phi) g_w / |g_w|, w of the simplex smallest in g_w.g0 + sqrt(phi) |g_w|."""
    mean = rows.mean(0)
    radius = c * np.linalg.norm(mean)
    steps = np.linspace(0, 1, 100001)[:, None]
    mixed = steps * rows[0] + (1 - steps) * rows[1]
    best = mixed[(mixed @ mean + radius * np.linalg.norm(mixed, axis=1)).argmin()]
    found: np.ndarray = mean + radius * best / np.linalg.norm(best)
    return found


A, B = np.array([1.0, 0.0]), np.array([-1.0, 1.0])
KNOWN: dict[str, tuple[np.ndarray, dict[str, float] | None]] = {
    # Each gradient less its part against the other: a + b / 2 and b + a.
    "PCGrad": (np.array([0.5, 1.5]), {"a": 2.0, "b": 1.5}),
    "UPGrad": (np.array([0.25, 0.75]), {"a": 1.0, "b": 0.75}),
    # The point of the segment between them that is nearest to 0.
    "MGDA": (np.array([0.2, 0.4]), {"a": 0.6, "b": 0.4}),
    # Equal products with both directions, weights of sum 1.
    "IMTLG": ((2**0.5 * A + B) / (1 + 2**0.5), {"a": 2**0.5 / (1 + 2**0.5), "b": 1 / (1 + 2**0.5)}),
    "CAGrad": (cagrad(np.stack([A, B]), 0.4), None),
    # The mean (0, 1/2) gains on neither: it is in the dual cone already.
    "DualProj": (np.array([0.0, 0.5]), {"a": 0.5, "b": 0.5}),
}
"""Method -> its direction for the toy's gradients, and the weights of their sum."""


@pytest.mark.parametrize("method", KNOWN)
def test_an_aggregator_gives_the_answer_of_its_paper(toy: Toy, method: str) -> None:
    direction, weights = KNOWN[method]
    log = toy.step(aggregated(toy, method), {"a": 4.0, "b": 7.0}, parts=2)
    assert toy.grad() == approx(direction.tolist(), abs=2e-3)
    assert (toy.grad("a"), toy.grad("b")) == (approx([2.0]), approx([3.0]))  # each task's own gradient
    assert log["cosine/a/b"] == approx(-(2**-0.5))
    assert (log["a/grad_norm"], log["b/grad_norm"]) == (approx(1.0), approx(2**0.5))
    if weights is not None:
        assert {task: log[f"weight/{task}"] for task in weights} == approx(weights, abs=2e-3)


def test_nash_mtl_solves_its_equation() -> None:
    """G w = 1 / w for the Gramian G, up to a common factor."""
    toy = Toy((2.0, 0.3), (-0.2, 0.5))
    log = toy.step(aggregated(toy, "NashMTL", max_norm=0), {"a": 1.0, "b": 1.0})
    rows, weights = np.array([[2.0, 0.3], [-0.2, 0.5]]), np.array([log["weight/a"], log["weight/b"]])
    first, second = weights * (rows @ rows.T @ weights)
    assert first == approx(second, rel=1e-3)
    assert toy.grad() == approx((weights @ rows).tolist(), rel=1e-5)


@pytest.mark.parametrize("method", ALL)
def test_every_aggregator_gets_the_weighted_rows(method: str) -> None:
    toy = Toy((1.0, 2.0, -1.0), (0.5, -1.0, 3.0))
    balance = aggregated(toy, method, {"a": 2.0, "b": 0.5})
    torch.manual_seed(3)
    log = toy.step(balance, {"a": 1.0, "b": 1.0}, parts=2)
    options = REQUIRED.get(method, {}) | ({"n_tasks": 2} if method == "NashMTL" else {})
    matrix = torch.tensor([[2.0, 4.0, -2.0], [0.25, -0.5, 1.5]])
    torch.manual_seed(3)
    with pytest.warns(UserWarning, match="not DPP") if method == "NashMTL" else contextlib.nullcontext():
        expected = getattr(torchjd, method)(**options)(matrix)
    assert toy.grad() == approx(expected.tolist(), rel=1e-5, abs=1e-6)
    assert (toy.grad("a"), toy.grad("b")) == (approx([2 * 2.0]), approx([0.5 * 3.0]))
    weighted = [name for name in ("weight/a", "weight/b") if name in log]
    if method in {"ConFIG", "GradDrop", "TrimmedMean"}:  # no sum of rows, or no weights of them
        assert weighted == []
    else:
        rows = {"weight/a": torch.tensor([1.0, 2.0, -1.0]), "weight/b": torch.tensor([0.5, -1.0, 3.0])}
        assert toy.grad() == approx(sum(log[name] * rows[name] for name in rows).tolist(), rel=1e-4)  # type: ignore[union-attr]


@pytest.mark.parametrize("method", ALL)
def test_a_task_without_labels_is_as_if_absent(toy: Toy, method: str) -> None:
    """The direction is along the other's gradient, and not 0 as CAGrad's and MGDA's would be at a row of zeros."""
    balance = aggregated(toy, method)
    log = toy.step(balance, {"a": 3.0, "b": 0.0})
    assert toy.grad()[0] > 0
    assert toy.grad()[1] == 0
    assert "cosine/a/b" not in log
    assert all(map(math.isfinite, log.values()))
    toy.step(balance, {"a": 0.0, "b": 0.0})
    assert toy.grad() == [0.0, 0.0]


def test_a_preference_is_said_by_task(toy: Toy) -> None:
    balance = aggregated(toy, "UPGrad", pref_vector={"b": 1.0, "a": 0.0})
    toy.step(balance, {"a": 1.0, "b": 1.0})
    assert toy.grad() == approx([0.0, 1.0], abs=1e-3)  # b less its part against a, alone
    toy.step(balance, {"a": 0.0, "b": 1.0})
    assert toy.grad() == approx([-1.0, 1.0], abs=1e-3)


REMEMBERING = ["ExcessMTL", "GradVac", "NashMTL", "PCD"]


def test_the_aggregators_that_remember_are_these() -> None:
    assert [method for method in aggregators() if hasattr(aggregators()[method], "reset")] == REMEMBERING


# --- What holds for all ---

OURS: dict[str, Callable[[Toy], Balance]] = {
    "fixed": lambda toy: Balance(ONES, toy.gradients, every=1),
    "uncertainty": lambda toy: Uncertainty(ONES, {"b"}, toy.gradients, every=1),
    "dwa": lambda toy: DynamicAverage(ONES, 2.0, 2, toy.gradients, every=1),
    "gradnorm": lambda toy: GradNorm(ONES, toy.gradients, 1.5, 0.1),
}
METHODS = [*OURS, *ALL]


def made(toy: Toy, method: str) -> Balance:
    return OURS[method](toy) if method in OURS else aggregated(toy, method)


def play(toy: Toy, balance: Balance, steps: range, **options: Any) -> list[Any]:
    """Some steps of training on losses and gradients that change -> all that came of them."""
    learnt = list(balance.parameters())
    scale = options.get("scaler", OFF).get_scale()
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


@pytest.mark.parametrize("method", METHODS)
def test_a_saved_balance_goes_on_to_the_bit(method: str) -> None:
    toy = Toy()
    balance = made(toy, method)
    whole = play(toy, balance, range(4)), play(toy, balance, range(4, 7))
    toy = Toy()
    first = made(toy, method)
    assert play(toy, first, range(4)) == whole[0]
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    second = made(toy, method)
    second.load_state_dict(torch.load(saved, weights_only=True))
    assert play(toy, second, range(4, 7)) == whole[1]


@pytest.mark.parametrize("method", ["uncertainty", "dwa", "gradnorm", *REMEMBERING])
def test_what_a_balance_remembers_matters(method: str) -> None:
    """So that the test above can fail: without its state it goes on in another way."""
    toy = Toy()
    balance = made(toy, method)
    play(toy, balance, range(4))
    assert play(toy, balance, range(4, 7)) != play(toy, made(toy, method), range(4, 7))


@pytest.mark.parametrize("method", METHODS)
def test_loss_scaling_changes_nothing(method: str) -> None:
    """A scale is a power of two; gradients come out times it, for the scaler to divide by."""
    toy = Toy()
    plain = play(toy, made(toy, method), range(3))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for (log, *gradients), (scaled_log, *scaled) in zip(
        plain, play(toy, made(toy, method), range(3), scaler=scaler), strict=True
    ):
        assert scaled_log == approx(log, rel=1e-6)
        for one, other in zip(gradients, scaled, strict=True):
            assert np.array(other) / 1024 == approx(np.array(one), rel=1e-6)


@pytest.mark.parametrize("method", ["gradnorm", *ALL])
def test_a_gradient_that_is_not_finite_comes_out_so_and_is_not_learnt_from(toy: Toy, method: str) -> None:
    balance = made(toy, method)
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


def test_cosines_of_a_weighted_sum_are_measured_every_so_often(toy: Toy) -> None:
    balance = Balance({"a": 5.0, "b": 1.0}, toy.gradients, every=3)
    logs = [toy.step(balance, {"a": 1.0, "b": 1.0}, parts=2, step=step) for step in range(5)]
    assert [step for step, log in enumerate(logs) if "cosine/a/b" in log] == [0, 3]
    for log in (logs[0], logs[3]):
        assert log["cosine/a/b"] == approx(-(2**-0.5))
        assert (log["a/grad_norm"], log["b/grad_norm"]) == (approx(1.0), approx(2**0.5))  # of the bare losses
    assert toy.grad() == approx([5.0 - 1.0, 1.0])


# --- What is shared ---


@pytest.mark.parametrize("scales_start_at_zero", [False, True])
@pytest.mark.parametrize(
    ("attention", "decoder"),
    [("shared", "paper"), ("independent", "paper"), ("self", "paper"), ("shared", "released"), ("independent", "released")],
)
def test_shared_is_what_two_losses_move(attention: Any, decoder: Any, scales_start_at_zero: bool) -> None:
    """Against one backward pass a task: a parameter is reached if its gradient is not 0."""
    torch.manual_seed(0)
    args = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
    reference = "b" if attention == "shared" else None
    model = MulT({"a": 3, "b": 1, "c": 2}, reference, attention=attention, decoder=decoder, window_size=4, backbone_args=args)
    scales = [p for name, p in model.named_parameters() if name.endswith("norm2.weight")]
    if scales_start_at_zero:
        for scale in scales:
            nn.init.zeros_(scale)
    reached = reached_parameters(model(torch.zeros(1, 3, 48, 40)), model.parameters())
    for scale in scales:
        nn.init.ones_(scale)
    moved: dict[str, set[int]] = {}
    for task, output in model(torch.rand(2, 3, 48, 40)).items():
        found = torch.autograd.grad(output.square().mean(), list(model.parameters()), allow_unused=True, retain_graph=True)
        moved[task] = {id(p) for p, g in zip(model.parameters(), found, strict=True) if g is not None and bool(g.any())}
    assert {task: {id(parameter) for parameter in parameters} for task, parameters in reached.items()} == moved
    gradients = SharedGradients(reached)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    shared = {names[id(parameter)] for parameter in gradients.shared}
    assert shared == {names[key] for key in names if sum(key in each for each in moved.values()) > 1}
    assert {name for name in names.values() if name.startswith("encoder.")} <= shared
    beyond = {name for name in shared if not name.startswith("encoder.")}
    if decoder == "paper":
        assert all(".b.query_key." in name for name in beyond)
        assert bool(beyond) == (attention == "shared")
    else:
        assert any("context_norm" in name for name in beyond)
        assert any(".b.mlp." in name for name in beyond) == (attention == "shared")


# --- Bad input ---


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("pcgrads", {}, r"balance\.method: got 'pcgrads'; expected one of .*PCGrad.*; did you mean 'PCGrad'\?"),
        ("nash-mtl", {}, r"did you mean 'NashMTL'\?"),
        ("Sum", {}, r"balance\.method: got 'Sum'; expected one of"),
        ("WeightedAggregator", {}, r"balance\.method: got 'WeightedAggregator'; expected one of"),
        ("PCGrad", {"c": 0.4}, r"balance\.options: got 'c' for PCGrad; expected none"),
        ("CAGrad", {"temperature": 2}, r"balance\.options: got 'temperature' for CAGrad; expected one of c, norm_eps"),
        ("CAGrad", {}, r"balance\.options: got {} for CAGrad and 2 tasks; expected what TorchJD takes: .*'c'.*; change the"),
        ("CAGrad", {"c": -1}, r"got {'c': -1} for CAGrad .*: c must be non-negative"),
        ("CAGrad", {"c": "big"}, r"got {'c': 'big'} for CAGrad"),
        ("NashMTL", {"n_tasks": 3}, r"got 'n_tasks' for NashMTL; expected one of max_norm, update_weights_every, optim_niter"),
        ("GradDrop", {"f": "x"}, r"got 'f' for GradDrop; expected one of leak"),
        (
            "UPGrad",
            {"pref_vector": [1, 2]},
            r"got 'pref_vector' for UPGrad with \[1, 2\]; expected a mapping with a number for",
        ),
        ("UPGrad", {"pref_vector": {"a": 1}}, r"expected a mapping with a number for each of a, b"),
        ("TrimmedMean", {"trim_number": 1}, r"got {'trim_number': 1} for TrimmedMean and 2 tasks; .*at least 3 rows"),
        ("Krum", {"n_byzantine": 0}, r"for Krum and 2 tasks; .*at least 3 rows"),
    ],
)
def test_what_means_nothing_to_torchjd_is_refused(toy: Toy, method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Aggregated(ONES, toy.gradients, method, options)


def test_an_aggregator_with_a_memory_that_is_not_known_is_refused(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a later TorchJD may bring one."""

    class Later(torchjd.GradVac):  # type: ignore[name-defined]
        pass

    monkeypatch.setattr(torchjd, "Later", Later, raising=False)
    monkeypatch.setattr(torchjd, "__all__", [*torchjd.__all__, "Later"])
    with pytest.raises(
        ValueError, match=r"balance\.method: got 'Later', which has a memory that no checkpoint would hold; .*PCD"
    ):
        aggregated(toy, "Later")


def test_without_torchjd_the_extra_is_named(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd", None)
    with pytest.raises(UserError, match=r'got the name of none of ours .*; expected .*; pip install -e "\.\[balance\]"'):
        aggregated(toy, "PCGrad")
