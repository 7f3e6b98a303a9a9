"""Window attention against an explicit loop, PyTorch's own attention and timm's Swin block, in float64.

The loop is written from the paper's equations: per window, per head, per query; q^r, k^r and B^r of the map's owner, every
task's own values.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mult.models.attention import PositionBias, Source, WindowBlock
from mult.models.windows import Layout, Windows

DIM, HEADS = 12, 3
SHARED = {"a": "b", "b": "b", "c": "b"}
OWN = {"a": "a", "b": "b", "c": "c"}
LAYOUTS = {"paper": Windows.paper, "released": Windows.released}


def randomise(module: nn.Module) -> None:
    """Weights that are far from their initial values, biases and position tables without any symmetry."""
    for name, parameter in module.named_parameters():
        scale = parameter.shape[-1] ** -0.5 if parameter.ndim > 1 and "table" not in name else 0.5
        nn.init.normal_(parameter, mean=1.0 if "norm" in name and name.endswith("weight") else 0.0, std=scale)


def block_of(owners: Mapping[str, str], source: Source, window: int = 7, context_norm: bool = True) -> Any:
    torch.manual_seed(3)
    owns = [task for task in owners if task in owners.values()]
    block = WindowBlock(list(owners), owns, source, DIM, HEADS, window, context_norm, drop_path=0.0)
    randomise(block)
    return block.double().eval()


def run(
    block: Any, streams: Mapping[str, Tensor], context: Tensor, layout: str, shifted: bool, window: int = 7
) -> dict[str, Tensor]:
    windows = LAYOUTS[layout]((context.shape[1], context.shape[2]), window, shifted)
    updated = block(torch.stack(list(streams.values())), context, Layout.build(windows, torch.device("cpu")))
    return dict(zip(streams, updated, strict=True))


def layer(module: Any, task: str) -> Any:
    """What one task has of a stacked layer, as a layer of its own."""
    place = module.tasks.index(task)
    return SimpleNamespace(**{name: p[place] for name, p in module.named_parameters(recurse=False)})


def maps(tasks: Sequence[str], size: tuple[int, int], batch: int = 2) -> tuple[dict[str, Tensor], Tensor]:
    torch.manual_seed(5)
    return (
        {task: torch.randn(batch, *size, DIM, dtype=torch.float64) for task in tasks},
        torch.randn(batch, *size, DIM, dtype=torch.float64),
    )


def norm(x: Tensor, module: Any) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * module.weight + module.bias


def attend(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, size: tuple[int, int], window: int, layout: str, shift: int
) -> Tensor:
    """q, k, v (H, W, C) of one image, padded to whole windows -> (H, W, C): softmax(q k / sqrt(d) + B) v, token by token."""
    height, width = q.shape[:2]
    depth = DIM // HEADS
    shifts = [shift if layout == "released" or s > window else 0 for s in size]
    out = torch.full_like(q, math.nan)
    for row, column, head in product(range(height), range(width), range(HEADS)):
        part = slice(head * depth, (head + 1) * depth)
        # The rolled map is cut; row y stands at (y - shift) mod height, and what was rolled round is foreign to the rest.
        top, left = (row - shifts[0]) % height // window, (column - shifts[1]) % width // window
        scores, values = [], []
        for i, j in product(range(window), range(window)):
            key = (top * window + i + shifts[0]) % height, (left * window + j + shifts[1]) % width
            if layout == "paper" and (key[0] >= size[0] or key[1] >= size[1]):
                continue
            foreign = (key[0] < shifts[0]) != (row < shifts[0]) or (key[1] < shifts[1]) != (column < shifts[1])
            if foreign and layout == "paper":
                continue
            y = (row - shifts[0]) % height - (top * window + i) + window - 1
            x = (column - shifts[1]) % width - (left * window + j) + window - 1
            score = sum(q[row, column, part] * k[key][part]) / math.sqrt(depth) + table[y * (2 * window - 1) + x, head]
            scores.append(score - (100.0 if foreign else 0.0))
            values.append(v[key][part])
        if scores:
            out[row, column, part] = torch.stack(scores).softmax(0) @ torch.stack(values)
    return out


def by_loops(
    block: Any, owners: Mapping[str, str], source: Source, layout: str, shifted: bool, window: int,
    streams: Mapping[str, Tensor], context: Tensor, context_norm: bool = True,
) -> dict[str, Tensor]:  # fmt: skip
    size = (context.shape[1], context.shape[2])
    lack = [-s % window for s in size]
    result = {}
    for task, owner in owners.items():
        maker = block.query_key
        linear = layer(maker.linear, owner)
        normed = {name: norm(streams[name], layer(block.norm1, name)) for name in (task, owner)}
        made_from = normed[owner]
        if source == "context":
            made_from = norm(context, layer(maker.norm, owner)) if context_norm else context
        made_from, stream = (F.pad(x, (0, 0, 0, lack[1], 0, lack[0])) for x in (made_from, normed[task]))
        made = made_from @ linear.weight.T + linear.bias
        query, key = made[..., :DIM], made[..., DIM : 2 * DIM]
        if block.value is None:
            value = made[..., 2 * DIM :]
        else:
            assert made.shape[-1] == 2 * DIM
            value = stream @ layer(block.value, task).weight.T + layer(block.value, task).bias
        table = layer(maker.position_bias, owner).table
        attended = torch.stack(
            [
                attend(*qkv, table, size, window, layout, window // 2 if shifted else 0)
                for qkv in zip(query, key, value, strict=True)
            ]
        )[:, : size[0], : size[1]]
        proj, fc1, fc2 = (layer(stack, task) for stack in (block.proj, block.mlp.fc1, block.mlp.fc2))
        x = streams[task] + attended @ proj.weight.T + proj.bias
        hidden = norm(x, layer(block.norm2, task)) @ fc1.weight.T + fc1.bias
        hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        result[task] = x + hidden @ fc2.weight.T + fc2.bias
    return result


def close(actual: Mapping[str, Tensor], expected: Mapping[str, Tensor], tolerance: float = 1e-10) -> None:
    assert list(actual) == list(expected)
    for task, value in expected.items():
        assert value.isfinite().all()
        assert (actual[task] - value).abs().max() <= tolerance * value.abs().max(), task


@pytest.mark.parametrize("size", [(6, 6), (4, 5), (2, 4), (1, 1)])
@pytest.mark.parametrize("shifted", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("source", ["context", "stream"])
@pytest.mark.parametrize("owners", [SHARED, OWN], ids=["shared", "own"])
def test_equals_the_equations_token_by_token(
    owners: dict[str, str], source: Source, layout: str, shifted: bool, size: tuple[int, int]
) -> None:
    inside = layout == "paper"  # where the context is normed: in the block, or before it
    block = block_of(owners, source, window=3, context_norm=inside)
    streams, context = maps(list(owners), size, batch=1)
    with torch.no_grad():
        expected = by_loops(block, owners, source, layout, shifted, 3, streams, context, context_norm=inside)
        close(run(block, streams, context, layout, shifted, window=3), expected)


@pytest.mark.parametrize("size", [(4, 5), (2, 2)])  # more tokens than channels, and fewer: two ways of the norm's scale
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("source", ["context", "stream"])
@pytest.mark.parametrize("owners", [SHARED, OWN], ids=["shared", "own"])
def test_gradients_are_those_of_the_equations(
    owners: dict[str, str], source: Source, layout: str, size: tuple[int, int]
) -> None:
    inside = layout == "paper"
    block = block_of(owners, source, window=3, context_norm=inside)
    streams, context = maps(list(owners), size, batch=1)
    leaves = {**streams, **({"context": context} if source == "context" else {})}
    leaves = {name: value.requires_grad_() for name, value in leaves.items()} | dict(block.named_parameters())
    weights = torch.randn(len(owners), 1, *size, DIM, dtype=torch.float64)

    def gradients(updated: Mapping[str, Tensor]) -> dict[str, Tensor]:
        loss = (torch.stack(list(updated.values())) * weights).sum()
        return dict(zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True))

    expected = gradients(by_loops(block, owners, source, layout, True, 3, streams, context, context_norm=inside))
    close(gradients(run(block, streams, context, layout, True, window=3)), expected)


def test_context_is_not_normed_again_where_the_wiring_norms_it() -> None:
    streams, context = maps(list(SHARED), (5, 4))
    with torch.no_grad():
        for norms, differs in ((False, True), (True, False)):
            block = block_of(SHARED, "context", window=3, context_norm=norms)
            once, scaled = (run(block, streams, context * scale, "released", False, window=3)["a"] for scale in (1, 7))
            difference = (once - scaled).abs().max()
            assert difference > 0.1 if differs else difference < 1e-4


def test_equals_scaled_dot_product_attention() -> None:
    """One window, position bias as the additive mask: query, key from the context, three tasks' values."""
    size = (4, 7)
    block = block_of(SHARED, "context")
    streams, context = maps(list(SHARED), size)
    maker = block.query_key
    places = list(product(range(4), range(7)))
    index = [[(yi - yj + 6) * 13 + xi - xj + 6 for yj, xj in places] for yi, xi in places]
    with torch.no_grad():
        query, key = maker.linear(maker.norm(context[None]))[0].flatten(1, 2).chunk(2, dim=-1)
        bias = maker.position_bias.table[0, torch.tensor(index)].permute(2, 0, 1)
        updated = run(block, streams, context, "paper", False)
        stacked = torch.stack(list(streams.values()))
        values = block.value(block.norm1(stacked)).flatten(2, 3)
        gathered = []
        for value in values:
            q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (query, key, value))
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
            gathered.append(attended.transpose(1, 2).reshape(context.shape))
        stacked = stacked + block.proj(torch.stack(gathered))
        stacked = stacked + block.mlp.fc2(F.gelu(block.mlp.fc1(block.norm2(stacked))))
        close(updated, dict(zip(streams, stacked, strict=True)))


