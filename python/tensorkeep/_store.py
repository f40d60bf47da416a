"""A run: when to save, what to keep, where to go on. What a save in the background came to is in ``_pending.py``."""

from __future__ import annotations

import atexit
import logging
import math
import os
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from . import _arguments, _state, _tensorkeep
from ._checkpoint import Checkpoint
from ._errors import Busy, ClosedError, ForkedError, IoError, Locked, NotPromoted, UnknownOutcome, Unsupported
from ._given import Given, Listed, Resumed
from ._pending import Pending, Saved
from ._policy import Every, Keep, rules_of
from ._run import Run
from ._signals import Action, Signals
from ._train import check_state, put_back

__all__ = ["Listed", "Pending", "Resumed", "Saved", "Store"]

log = logging.getLogger("tensorkeep")

#: Errors of a save after which training goes on: the save is due again.
TRAIN_ON = (IoError, Busy, NotPromoted, UnknownOutcome)

#: Open stores, for the fork and for the exit. Weak: a list would keep each store, and its lock, for ever.
_live: weakref.WeakSet[Store] = weakref.WeakSet()


def _in_full(error: Exception) -> str:
    """The text of an error and of its causes."""
    text = str(error)
    return ": ".join([text, *(cause for cause in getattr(error, "causes", ()) if cause not in text)])


