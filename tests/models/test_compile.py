"""torch.compile by block: every block is one graph, no silent fallback, the results of eager execution."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mult.models import MulT

TASKS = {"depth_zbuffer": 1, "normal": 3}
# dynamo looks at attributes of tensors that warn of being looked at
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
ENCODER_BLOCKS, DECODER_BLOCKS = 5, 8


@pytest.fixture(autouse=True)
def _fresh_dynamo() -> Iterator[None]:
    torch._dynamo.reset()
    dynamo: Any = torch._dynamo.config
    names = ("recompile_limit", "accumulated_recompile_limit", "fail_on_recompile_limit_hit")
    with dynamo.patch({name: getattr(dynamo, name) for name in names}):  # what `compile_blocks` sets is undone
        yield
    torch._dynamo.reset()


def network(drop_path: float = 0.3) -> MulT:
    torch.manual_seed(0)
    arguments = {"embed_dim": 16, "depths": (1, 1, 2, 1), "num_heads": (1, 2, 4, 8), "drop_path_rate": drop_path}
    return MulT(TASKS, "normal", backbone_args=arguments, window_size=4, drop_path=drop_path)


def gradients(model: MulT, images: Tensor) -> dict[str, Tensor]:
    torch.stack([output.square().mean() for output in model(images).values()]).sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_near(compiled: Tensor, expected: Tensor, part: float) -> None:
    """No entry off by more than a part of the largest: the order of float32 sums differs."""
    assert float((compiled - expected).abs().max()) <= part * float(expected.abs().max())


class Counting:
    """A backend that runs graphs as they are and counts them."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward


def test_every_block_is_one_graph_whatever_its_drop_path_rate() -> None:
    """Twelve rates and shapes: beyond torch's own limit of eight it would fall back to eager without a word."""
    model, backend = network().train(), Counting()
    assert model.compile_blocks(backend) == ENCODER_BLOCKS + DECODER_BLOCKS
    images = torch.rand(1, 3, 64, 64)
    model(images)
    assert backend.graphs == ENCODER_BLOCKS + DECODER_BLOCKS
    model(images)
    assert backend.graphs == ENCODER_BLOCKS + DECODER_BLOCKS


def test_results_and_gradients_are_those_of_eager_execution() -> None:
    images = torch.rand(1, 3, 64, 64)
    expected, model = gradients(network(drop_path=0.0), images), network(drop_path=0.0)
    model.compile_blocks("aot_eager")
    compiled = gradients(model, images)
    assert compiled.keys() == expected.keys()
    for name, gradient in expected.items():
        assert_near(compiled[name], gradient, 1e-4)


def test_the_levels_of_a_pyramid_are_a_graph_each() -> None:
    arguments = {"embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 2, 4, 8), "drop_path_rate": 0.0}
    torch.manual_seed(0)
    model, backend = MulT(TASKS, "normal", decoder="pyramid", backbone_args=arguments, window_size=4), Counting()
    images = torch.rand(1, 3, 64, 64)
    expected = gradients(model, images)
    model.zero_grad()
    assert model.compile_blocks(backend) == 4 + 4
    compiled = gradients(model, images)
    assert backend.graphs == 4 + 4
    for name, gradient in expected.items():
        assert_near(compiled[name], gradient, 1e-4)


@pytest.mark.parametrize("backbone", ["vit_small_patch14_dinov2", "vit_small_patch16_dinov3"])
def test_blocks_of_a_plain_vit_are_one_graph_each(backbone: str) -> None:
    arguments = {"embed_dim": 32, "depth": 2, "num_heads": 4}
    model = MulT(TASKS, None, backbone, decoder="fpn", backbone_args=arguments).eval()
    images, backend = torch.rand(1, 3, 64, 48), Counting()
    expected = model(images)
    assert model.compile_blocks(backend) == 2
    for task, output in model(images).items():
        torch.testing.assert_close(output, expected[task])
    assert backend.graphs == 1, "the blocks differ in their weights alone"


def test_what_cannot_be_one_graph_is_an_error() -> None:
    model = network()
    block: Any = model.decoder.stages[0].blocks[0]

    class Breaking(nn.Module):
        def forward(self, tokens: Tensor, norm: nn.Module) -> Tensor:
            torch._dynamo.graph_break()
            return tokens

    block.mlp = Breaking()
    model.compile_blocks(Counting())
    with pytest.raises(torch._dynamo.exc.Unsupported, match="graph_break"):
        model(torch.rand(1, 3, 64, 64))


def test_more_shapes_than_the_limit_are_an_error() -> None:
    model = network(drop_path=0.0)
    model.compile_blocks(Counting())
    torch._dynamo.config.recompile_limit = 2
    with pytest.raises(torch._dynamo.exc.FailOnRecompileLimitHit), torch.no_grad():
        model(torch.rand(1, 3, 64, 64))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_inductor_agrees_with_eager() -> None:
    images = torch.rand(1, 3, 64, 64)
    expected, model = gradients(network(drop_path=0.0), images), network(drop_path=0.0)
    model.compile_blocks()
    for name, gradient in gradients(model, images).items():
        assert_near(gradient, expected[name], 1e-3)
