"""The checkpoints of a run, which a store lists, opens, pins and deletes."""

from __future__ import annotations

from typing import Literal

from . import _arguments, _tensorkeep
from ._checkpoint import Checkpoint
from ._given import Listed

__all__ = ["Run"]

#: The last second that a date can be.
_LAST = 253_402_300_799


class Run:
    """What a store does with checkpoints that are there."""

    @property
    def _here(self) -> _tensorkeep.Store:
        """The open store of the extension module, which raises where this one is closed or another process's."""
        raise NotImplementedError

    def list(self) -> list[Listed]:
        """All checkpoints, oldest first."""
        import datetime

        listed = []
        for step, epoch, metrics, seconds, why, nbytes, pinned, error in self._here.list():
            # A file may say anything: a clock that was wrong, or a year that no date has.
            saved_at = datetime.datetime.fromtimestamp(min(seconds, _LAST), datetime.timezone.utc)
            listed.append(Listed(step, epoch, metrics, saved_at, why, nbytes, pinned, error))
        return listed

    def kept(self) -> dict[int, set[str]]:
        """By step, why each checkpoint stays; one that is not there goes with the next save."""
        return dict(self._here.kept())

    def latest(self) -> Checkpoint | None:
        """The newest checkpoint that opens."""
        file = self._here.latest()
        return None if file is None else Checkpoint(file)

    def best(self, metric: str, mode: Literal["min", "max"] = "min") -> Checkpoint | None:
        """The best checkpoint by a metric."""
        file = self._here.best(_arguments.text("metric", metric), _arguments.word("mode", mode, ("min", "max")))
        return None if file is None else Checkpoint(file)

    def open(self, step: int) -> Checkpoint:
        """The checkpoint of a step."""
        return Checkpoint(self._here.checkpoint(_arguments.whole("step", step)))

    def pin(self, step: int) -> None:
        """Protects a checkpoint from rotation, also after a restart."""
        self._here.pin(_arguments.whole("step", step))

    def unpin(self, step: int) -> None:
        """Takes the pin away."""
        self._here.unpin(_arguments.whole("step", step))

    def delete(self, step: int) -> None:
        """Deletes a checkpoint, durably."""
        self._here.delete(_arguments.whole("step", step))

    @property
    def attempt(self) -> int:
        """The number of this writer among those that the run had."""
        return self._here.attempt()
