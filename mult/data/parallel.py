"""The same function on many items in several processes: how rooms are rendered and labels derived."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from typing import Any, TypeVar

from tqdm import tqdm

from mult.runtime.malloc import reuse_freed_memory
from mult.runtime.workers import end_with_parent

T = TypeVar("T")
R = TypeVar("R")

_function: Callable[[Any], Any] | None = None  # in a worker: sent once, when it starts, instead of with every item


def map_in_processes(function: Callable[[T], R], items: Iterable[T], workers: int, chunk: int = 1) -> Iterator[R]:
    """Yield `function(item)` of every item as it is done, in any order; with one worker in this process and in order.

    A worker takes `chunk` consecutive items at a time. No more than a few chunks are taken in advance, so `items` may be
    endless. If one item raises, or the main process ends, the workers end and the other items are dropped.
    """
    if workers <= 1:
        reuse_freed_memory()
        yield from map(function, items)
        return
    source = iter(items)
    chunks = iter(lambda: list(islice(source, chunk)), [])
    # Spawned, as a forked process that inherits torch's threads may hang.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start_worker, (function,)) as pool:
        pending = {pool.submit(_apply, each) for each in islice(chunks, 4 * workers)}
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                pending |= {pool.submit(_apply, each) for each in islice(chunks, len(done))}
                for future in done:
                    yield from future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def map_with_progress(
    function: Callable[[T], R], items: Sequence[T], workers: int | None, description: str, unit: str, chunk: int = 1
) -> Iterator[R]:
    """`map_in_processes` with a progress bar; without `workers`, one a processor, and no more than there are chunks."""
    count = min(workers or os.cpu_count() or 1, -(-len(items) // chunk))
    results = map_in_processes(function, items, count, chunk)
    yield from tqdm(results, desc=description, total=len(items), unit=unit, disable=not items)


def _start_worker(function: Callable[[Any], Any]) -> None:
    """Keep the function, and let this worker end with the main process."""
    global _function
    _function = function
    reuse_freed_memory()
    end_with_parent()


def _apply(items: list[Any]) -> list[Any]:
    assert _function is not None
    return [_function(item) for item in items]
