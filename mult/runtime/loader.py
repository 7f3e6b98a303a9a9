"""torch's DataLoader for long runs on shared machines: its workers leave signals to the process they load for, their death is
said to be one, and memory that a sample needed serves the next."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from mult.runtime.malloc import keep_freed
from mult.runtime.signals import HANDLED


class Loader(DataLoader[Any]):
    """A DataLoader whose workers finish what they load when a signal asks for an end."""

    def __init__(self, dataset: Any, **arguments: Any) -> None:
        keep_freed()  # for a loader without workers, and for workers that are forks of this process
        # A generator of its own: torch's iterator draws a seed for its workers, which must not be the global generator's next.
        super().__init__(dataset, worker_init_fn=_start_worker, generator=torch.Generator(), **arguments)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Raises RuntimeError("DataLoader worker (pid ...) ...") where a worker died, as torch does if it notices first."""
        batches = super().__iter__()
        try:
            yield from batches
        except (EOFError, ConnectionError, FileNotFoundError) as error:  # a dead worker's end of a socket
            for worker in getattr(batches, "_workers", ()):
                worker.join(1)
                if worker.exitcode is not None:
                    raise RuntimeError(f"DataLoader worker (pid {worker.pid}) ended with {worker.exitcode}") from error
            raise


def _start_worker(worker: int) -> None:
    for number in HANDLED:  # schedulers and terminals signal workers too, whose batches the last step needs
        signal.signal(number, signal.SIG_IGN)
    keep_freed()
