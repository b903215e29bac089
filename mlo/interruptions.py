"""Signals that end a run: they wait for the end of a tick, or leave at once where nothing waits."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any

from mlo.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what `kill` and the schedulers of clusters send."""


class Interruptions:
    """Inside, the first signal is only noted; the second leaves at once.

    Signals reach the main thread alone; elsewhere nothing is changed.

    Args:
        active: whether to note anything.

    Attributes:
        received: the first signal, once there was one.
    """

    def __init__(self, active: bool = True) -> None:
        self.received: signal.Signals | None = None
        self._active = active
        self._handling = contextlib.ExitStack()

    def __enter__(self) -> Interruptions:
        if self._active:
            self._handling.enter_context(_handled_by(self._note, SIGNALS))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._handling.close()

    def _note(self, found: signal.Signals) -> None:
        if self.received is not None:
            raise Interrupted(f"stopped by a second {found.name}, in the middle of a tick", found)
        self.received = found


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
    """Inside, SIGTERM raises `Interrupted`, as Ctrl-C raises KeyboardInterrupt: all is closed."""

    def leave(found: signal.Signals) -> None:
        raise Interrupted(f"stopped by {found.name}", found)

    with _handled_by(leave, (signal.SIGTERM,)):
        yield


@contextlib.contextmanager
def _handled_by(
    handler: Callable[[signal.Signals], None], signals: tuple[signal.Signals, ...]
) -> Iterator[None]:
    """Inside, these signals call `handler`, in this process and in no child of it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    owner = os.getpid()

    def handle(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            handler(signal.Signals(number))
        elif number == signal.SIGTERM:
            # A forked worker: it ends when it is told to. A Ctrl-C, which the terminal sends to
            # all, it leaves to its parent, which still needs its batches.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)

    before: dict[signal.Signals, Any] = {}
    try:
        for number in signals:
            if signal.getsignal(number) is not signal.SIG_IGN:  # who started this wants it ignored
                before[number] = signal.signal(number, handle)
        yield
    finally:
        for number, old in before.items():
            # A handler that Python did not set cannot be put back.
            signal.signal(number, signal.SIG_DFL if old is None else old)
