"""Two things timed in turns, so that a change of the machine's speed affects both: a ratio."""

from __future__ import annotations

import statistics
import time

from tqdm import tqdm

from mult.benchmark.steps import Step


def measure_seconds(run: Step) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def compare(ours: Step, theirs: Step, pairs: int, name: str) -> str:
    """The median over `pairs` of time(ours) / time(theirs), with the range, after one uncounted run of each."""
    ours()
    theirs()
    ratios = [measure_seconds(ours) / measure_seconds(theirs) for _ in tqdm(range(pairs), desc=name, leave=False)]
    return f"{statistics.median(ratios):6.3f}   ({min(ratios):.3f} to {max(ratios):.3f})"


def print_row(name: str, bound: float, value: str) -> None:
    print(f"{name:<64} {bound:5.2f}   {value}", flush=True)
