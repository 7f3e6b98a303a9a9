"""The section `balance` of a config -> a method, and what is refused."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from mult.errors import UserError
from mult.training.balance.choose import METHODS
from mult.training.balance.gradnorm import GradNorm
from mult.training.balance.uncertainty import Uncertainty
from mult.training.experiment import build_experiment
from tests.run_files import Configured


def test_a_config_names_its_balance(configured: Configured) -> None:
    uncertainty = build_experiment(configured("balance.method=uncertainty", "tasks={segment_semantic: 2, normal: 3}")).balance
    assert isinstance(uncertainty, Uncertainty)
    assert uncertainty.weights() == {"segment_semantic": 2.0, "normal": 1.5}  # a task of values counts half
    gradnorm = build_experiment(configured("balance.method=gradnorm", "balance.options={alpha: 0.25}")).balance
    assert isinstance(gradnorm, GradNorm)
    assert gradnorm.alpha == 0.25
    dwa: Any = build_experiment(configured("balance.method=dwa", "optim.accumulate=1", "data.batch_size=2")).balance
    assert (dwa.period, dwa.temperature) == (3, 2.0)  # six views


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["balance.method=gradnorm", "balance.options={temperature: 2}"],
            r"balance\.options of gradnorm: got unknown key 'temp",
        ),
        (["balance.options={lr: 1}"], r"balance\.options of fixed: got unknown key 'lr'; expected none; remove it"),
        (["balance.method=dwa", "balance.options={temperature: 0}"], r"balance\.options of dwa: temperature: got 0"),
        (
            ["balance.method=uncertainty", "balance.options={alpha: 1}"],
            r"balance\.options of uncertainty: .*'alpha'.* one of lr",
        ),
        (
            ["balance.method=gradnorm", "tasks={normal: 1}"],
            r"balance: got .*gradnorm.*, but no parameter that learns is reached",
        ),
        (
            ["balance.log_cosine_every=5", "tasks={normal: 1}"],
            r"balance: got .*, but no parameter that learns is reached by two",
        ),
        (
            ["balance.method=gradnorm", "optim.freeze_encoder=true", "model.attention=independent", "model.reference=null"],
            r"but no parameter that learns is reached by two tasks' losses; .*take balance\.method=fixed",
        ),
    ],
)
def test_a_balance_that_cannot_be_is_refused(configured: Configured, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_experiment(configured(*overrides))


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("pcgrads", r"balance\.method: got 'pcgrads'; expected one of fixed, .*PCGrad.*; did you mean 'PCGrad'\?"),
        ("nash-mtl", r"did you mean 'NashMTL'\?"),
        ("gradnrm", r"did you mean 'gradnorm'\?"),
        ("Sum", r"balance\.method: got 'Sum'; expected one of"),
        ("WeightedAggregator", r"balance\.method: got 'WeightedAggregator'; expected one of"),
    ],
)
def test_a_name_of_no_method_is_refused(configured: Configured, method: str, message: str) -> None:
    pytest.importorskip("torchjd", reason="the extra `balance` is not installed")
    with pytest.raises(UserError, match=message):
        build_experiment(configured(f"balance.method={method}"))


def test_without_torchjd_our_methods_and_the_extra_are_named(configured: Configured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchjd", None)
    message = rf'got \'PCGrad\'; expected one of {", ".join(METHODS)}, or an aggregator .*pip install "mult-dense\[balance\]"'
    with pytest.raises(UserError, match=message):
        build_experiment(configured("balance.method=PCGrad"))
    with pytest.raises(UserError, match=r"got 'gradnrom'; .*; did you mean 'gradnorm'\? or pip install"):
        build_experiment(configured("balance.method=gradnrom"))
