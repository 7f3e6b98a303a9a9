"""Recorded maps against the attention computed from the model's weights, query by query, and what a token may see."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mult.models import MulT
from mult.models.attention_maps import record_attention

WINDOW = 4
SIZE = (76, 100)
"""No multiple of the window at any stage: the finest map is 19 x 25, the coarsest 3 x 4."""


def build(**arguments: Any) -> MulT:
    torch.manual_seed(2)
    model = MulT(
        {"depth_zbuffer": 1, "normal": 3, "reshading": 1},
        reference="normal",
        window_size=WINDOW,
        backbone_args={"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8)},
        **arguments,
    )
    for name, parameter in model.decoder.named_parameters():
        if "query_key" in name:
            torch.nn.init.normal_(parameter, std=0.7)
    return model.eval()


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(4))


def softmax_of(query_key: Any, tokens: np.ndarray, heads: int, row: int, column: int) -> np.ndarray:
    """(heads, H, W): softmax(q k / sqrt(d) + B) of one query over the tokens of its shifted window, from the equations."""
    height, width, channels = tokens.shape
    weight, bias = (p.detach().double().numpy() for p in (query_key.linear.weight[0], query_key.linear.bias[0]))
    scale, offset = (p.detach().double().numpy() for p in (query_key.norm.weight[0], query_key.norm.bias[0]))
    centred = tokens - tokens.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * scale + offset
    both = normed @ weight.T + bias
    query, key = (part.reshape(height, width, heads, -1) for part in (both[..., :channels], both[..., channels:]))
    table = query_key.position_bias.table[0].detach().double().numpy()
    window = [min(WINDOW, side) for side in (height, width)]
    shift = [w // 2 if w < side else 0 for w, side in zip(window, (height, width), strict=True)]

    def region(y: int, x: int) -> tuple[int, int]:
        """Which window a token is in: windows begin at the shift, what is before it is a window of its own."""
        return (y - shift[0]) // window[0], (x - shift[1]) // window[1]

    seen = [(y, x) for y in range(height) for x in range(width) if region(y, x) == region(row, column)]
    result = np.zeros((heads, height, width))
    for head in range(heads):
        scores = [
            query[row, column, head] @ key[y, x, head] / np.sqrt(channels // heads)
            + table[(row - y + WINDOW - 1) * (2 * WINDOW - 1) + column - x + WINDOW - 1, head]
            for y, x in seen
        ]
        weights = np.exp(np.array(scores) - max(scores))
        for (y, x), amount in zip(seen, weights / weights.sum(), strict=True):
            result[head, y, x] = amount
    return result


def test_recorded_weights_are_the_softmax_of_the_reference_s_query_and_key(images: torch.Tensor) -> None:
    model = build()
    with torch.no_grad(), record_attention(model.decoder) as maps:
        model(images)
    assert [(one.owner, one.stride) for one in maps] == [("normal", stride) for stride in (32, 16, 8, 4)]
    with torch.no_grad():
        features = model.encode(images)[::-1]
    for one, stage, feature in zip(maps, model.decoder.stages, features, strict=True):
        height, width = one.windows.size
        heads = stage.blocks[1].heads
        tokens = feature[1].permute(1, 2, 0).double().numpy()
        for row, column in ((0, 0), (height - 1, width - 1), (height // 2, width // 3), (1, width - 1)):
            weights, visible = one.select(row, column, image=1)
            expected = softmax_of(stage.blocks[1].query_key, tokens, heads, row, column)
            np.testing.assert_allclose(weights.numpy(), expected, atol=2e-5)
            assert np.array_equal(visible.numpy(), (expected > 0).any(0))
            np.testing.assert_allclose(weights.sum((1, 2)).numpy(), 1, atol=1e-5)
            assert visible[row, column]


def test_recording_changes_no_output_and_ends(images: torch.Tensor) -> None:
    model = build()
    with torch.no_grad():
        plain = model(images)
        with record_attention(model.decoder) as maps:
            recorded = model(images)
        model(images)
    assert len(maps) == 4
    assert all(torch.equal(plain[task], recorded[task]) for task in plain)


@pytest.mark.parametrize("attention", ["independent", "self"])
def test_every_task_has_its_own_map_where_it_is_not_shared(attention: Any, images: torch.Tensor) -> None:
    model = build(attention=attention)
    with torch.no_grad(), record_attention(model.decoder) as maps:
        model(images)
    assert [one.owner for one in maps] == ["depth_zbuffer", "normal", "reshading"] * 4
    finest = [one.select(7, 9)[0] for one in maps[-3:]]
    assert not torch.allclose(finest[0], finest[1], atol=1e-3)


def test_the_released_wiring_spends_the_rest_on_padding() -> None:
    model = build(decoder="released")
    for name, parameter in model.decoder.named_parameters():
        if "query_key" in name:
            torch.nn.init.zeros_(parameter)  # a query attends to all that it may attend to alike
    with torch.no_grad(), record_attention(model.decoder) as maps:
        model(torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(4)))  # whole windows: no padding
        model(torch.rand(1, 3, *SIZE, generator=torch.Generator().manual_seed(4)))
    for one in maps[:4]:
        np.testing.assert_allclose(one.select(1, 2)[0].sum((1, 2)).numpy(), 1, atol=1e-5)
    height, width = maps[7].windows.size
    weights, visible = maps[7].select(height - 1, width - 1)
    # The map of 19 x 25 is padded to 20 x 28; the last token's shifted window has rows 18, 19 and columns 22 to 25.
    np.testing.assert_allclose(weights.sum((1, 2)).numpy(), 3 / 8, atol=1e-6)
    assert visible[height - 1, width - 1]
    assert not visible[0].any()  # rolled into the same window, and masked out