@pytest.mark.parametrize(("size", "shifted"), [((14, 21), False), ((14, 21), True), ((10, 17), False), ((7, 8), False)])
def test_self_attention_with_full_windows_equals_timms_swin_block(size: tuple[int, int], shifted: bool) -> None:
    """timm pads after the norm and before q, k, v, and attends to the padding, as the released code does.

    Not compared: shifted and padded, since timm rolls first and pads then.
    """
    block = block_of({"a": "a"}, "stream")
    timms = SwinTransformerBlock(DIM, size, HEADS, window_size=7, shift_size=3 if shifted else 0).double().eval()
    renamed = {
        "norm1": block.norm1, "attn.qkv": block.query_key.linear, "attn.proj": block.proj,
        "norm2": block.norm2, "mlp.fc1": block.mlp.fc1, "mlp.fc2": block.mlp.fc2,
    }  # fmt: skip
    weights = {f"{name}.{key}": value[0] for name, module in renamed.items() for key, value in module.state_dict().items()}
    weights["attn.relative_position_bias_table"] = block.query_key.position_bias.table[0].detach()
    missing, unexpected = timms.load_state_dict(weights, strict=False)
    assert not unexpected
    assert not set(missing) & {name for name, _ in timms.named_parameters()}
    streams, context = maps(["a"], size)
    with torch.no_grad():
        close(run(block, streams, context, "released", shifted), {"a": timms(streams["a"])})


