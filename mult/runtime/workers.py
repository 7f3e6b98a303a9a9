"""Processes for work that takes seconds of a core an image: the same results as without them, in the same order."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from mult.runtime.signals import HANDLED

R = TypeVar("R")


class _Workers:
    """A pool of `number` processes that starts when it is first used."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._pool: ProcessPoolExecutor | None = None

    def map(self, function: Callable[..., R], *columns: Iterable[Any]) -> list[R]:
        if self._pool is None:
            # Spawned, as a forked process that inherits torch's threads may hang.
            self._pool = ProcessPoolExecutor(self.number, multiprocessing.get_context("spawn"), _start_worker)
        return list(self._pool.map(function, *columns))

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)


_workers: _Workers | None = None


@contextmanager
def image_workers(number: int) -> Iterator[None]:
    """Let `map_images` use `number` processes in the body; below 2 it uses none. They end with the body."""
    global _workers
    before, _workers = _workers, _Workers(number) if number > 1 else None
    try:
        yield
    finally:
        if _workers is not None:
            _workers.close()
        _workers = before


def map_images(function: Callable[..., R], *columns: Iterable[Any]) -> list[R]:
    """[function(*row) for row in zip(*columns)], in the processes of `image_workers` where there are some.

    Then `function` and the columns must be picklable, and a result a function of its row alone.
    """
    return list(map(function, *columns)) if _workers is None else _workers.map(function, *columns)


def end_with_parent() -> None:
    """Let this process end with the one that started it: a pool does not end those of a killed process."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        assert parent is not None
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _start_worker() -> None:
    # A terminal sends Ctrl-C to the workers too; the process that waits for them ends them.
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
