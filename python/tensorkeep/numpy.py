"""Checkpoints of numpy: nested states of arrays, and the names of ``safetensors.numpy`` and ``numpy.savez``.

With ``ml_dtypes`` installed, bf16 and the 8-bit floats are arrays like others.

Example:
    >>> import tensorkeep.numpy, numpy
    >>> _ = tensorkeep.numpy.save_file({"w": numpy.ones(2)}, "arrays.tkeep")
    >>> tensorkeep.numpy.load_file("arrays.tkeep")
    {'w': array([1., 1.])}
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy

from . import _arguments, _flat
from ._files import Codec, Verify, Written, load_as, save
from ._progress import Progress

__all__ = ["load", "load_file", "safe_open", "save", "save_file", "savez"]

Array = numpy.ndarray[Any, Any]


def load(
    path: str | os.PathLike[str],
    *,
    mmap: bool | Literal["auto"] = "auto",
    verify: Verify = "open",
    only: str | Sequence[str] | None = None,
    strict_types: bool = False,
    progress: bool | Progress = False,
) -> Any:
    """As :func:`tensorkeep.load`, with all tensors as arrays, whatever they were saved from."""
    return load_as("ndarray", path, mmap, verify, only, strict_types, progress)


def save_file(
    tensors: Mapping[str, Array],
    filename: str | os.PathLike[str],
    metadata: Mapping[str, str] | None = None,
    *,
    codec: Codec | Mapping[str, Codec] = "raw",
) -> Written:
    """Saves arrays by name, as ``safetensors.numpy.save_file``, atomically and durably."""
    return _flat.save_file(tensors, filename, metadata, codec)


def load_file(filename: str | os.PathLike[str], *, backend: Literal["mmap", "read", "pread"] = "mmap") -> dict[str, Array]:
    """Loads all tensors of a file by name as arrays, which may be written to; the file never changes."""
    loaded: dict[str, Array] = _flat.load_file(filename, "ndarray", None, backend)
    return loaded


def savez(file: str | os.PathLike[str], *args: Array, **kwds: Array) -> Written:
    """Saves arrays as ``numpy.savez`` names them: ``arr_0``, ``arr_1``, and by keyword.

    Example:
        >>> import tensorkeep.numpy, numpy
        >>> _ = tensorkeep.numpy.savez("savez.tkeep", numpy.zeros(1), b=numpy.ones(1))
        >>> sorted(tensorkeep.numpy.load_file("savez.tkeep"))
        ['arr_0', 'b']
    """
    numbered = {f"arr_{i}": numpy.asarray(array) for i, array in enumerate(args)}
    named = {name: numpy.asarray(array) for name, array in kwds.items()}
    twice = numbered.keys() & named.keys()
    if twice:
        raise _arguments.wrong("a keyword", "a name that no array in a row has", min(twice))
    return save_file({**numbered, **named}, file)


class safe_open(_flat.SafeOpen):  # noqa: N801
    """As ``safetensors.safe_open``."""

    default_framework = "ndarray"
