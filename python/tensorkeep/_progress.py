"""What ``progress=`` may be: a function of bytes done and bytes in all, or True for a bar on a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

from . import _arguments

__all__ = ["Progress", "teller"]

Progress = Callable[[int, int], Any]


def teller(what: str, progress: bool | Progress) -> Progress | None:
    """What is to be called while something goes on, or None. A bar is for people: without a terminal there is none."""
    if callable(progress):
        return progress
    if type(progress) is not bool:
        raise _arguments.wrong("progress", "True, False, or a function of bytes done and bytes in all", progress)
    return _Bar(what) if progress and sys.stderr is not None and sys.stderr.isatty() else None


class _Bar:
    """A line on stderr that is drawn over itself."""

    def __init__(self, what: str) -> None:
        import shutil  # With the archives that it knows it takes a tenth of importing all of this package.

        self._columns = shutil.get_terminal_size().columns
        self._what, self._began = what, time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        part = done / total if total else 1.0
        rate = done / max(time.monotonic() - self._began, 1e-9)
        tail = f" {part:4.0%} of {total / 1e6:,.1f} MB, {rate / 1e6:,.0f} MB/s"
        room = self._columns - len(self._what) - len(tail) - 4
        bar = f" [{'#' * round(part * room):{room}}]" if room > 4 else ""
        sys.stderr.write(f"\r{self._what}{bar}{tail}" + ("\n" if done >= total else ""))
        sys.stderr.flush()
