"""Tensors by name, without a nested state: what safetensors has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

from . import _arguments, _tensorkeep
from ._checkpoint import Checkpoint
from ._files import Written, open
from ._paths import checked_text, refusal
from ._restore import Loader
from ._walk import Walk

__all__ = ["SafeOpen", "load_file", "save_file"]


def save_file(
    tensors: Mapping[str, Any],
    filename: str | os.PathLike[str],
    metadata: Mapping[str, str] | None,
    codec: str | Mapping[str, str],
) -> Written:
    """Saves tensors under exactly their names."""
    if not isinstance(tensors, Mapping):
        raise _arguments.wrong("tensors", "a dict of tensors by name", tensors)
    walk = Walk()
    for name, tensor in tensors.items():
        if not isinstance(name, str):
            raise refusal(repr(name), "a name that is no text", "use str() of it")
        checked_text(name, repr(name))
        count = len(walk.tensors)
        walk.value(tensor, name)
        if len(walk.tensors) != count + 1 or walk.tensors[-1][0] != name:
            kind = type(tensor).__name__
            raise refusal(name, f"a {kind} where a tensor is expected", "use save() for nested states")
    return Written(*_tensorkeep.save_file(
        _arguments.path("filename", filename), walk.tensors, {}, None,
        metrics=[], metadata=_arguments.metadata(metadata), codecs=_arguments.codecs(codec),
    ))  # fmt: skip


def load_file(filename: str | os.PathLike[str], framework: str, device: Any, backend: str) -> dict[str, Any]:
    """All tensors of a file by name."""
    with open(filename, mmap=_mmap(backend), verify="open") as checkpoint:
        return _all(checkpoint, framework, device)


def elsewhere(device: Any) -> Any:
    """A device that is not the CPU, or None."""
    kind = device if isinstance(device, str) else getattr(device, "type", None)
    return None if kind == "cpu" else device


def _mmap(backend: str) -> bool | Literal["auto"]:
    _arguments.word("backend", backend, ("mmap", "read", "pread"))
    return "auto" if backend == "mmap" else False


def _all(checkpoint: Checkpoint, framework: str, device: Any) -> dict[str, Any]:
    loader = Loader(framework, device)
    viewed = checkpoint._file.views(None)
    return {name: loader.tensor(view, alias or name, framework) for name, alias, view in viewed}


#: safetensors' names of dtypes, but for those that are ours in capitals.
_NAMES = {"f8e4m3fn": "F8_E4M3", "f8e5m2": "F8_E5M2", "f8e8m0fnu": "F8_E8M0",
          "f8e4m3fnuz": "F8_E4M3FNUZ", "f8e5m2fnuz": "F8_E5M2FNUZ"}  # fmt: skip


class SafeOpen:
    """An open file, tensor by tensor.

    Args:
        filename: A file, or a checkpoint of a run.
        framework: What tensors become: ``"pt"``, ``"np"`` or ``"jax"``.
        device: Where they go.
        backend: safetensors' word of how to read; tensors are read one by one here, whatever it is.
    """

    default_framework = "torch"
    _frameworks = {"pt": "torch", "torch": "torch", "pytorch": "torch", "np": "ndarray", "numpy": "ndarray",
                   "jax": "jax", "flax": "jax"}  # fmt: skip

    def __init__(
        self,
        filename: str | os.PathLike[str],
        framework: str | None = None,
        device: Any = "cpu",
        *,
        backend: Literal["mmap", "read", "pread"] = "mmap",
    ) -> None:
        _mmap(backend)  # Raises where it is none.
        words = self._frameworks
        known = self.default_framework if framework is None else words[_arguments.word("framework", framework, tuple(words))]
        self._framework, self._device = known, elsewhere(device)
        self._checkpoint: Checkpoint = open(filename, mmap=False, verify="touch")

    def __enter__(self) -> SafeOpen:
        return self

    def __exit__(self, *_: object) -> None:
        self._checkpoint.close()

    def keys(self) -> list[str]:
        """Names of the tensors."""
        return self._checkpoint.names()

    def offset_keys(self) -> list[str]:
        """Names of the tensors in the order of the file."""
        infos = self._checkpoint.infos()
        return sorted(infos, key=lambda name: infos[name].offset)

    def metadata(self) -> dict[str, str] | None:
        """Lines of text by key, or None where there are none."""
        return self._checkpoint.metadata or None

    def get_tensor(self, name: str) -> Any:
        """One tensor, read and verified now."""
        return Loader(self._framework, self._device).tensor(self._checkpoint.tensors[name].view(), name, self._framework)

    def get_tensors(self) -> dict[str, Any]:
        """All tensors by name, read and verified now; aliases are one tensor."""
        return _all(self._checkpoint, self._framework, self._device)

    def get_slice(self, name: str) -> Slice:
        """One tensor of which only some rows are read."""
        self._checkpoint.tensors[name]  # Raises where it is missing.
        return Slice(self, name)


class Slice:
    """A tensor to be indexed; of the first axis only the rows that are asked for are read."""

    def __init__(self, opened: SafeOpen, name: str) -> None:
        self._opened, self._name = opened, name
        self._info = opened._checkpoint.infos()[name]

    def get_shape(self) -> list[int]:
        """Lengths of the axes."""
        return list(self._info.shape)

    def get_dtype(self) -> str:
        """safetensors' name of the dtype, as ``"F32"``."""
        return _NAMES.get(self._info.dtype, self._info.dtype.upper())

    def __getitem__(self, index: Any) -> Any:
        opened, info = self._opened, self._info
        first, *rest = index if isinstance(index, tuple) and index else (index,)
        if not info.shape or not isinstance(first, slice) or first.step not in (None, 1):
            return opened.get_tensor(self._name)[index]
        start, stop, _ = first.indices(info.shape[0])
        view = opened._checkpoint._file.rows(self._name, start, max(start, stop))
        rows = Loader(opened._framework, opened._device).tensor(view, self._name, opened._framework)
        return rows[(slice(None), *rest)] if rest else rows
