"""How fast a step runs on a device, and what holds it up: time, operations, kernels, waits, memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch._C._autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

WAITS = {
    "cuda": ("cudaStreamSynchronize", "cudaEventSynchronize"),
    "cpu": ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select"),
}
"""The profiler's names of what makes the host wait for a GPU; on the CPU, of the operators that would."""
WARM_UP = 3


@dataclass(frozen=True)
class Speed:
    """What one step costs.

    seconds: the median, from an idle device to an idle device. operations: of its matrix products, convolutions and attention,
    a multiplication and an addition being two. kernels: what a GPU is given to do, copies included; on the CPU operators that
    call no other, views included. waits: how often the host waits for the GPU, or on the CPU would. busy_seconds: how long the
    kernels run; peak_bytes: of the device's memory; both None on the CPU.
    """

    seconds: float
    operations: int
    kernels: int
    waits: int
    busy_seconds: float | None
    peak_bytes: int | None

    @property
    def rate(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds


def measure_speed(step: Callable[[], object], device: torch.device, steps: int = 10) -> Speed:
    """Time `steps` calls after some that are not counted, and then count in two more, one of them under the profiler."""
    on_gpu = device.type == "cuda"
    for _ in range(WARM_UP):
        step()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(device)
    seconds = statistics.median(_time(step, device) for _ in range(steps))
    peak_bytes = torch.cuda.max_memory_allocated(device) if on_gpu else None
    with FlopCounterMode(display=False) as counter:
        step()
    _finish(device)
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]) as profiler:
        step()
        _finish(device)
    events = list(profiler.events() or [])
    if on_gpu:
        kernels = [event for event in events if event.device_type == DeviceType.CUDA]
        busy_seconds = sum(event.time_range.elapsed_us() for event in kernels) / 1e6
    else:
        kernels = [event for event in events if event.name.startswith("aten::") and not event.cpu_children]
        busy_seconds = None
    waits = sum(event.name in WAITS[device.type] for event in events)
    return Speed(seconds, counter.get_total_flops(), len(kernels), waits, busy_seconds, peak_bytes)


def measure_product_rate(device: torch.device, dtype: torch.dtype, size: int = 8192) -> float:
    """Operations a second of a product of two square matrices, which is close to the most that a device does."""
    left, right = (torch.rand(size, size, device=device).to(dtype) for _ in range(2))
    for _ in range(WARM_UP):
        left @ right
    return 2 * size**3 / statistics.median(_time(lambda: left @ right, device) for _ in range(10))


def _time(step: Callable[[], object], device: torch.device) -> float:
    _finish(device)
    start = time.perf_counter()
    step()
    _finish(device)
    return time.perf_counter() - start


def _finish(device: torch.device) -> None:
    """Wait until a GPU has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
