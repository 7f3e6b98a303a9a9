"""Measure speed and memory as ratios within one run: python scripts/benchmark.py [--pairs 10] [--SECTION ...].

A step is forward, losses and backward of a Swin-T MulT at 224 pixels, batch 2, in float32, without the optimiser. The two sides
of a ratio are measured in turns, so that a change of the machine's speed affects both; the result is the median over the pairs.
Counted in operations, six tasks cost 0.476 of six single-task steps, and shared attention 0.943 of independent attention.
Without --SECTION the model is measured; --help describes the other sections. With --device cuda a table of steps on a GPU,
in bfloat16 unless it says otherwise, is measured instead, in some minutes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable

import torch

from mult.benchmark.datasets import data, index
from mult.benchmark.gpu import CASES, find_gpu, measure_cases
from mult.benchmark.network import compiled, inference, memory, metrics, model
from mult.cli import exit_on_user_error

SECTIONS: dict[str, Callable[[int], None]] = {
    "model": model,
    "memory": memory,
    "compile": compiled,
    "inference": inference,
    "metrics": metrics,
    "data": data,
    "index": index,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10)
    for name, section in SECTIONS.items():
        parser.add_argument(f"--{name}", action="store_true", help=section.__doc__)
    parser.add_argument("--device", help="cuda or cuda:N: measure the table of a GPU")
    arguments = parser.parse_args()
    if arguments.device is not None:
        with exit_on_user_error():
            device = find_gpu(arguments.device)
            torch.cuda.set_device(device)
            print(f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}, median of {arguments.pairs} steps")
            measure_cases(CASES, device, arguments.pairs)
        return
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads of {os.cpu_count()} cores, {arguments.pairs} pairs")
    print(f"{'what':<64} at most  measured: median (range)")
    for section in [SECTIONS[name] for name in SECTIONS if getattr(arguments, name)] or [model]:
        section(arguments.pairs)


if __name__ == "__main__":
    main()
