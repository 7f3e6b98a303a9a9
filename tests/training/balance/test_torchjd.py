"""TorchJD's aggregators as balance methods: the answers of their papers, what they are given, and what is refused."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest
import torch

from mult.errors import UserError
from mult.training.balance.balance import Setup
from mult.training.balance.torchjd import TorchJDMethod, find_aggregators
from tests.training.balance.toy import ONES, OPTIONS, Toy, list_aggregators

torchjd = pytest.importorskip("torchjd.aggregation", reason="the extra `balance` is not installed")
approx: Any = pytest.approx  # its own type says that it never equals a tuple


def cagrad(rows: np.ndarray, c: float) -> np.ndarray:
    """The paper's dual by brute force: g0 + sqrt(phi) g_w / |g_w|, w of the simplex smallest in g_w.g0 + sqrt(phi) |g_w|."""
    mean = rows.mean(0)
    radius = c * np.linalg.norm(mean)
    steps = np.linspace(0, 1, 100001)[:, None]
    mixed = steps * rows[0] + (1 - steps) * rows[1]
    best = mixed[(mixed @ mean + radius * np.linalg.norm(mixed, axis=1)).argmin()]
    direction: np.ndarray = mean + radius * best / np.linalg.norm(best)
    return direction


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
    log = toy.step(toy.build(method), {"a": 4.0, "b": 7.0}, parts=2)
    assert toy.grad() == approx(direction.tolist(), abs=2e-3)
    assert (toy.grad("a"), toy.grad("b")) == (approx([2.0]), approx([3.0]))  # each task's own gradient
    assert log["cosine/a/b"] == approx(-(2**-0.5))
    assert (log["a/grad_norm"], log["b/grad_norm"]) == (approx(1.0), approx(2**0.5))
    if weights is not None:
        assert {task: log[f"weight/{task}"] for task in weights} == approx(weights, abs=2e-3)


def test_nash_mtl_solves_its_equation() -> None:
    """G w = 1 / w for the Gramian G, up to a common factor."""
    toy = Toy((2.0, 0.3), (-0.2, 0.5))
    log = toy.step(toy.build("NashMTL", max_norm=0), {"a": 1.0, "b": 1.0})
    rows, weights = np.array([[2.0, 0.3], [-0.2, 0.5]]), np.array([log["weight/a"], log["weight/b"]])
    first, second = weights * (rows @ rows.T @ weights)
    assert first == approx(second, rel=1e-3)
    assert toy.grad() == approx((weights @ rows).tolist(), rel=1e-5)


@pytest.mark.parametrize("method", list_aggregators())
def test_every_aggregator_gets_the_weighted_rows(method: str) -> None:
    toy = Toy((1.0, 2.0, -1.0), (0.5, -1.0, 3.0))
    balance = toy.build(method, {"a": 2.0, "b": 0.5})
    torch.manual_seed(3)
    log = toy.step(balance, {"a": 1.0, "b": 1.0}, parts=2)
    options = OPTIONS.get(method, {}) | ({"n_tasks": 2} if method == "NashMTL" else {})
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


@pytest.mark.parametrize("method", list_aggregators())
def test_a_task_without_labels_is_as_if_absent(toy: Toy, method: str) -> None:
    """The direction is along the other's gradient, and not 0 as CAGrad's and MGDA's would be at a row of zeros."""
    balance = toy.build(method)
    log = toy.step(balance, {"a": 3.0, "b": 0.0})
    assert toy.grad()[0] > 0
    assert toy.grad()[1] == 0
    assert "cosine/a/b" not in log
    assert all(map(math.isfinite, log.values()))
    toy.step(balance, {"a": 0.0, "b": 0.0})
    assert toy.grad() == [0.0, 0.0]


def test_a_preference_is_said_by_task(toy: Toy) -> None:
    balance = toy.build("UPGrad", pref_vector={"b": 1.0, "a": 0.0})
    toy.step(balance, {"a": 1.0, "b": 1.0})
    assert toy.grad() == approx([0.0, 1.0], abs=1e-3)  # b less its part against a, alone
    toy.step(balance, {"a": 0.0, "b": 1.0})
    assert toy.grad() == approx([-1.0, 1.0], abs=1e-3)


REMEMBERING = ["ExcessMTL", "GradVac", "NashMTL", "PCD"]


def test_the_aggregators_that_remember_are_these() -> None:
    assert [method for method, cls in find_aggregators().items() if hasattr(cls, "reset")] == REMEMBERING


# --- Bad input ---


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
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
    setup = Setup(ONES, (), lambda: toy.gradients, measure_every=0, steps_per_epoch=1)
    with pytest.raises(UserError, match=message):
        TorchJDMethod(setup, method, find_aggregators()[method], options)


def test_an_aggregator_with_a_memory_that_is_not_known_is_refused(toy: Toy) -> None:
    """As a later TorchJD may bring one."""

    class Later(torchjd.GradVac):  # type: ignore[name-defined]
        pass

    setup = Setup(ONES, (), lambda: toy.gradients, measure_every=0, steps_per_epoch=1)
    with pytest.raises(
        UserError, match=r"balance\.method: got 'Later', which has a memory that no checkpoint would hold; .*PCD"
    ):
        TorchJDMethod(setup, "Later", Later, {})
