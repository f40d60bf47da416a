"""Signals that ask a training to save, or to save and stop. Python's handlers, on the main thread: those of the
library would stand beside KeyboardInterrupt, which ends a step in its middle.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Mapping
from typing import Any, Literal

from . import _arguments

__all__ = ["Signals"]

log = logging.getLogger("tensorkeep")

Action = Literal["save", "save+stop"]
#: Of ``signals="auto"``.
AUTO: Mapping[str, Action] = {"SIGTERM": "save+stop", "SIGINT": "save+stop", "SIGUSR1": "save"}
_NAMED: Mapping[str, Mapping[str, Action]] = {"auto": AUTO, "off": {}}
#: The kernel lets no program answer the first two. The others tell of an error at one instruction: a handler that
#: returns meets it again.
_HEARD = frozenset(signal.Signals.__members__) - {"SIGKILL", "SIGSTOP", "SIGSEGV", "SIGBUS", "SIGFPE", "SIGILL"}


class Signals:
    """What signals asked one store, and how much of it a save has answered."""

    def __init__(self, wanted: Literal["auto", "off"] | Mapping[str, Action]) -> None:
        named = _NAMED.get(wanted) if isinstance(wanted, str) else wanted
        if not isinstance(named, Mapping):
            raise _arguments.wrong("signals", "'auto', 'off' or actions by a signal's name", wanted)
        self._wanted: Mapping[str, Action] = dict(named)
        for name, action in named.items():
            if name not in _HEARD:
                raise _arguments.wrong("signals", "names of signals that a program may answer, as 'SIGUSR1'", name)
            _arguments.word(f"signals[{name!r}]", action, ("save", "save+stop"))
        self._is_auto = named is AUTO
        self._installed: dict[int, tuple[Any, Any]] = {}
        self._pid = os.getpid()
        #: Requests, and those that a save has answered.
        self.asked = self._answered = 0
        self.stops = 0
        #: The one that asked to stop.
        self.stopped_by: str | None = None

    def install(self, *, interrupt: bool) -> None:
        """Installs handlers; of SIGINT only inside a loop that looks at them."""
        names = [name for name in self._wanted if (name == "SIGINT") == interrupt]
        numbers = [number for name in names if (number := int(getattr(signal, name))) not in self._installed]
        if not numbers:
            return
        if threading.current_thread() is not threading.main_thread():
            log.warning("signals are not heard: this is not the main thread")
            return
        for number in numbers:
            previous = signal.getsignal(number)
            if previous is signal.SIG_IGN and number != signal.SIGUSR1 and self._is_auto:
                continue  # As under nohup.
            handler = self._handle
            self._installed[number] = (handler, previous)
            signal.signal(number, handler)

    def uninstall(self, *, interrupt_only: bool = False) -> None:
        """Puts back what was there, where nobody has installed something since."""
        for number, (handler, previous) in list(self._installed.items()):
            if interrupt_only and number != signal.SIGINT:
                continue
            if threading.current_thread() is not threading.main_thread():
                return
            del self._installed[number]
            if signal.getsignal(number) == handler:
                signal.signal(number, previous if previous is not None else signal.SIG_DFL)

    def _handle(self, number: int, frame: Any) -> None:
        if os.getpid() != self._pid:
            # A forked child: what the parent answers is not its own to answer.
            self._again(number)
            return
        stop = self._wanted[signal.Signals(number).name] == "save+stop"
        if stop and self.stops:
            self.stops += 1
            self._again(number)
            return
        self.asked += 1
        self.stops += stop
        if stop:
            self.stopped_by = signal.Signals(number).name
        _, previous = self._installed[number]
        if callable(previous) and previous is not signal.default_int_handler:
            previous(number, frame)

    def _again(self, number: int) -> None:
        """A second request: it ends the program, as it would have without a store."""
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        raise SystemExit(128 + number)

    @property
    def wants_save(self) -> bool:
        """A request that no save has answered."""
        return self.asked > self._answered

    @property
    def wants_stop(self) -> bool:
        """A stop was asked, and a save has answered it."""
        return self.stops > 0 and not self.wants_save

    def answered(self, asked: int) -> None:
        """A save that was made answers the first ``asked`` requests."""
        self._answered = max(self._answered, asked)
