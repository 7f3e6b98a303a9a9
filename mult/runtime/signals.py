"""Signals that ask a training to end: the step is finished, a checkpoint written, and the process ends with status 0.

SIGTERM and SIGUSR1 are what schedulers send before they take a machine away. SIGINT is Ctrl-C; pressed twice it ends at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from mult.runtime import distributed

HANDLED = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


class StoppedError(Exception):
    """Work that can be done again was left because a signal asked for an end."""


class Signals:
    """Notes, while entered, which signal came first. (Only a main thread can: in others nothing changes.)"""

    def __init__(self) -> None:
        self.received: str | None = None
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in HANDLED}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.received == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name

    def any(self) -> bool:
        """Whether a signal came to any process; all processes must ask, and all get the same answer."""
        return distributed.any_of(self.received is not None)


class Interruptible:
    """Batches that end with `StoppedError`, on all processes at once, when a signal came to one.

    length: the batches of the process that has most of them.
    """

    def __init__(self, batches: Iterable[Any], length: int, signals: Signals) -> None:
        self.batches, self.length, self.signals = batches, length, signals

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.batches)
        for _ in range(self.length):
            if self.signals.any():
                raise StoppedError
            if (batch := next(batches, None)) is not None:
                yield batch
