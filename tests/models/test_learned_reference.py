"""`reference: learned`: the mix of the tasks' maps, what is learnt, what is saved, and the plain model that is left of it.

The whole decoder is held against a second implementation in test_decoder.py.
"""

from __future__ import annotations

import math
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from mult.errors import UserError
from mult.models import MulT
from mult.models.attention import Gate, QueryKey, find_leader
from mult.models.attention_maps import record_attention
from mult.models.stacked import split_parameters
from mult.models.windows import Layout, Windows
from mult.training.balance.gradients import SharedGradients, reached_parts

TASKS = {"segment_semantic": 5, "depth_zbuffer": 1, "normal": 3}
TINY: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}


def mult(**arguments: Any) -> MulT:
    torch.manual_seed(6)
    defaults: dict[str, Any] = {"tasks": TASKS, "reference": "learned", "window_size": 4, "backbone_args": TINY}
    return MulT(**defaults | arguments).eval()


def set_gates(model: MulT, *logits: tuple[float, ...]) -> None:
    """The logits of each stage, H/32 first, in the order of the tasks; the last ones for all stages that are left."""
    with torch.no_grad():
        for index, made in enumerate(model.decoder.query_keys().values()):
            made.gate.logits.copy_(torch.tensor(logits[min(index, len(logits) - 1)]))


def draw_images(batch: int = 2) -> Tensor:
    return torch.rand(batch, 3, 76, 100, generator=torch.Generator().manual_seed(8))


def test_a_map_is_the_mean_of_the_tasks_maps_by_their_shares_element_by_element() -> None:
    torch.manual_seed(1)
    tasks, dim, heads, size = ["a", "b", "c"], 6, 2, (3, 5)
    maker = QueryKey(tasks, dim, dim, heads, 3, norm=True, with_value=False, mixes=True).double()
    for parameter in maker.parameters():
        torch.nn.init.normal_(parameter)
    alone = QueryKey(tasks, dim, dim, heads, 3, norm=True, with_value=False).double()
    alone.load_state_dict({name: value for name, value in maker.state_dict().items() if "gate" not in name})
    layout = Layout.build(Windows.paper(size, 3, True), torch.device("cpu"))
    context = torch.randn(1, 2, *size, dim, dtype=torch.float64).expand(3, -1, -1, -1, -1)
    with torch.no_grad():
        mixed, _ = maker(context, layout, maker.norm)
        own, _ = alone(context, layout, alone.norm)
    weights = [math.exp(logit) for logit in maker.gate.logits.tolist()]  # type: ignore[union-attr]
    assert max(weights) > 2 * min(weights)
    assert own.shape[0] == 3
    assert mixed.shape == (1, *own.shape[1:])
    for window, head, query, key in product(*map(range, mixed.shape[1:])):
        expected = sum(w * float(own[t, window, head, query, key]) for t, w in enumerate(weights)) / sum(weights)
        assert float(mixed[0, window, head, query, key]) == pytest.approx(expected, abs=1e-13)


def test_the_tasks_start_with_equal_shares_and_every_parameter_with_a_gradient() -> None:
    model = mult()
    assert list(model.reference_shares()) == [32, 16, 8, 4]
    for shares in model.reference_shares().values():
        assert shares == pytest.approx(dict.fromkeys(TASKS, 1 / 3))
    torch.stack([output.square().mean() for output in model(draw_images()).values()]).sum().backward()
    for name, parameter in model.decoder.named_parameters():
        parts = parameter.grad if "query_key" in name else [parameter.grad]
        assert parts is not None
        assert all(part is not None and part.any() for part in parts), name