def test_position_bias_is_indexed_by_query_minus_key() -> None:
    bias = PositionBias(["a", "b"], window=4, heads=2)
    with torch.no_grad():
        bias.table[1].copy_(torch.arange(7 * 7 * 2.0).view(49, 2))
        for height, width in [(4, 4), (3, 4), (2, 3), (1, 1)]:
            windows = Windows.paper((height, width), 4, False)
            values = bias(windows.offsets(torch.device("cpu")))[1]
            places = list(product(range(height), range(width)))
            for (i, query), (j, key), head in product(enumerate(places), enumerate(places), range(2)):
                entry = (query[0] - key[0] + 3) * 7 + query[1] - key[1] + 3
                assert values[head, i, j] == 2 * entry + head


def test_the_map_of_the_reference_serves_every_task() -> None:
    """The other tasks' streams do not enter the map: equal values in two tasks with equal weights give equal results."""
    block = block_of(SHARED, "stream")
    streams, context = maps(list(SHARED), (9, 12))
    streams["c"] = streams["a"]

    def updated(streams: Mapping[str, Tensor], context: Tensor) -> dict[str, Tensor]:
        return run(block, streams, context, "paper", True)

    with torch.no_grad():
        for parameter in block.parameters():
            if len(parameter) == len(SHARED):
                parameter[2] = parameter[0]
        first = updated(streams, context)
        assert torch.equal(first["a"], first["c"])
        assert torch.equal(first["b"], updated(streams | {"a": streams["a"] * 3}, context)["b"])
        assert not torch.allclose(first["a"], updated(streams | {"b": streams["b"] * 3 + context}, context)["a"])
        other_context = updated(streams, torch.randn_like(context))
        assert torch.equal(first["a"], other_context["a"]), "source 'stream' reads no context"


