"""torch's DataLoader for long runs on shared machines: its workers leave signals to the process they load for, and their death
is said to be one."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from mult.signals import HANDLED


class Loader(DataLoader[Any]):
    """A DataLoader whose workers finish what they load when a signal asks for an end."""

    def __init__(self, dataset: Any, **arguments: Any) -> None:
        # A generator of its own: torch's iterator draws a seed for its workers, which must not be the global generator's next.
        super().__init__(dataset, worker_init_fn=_ignore_signals, generator=torch.Generator(), **arguments)

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


def _ignore_signals(worker: int) -> None:
    """Schedulers and terminals signal workers too, whose batches the last step needs."""
    for number in HANDLED:
        signal.signal(number, signal.SIG_IGN)
