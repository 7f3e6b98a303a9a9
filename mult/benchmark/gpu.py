"""The table of a GPU: steps and predictions of Swin-T and Swin-L, beside single models and plain decoders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from mult.benchmark.steps import REFERENCE, SIZE, Place, Step, build_forward_pass, build_training_step
from mult.data.disk.encodings import ENCODINGS
from mult.errors import UserError
from mult.runtime.speed import Speed, measure_product_rate, measure_speed


@dataclass(frozen=True)
class Case:
    """A row of the table of a GPU: what it is called, what runs, and what was measured on one H100 with the first version.

    `are_single`: a model a task, one after the other, in place of one model.
    """

    name: str
    batch: int
    first_version: str = ""
    trains: bool = True
    tasks: tuple[str, ...] = tuple(ENCODINGS)
    are_single: bool = False
    dtype: torch.dtype = torch.bfloat16
    arguments: dict[str, Any] = field(default_factory=dict)

    def build(self, size: int, device: torch.device) -> Step:
        """A function that runs one step, or one prediction."""
        place = Place(self.batch, size, device, self.dtype)

        def build_one(tasks: Sequence[str]) -> Step:
            if self.trains:
                return build_training_step(tasks, place=place, **self.arguments)
            return build_forward_pass(tasks, place, **self.arguments)

        parts = [build_one([task]) for task in self.tasks] if self.are_single else [build_one(self.tasks)]

        def step() -> None:
            for part in parts:
                part()

        return step


SWIN_L = {"backbone": "swin_large_patch4_window7_224"}
CASES = (
    Case("Swin-T, step", 32, "171.7 ms, 6731 kernels, busy 98.6 ms, 13.4 GiB"),
    Case("Swin-T, step, batch 8", 8, "238.8 ms, 6322 kernels, busy 36.7 ms, 4.1 GiB"),
    Case("Swin-T, step, float32", 32, "231.7 ms, 19.8 GiB", dtype=torch.float32),
    Case("Swin-T, step, decoder released", 32, "218.8 ms, 12.1 GiB", arguments={"decoder": "released"}),
    Case("Swin-T, step, attention independent", 32, "305.8 ms, 14.9 GiB", arguments={"attention": "independent"}),
    Case("Swin-T, step, one task", 32, "130.2 ms, 4.7 GiB", tasks=(REFERENCE,)),
    Case("Swin-T, step, six single models", 32, are_single=True),
    Case("Swin-T, step, decoder fpn", 32, arguments={"decoder": "fpn"}),
    Case("Swin-L, step", 32, "341.5 ms, 8374 kernels, busy 195.4 ms, 30.8 GiB", arguments=SWIN_L),
    Case("Swin-L, step, six single models", 32, are_single=True, arguments=SWIN_L),
    Case("Swin-L, step, decoder fpn", 32, arguments=SWIN_L | {"decoder": "fpn"}),
    Case("Swin-T, inference, batch 1", 1, "53.2 ms, 2435 kernels, busy 5.9 ms, 0.7 GiB", trains=False),
    Case("Swin-T, inference", 32, "60.6 ms, 1.9 GiB", trains=False),
    Case("Swin-T, inference, six single models", 32, trains=False, are_single=True),
    Case("Swin-T, inference, decoder fpn", 32, trains=False, arguments={"decoder": "fpn"}),
    Case("Swin-L, inference, batch 1", 1, trains=False, arguments=SWIN_L),
    Case("Swin-L, inference", 32, trains=False, arguments=SWIN_L),
    Case("Swin-L, inference, six single models", 32, trains=False, are_single=True, arguments=SWIN_L),
    Case("Swin-L, inference, decoder fpn", 32, trains=False, arguments=SWIN_L | {"decoder": "fpn"}),
)


def measure_cases(cases: Sequence[Case], device: torch.device, steps: int, size: int = SIZE, product_size: int = 8192) -> None:
    """Print a row a case as soon as it is measured; a step is forward, losses and backward, six tasks, batch 32."""
    products = {}
    for dtype in dict.fromkeys(case.dtype for case in cases):
        products[dtype] = measure_product_rate(device, dtype, product_size)
        print(f"a product of {product_size} x {product_size} in {dtype}: {products[dtype] / 1e12:.1f} TFLOP/s")
    columns = f"{'ms':>8}{'images/s':>10}{'TFLOP/s':>9}{'of product':>12}{'kernels':>9}{'waits':>7}{'busy':>6}{'GiB':>6}"
    print(f"{'six tasks, batch 32, bfloat16':<38}{columns}   first version, on one H100")
    for case in cases:
        step = case.build(size, device)
        speed = measure_speed(step, device, steps)
        print(f"{case.name:<38}{format_speed(speed, case.batch, products[case.dtype])}   {case.first_version}", flush=True)
        del step  # before the next one's memory is measured


def format_speed(speed: Speed, batch: int, product_rate: float) -> str:
    busy = "-" if speed.busy_seconds is None else f"{speed.busy_seconds / speed.seconds:.0%}"
    peak = "-" if speed.peak_bytes is None else f"{speed.peak_bytes / 2**30:.1f}"
    return (
        f"{1e3 * speed.seconds:8.1f}{batch / speed.seconds:10.1f}{speed.rate / 1e12:9.2f}{speed.rate / product_rate:12.1%}"
        f"{speed.kernels:9}{speed.waits:7}{busy:>6}{peak:>6}"
    )


def find_gpu(name: str) -> torch.device:
    """Raises UserError where torch has no such GPU."""
    gpus = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if name not in (["cuda", *gpus] if gpus else []):
        expected = f"cuda or one of {', '.join(gpus)}" if gpus else "a GPU that torch can use, of which this machine has none"
        raise UserError(f"--device: got {name}; expected {expected}; leave it out to measure on the CPU")
    return torch.device(gpus[0] if name == "cuda" else name)