class Ledger(TorchDispatchMode):
    """Counts the softmaxes, the batched products with tokens, and the map-sized tensors that operations allocate."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.tokens = tokens
        self.softmaxes = self.products = self.elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        self.softmaxes += function is torch.ops.aten._softmax.default
        is_product = function in (torch.ops.aten.bmm.default, torch.ops.aten.baddbmm.default)
        self.products += is_product and result.shape[-1] > 1  # weights alone, times the bias of a norm, give one column
        if isinstance(result, Tensor) and result.shape[-2:] == (self.tokens, self.tokens):
            known = {a.untyped_storage().data_ptr() for a in args if isinstance(a, Tensor)}
            if result.untyped_storage().data_ptr() not in known:
                self.elements += result.numel()
        return result


@pytest.mark.parametrize("source", ["context", "stream"])
def test_one_map_one_softmax_and_as_many_products_whatever_the_number_of_tasks(source: Source) -> None:
    counts = {}
    for number in (1, 3, 6):
        owners = {f"t{i}": "t0" for i in range(number)}
        block = block_of(owners, source)
        with torch.no_grad(), Ledger(49) as ledger:
            run(block, *maps(list(owners), (14, 14)), "released", False)
        counts[number] = (ledger.softmaxes, ledger.products, ledger.elements)
    value = source == "context"  # of one task alone from its own stream, the value is made with query and key
    assert counts[1][:2] == (1, 2 + 4 + value)
    assert counts[6][:2] == (1, 2 + 5)
    assert counts[1][2] == counts[3][2] == counts[6][2]
    own = block_of({f"t{i}": f"t{i}" for i in range(6)}, source)
    with torch.no_grad(), Ledger(49) as ledger:
        run(own, *maps([f"t{i}" for i in range(6)], (14, 14)), "released", False)
    assert (ledger.softmaxes, ledger.products) == (1, 2 + 4 + value), "the maps of all tasks are made and used at once"
    assert ledger.elements == 6 * counts[1][2]


def test_what_stands_in_the_padding_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = F.pad
    for owners, source in product((SHARED, OWN), ("context", "stream")):
        for size in [(9, 12), (5, 16)]:
            block = block_of(owners, source)  # type: ignore[arg-type]
            streams, context = maps(list(owners), size)
            with torch.no_grad():
                expected = run(block, streams, context, "paper", True)
                monkeypatch.setattr(F, "pad", lambda x, pad: zeros(x, pad, value=1e3))
                close(run(block, streams, context, "paper", True), expected)
                monkeypatch.undo()


def test_paths_are_dropped_per_stream_and_branch_and_image() -> None:
    torch.manual_seed(0)
    block: Any = WindowBlock(list(SHARED), ["b"], "context", DIM, HEADS, 7, True, drop_path=0.5)
    for linear, value in ((block.proj, 1.0), (block.mlp.fc2, 10.0)):
        nn.init.zeros_(linear.weight)
        nn.init.constant_(linear.bias, value)
    zero = torch.zeros(4000, 1, 1, DIM)
    updated = run(block.train(), dict.fromkeys(SHARED, zero), zero, "paper", False)
    kept = []
    for branch in updated.values():
        kinds = branch[:, 0, 0, 0].detach().round(decimals=4)
        assert set(kinds.tolist()) == {0.0, 2.0, 20.0, 22.0}, "each branch is kept at 1 / (1 - rate) or dropped"
        kept += [(kinds % 20 == 2).double(), (kinds >= 20).double()]
    correlation = torch.corrcoef(torch.stack(kept)) - torch.eye(6)
    assert correlation.abs().max() < 0.08, "5 deviations of independent draws"
    assert all(abs(k.mean() - 0.5) < 0.04 for k in kept)
    still = run(block.eval(), dict.fromkeys(SHARED, zero), zero, "paper", False)["a"]
    assert torch.equal(still, torch.full_like(zero, 11.0))
