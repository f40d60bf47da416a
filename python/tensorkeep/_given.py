"""What a store is given and gives, as tuples. What a save did is in ``_pending.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ._checkpoint import Checkpoint

if TYPE_CHECKING:
    import datetime

__all__ = ["Given", "Listed", "Resumed"]


class Resumed(NamedTuple):
    """Where training goes on."""

    #: Completed steps, and so the number of the next one; 0 where the run starts from nothing.
    step: int
    #: Completed epochs.
    epoch: int
    #: What was resumed from, or None.
    checkpoint: Checkpoint | None
    #: Newer checkpoints that do not verify: their step, what is wrong, where they were put.
    skipped: list[tuple[int, str, str | None]]
    #: ``"local"`` or ``"remote"``, or None.
    tier: str | None


class Listed(NamedTuple):
    """A checkpoint of a run, as it is listed."""

    step: int
    epoch: int
    #: NaN and infinities, which rank nothing, among them.
    metrics: dict[str, float]
    saved_at: datetime.datetime
    #: Why it was saved, in words.
    why: str
    nbytes: int
    pinned: bool
    #: Why it cannot be read, or None.
    error: str | None


class Given(NamedTuple):
    """The arguments of a save, which the extension module reads by name."""

    #: As ``_state.encode`` returns them: they refer to the tensors, and so keep them alive during the call.
    tensors: list[tuple[str, str, Sequence[int], int, Any]]
    records: dict[str, Any]
    types: Any
    step: int
    epoch: int
    metrics: list[tuple[str, float]]
    metadata: list[tuple[str, str]]
