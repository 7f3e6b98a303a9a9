"""Signals that ask a training to end: it finishes its step, writes a checkpoint and exits with status 0.

Schedulers send SIGTERM or SIGUSR1 before they stop a job, a terminal that closes sends SIGHUP. SIGINT is Ctrl-C; a second one
ends the process at once.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from types import FrameType
from typing import Any

from mult.runtime import distributed

HANDLED = tuple(
    signal.Signals[name] for name in ("SIGTERM", "SIGUSR1", "SIGHUP", "SIGINT") if name in signal.Signals.__members__
)
"""Windows has no SIGUSR1 and no SIGHUP."""


class StoppedError(Exception):
    """Batches ended early because a signal asked for an end; a resumed run reads them again."""


class Signals:
    """While entered, records the newest signal instead of ending the process.

    Only the main thread can set signal handlers; in another thread entering has no effect.
    """

    def __init__(self) -> None:
        self.received: str | None = None
        self._previous_handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():
            numbers = [number for number in HANDLED if not _is_nohup(number)]
            self._previous_handlers = {number: signal.signal(number, self._record) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous_handlers.items():
            signal.signal(number, handler)

    def _record(self, number: int, frame: FrameType | None) -> None:
        if self.received == "SIGINT" and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.received = signal.Signals(number).name

    def any_process(self) -> bool:
        """Whether any process received a signal. All processes must call it, and all get the same answer."""
        return distributed.any_process(self.received is not None)


def _is_nohup(number: signal.Signals) -> bool:
    """Whether the process shall go on without its terminal."""
    return number.name == "SIGHUP" and signal.getsignal(number) == signal.SIG_IGN


class InterruptibleBatches:
    """Batches that end with `StoppedError` on all processes at once when one of them received a signal.

    length: the largest number of batches that any process has; every process asks for signals that often.
    """

    def __init__(self, batches: Iterable[Any], length: int, signals: Signals) -> None:
        self.batches, self.length, self.signals = batches, length, signals

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.batches)
        for _ in range(self.length):
            if self.signals.any_process():
                raise StoppedError
            if (batch := next(batches, None)) is not None:
                yield batch
