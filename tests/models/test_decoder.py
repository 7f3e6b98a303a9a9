"""Both decoders against a second implementation, from mult/models/README.md: plain functions over a state dict, by windows.

It shares nothing with the package but the names of the weights: maps are made anew for every task, windows are lists of
tokens, padding is never made (`paper`) or is a plain row of zeros (`released`), resizing is a matrix.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mult.models.decoder import Decoder, Head

DIMS, HEADS, WINDOW = (8, 16, 24, 48), (1, 2, 3, 4), 7
Weights = Mapping[str, Tensor]


def layer_norm(w: Weights, name: str, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    variance = (centred * centred).mean(-1, keepdim=True)
    return centred / torch.sqrt(variance + 1e-5) * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(w: Weights, name: str, x: Tensor) -> Tensor:
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", torch.zeros(()))


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear with half-pixel centres, (H, W, C) -> (*size, C)."""
    rows, columns = (resize_matrix(old, new) for old, new in zip(x.shape[:2], size, strict=True))
    return torch.einsum("yi,xj,ijc->yxc", rows, columns, x)


def resize_matrix(old: int, new: int) -> Tensor:
    matrix = torch.zeros(new, old, dtype=torch.float64)
    for i in range(new):
        position = max((i + 0.5) * old / new - 0.5, 0.0)
        low = min(int(position), old - 1)
        high = min(low + 1, old - 1)
        matrix[i, low] += 1 - (position - low)
        matrix[i, high] += position - low
    return matrix


Window = tuple[list[tuple[int, int]], list[tuple[int, int]], list[tuple[int, int]]]
"""Tokens of a window as (row, column) of the map, their places in the window, and their regions: regions do not mix."""


