"""Lightning: checkpoints in our format, and a run's checkpoints by a store, resumed bit for bit.

``CheckpointIO`` lets a Trainer and its ``ModelCheckpoint`` write and read our files. ``Checkpoint`` replaces
``ModelCheckpoint``: a store decides when to save, what to keep and where to go on.

Example:
    >>> import tensorkeep.lightning as tl  # doctest: +SKIP
    >>> store = tensorkeep.Store("runs/a", save=Every.epochs(1), keep=Keep.last(3), signals="off")  # doctest: +SKIP
    >>> callback = tl.Checkpoint(store)  # doctest: +SKIP
    >>> trainer = L.Trainer(callbacks=[callback], plugins=[tl.CheckpointIO()])  # doctest: +SKIP
    >>> trainer.fit(model, loader, ckpt_path=callback.resume_path())  # doctest: +SKIP
"""

from __future__ import annotations

import os
from typing import Any

import torch

try:
    from lightning.fabric.plugins import CheckpointIO as _CheckpointIO
    from lightning.fabric.utilities.data import AttributeDict
    from lightning.pytorch import Callback
except ImportError:  # The package under its older name.
    from lightning_fabric.plugins import CheckpointIO as _CheckpointIO
    from lightning_fabric.utilities.data import AttributeDict
    from pytorch_lightning import Callback

from . import rng
from . import torch as _tk
from ._errors import Foreign, Invalid
from ._store import Store
from ._walk import register

__all__ = ["RNG", "Checkpoint", "CheckpointIO"]

# What Lightning keeps hyper-parameters in.
register(AttributeDict, to=dict, back=AttributeDict, name="lightning.AttributeDict")


class CheckpointIO(_CheckpointIO):  # type: ignore[misc]
    """Writes a Trainer's checkpoints in our format: atomically, durably, without pickle.

    Files that ``torch.save`` made load, too, so that a run can change over.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any = None) -> None:
        """Saves a checkpoint to the path that Lightning chose."""
        if storage_options is not None:
            raise Invalid("storage_options mean nothing here", found=str(storage_options))
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        _tk.save(checkpoint, path)

    def load_checkpoint(
        self, path: str | os.PathLike[str], map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Loads a checkpoint, ours or torch's; of torch's nothing but data."""
        # Lightning passes functions that say where storages go; modules and optimizers move what they load.
        where = None if callable(map_location) else map_location
        try:
            loaded: dict[str, Any] = _tk.load(path, map_location=where)
        except Foreign:
            loaded = torch.load(path, map_location=map_location, weights_only=True)
        return loaded

    def remove_checkpoint(self, path: str | os.PathLike[str]) -> None:
        """Removes a checkpoint that Lightning keeps no longer."""
        if os.path.exists(path):
            os.remove(path)


class RNG(Callback):  # type: ignore[misc]
    """Keeps the random generators with each checkpoint, which Lightning does not.

    They are restored when the checkpoint is loaded: a loader draws its seed before any hook of training.
    """

    def state_dict(self) -> dict[str, Any]:
        """The generators."""
        return {"rng": rng.capture()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Puts them back."""
        rng.restore(state_dict["rng"])


class Checkpoint(RNG):
    """Saves by a store while training goes on. Use ``enable_checkpointing=False`` beside it.

    What is saved at the end of an epoch is resumed bit for bit. Within an epoch a shuffling loader draws another
    order when it is started again.

    Args:
        store: An open store, with ``signals="off"``: Lightning hears signals itself.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._saved: int | None = None

    def resume_path(self) -> str | None:
        """The newest checkpoint that verifies, for ``Trainer.fit(ckpt_path=)``, or None."""
        resumed = self.store.resume()
        self._saved = resumed.step if resumed.checkpoint else None
        return resumed.checkpoint.path if resumed.checkpoint else None

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        """Saves when a save is due, or when Lightning was asked to end."""
        self._save(trainer, trainer.current_epoch, force=trainer.received_sigterm)

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        """Saves when a save is due."""
        self._save(trainer, trainer.current_epoch + 1)

    def on_train_end(self, *_: Any) -> None:
        """Waits for what is on its way."""
        self.store.wait()

    def on_exception(self, *_: Any) -> None:
        """Waits for what is on its way."""
        self.store.wait()

    def _save(self, trainer: Any, epoch: int, force: bool = False) -> None:
        step = trainer.global_step
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        self.store.metrics(**metrics)
        if step == self._saved or not (self.store.due(step, epoch) or force):
            return
        checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        if trainer.is_global_zero:
            self.store.save(checkpoint, step, epoch=epoch, wait=False)
        self._saved = step
