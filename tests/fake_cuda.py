"""CUDA tensors without a GPU: they have shape, type and device but no numbers, and torch refuses to mix devices among them.

Training and evaluation run on them from Python to the call of each operator. What is missing are the numbers (every number that
the code reads is 1) and the backward pass, whose gradients are zeros here: torch's own engine does not run without a device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from tests.refused_on_cuda import Call

CUDA = torch.device("cuda", 0)
READS: dict[str, Callable[[Any], Any]] = {
    "numpy": lambda numbers: numbers,
    "item": lambda numbers: numbers.item(),
    "__float__": float,
    "__int__": int,
    "__index__": int,
    "__bool__": bool,
}
"""The methods of a tensor that return its numbers, beside `tolist`."""


@dataclass
class Record:
    """What was called on fake CUDA tensors."""

    calls: list[Call] = field(default_factory=list)
    waits: list[str] = field(default_factory=list)
    """What makes the CPU wait for the GPU, in order; among it "backward" for each backward pass."""

    def read(self, tensor: Tensor, name: str) -> Any:
        """The numbers of a fake tensor, an array of ones."""
        if tensor.device.type == "cuda":
            self.waits.append(name)
        return np.ones(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))


class _Functions(TorchFunctionMode):
    """Reading numbers, and the backward pass."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, first = getattr(function, "__name__", ""), args[0] if args else None
        if name == "backward" and isinstance(first, Tensor):
            self.record.waits.append("backward")
            for leaf in _leaves(first):
                gradient = torch.zeros_like(leaf)
                leaf.grad = gradient if leaf.grad is None else leaf.grad.add_(gradient)
            return None
        if function is torch.autograd.grad:
            self.record.waits.append("backward")
            return tuple(torch.zeros_like(each) for each in args[1])
        if isinstance(first, Tensor) and name == "numpy" and not isinstance(first, FakeTensor):
            with _disable_current_modes():
                return first.numpy()
        if isinstance(first, FakeTensor) and name in READS:
            return READS[name](self.record.read(first, name))
        return function(*args, **(kwargs or {}))


class _Operators(TorchDispatchMode):
    """The calls of operators, and those whose results have a shape that depends on numbers."""

    def __init__(self, record: Record) -> None:
        super().__init__()
        self.record = record

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        self.record.calls.append(Call.of(function, args))
        name = self.record.calls[-1].name
        if name == "bincount":
            self._wait(args[0], name)
            return args[0].new_zeros(args[2], dtype=torch.int64)
        if name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1]):  # as if all were True
            self._wait(args[0], name)
            return args[0].flatten(0, args[1][0].ndim - 1)
        result = function(*args, **kwargs)
        if name in ("_to_copy", "copy_"):
            source = args[0] if name == "_to_copy" else args[1]
            is_blocking = not (kwargs.get("non_blocking") or True in args[2:])
            if is_blocking and source.device != result.device:
                self.record.waits.append("copy")
        return result

    def _wait(self, tensor: Tensor, name: str) -> None:
        if tensor.device.type == "cuda":
            self.record.waits.append(name)


@contextmanager
def fake_cuda() -> Iterator[Record]:
    """In the body all tensor operations are on fake tensors."""
    record = Record()
    with ExitStack() as stack:
        # torch draws until all numbers are within the limits, which without numbers is never.
        stack.enter_context(patch("torch.nn.init._no_grad_trunc_normal_", lambda tensor, *limits, **options: tensor))
        stack.enter_context(patch.object(FakeTensor, "tolist", lambda tensor: record.read(tensor, "tolist").tolist()))
        stack.enter_context(patch("torch.nn.Module.to", _move))
        for mode in (FakeTensorMode(allow_non_fake_inputs=True), _Operators(record), _Functions(record)):
            stack.enter_context(mode)
        yield record


class ReadViews:
    """A dataset whose samples were read before: numbers cannot be read from files in the body of `fake_cuda`."""

    def __init__(self, views: Any) -> None:
        self._views, self._samples = views, [views[index] for index in range(len(views))]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._views, name)

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Any:
        return self._samples[index]


def _move(module: nn.Module, device: torch.device) -> nn.Module:
    """In place, as on a GPU; torch would make other objects of fake parameters, which their optimiser does not have."""
    for tensor in (*module.parameters(), *module.buffers()):
        tensor.fake_device = device  # type: ignore[attr-defined]
    return module


def _leaves(tensor: Tensor) -> list[Tensor]:
    """The parameters that a tensor's gradient reaches."""
    found, seen, stack = [], set(), [tensor.grad_fn]
    while stack:
        node: Any = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        stack += [parent for parent, _ in node.next_functions]
    return found