def paper_windows(height: int, width: int, shifted: bool) -> Iterator[Window]:
    """Cells of the (shifted) grid on the map itself. A side that one window covers is not shifted; no padding exists."""
    shift_y, shift_x = (WINDOW // 2 if shifted and side > WINDOW else 0 for side in (height, width))
    for cell_y, cell_x in product(range(-1, height), range(-1, width)):
        rows = [y for y in range(height) if (y - shift_y) // WINDOW == cell_y]
        columns = [x for x in range(width) if (x - shift_x) // WINDOW == cell_x]
        tokens = list(product(rows, columns))
        if tokens:
            yield tokens, tokens, [(0, 0)] * len(tokens)


def released_windows(height: int, width: int, shifted: bool) -> Iterator[Window]:
    """Full windows of the padded, rolled map; regions as Swin numbers them."""
    shift = 3 if shifted else 0

    def region(place: int, side: int) -> int:
        return 0 if not shifted or place < side - WINDOW else 1 if place < side - shift else 2

    for top, left in product(range(0, height, WINDOW), range(0, width, WINDOW)):
        places = list(product(range(WINDOW), range(WINDOW)))
        tokens = [((top + i + shift) % height, (left + j + shift) % width) for i, j in places]
        yield tokens, places, [(region(top + i, height), region(left + j, width)) for i, j in places]


Maker = tuple[Tensor | float, Tensor, Tensor, Tensor]
"""One of the maps that are added up: its share, query, key and position table."""


def attention(makers: Sequence[Maker], v: Tensor, heads: int, windows: Iterator[Window]) -> Tensor:
    out, depth = torch.full_like(v, math.nan), v.shape[-1] // heads
    for tokens, places, regions in windows:
        y, x = (torch.tensor(side) for side in zip(*tokens, strict=True))
        i, j = (torch.tensor(side) for side in zip(*places, strict=True))
        side = 2 * WINDOW - 1
        index = (i[:, None] - i + WINDOW - 1) * side + j[:, None] - j + WINDOW - 1
        a, b = (torch.tensor(part) for part in zip(*regions, strict=True))
        barrier = -100.0 * ((a[:, None] != a) | (b[:, None] != b))
        gathered = []
        for head in range(heads):
            part = slice(head * depth, (head + 1) * depth)
            mixed = v.new_zeros(len(tokens), len(tokens))
            for share, q, k, table in makers:
                scores = q[y, x, part] @ k[y, x, part].T / math.sqrt(depth) + table[index, head] + barrier
                weight = (scores - scores.amax(1, keepdim=True)).exp()
                mixed = mixed + share * weight / weight.sum(1, keepdim=True)
            gathered.append(mixed @ v[y, x, part])
        out[y, x] = torch.cat(gathered, dim=-1)
    return out


def block(
    w: Weights, name: str, streams: Mapping[str, Tensor], owners: Mapping[str, str], context: Tensor | None,
    wiring: str, heads: int, shifted: bool,
) -> dict[str, Tensor]:  # fmt: skip
    """One full block of every task; `context` is what query and key are made from, or None for the owner's own stream."""
    height, width, dim = next(iter(streams.values())).shape
    full = (height, width)
    if wiring == "released":
        full = (-(-height // WINDOW) * WINDOW, -(-width // WINDOW) * WINDOW)

    def pad(value: Tensor) -> Tensor:
        padded = value.new_zeros(*full, dim)
        padded[:height, :width] = value
        return padded

    made = {}
    for task, x in streams.items():
        own = f"{name}.streams.{task}"
        value = linear(w, f"{own}.value", pad(layer_norm(w, f"{own}.norm1", x))) if f"{own}.value.weight" in w else None
        shares: dict[str, Any] = {owners[task]: 1.0}
        if owners[task] == "learned":
            gates = {owner: w[f"{name}.streams.{owner}.query_key.gate.logits"].exp() for owner in streams}
            shares = {owner: gate / sum(gates.values()) for owner, gate in gates.items()}
        makers: list[Maker] = []
        for owner, share in shares.items():
            maker = f"{name}.streams.{owner}.query_key"
            source = layer_norm(w, f"{name}.streams.{owner}.norm1", streams[owner]) if context is None else context
            if context is not None and wiring == "paper":
                source = layer_norm(w, f"{maker}.norm", context)
            query, key, *values = linear(w, f"{maker}.linear", pad(source)).split(dim, dim=-1)
            value = values[0] if values else value
            makers.append((share, query, key, w[f"{maker}.position_bias.table"]))
        assert value is not None
        windows = (paper_windows if wiring == "paper" else released_windows)(full[0], full[1], shifted)
        attended = attention(makers, value, heads, windows)[:height, :width]
        y = x + linear(w, f"{own}.proj", attended)
        hidden = linear(w, f"{own}.mlp.fc1", layer_norm(w, f"{own}.norm2", y))
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        made[task] = y + linear(w, f"{own}.mlp.fc2", hidden)
    return made


def reference_decoder(
    w: Weights,
    features: Sequence[Tensor],
    size: tuple[int, int],
    tasks: Sequence[str],
    reference: str,
    variant: str,
    wiring: str,
) -> dict[str, Tensor]:
    """One image: four maps (C, H, W), fine to coarse -> task -> (channels, *size)."""
    own = {task: task for task in tasks}
    shared = dict.fromkeys(tasks, reference) if variant == "shared" else own
    streams: dict[str, Tensor] = {}
    for stage, (feature, heads) in enumerate(zip(features[::-1], HEADS[::-1], strict=True)):
        context = feature.permute(1, 2, 0)
        name = f"stages.{stage}"
        if wiring == "released":
            context = layer_norm(w, f"{name}.context_norm", context)
        if stage == 0:
            streams = dict.fromkeys(tasks, context)
        else:
            for task in tasks:
                up = f"upsamples.{stage - 1}.{task}"
                grown = resize(streams[task], (context.shape[0], context.shape[1]))
                streams[task] = linear(w, f"{up}.reduction", layer_norm(w, f"{up}.norm", grown))
                skip = f"skips.{stage - 1}.{task}"
                if f"{skip}.linear.weight" in w:
                    added = layer_norm(w, f"{skip}.norm", feature.permute(1, 2, 0))
                    streams[task] = streams[task] + linear(w, f"{skip}.linear", added)
        if wiring == "paper":  # T1, self-attention, unshifted; T2, shared, shifted
            streams = block(w, f"{name}.blocks.0", streams, own, None, wiring, heads, False)
            made_from = None if variant == "self" else context
            streams = block(w, f"{name}.blocks.1", streams, shared, made_from, wiring, heads, True)
        else:  # the map from the encoder, unshifted; the map from the reference's stream, shifted
            streams = block(w, f"{name}.blocks.0", streams, shared, context, wiring, heads, False)
            streams = block(w, f"{name}.blocks.1", streams, shared, None, wiring, heads, True)
    outputs = {}
    for task, x in streams.items():
        x = linear(w, f"heads.{task}.linear", x)
        x = resize(x, (4 * x.shape[0], 4 * x.shape[1]))[: size[0], : size[1]]
        outputs[task] = x.permute(2, 0, 1)
    return outputs


def decoder_of(
    tasks: Mapping[str, int], reference: str, variant: Any, wiring: Any, drop_path: float = 0.0, dropout: float = 0.0,
    skip: Any = "none",
) -> Any:  # fmt: skip
    torch.manual_seed(7)
    return Decoder(tasks, reference, variant, wiring, DIMS, HEADS, WINDOW, drop_path, dropout, skip).eval()


def apart(decoder: Any, tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    """Tensors by the decoder's names of its parameters -> every task's slice, by the name it has in this file."""
    slices = {}
    for name, value in tensors.items():
        tasks = getattr(decoder.get_submodule(name.rpartition(".")[0]), "tasks", None)
        for place, task in enumerate(tasks or [""]):
            spelling = re.sub(
                r"(blocks\.\d)\.", rf"\1.streams.{task}.", re.sub(r"((upsamples|skips)\.\d)\.", rf"\1.{task}.", name)
            )
            if value is not None:
                slices[spelling] = value if tasks is None else value[place]
    return slices


def randomise(module: nn.Module) -> None:
    """Every weight away from where it starts: biases, norms and position tables matter in what follows."""
    generator = torch.Generator().manual_seed(11)
    for name, parameter in module.named_parameters():
        scale = parameter.shape[-1] ** -0.5 if name.endswith("weight") and "norm" not in name else 0.5
        start = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.data = start + scale * torch.randn(parameter.shape, generator=generator)


def features_of(size: tuple[int, int], batch: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(13)
    shapes = [
        (batch, dim, -(-size[0] // stride), -(-size[1] // stride)) for dim, stride in zip(DIMS, (4, 8, 16, 32), strict=True)
    ]
    return [2 * torch.randn(shape, generator=generator) + 0.5 for shape in shapes]


TWO = {"segment_semantic": 5, "depth_zbuffer": 1}
THREE = {"a": 2, "b": 3, "c": 1}
CASES = [
    ("released", "shared", TWO, "depth_zbuffer"),
    ("released", "shared", THREE, "a"),
    ("released", "independent", TWO, "depth_zbuffer"),
    ("paper", "shared", TWO, "depth_zbuffer"),
    ("paper", "shared", THREE, "b"),
    ("paper", "shared", THREE, "learned"),
    ("paper", "independent", THREE, "b"),
    ("paper", "self", TWO, "depth_zbuffer"),
    ("paper", "shared", {"a": 2}, "a"),
    ("released", "shared", {"a": 2}, "a"),
]


# 224: whole windows at every stage. 100 x 132: none whole. 36 x 60, 33 x 47: maps smaller than a window.
@pytest.mark.parametrize(
    ("wiring", "variant", "tasks", "reference", "size", "skip"),
    [(*case, size, "none") for case in CASES for size in [(100, 132), (36, 60), (33, 47), (1, 3)]]
    + [(*CASES[i], (224, 224), "none") for i in (0, 2, 3, 5)]
    + [(*case, size, "add") for case in CASES for size in [(100, 132), (33, 47)]],
)
def test_equals_a_second_implementation(
    wiring: str, variant: str, tasks: dict[str, int], reference: str, size: tuple[int, int], skip: str
) -> None:
    decoder = decoder_of(tasks, reference, variant, wiring, skip=skip)
    randomise(decoder)
    features = features_of(size, batch=1 if size[0] == 224 else 2)
    weights = apart(decoder, {name: value.double() for name, value in decoder.state_dict().items()})
    with torch.no_grad():
        outputs = decoder(features, size)
        assert list(outputs) == list(tasks)
        for image in range(features[0].shape[0]):
            one = [feature[image].double() for feature in features]
            expected = reference_decoder(weights, one, size, list(tasks), reference, variant, wiring)
            for task, value in expected.items():
                assert value.shape == (tasks[task], *size)
                error = (outputs[task][image].double() - value).abs().max() / value.abs().max()
                assert error < 1e-5, (task, float(error))


@pytest.mark.parametrize("skip", ["none", "add"])
@pytest.mark.parametrize(("wiring", "variant", "tasks", "reference"), CASES)
def test_gradients_equal_those_of_a_second_implementation(
    wiring: str, variant: str, tasks: dict[str, int], reference: str, skip: str
) -> None:
    size = (36, 60)
    decoder = decoder_of(tasks, reference, variant, wiring, skip=skip)
    assert any(name.startswith("skips.") for name in decoder.state_dict()) == (skip == "add")
    randomise(decoder)
    decoder = decoder.double()
    named = dict(decoder.named_parameters())
    features = [feature.double() for feature in features_of(size)]
    weights = {name: value.detach().requires_grad_() for name, value in apart(decoder, named).items()}
    ours = decoder(features, size)
    theirs = reference_decoder(weights, [f[0] for f in features], size, list(tasks), reference, variant, wiring)
    losses = [sum((output.sin().mean() for output in outputs.values()), torch.zeros(())) for outputs in (ours, theirs)]
    actual = apart(decoder, dict(zip(named, torch.autograd.grad(losses[0], list(named.values())), strict=True)))
    expected = dict(zip(weights, torch.autograd.grad(losses[1], list(weights.values())), strict=True))
    assert actual.keys() == expected.keys()
    for name, gradient in expected.items():
        assert (actual[name] - gradient).abs().max() < 1e-9 * gradient.abs().max(), name


SIX = {name: 1 + i for i, name in enumerate("abcdef")}


def gradients(decoder: Any, tasks: Sequence[str], size: tuple[int, int] = (100, 132)) -> dict[str, Tensor]:
    """Weights of one task -> their gradient under the losses of `tasks` alone."""
    outputs = decoder(features_of(size), size)
    loss = sum(((outputs[task] - 0.3).square().mean() for task in tasks), torch.zeros(()))
    named = dict(decoder.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True, materialize_grads=True)
    return apart(decoder, dict(zip(named, found, strict=True)))


@pytest.mark.parametrize("number", [1, 2, 6])
@pytest.mark.parametrize(
    ("wiring", "variant"),
    [("paper", "shared"), ("paper", "independent"), ("paper", "self"), ("released", "shared"), ("released", "independent")],
)
def test_every_parameter_gets_a_gradient(wiring: str, variant: str, number: int) -> None:
    tasks = dict(list(SIX.items())[:number])
    decoder = decoder_of(tasks, list(tasks)[-1], variant, wiring)
    randomise(decoder)
    without = [name for name, gradient in gradients(decoder, list(tasks)).items() if not gradient.abs().sum() > 0]
    assert not without


def belongs_to(name: str, task: str) -> bool:
    return task in name.split(".")


@pytest.mark.parametrize("wiring", ["paper", "released"])
def test_a_tasks_loss_reaches_the_references_map_and_no_other_decoder(wiring: str) -> None:
    decoder = decoder_of(THREE, "b", "shared", wiring)
    randomise(decoder)
    for name, gradient in gradients(decoder, ["a"]).items():
        reached = bool(gradient.any())
        if belongs_to(name, "a"):
            assert reached, name
        elif belongs_to(name, "c"):
            assert not reached, name
        elif belongs_to(name, "b"):
            last_block = name.startswith("stages.3.blocks.1")
            if "query_key" in name and ("blocks.1" in name or wiring == "released"):
                assert reached, name
            elif wiring == "paper":
                assert not reached, f"{name}: of r, `paper` uses query and key of x_sa alone"
            elif name.startswith("heads") or (last_block and "norm1" not in name):
                assert not reached, f"{name}: nothing is read from it"
            else:
                assert reached, f"{name}: block 1's map is made from r's stream, so all that is earlier matters"
        else:
            assert reached == ("context_norm" in name), name


@pytest.mark.parametrize(("wiring", "variant"), [("paper", "independent"), ("paper", "self"), ("released", "independent")])
def test_without_sharing_a_tasks_loss_stays_in_its_decoder(wiring: str, variant: str) -> None:
    decoder = decoder_of(THREE, "b", variant, wiring)
    for name, gradient in gradients(decoder, ["a"]).items():
        if "context_norm" not in name:
            assert bool(gradient.any()) == belongs_to(name, "a"), name


class Maps(TorchDispatchMode):
    """Counts attention maps: what a softmax makes, a task, over the windows of one image."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = function(*args, **(kwargs or {}))
        if function is torch.ops.aten._softmax.default:
            self.count += result.shape[0]
        return result


@pytest.mark.parametrize(
    ("wiring", "variant", "expected"),
    [
        ("paper", "shared", 4 * (6 + 1)),  # T1 is every task's own, T2 one for all
        ("paper", "independent", 4 * 12),
        ("paper", "self", 4 * 12),
        ("released", "shared", 4 * 2),
        ("released", "independent", 4 * 12),
    ],
)
def test_attention_maps_of_six_tasks(wiring: str, variant: str, expected: int) -> None:
    decoder = decoder_of(SIX, "c", variant, wiring)
    with torch.no_grad(), Maps() as maps:
        decoder(features_of((64, 64)), (64, 64))
    assert maps.count == expected


@pytest.mark.parametrize("wiring", ["paper", "released"])
def test_an_image_alone_equals_the_image_in_a_batch(wiring: str) -> None:
    decoder = decoder_of(TWO, "depth_zbuffer", "shared", wiring)
    randomise(decoder)
    features = features_of((100, 132), batch=3)
    with torch.no_grad():
        together = decoder(features, (100, 132))
        for image in range(3):
            alone = decoder([feature[image : image + 1] for feature in features], (100, 132))
            for task, value in alone.items():
                assert (together[task][image] - value[0]).abs().max() <= 1e-5 * value.abs().max()


def test_drop_path_rises_linearly_over_the_eight_blocks_from_the_coarsest() -> None:
    decoder = decoder_of(TWO, "depth_zbuffer", "shared", "released", drop_path=0.3)
    blocks = [block for stage in decoder.stages for block in stage.blocks]
    assert [block.drop_path for block in blocks] == pytest.approx(torch.linspace(0, 0.3, 8).tolist())


def test_dropout_of_the_head_drops_whole_channels() -> None:
    torch.manual_seed(0)
    head = Head(dim=6, channels=6, dropout=0.4).train()
    with torch.no_grad():
        head.linear.weight.copy_(torch.eye(6))
        head.linear.bias.zero_()
        output = head(torch.ones(200, 5, 5, 6), (20, 20))
        assert torch.equal(head.eval()(torch.ones(1, 5, 5, 6), (20, 20)), torch.ones(1, 6, 20, 20))
    kept = output[:, :, 0, 0].round(decimals=4)
    torch.testing.assert_close(output, kept[:, :, None, None].expand_as(output), rtol=0, atol=1e-4)
    assert sorted(set(kept.flatten().tolist())) == pytest.approx([0.0, 1 / 0.6], abs=1e-4)
    assert (kept == 0).double().mean() == pytest.approx(0.4, abs=0.06)
    assert len({tuple(row) for row in kept.tolist()}) > 20, "drawn anew for every image"


def test_weights_start_as_xavier_uniform() -> None:
    torch.manual_seed(0)
    decoder = decoder_of(THREE, "b", "shared", "released")
    for name, value in apart(decoder, decoder.state_dict()).items():
        if value.ndim == 1:
            assert torch.equal(value, torch.full_like(value, 1.0 if "norm" in name and "weight" in name else 0.0)), name
        elif "position_bias" in name:
            assert 0.01 < value.std() < 0.03, name
        elif value.numel() > 500:
            limit = math.sqrt(6 / sum(value.shape))
            assert 0.95 * limit < value.abs().max() <= limit, name
            assert float(value.detach().std()) == pytest.approx(limit / math.sqrt(3), rel=0.1), name
