"""torch's DataLoader with workers that ignore signals, report their own death, and reuse the memory that a sample freed."""

from __future__ import annotations

import atexit
import signal
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from mult.runtime.malloc import reuse_freed_memory
from mult.runtime.signals import HANDLED


class Loader(DataLoader[Any]):
    """A DataLoader whose workers finish what they load when a signal asks for an end."""

    def __init__(self, dataset: Any, **arguments: Any) -> None:
        reuse_freed_memory()  # for a loader without workers, and for workers that are forks of this process
        # torch draws a seed for the workers; a generator of its own leaves the numbers of the global generator as they are.
        super().__init__(dataset, worker_init_fn=_start_worker, generator=torch.Generator(), **arguments)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The workers end with the iterator: when it is exhausted, closed or raises, and at the latest with the process.

        Raises RuntimeError("DataLoader worker (pid ...) ...") where a worker died, as torch does if it notices first.
        """
        batches = super().__iter__()
        # A traceback keeps an iterator alive until the process ends. multiprocessing then sends SIGTERM to the workers, which
        # ignore it, and waits for them without limit; this function was registered later and so runs before.
        end_workers = partial(_end_workers, batches)
        atexit.register(end_workers)
        try:
            yield from batches
        except (EOFError, ConnectionError, FileNotFoundError) as error:  # the socket of a dead worker
            for worker in getattr(batches, "_workers", ()):
                worker.join(1)
                if worker.exitcode is not None:
                    raise RuntimeError(f"DataLoader worker (pid {worker.pid}) ended with {worker.exitcode}") from error
            raise
        finally:
            end_workers()
            atexit.unregister(end_workers)


def _end_workers(batches: Any) -> None:
    """Ask the workers to end, as torch does, and kill those that read a file for longer than it waits."""
    if hasattr(batches, "_workers"):
        batches._shutdown_workers()
        for worker in batches._workers:
            worker.kill()
            worker.join()


def _start_worker(worker: int) -> None:
    # Schedulers and terminals send signals to the workers too, but the last step still needs their batches.
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN)
    reuse_freed_memory()
