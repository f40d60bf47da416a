"""Checkpoints of PyTorch: ``save`` and ``load`` for nested states, and the names of ``safetensors.torch``.

Example:
    >>> import tensorkeep.torch, torch
    >>> model = torch.nn.Linear(3, 2)
    >>> _ = tensorkeep.torch.save({"model": model.state_dict(), "epoch": 5}, "linear.tkeep")
    >>> loaded = tensorkeep.torch.load("linear.tkeep")
    >>> model.load_state_dict(loaded["model"])
    <All keys matched successfully>
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

import torch

from . import _arguments, _flat
from ._files import Codec, Written, load, save
from ._into import LoadReport, load_into
from ._store import Store
from ._train import TrainState

__all__ = [
    "LoadReport",
    "Store",
    "TrainState",
    "load",
    "load_file",
    "load_into",
    "load_model",
    "safe_open",
    "save",
    "save_file",
    "save_model",
]


def save_file(
    tensors: Mapping[str, torch.Tensor],
    filename: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    *,
    codec: Codec | Mapping[str, Codec] = "raw",
) -> Written:
    """Saves tensors by name, as ``safetensors.torch.save_file``, atomically and durably.

    Tensors that share memory are stored once and come back as one; tensors in any memory order are taken.

    Args:
        tensors: Tensors by name.
        filename: Where to.
        metadata: Lines of text by key.
        codec: As in :func:`tensorkeep.save`.

    Raises:
        CannotStore: A value is no tensor, or one that cannot be stored.

    Example:
        >>> import tensorkeep.torch, torch
        >>> _ = tensorkeep.torch.save_file({"w": torch.ones(2)}, "flat.tkeep")
        >>> tensorkeep.torch.load_file("flat.tkeep")
        {'w': tensor([1., 1.])}
    """
    return _flat.save_file(tensors, filename, metadata, codec)


def load_file(
    filename: str | os.PathLike[str],
    device: str | int | torch.device = "cpu",
    *,
    backend: Literal["mmap", "read", "pread"] = "mmap",
) -> dict[str, torch.Tensor]:
    """Loads all tensors of a file by name, as ``safetensors.torch.load_file``; every byte is verified.

    Args:
        filename: A file, or a checkpoint of a run.
        device: Where they go.
        backend: ``"mmap"`` makes writable views of a private mapping, ``"read"`` and ``"pread"`` read.
    """
    loaded: dict[str, torch.Tensor] = _flat.load_file(filename, "torch", _flat.elsewhere(device), backend)
    return loaded


class safe_open(_flat.SafeOpen):  # noqa: N801
    """As ``safetensors.safe_open``: tensors one by one, and slices of them.

    Example:
        >>> import tensorkeep.torch, torch
        >>> _ = tensorkeep.torch.save_file({"w": torch.arange(4.0)}, "open_flat.tkeep", {"made by": "a test"})
        >>> with tensorkeep.torch.safe_open("open_flat.tkeep", framework="pt") as f:
        ...     f.keys(), f.metadata(), f.get_slice("w")[1:3]
        (['w'], {'made by': 'a test'}, tensor([1., 2.]))
    """

    default_framework = "torch"


def save_model(model: torch.nn.Module, filename: str | os.PathLike[str], metadata: Mapping[str, str] | None = None) -> Written:
    """Saves a module's state dict by name. Tied weights need no care: :func:`save_file` keeps them."""
    return save_file(_arguments.one_of("model", model, torch.nn.Module).state_dict(), filename, metadata)


def load_model(model: torch.nn.Module, filename: str | os.PathLike[str], strict: bool = True) -> tuple[list[str], list[str]]:
    """Loads what :func:`save_model` saved into a module, all or nothing.

    Returns:
        Names that only the module has, and names that only the file has.

    Raises:
        Mismatch: Names, shapes or dtypes differ.
    """
    report = load_into(filename, model, group="", strict=strict)
    return report.missing, report.unexpected
