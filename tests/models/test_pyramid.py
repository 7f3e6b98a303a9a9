"""Shared attention in a feature pyramid against a second implementation by tokens and neighbours, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mult.errors import UserError
from mult.models import MulT
from mult.models.attention_maps import record_attention
from mult.models.pyramid import PyramidDecoder
from tests.models.test_decoder import WINDOW, attention, layer_norm, paper_windows, resize
from tests.models.test_fpn import DIMS, convolve, make_features, norm_of_groups

TASKS = {"a": 2, "b": 3, "c": 1}
SWIN = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)}
Weights = dict[str, Tensor]


def of_task(weights: Weights, name: str, index: int) -> Weights:
    """A task's slices of the stacked layer of a name."""
    return {key.removeprefix(f"{name}."): value[index] for key, value in weights.items() if key.startswith(f"{name}.")}


def attend(w: Weights, level: str, streams: list[Tensor], context: Tensor, variant: str, heads: int) -> list[Tensor]:
    """What each task's stream gets: values by its own layers, maps by those of the owners."""
    name, results = f"{level}.attention", []
    reference = list(TASKS).index("b")
    for index, stream in enumerate(streams):
        normed = layer_norm({f"n.{key}": value for key, value in of_task(w, f"{name}.norm1", index).items()}, "n", stream)
        owners = {"shared": {reference: 1.0}, "learned": {}}.get(variant, {index: 1.0})
        if variant == "learned":
            gates = w[f"{name}.query_key.gate.logits"].exp()
            owners = {owner: float(gates[owner] / gates.sum()) for owner in range(len(TASKS))}
        makers: list[Any] = []
        value = normed
        for owner, share in owners.items():
            source = normed
            if variant != "self":
                norm = of_task(w, f"{name}.query_key.norm", 0 if variant == "shared" else owner)
                source = layer_norm({f"n.{key}": part for key, part in norm.items()}, "n", context)
            slot = 0 if variant == "shared" else owner
            linear = of_task(w, f"{name}.query_key.linear", slot)
            query, key, *own_value = (source @ linear["weight"].T + linear["bias"]).split(64, dim=-1)
            makers.append((share, query, key, w[f"{name}.query_key.position_bias.table"][slot]))
            value = own_value[0] if own_value else value
        if variant != "self":
            layer = of_task(w, f"{name}.value", index)
            value = normed @ layer["weight"].T + layer["bias"]
        out = attention(makers, value, heads, paper_windows(context.shape[0], context.shape[1], True))
        proj = of_task(w, f"{name}.proj", index)
        results.append(out @ proj["weight"].T + proj["bias"])
    return results


