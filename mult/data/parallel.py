"""Work over many items in processes: how Rooms renders and annotate.py derives labels."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from itertools import islice
from typing import Any, TypeVar

from mult.runtime.malloc import keep_freed

T = TypeVar("T")
R = TypeVar("R")

_work: Callable[[Any], Any] | None = None  # of a worker: taken over once, not with every item


def in_processes(work: Callable[[T], R], items: Iterable[T], workers: int, chunk: int = 1) -> Iterator[R]:
    """Yield `work(item)` of every item as it is done, in any order; with one worker in this process, in order.

    A worker takes `chunk` consecutive items at a time. Only a few chunks wait at any time, so `items` may be endless.
    An error of one item, or an end of the main process, ends the workers; items not begun are dropped.
    """
    if workers <= 1:
        keep_freed()
        yield from map(work, items)
        return
    source = iter(items)
    chunks = iter(lambda: list(islice(source, chunk)), [])
    # Spawn: forking a process that has torch's threads may hang.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _start, (work,)) as pool:
        pending = {pool.submit(_do, some) for some in islice(chunks, 4 * workers)}
        try:
            while pending:
                done, pending = wait(pending, return_when=FIRST_COMPLETED)
                pending |= {pool.submit(_do, some) for some in islice(chunks, len(done))}
                for future in done:
                    yield from future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _start(work: Callable[[Any], Any]) -> None:
    """In a worker: take the work over, and end with the main process, which a pool alone does not see to."""
    global _work
    _work = work
    keep_freed()

    def end_with_parent() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()


def _do(items: list[Any]) -> list[Any]:
    assert _work is not None
    return [_work(item) for item in items]