def test_a_share_grows_where_its_map_is_the_better_one() -> None:
    """Of maps that are given, the one that the loss wants is learnt to lead."""
    gate = Gate(["a", "b", "c"])
    maps = torch.rand(3, 4, 2, 9, 9, generator=torch.Generator().manual_seed(2)).softmax(-1)
    optimizer = torch.optim.Adam(gate.parameters(), lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        (1e3 * (gate(maps)[0] - maps[1]).square().sum()).backward()
        optimizer.step()
    shares = gate.shares().tolist()
    assert sum(shares) == pytest.approx(1)
    assert shares[1] > 0.95


def test_a_task_reaches_the_query_and_key_of_all_and_nothing_else_of_theirs() -> None:
    model = mult()
    set_gates(model, (0.5, -0.7, 0.1))
    reached = reached_parts(model(draw_images(1)), split_parameters(model))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    shared = {(names[id(part.parameter)], part.index) for part in SharedGradients(reached).shared}
    expected = {(name, index) for name in names.values() if "blocks.1.query_key." in name for index in range(len(TASKS))}
    assert {pair for pair in shared if not pair[0].startswith("encoder.")} == expected
    assert any(name.endswith("gate.logits") for name, _ in expected)


class MapSizes(TorchDispatchMode):
    """Counts the numbers of the maps of `tokens` x `tokens` that operations allocate; nothing else has a multiple of these."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens, self.numbers = tokens, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and result.numel() % self.tokens**2 == 0 and not function.is_view:
            self.numbers += result.numel()
        return result


def test_mixing_allocates_one_map_more_than_making_them() -> None:
    tasks, size = ["a", "b", "c", "d"], (14, 14)
    layout = Layout.build(Windows.paper(size, 7, False), torch.device("cpu"))
    context = torch.randn(1, 1, *size, 12).expand(4, -1, -1, -1, -1)
    numbers = []
    for mixes in (False, True):
        maker = QueryKey(tasks, 12, 12, 3, 7, norm=True, with_value=False, mixes=mixes)
        with torch.no_grad(), MapSizes(49) as sizes:
            maps, _ = maker(context, layout, maker.norm)
        numbers.append(sizes.numbers)
    assert numbers[0] >= 4 * maps.numel()
    assert numbers[1] == numbers[0] + maps.numel()


def test_maps_are_mixed_in_float32_under_autocast() -> None:
    gate = Gate(["a", "b"])
    maps = torch.rand(2, 3, 2, 5, 5).softmax(-1)
    results = []
    for enabled in (False, True):
        gate.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            mixed = gate(maps)
        (mixed * maps[1]).sum().backward()
        assert gate.logits.grad is not None
        results.append((mixed, gate.logits.grad.clone()))
    assert results[1][0].dtype == torch.float32
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


@pytest.mark.parametrize("arguments", [{}, {"skip": "add"}, {"decoder": "pyramid"}], ids=str)
def test_a_gate_that_is_all_one_task_s_prunes_to_the_same_outputs(arguments: dict[str, Any]) -> None:
    for place, task in enumerate(TASKS):
        model = mult(**arguments)
        model.classes = {"segment_semantic": ["a", "b", "c", "d", "e"]}
        logits = [-60.0] * 3
        logits[place] = 60.0
        set_gates(model, tuple(logits))
        pruned = model.prune_to_leader()
        assert pruned.arguments == model.arguments | {"reference": task}
        assert pruned.classes == model.classes
        assert list(pruned.state_dict()) == list(mult(reference=task, **arguments).state_dict())
        with torch.no_grad():
            outputs, expected = pruned(draw_images()), model(draw_images())
        for name, value in expected.items():
            assert (outputs[name] - value).abs().max() <= 1e-6 * value.abs().max(), name


def test_the_leader_has_the_largest_mean_share_and_not_the_largest_share_of_a_stage() -> None:
    assert find_leader([{"a": 0.9, "b": 0.1}, {"a": 0.1, "b": 0.9}]) == "a", "the first of equal ones"
    model = mult()
    set_gates(model, (3.0, 0.0, 0.0), (0.0, 0.0, 1.5))
    shares = model.reference_shares()
    assert max(shares[32], key=shares[32].__getitem__) == "segment_semantic"
    assert find_leader(list(shares.values())) == "normal"
    assert shares[16]["normal"] == pytest.approx(math.exp(1.5) / (2 + math.exp(1.5)))
    assert model.prune_to_leader().arguments["reference"] == "normal"
    with pytest.raises(UserError, match=r"prune_to_leader: got a model of reference normal; expected learned"):
        mult(reference="normal").prune_to_leader()
    assert mult(reference="normal").reference_shares() == {}


def test_saved_and_loaded_with_its_gates(tmp_path: Path) -> None:
    model = mult()
    set_gates(model, (0.3, -0.2, 0.9), (0.0, 1.0, 0.5))
    model.save_pretrained(tmp_path / "model")
    loaded = MulT.from_pretrained(tmp_path / "model")
    assert loaded.arguments["reference"] == "learned"
    assert loaded.reference_shares() == model.reference_shares()
    with torch.no_grad():
        first, second = model(draw_images()), loaded(draw_images())
    assert all(torch.equal(first[task], second[task]) for task in first)


def test_a_model_with_more_tasks_starts_from_the_gates_of_those_it_has() -> None:
    other = mult(tasks={"normal": 3, "depth_zbuffer": 1})
    set_gates(other, (0.4, -0.9))
    model = mult()
    assert list(model.start_from(other)) == ["segment_semantic"]
    for made in model.decoder.query_keys().values():
        assert made.gate.logits.tolist() == pytest.approx([0.0, -0.9, 0.4])
    plain = mult(reference="depth_zbuffer")
    plain.start_from(model)
    weights, expected = plain.state_dict(), model.state_dict()
    name = "decoder.stages.2.blocks.1.query_key.linear.weight"
    assert torch.equal(weights[name], expected[name][1:2])
    with pytest.raises(UserError, match=r"query_key\.gate\.logits: got nothing; expected"):
        mult().start_from(plain)


def test_gates_train_without_weight_decay() -> None:
    model = mult()
    gates = {name for name, _ in model.named_parameters() if "gate" in name}
    assert len(gates) == 4
    assert gates <= model.no_weight_decay()


def test_a_single_task_is_its_own_reference() -> None:
    alone, learned = mult(tasks={"normal": 3}, reference=None), mult(tasks={"normal": 3})
    assert learned.arguments == alone.arguments
    with torch.no_grad():
        assert torch.equal(alone(draw_images())["normal"], learned(draw_images())["normal"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"attention": "independent"},
            "model.reference: got learned with attention independent, .* attention shared",
        ),
        ({"attention": "self"}, "model.reference: got learned with attention self, .*; expected attention shared; take it"),
        ({"decoder": "released"}, "model.reference: got learned with decoder released, .*; expected a task there"),
        ({"decoder": "fpn"}, "model.reference: got 'learned' with decoder fpn, which has no attention"),
        ({"reference": "learnt"}, "model.reference: got 'learnt'; expected one of .*, or learned; did you mean 'learned'"),
        ({"tasks": {"learned": 1}}, "tasks: got one of the name 'learned', .*; expected another; rename it"),
    ],
)
def test_what_it_does_not_go_with_is_refused_by_name(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        mult(**arguments)


def test_one_map_a_stage_is_recorded_with_rows_of_sum_1() -> None:
    model = mult()
    set_gates(model, (0.5, -0.7, 0.1))
    with torch.no_grad(), record_attention(model.decoder) as maps:
        model(draw_images())
    assert [(one.owner, one.stride) for one in maps] == [("learned", stride) for stride in (32, 16, 8, 4)]
    for one in maps:
        torch.testing.assert_close(one.weights.sum(-1), torch.ones(one.weights.shape[:-1]), rtol=0, atol=1e-5)