def reference_decoder(w: Weights, features: list[Tensor], size: tuple[int, int], variant: str, heads: int) -> dict[str, Tensor]:
    """One image: four maps (C, H, W), fine to coarse -> task -> (channels, *size)."""
    streams: list[Tensor] = []
    for number, feature in enumerate(features[::-1]):
        level, context = f"levels.{number}", feature.permute(1, 2, 0)
        laterals = [
            context @ w[f"{level}.lateral.weight"][i][:, :, 0, 0].T + w[f"{level}.lateral.bias"][i] for i in range(len(TASKS))
        ]
        if streams:
            laterals = [x + resize(coarse, (x.shape[0], x.shape[1])) for x, coarse in zip(laterals, streams, strict=True)]
        if variant != "none" and number < 3:  # H/32, H/16, H/8
            added = attend(w, level, laterals, context, variant, heads)
            laterals = [x + more for x, more in zip(laterals, added, strict=True)]
        streams = []
        for i, x in enumerate(laterals):
            x = convolve(x, w[f"{level}.convolution.weight"][i])
            streams.append(norm_of_groups(x, w[f"{level}.norm.weight"][i], w[f"{level}.norm.bias"][i]).clamp(min=0))
    outputs = {}
    for (task, channels), x in zip(TASKS.items(), streams, strict=True):
        head, (height, width) = f"heads.{task}", x.shape[:2]
        token = x @ w[f"{head}.token.weight"][:, :, 0, 0].T + w[f"{head}.token.bias"]
        image = resize(token, (4 * height, 4 * width))
        pixels = x @ w[f"{head}.pixels.weight"][:, :, 0, 0].T
        for channel in range(channels):
            for i in range(16):  # the pixels of a token, row by row
                image[i // 4 :: 4, i % 4 :: 4, channel] += pixels[:, :, 16 * channel + i]
        outputs[task] = image[: size[0], : size[1]].permute(2, 0, 1)
    return outputs


@pytest.mark.parametrize("variant", ["shared", "independent", "self", "none", "learned"])
@pytest.mark.parametrize("size", [(96, 129), (33, 47)])
def test_equals_a_second_implementation(size: tuple[int, int], variant: str) -> None:
    """96 x 129 pixels are 12 x 17 tokens at H/8: shifted windows of 7, and padding along both sides."""
    torch.manual_seed(2)
    reference = "learned" if variant == "learned" else "b"
    kind: Any = "shared" if variant == "learned" else variant
    decoder = PyramidDecoder(TASKS, reference, kind, DIMS, heads=4, window=WINDOW, dropout=0.5).double().eval()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    features = make_features(size)
    with torch.no_grad():
        outputs = decoder(features, size)
    assert list(outputs) == list(TASKS)
    for image in range(2):
        expected = reference_decoder(dict(decoder.state_dict()), [f[image] for f in features], size, variant, heads=4)
        for task in TASKS:
            torch.testing.assert_close(outputs[task][image], expected[task], rtol=1e-9, atol=1e-9)


def open_attention(module: nn.Module) -> None:
    """Have what is attended to reach the streams, which at the start it does not."""
    for name, parameter in module.named_parameters():
        if name.endswith("attention.proj.weight"):
            assert not parameter.any()
            nn.init.normal_(parameter)


def test_a_new_decoder_is_a_plain_pyramid() -> None:
    """Without attention; from the next step on there is some."""
    decoders = {}
    for kind in ("shared", "none"):
        decoders[kind] = PyramidDecoder(TASKS, "b", kind, DIMS, heads=4, window=4, dropout=0.0)
    decoders["none"].load_state_dict({n: p for n, p in decoders["shared"].state_dict().items() if "attention" not in n})
    features = [torch.randn(1, c, 64 // s, 64 // s) for c, s in zip(DIMS, (4, 8, 16, 32), strict=True)]
    outputs, plain = (decoders[kind](features, (64, 64)) for kind in ("shared", "none"))
    for task in TASKS:
        torch.testing.assert_close(outputs[task], plain[task], rtol=1e-5, atol=1e-5)
    outputs["a"].square().sum().backward()
    for level in range(3):
        assert [bool(part.any()) for part in decoders["shared"].levels[level].attention.proj.weight.grad] == [
            True,
            False,
            False,
        ]


def test_every_task_reaches_the_reference_s_query_and_key_and_no_other_task_s_layers() -> None:
    torch.manual_seed(3)
    decoder = PyramidDecoder(TASKS, "b", "shared", DIMS, heads=4, window=4, dropout=0.0)
    open_attention(decoder)
    features = [torch.randn(1, c, 64 // s, 64 // s) for c, s in zip(DIMS, (4, 8, 16, 32), strict=True)]
    decoder(features, (64, 64))["c"].square().sum().backward()
    gradients: Weights = {name: p.grad for name, p in decoder.named_parameters() if p.grad is not None}
    for level in range(3):
        assert gradients[f"levels.{level}.attention.query_key.linear.weight"][0].any()
    for name in ("lateral.weight", "convolution.weight", "norm.bias", "attention.value.weight", "attention.norm1.weight"):
        of_tasks = [bool(part.any()) for part in gradients[f"levels.0.{name}"]]
        assert of_tasks == [False, False, True]


@pytest.mark.parametrize("backbone", ["swin_tiny_patch4_window7_224", "resnet10t", "tf_efficientnet_lite0"])
@pytest.mark.parametrize("attention", ["shared", "none"])
def test_goes_with_any_encoder_and_is_saved(backbone: str, attention: Any, tmp_path: Any) -> None:
    torch.manual_seed(3)
    arguments = SWIN if backbone.startswith("swin") else None
    tasks = {"normal": 3, "reshading": 1}
    model = MulT(tasks, "normal", backbone, attention=attention, decoder="pyramid", backbone_args=arguments)
    open_attention(model)
    images = torch.rand(2, 3, 70, 50)
    sum(output.square().mean() for output in model(images).values()).backward()
    assert not [name for name, p in model.decoder.named_parameters() if p.grad is None or not p.grad.any()]
    model.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        outputs, again, alone = model(images), MulT.from_pretrained(tmp_path)(images), model(images[1:])
    assert {task: tuple(output.shape) for task, output in outputs.items()} == {
        "normal": (2, 3, 70, 50),
        "reshading": (2, 1, 70, 50),
    }
    for task, output in outputs.items():
        assert torch.equal(output, again[task])
        torch.testing.assert_close(output[1:], alone[task], rtol=1e-4, atol=1e-5)


def test_the_maps_of_the_attending_levels_are_recorded() -> None:
    model = MulT({"normal": 3, "reshading": 1}, "normal", decoder="pyramid", window_size=4, backbone_args=SWIN).eval()
    with torch.no_grad(), record_attention(model.decoder) as maps:
        model(torch.rand(1, 3, 96, 64))
    assert [(one.owner, one.stride, one.windows.size) for one in maps] == [
        ("normal", 32, (3, 2)),
        ("normal", 16, (6, 4)),
        ("normal", 8, (12, 8)),
    ]
    for one in maps:
        torch.testing.assert_close(one.select(2, 1)[0].sum((1, 2)), torch.ones(4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"skip": "add"}, "model.skip: got 'add' with decoder pyramid, which has no .*; expected the default, none; leave"),
        (
            {"drop_path": 0.1},
            "model.drop_path: got 0.1 with decoder pyramid, .*; expected the default, 0.0; leave",
        ),
        ({"num_heads": 3}, "model.num_heads: got 3 with decoder pyramid; expected one divisor of its width, 64; set"),
        ({"num_heads": (4, 4, 4, 4)}, "model.num_heads: got .4, 4, 4, 4. with decoder pyramid; expected one divisor"),
        (
            {"decoder": "paper", "attention": "none"},
            "model.attention: got none with decoder paper; expected shared, ",
        ),
        ({"decoder": "fpn", "attention": "none"}, "model.attention: got 'none' with decoder fpn, which has no attention"),
    ],
)
def test_refuses_what_it_has_no_use_for(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        MulT({"normal": 3}, backbone_args=SWIN, **{"decoder": "pyramid", **arguments})