class Store(Run):
    """The one writer of a run's checkpoints, in a folder. A context manager: leaving it waits for saves.

    Args:
        path: The run's folder, which is created where missing; or a URL (``s3://bucket/runs/a``) where the package was
            built with object stores, which that from PyPI is not.
        save: When :meth:`due` says that a save is due, and :meth:`steps` saves.
        keep: What stays when a newer checkpoint is durable.
        remote: A second folder or URL, on slower and safer storage, to which checkpoints are copied in the background.
        keep_remote: What stays there; ``keep`` unless it is set.
        codec: As in :func:`tensorkeep.save`.
        in_flight: Saves that may be in the background at a time. Each takes as much memory as the state.
        when_full: What one more does: ``"wait"``, ``"skip"`` or ``"error"`` (:class:`Busy`).
        background_nice: How much saves in the background yield to training, 0 to 19.
        signals: ``"auto"``: once a loop asks, SIGTERM asks it to save and stop, SIGUSR1 to save; and inside
            :meth:`steps` Ctrl-C, too. A second SIGTERM or Ctrl-C ends the program at once. ``"off"``, or actions by
            name: ``{"SIGUSR1": "save+stop"}``.
        deadline: Seconds that one call may wait for storage.

    Raises:
        Locked: Another process writes to this run.

    Example:
        >>> import tensorkeep, numpy
        >>> Every, Keep = tensorkeep.Every, tensorkeep.Keep
        >>> state = {"w": numpy.zeros(3)}
        >>> with tensorkeep.Store("runs/doc", save=Every.steps(2), keep=Keep.last(2)) as store:
        ...     for step in store.steps(5, state):
        ...         state["w"] += 1.0  # train
        ...         store.metrics(loss=1.0 / (step + 1))
        >>> with tensorkeep.Store("runs/doc") as store:
        ...     [(listed.step, listed.metrics["loss"]) for listed in store.list()]
        [(4, 0.25), (5, 0.2)]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        save: Every | None = None,
        keep: Keep | None = None,
        remote: str | os.PathLike[str] | None = None,
        keep_remote: Keep | None = None,
        codec: str | Mapping[str, str] = "raw",
        in_flight: int = 1,
        when_full: Literal["wait", "skip", "error"] = "wait",
        background_nice: int = 0,
        signals: Literal["auto", "off"] | Mapping[str, Action] = "auto",
        deadline: float = 180.0,
    ) -> None:
        self.path = _arguments.path("path", path)
        remote = None if remote is None else _arguments.path("remote", remote)
        self._signals = Signals(signals)
        self._pid = os.getpid()
        self._pending: list[Pending] = []
        #: Metrics of which it was told that they are not finite.
        self._told: set[str] = set()
        self._last: Saved | Pending | None = None
        #: Whether metrics were given since it was last asked what is due.
        self._is_observed = False
        #: Steps and epochs completed behind the step that :meth:`steps` has yielded.
        self._progress: tuple[int, int] | None = None
        try:
            self._store: _tensorkeep.Store | None = _tensorkeep.Store(
                self.path,
                save=rules_of("save", save, Every) or [],
                keep=rules_of("keep", keep, Keep) or [],
                remote=remote,
                keep_remote=rules_of("keep_remote", keep_remote, Keep),
                codecs=_arguments.codecs(codec),
                in_flight=_arguments.whole("in_flight", in_flight),
                when_full=_arguments.word("when_full", when_full, ("wait", "skip", "error")),
                background_nice=_arguments.whole("background_nice", background_nice, 19),
                deadline=_arguments.seconds("deadline", deadline),
            )
        except Locked:
            # As when a cell of a notebook runs again: there is no other process to stop.
            if not any(os.path.realpath(other.path) == os.path.realpath(self.path) for other in _live):
                raise
            what = f"{self.path}: this process has it open: close that store, or use it"
            raise Locked(what, object=self.path, help="close that store, or use it") from None
        _live.add(self)

    @property
    def _here(self) -> _tensorkeep.Store:
        if self._pid != os.getpid():
            help = "open the run after the fork, or start the child by spawn"
            what = f"{self.path}: this store belongs to process {self._pid}, and this is a forked child; {help}"
            raise ForkedError(what, object=self.path, help=help)
        if self._store is None:
            raise ClosedError(f"{self.path}: this store is closed; open the run again", object=self.path)
        return self._store

    def __enter__(self) -> Store:
        _ = self._here  # Raises where it is closed, as a file does.
        return self

    def __exit__(self, kind: Any, exception: BaseException | None, traceback: Any) -> None:
        try:
            self.close()
        except Exception as failed:
            if exception is None:
                raise
            # The loop's own exception matters more.
            exception.add_note(f"and closing the store failed: {failed}")

    def __reduce__(self) -> Any:
        raise Unsupported(f"{self.path}: a store cannot be pickled", help="open the run in the other process")

    def __repr__(self) -> str:
        return f"Store({self.path!r}{', closed' if self._store is None else ''})"

    def _repr_html_(self) -> str:
        from ._html import store

        return store(self)

    def steps(self, total: int, state: Any, *, steps_per_epoch: int | None = None) -> Iterator[int]:
        """The numbers of the steps that are left: resumes first, and saves when a save is due.

        Each number is yielded for its step to be trained. Behind the step the state is saved if one is due, in the
        background, and behind the last one always. The loop ends early, with a save, when a signal asks. A save that
        fails is logged, and is due again: training goes on. ``break`` saves nothing: to keep the step
        that it ends, call ``store.save(state, step + 1)`` before it.

        Args:
            total: How many steps the training has.
            state: A :class:`TrainState`, an object with ``state_dict`` and ``load_state_dict``, or a dict, whose
                values are replaced by a resume.
            steps_per_epoch: How many steps are an epoch, where epochs are counted.

        Yields:
            The number of the next step, from 0.
        """
        total = _arguments.whole("total", total)
        per_epoch = 0 if steps_per_epoch is None else _arguments.whole("steps_per_epoch", steps_per_epoch)
        check_state(state)
        first = self.resume(state).step
        self._signals.install(interrupt=True)
        try:
            for step in range(first, total):
                done, epoch = self._progress = step + 1, (step + 1) // per_epoch if per_epoch else 0
                yield step
                if (self.due(done, epoch) or done == total) and not self._has_saved(done):
                    try:
                        self.save(state, done, epoch=epoch, wait=False)
                    except TRAIN_ON as error:
                        log.error("a save failed, and training goes on: %s", _in_full(error))
                if self.should_stop:
                    log.warning("stopping behind step %d: a signal asked", step)
                    return
        finally:
            self._progress = None
            self._signals.uninstall(interrupt_only=True)

    def _has_saved(self, step: int) -> bool:
        """Whether the newest save, perhaps the body's own, is of this step and has not failed."""
        last = self._last
        if last is None or last.step != step:
            return False
        return isinstance(last, Saved) or not last.done() or last.exception() is None

    def resume(self, state: Any = None, *, at: int | None = None) -> Resumed:
        """Goes on from the newest checkpoint that verifies. Damaged newer ones are set aside, and logged.

        Args:
            state: What to restore, as in :meth:`steps`; None restores nothing.
            at: Resume from this step, whatever was saved after it: a rollback.

        Returns:
            Where training goes on.

        Raises:
            Damaged: There are checkpoints, and none verifies.
            Mismatch: The checkpoint is of another model.
        """
        at = None if at is None else _arguments.whole("at", at)
        if state is not None:
            check_state(state)
        step, epoch, file, skipped, tier, remote_error = self._here.resume(at)
        for number, error, put in skipped:
            place = f"it is in {put}" if put else "it was left where it is"
            log.warning("skipped the checkpoint of step %d, %s: %s", number, place, error)
        if remote_error:
            log.warning("the remote tier was not looked at: %s", remote_error)
        checkpoint = None if file is None else Checkpoint(file)
        if checkpoint is not None:
            log.warning("resuming %s at step %d", self.path, step)
            if state is not None:
                put_back(state, checkpoint.state())
        return Resumed(step, epoch, checkpoint, skipped, tier)

    def start_over(self) -> None:
        """Lets the first save follow on nothing although the run has checkpoints."""
        self._here.start_over()

    def due(self, step: int, epoch: int = 0) -> str | None:
        """Why a save is due, in words, or None.

        Args:
            step: Completed steps.
            epoch: Completed epochs.
        """
        store = self._here  # Raises before a handler is installed that nothing would take away.
        step, epoch = _arguments.progress(step, epoch)
        self._signals.install(interrupt=False)
        why = store.due(step, epoch)
        self._is_observed = False
        if self._signals.wants_save:
            if not store.has_saved(step, epoch):
                return "signal"
            self._signals.answered(self._signals.asked)
        return why

    @property
    def should_stop(self) -> bool:
        """Whether a signal asked to stop, and a save that was made since has answered it.

        Raises:
            ClosedError: The store is closed, and hears no signals any more.
        """
        _ = self._here  # As in `due`.
        self._signals.install(interrupt=False)
        return self._signals.wants_stop

    def metrics(self, **values: float) -> None:
        """Metrics of the state as it is now: the next checkpoint records them.

        One that is not finite is listed and ranks nothing, which is logged once.

        Inside :meth:`steps` they are points of the run's curves, too, as by :meth:`log`.

        Args:
            **values: By name; a 0-d tensor is read, which waits for its device.
        """
        store = self._here
        for name, value in self._numbers(values):
            store.observe(name, value)
            self._is_observed = True
        if self._progress:
            self.log(self._progress[0], values, epoch=self._progress[1])

    def log(self, step: int, metrics: Mapping[str, float], *, epoch: int = 0) -> None:
        """Adds a point to the run's curves, which each save takes along: ``tensorkeep report`` draws them.

        A checkpoint that is saved at exactly this step and epoch records these metrics, too. Touches no file.

        Args:
            step: Completed steps.
            metrics: By name; a 0-d tensor is read, which waits for its device. NaN and infinities are kept.
            epoch: Completed epochs.

        >>> import tempfile, tensorkeep
        >>> with tensorkeep.Store(tempfile.mkdtemp()) as store:
        ...     store.log(100, {"train/loss": 0.25}, epoch=1)
        ...     store.save({"w": 1}, 100, epoch=1).step
        100
        """
        self._here.log(*_arguments.progress(step, epoch), self._numbers(metrics))

    def _numbers(self, metrics: Mapping[str, float] | None) -> list[tuple[str, float]]:
        """Metrics by name. A loss that diverged ends no training: it is told, once a name."""
        numbers = _arguments.metrics(metrics)
        for name, value in numbers:
            if not math.isfinite(value) and name not in self._told:
                self._told.add(name)
                log.warning("%s: the metric %r is %s: it ranks no checkpoint as best", self.path, name, value)
        return numbers

    def save(
        self,
        state: Any,
        step: int,
        *,
        epoch: int = 0,
        metrics: Mapping[str, float] | None = None,
        metadata: Mapping[str, str] | None = None,
        wait: bool = True,
    ) -> Saved | Pending | None:
        """Saves a state.

        Args:
            state: As in :meth:`steps`.
            step: Completed steps, the checkpoint's name.
            epoch: Completed epochs.
            metrics: Numbers by name, beside those of :meth:`metrics`; as there, they may be NaN.
            metadata: Lines of text by key.
            wait: True returns when it is durable. False copies the state and returns; it becomes durable in the
                background.

        Returns:
            What was saved, or what will be; None with ``wait=False`` when there was no room and ``when_full="skip"``.

        Raises:
            Error: The one of an earlier save in the background. This call's save is made all the same.
            AlreadyExists: This step was saved.
            Fenced: A newer process has taken over the run.
        """
        store, asked = self._here, self._signals.asked
        step, epoch = _arguments.progress(step, epoch)
        numbers, lines = self._numbers(metrics), _arguments.metadata(metadata)
        tensors, records, types = _state.encode(state.state_dict() if hasattr(state, "state_dict") else state)
        finite = [(name, value) for name, value in numbers if math.isfinite(value)]
        given = Given(tensors, records, types, step, epoch, finite, lines)
        wait = _arguments.flag("wait", wait)
        if len(finite) < len(numbers):
            # What a save is given is ranked; what is logged at its step is listed with it, too.
            store.log(step, epoch, [(name, value) for name, value in numbers if not math.isfinite(value)])
        if self._is_observed:
            # The library gives what was observed to the step that it is asked about next.
            store.due(step, epoch)
            self._is_observed = False
        began = time.perf_counter()
        saved: Saved | Pending | None
        if wait:
            described, earlier = store.save(given)
            saved = Saved(**described)
        else:
            pending, earlier = store.stage(given)
            saved = pending and Pending(pending, step)
        stall = time.perf_counter() - began
        if saved is not None:
            self._signals.answered(asked)
            self._last = saved
            log.debug("saved step %d", step, extra={"step": step, "stall_ms": 1000 * stall})
        if isinstance(saved, Pending):
            self._pending = [*(old for old in self._pending if not old.done()), saved]
        if earlier is not None:
            earlier.add_note("the save of this call was made all the same")
            raise earlier
        return saved

    def wait(self) -> None:
        """Waits for all saves in the background. Ctrl-C ends the waiting, and the saves go on.

        Raises:
            Error: The one of a save that failed and that no call has raised yet.
        """
        store = self._here
        for pending in self._pending:
            while not pending.done():
                pending.wait(0.05)
        self._pending.clear()
        store.wait()

    def close(self) -> None:
        """Waits for saves, frees the lock, puts signal handlers back. Closing twice is fine.

        Raises:
            Error: As :meth:`wait`. The store is closed all the same.
        """
        if self._store is None or self._pid != os.getpid():
            return
        for pending in self._pending:
            while not pending.done():
                pending.wait(0.05)
        store, self._store = self._store, None
        self._signals.uninstall()
        _live.discard(self)
        store.close(self._signals.stopped_by)


def _after_fork_in_child() -> None:
    for store in list(_live):
        store._signals.uninstall()


def _at_exit() -> None:
    """A script that ends behind ``wait=False`` has saved: what is on its way is waited for."""
    for store in list(_live):
        try:
            if any(not pending.done() for pending in store._pending):
                log.warning("waiting for saves of %s", store.path)
            store.close()
        except Exception as error:
            log.error("closing %s: %s", store.path, _in_full(error))


os.register_at_fork(after_in_child=_after_fork_in_child)
atexit.register(_at_exit)
