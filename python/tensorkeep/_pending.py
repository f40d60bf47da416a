"""A save in the background, with the names of ``concurrent.futures.Future``."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator
from typing import Any, NamedTuple

from . import _arguments, _tensorkeep

__all__ = ["Pending", "Saved"]

#: Seconds that a wait lasts before Python's signals are looked at.
SLICE = 0.05


class Saved(NamedTuple):
    """What a save did."""

    step: int
    attempt: int
    nbytes: int
    #: How long it took until it was durable.
    seconds: float
    #: Steps of the checkpoints that rotation deleted.
    deleted: list[int]
    #: What is wrong and did not keep this checkpoint from being saved.
    warnings: list[str]


class Pending:
    """A save that is on its way. The next call on the store raises its error, too.

    Example:
        >>> import tensorkeep, numpy
        >>> with tensorkeep.Store("runs/pending") as store:
        ...     pending = store.save({"w": numpy.zeros(3)}, 1, wait=False)
        ...     pending.result().step
        1
    """

    def __init__(self, pending: _tensorkeep.Pending, step: int) -> None:
        self._pending = pending
        self.step = step

    def done(self) -> bool:
        """Whether it is durable or has failed."""
        return self._pending.done()

    def wait(self, seconds: float) -> bool:
        """Waits for at most so long; whether it is done. Raises nothing of the save."""
        seconds = _arguments.number("seconds", seconds)
        try:
            return self._pending.wait(seconds) is not None
        except Exception:
            return True

    def result(self, timeout: float | None = None) -> Saved:
        """Waits until it is durable. Ctrl-C ends the waiting, and the save goes on.

        Args:
            timeout: Seconds to wait at most; None waits as long as it takes.

        Raises:
            TimeoutError: It is still on its way.
            Error: What the save failed with.
        """
        until = None if timeout is None else time.monotonic() + _arguments.number("timeout", timeout)
        while True:
            left = SLICE if until is None else min(SLICE, max(until - time.monotonic(), 0.0))
            saved = self._pending.wait(left)
            if saved is not None:
                return Saved(**saved)
            if until is not None and time.monotonic() >= until:
                raise TimeoutError(f"the save of step {self.step} is still on its way")

    def exception(self, timeout: float | None = None) -> Exception | None:
        """What it failed with, or None; waits as :meth:`result`."""
        try:
            self.result(timeout)
        except TimeoutError:
            raise
        except Exception as error:
            return error
        return None

    def add_done_callback(self, call: Callable[[Pending], Any]) -> None:
        """Calls ``call(self)`` when it is done, on a thread of its own."""
        if not callable(call):
            raise _arguments.wrong("call", "a function", call)

        def run() -> None:
            self.exception()
            call(self)

        threading.Thread(target=run, name="tensorkeep-callback").start()

    def __await__(self) -> Generator[Any, None, Saved]:
        import asyncio  # Costs more than all of this package.

        return asyncio.get_running_loop().run_in_executor(None, self.result).__await__()

    def __repr__(self) -> str:
        return f"Pending(step={self.step}, {'done' if self.done() else 'on its way'})"
