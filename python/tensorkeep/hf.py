"""Hugging Face: a callback that saves a ``Trainer``'s run by a store, resuming it, and Accelerate.

Example:
    >>> import tensorkeep.hf  # doctest: +SKIP
    >>> store = tensorkeep.Store("runs/bert", save=Every.steps(500), keep=Keep.last(3))  # doctest: +SKIP
    >>> trainer = Trainer(model, args, callbacks=[tensorkeep.hf.StoreCallback(store)], ...)  # doctest: +SKIP
    >>> trainer.train(resume_from_checkpoint=tensorkeep.hf.resume(trainer, store))  # doctest: +SKIP
"""

from __future__ import annotations

import dataclasses
import json
import tempfile
import weakref
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback

from . import _arguments, rng
from ._store import Store
from ._train import TrainState

__all__ = ["StoreCallback", "register", "resume"]


class StoreCallback(TrainerCallback):  # type: ignore[misc]
    """Saves model, optimizer, scheduler, random generators and the trainer's own state when a save is due.

    Use ``save_strategy="no"`` beside it. Save at multiples of ``logging_steps``: the mean loss of a logging window that
    a stop cuts in two is nowhere.

    Args:
        store: An open store. A signal that asks it to stop ends the training behind a save.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._is_deferred = False

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Saves when a save is due; where this step is logged, too, behind that."""
        step = state.global_step
        if state.is_world_process_zero and self.store.due(step, int(state.epoch or 0)):
            if control.should_log:
                self._is_deferred = True
            else:
                self._save(state, parts)
        if self.store.should_stop:
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Saves what :meth:`on_step_end` left, with the line that was just logged."""
        if self._is_deferred:
            self._is_deferred = False
            self._save(state, parts)
            if self.store.should_stop:
                control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        """Waits for what is on its way."""
        self.store.wait()

    def _save(self, state: Any, parts: dict[str, Any]) -> None:
        plain = json.loads(json.dumps(dataclasses.asdict(state)))
        saved = {
            "rng": rng.capture(),
            "model": parts["model"].state_dict(),
            "optimizer": parts["optimizer"].state_dict(),
            "scheduler": parts["lr_scheduler"].state_dict(),
            "trainer_state": plain,
        }
        self.store.save(saved, state.global_step, epoch=int(state.epoch or 0), wait=False)


def resume(trainer: Any, store: Store) -> str | None:
    """What to pass to ``trainer.train(resume_from_checkpoint=)``: the newest checkpoint that verifies, or None.

    ``Trainer`` goes on from a folder only, so this makes one, which is removed with the trainer.

    Args:
        trainer: The trainer, with the model that was saved.
        store: The open store of its run.

    Returns:
        A folder, or None where the run starts from nothing.
    """
    checkpoint = store.resume().checkpoint
    if checkpoint is None:
        return None
    state = checkpoint.state(framework="torch")
    temporary = tempfile.TemporaryDirectory(prefix="tensorkeep-")
    weakref.finalize(trainer, temporary.cleanup)
    folder = Path(temporary.name) / f"checkpoint-{checkpoint.step}"
    folder.mkdir()
    model = trainer.accelerator.unwrap_model(trainer.model)
    if isinstance(model, PreTrainedModel):
        model.save_pretrained(folder, state_dict=state["model"])
    else:
        torch.save(state["model"], folder / "pytorch_model.bin")
    torch.save(state["optimizer"], folder / "optimizer.pt")
    torch.save(state["scheduler"], folder / "scheduler.pt")
    generators = state["rng"]
    named = {"python": generators["python"], "numpy": generators.get("numpy"), "cpu": generators["torch"]}
    if "cuda" in generators:
        # Trainer keeps all devices' where there is one process for several, else the one's.
        every = generators["cuda"]
        named["cuda"] = every if trainer.args.parallel_mode.value == "not_distributed" and len(every) > 1 else every[0]
    torch.save(named, folder / "rng_state.pth")
    (folder / "trainer_state.json").write_text(json.dumps(state["trainer_state"]))
    return str(folder)


def register(accelerator: Any, *, extra: dict[str, Any] | None = None, **parts: Any) -> TrainState:
    """Everything that an ``Accelerator`` has prepared, as a :class:`TrainState` for :meth:`Store.steps`.

    Args:
        accelerator: Behind ``prepare``.
        extra: Further values, as in :class:`TrainState`.
        **parts: Further parts, as there: a loader that knows its position, for example.

    Returns:
        Models, optimizers and schedulers by ``model``, ``optimizer``, ``scheduler``, further ones by ``model_1``, and
        the random generators.

    Example:
        >>> state = tensorkeep.hf.register(accelerator)  # doctest: +SKIP
        >>> for step in store.steps(total, state):  # doctest: +SKIP
        ...     accelerator.backward(loss(step))
    """
    prepared: dict[str, Any] = {}
    groups = {
        "model": [accelerator.unwrap_model(model) for model in accelerator._models],
        "optimizer": accelerator._optimizers,
        "scheduler": accelerator._schedulers,
    }
    for name, found in groups.items():
        prepared.update((name if i == 0 else f"{name}_{i}", part) for i, part in enumerate(found))
    if accelerator.scaler is not None:
        prepared["scaler"] = accelerator.scaler
    twice = prepared.keys() & parts.keys()
    if twice:
        raise _arguments.wrong("a part's name", "one that nothing has which the accelerator prepared", min(twice))
    return TrainState(extra=extra, **prepared, **parts)
