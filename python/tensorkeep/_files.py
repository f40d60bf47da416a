"""Single files: saving a state, loading it, opening it. Runs are in ``_store.py``."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from . import _arguments, _state, _tensorkeep
from ._checkpoint import Checkpoint
from ._errors import Invalid, Unsupported
from ._progress import Progress, teller

__all__ = ["Written", "load", "open", "save"]

log = logging.getLogger("tensorkeep")

Verify = Literal["open", "touch", "never"]
Codec = Literal["raw", "balanced", "max"]


class Written(NamedTuple):
    """What :func:`save` wrote."""

    #: Length of the file in bytes.
    nbytes: int
    #: Tensors stored, without aliases.
    tensors: int
    #: How long it took, until it was durable.
    seconds: float
    #: Patterns of ``codec`` that fit nothing: misspelt, perhaps.
    unmatched_patterns: list[str]


def save(
    obj: Any,
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
    codec: Codec | Mapping[str, Codec] = "raw",
    progress: bool | Progress = False,
) -> Written:
    """Saves a nested state to one file, atomically and durably.

    When this returns, ``path`` is the new file, whole, also after a power cut; whatever ends this process before,
    ``path`` is the old file or the new one. Tensors are written from where they lie; other Python threads run
    meanwhile. What another thread changes meanwhile is saved partly as it was: the file verifies, and may mix two
    steps. Use :meth:`Store.save` with ``wait=False`` to train on.

    Args:
        obj: Dicts, lists, tuples and plain values with tensors or arrays in them. The keys of a dict at the top are
            groups: ``{"model": model.state_dict()}`` makes tensors named ``model/conv1.weight``.
            Two names of one tensor come back as one. Two names of one list or dict come back as
            two with equal values, and a ``defaultdict`` comes back as a dict, which is warned of.
        path: Where to. Its folder must exist.
        metadata: Lines of text for people.
        metrics: Numbers by name, to rank checkpoints by. One that is not finite is left out, and
            logged as a warning.
        codec: ``"raw"`` can be mapped; ``"balanced"`` makes floats smaller; ``{"optimizer/*": "balanced"}`` chooses
            by name.
        progress: True shows a bar on stderr where that is a terminal. A function is called with bytes done and bytes
            in all, ten times a second and at the end; what it raises is raised when the file is saved.

    Returns:
        What was written.

    Raises:
        CannotStore: A value is neither a tensor nor plain. The message has its path and what to do.
        NoSpace, IoError: ``path`` is what it was.

    Example:
        >>> import tensorkeep, numpy
        >>> state = {"model": {"w": numpy.ones((2, 3))}, "step": 7, "betas": (0.9, 0.999)}
        >>> written = tensorkeep.save(state, "state.tkeep")
        >>> tensorkeep.load("state.tkeep")["betas"]
        (0.9, 0.999)
    """
    place = _file_at(_arguments.path("path", path))
    tell = teller(f"saving {place}", progress)
    numbers, lines, codecs = _arguments.metrics(metrics), _arguments.metadata(metadata), _arguments.codecs(codec)
    for name, value in numbers:
        if not math.isfinite(value):  # Better a checkpoint without it than none.
            log.warning("%s: saved without the metric %r, which is %s and would rank nothing", place, name, value)
    numbers = [(name, value) for name, value in numbers if math.isfinite(value)]
    tensors, records, types = _state.encode(obj)
    return Written(*_tensorkeep.save_file(
        place, tensors, records, types, metrics=numbers, metadata=lines, codecs=codecs, progress=tell,
    ))  # fmt: skip


def load(
    path: str | os.PathLike[str],
    *,
    map_location: Any = None,
    mmap: bool | Literal["auto"] = "auto",
    verify: Verify = "open",
    only: str | Sequence[str] | None = None,
    strict_types: bool = False,
    progress: bool | Progress = False,
) -> Any:
    """Loads what :func:`save` saved, and what Rust or the command line made. Runs no code from the file.

    Tensors of a mapped file are writable views of a private mapping: the kernel copies a page when it is first
    written to, and the file never changes. Do not truncate or overwrite a file in place while it is mapped: saving
    to its path again, renaming and deleting it are fine.

    Args:
        path: A file, or ``"runs/a@latest"``, ``"runs/a@1200"``, ``"runs/a@best:val_loss:min"`` in a run.
        map_location: A device, as in ``torch.load``; None is the CPU. No file says where a tensor was: all count as the
            CPU's, so of a dict its entry for ``"cpu"`` is taken.
        mmap: True maps, False reads; ``"auto"`` maps on local disks unless ``only`` is given.
        verify: ``"open"`` verifies every byte that is loaded; ``"never"`` trusts the disk.
        only: Patterns of names: ``"model"``, ``"*/bias"``. Each chooses what it matches and all beneath it. Other
            tensors are not read and not in the result; in a list, where places count, each is a :class:`LeftOut`.
            Plain values beside what is chosen, in the same group, come along.
        strict_types: Whether a type that is not registered here is an error instead of a warning.
        progress: As in :func:`save`. With it ``mmap="auto"`` reads: a mapping is verified in one piece.

    Returns:
        The state, with torch's tensors where it was saved from them, else numpy's arrays.

    Raises:
        Damaged: A checksum does not match; file, tensor and byte are named.
        NotFound, Foreign, NewerVersion: There is no such file, or none that this version reads.
        NotFound: A pattern of ``only`` matches nothing.

    Example:
        >>> import tensorkeep, numpy
        >>> _ = tensorkeep.save({"model": {"w": numpy.zeros(3)}, "note": "first"}, "model.tkeep")
        >>> loaded = tensorkeep.load("model.tkeep")
        >>> loaded["model"]["w"][0] = 1.0  # in this process only
        >>> tensorkeep.load("model.tkeep", only="model/*")
        {'model': {'w': array([0., 0., 0.])}}
    """
    return load_as(None, path, mmap, verify, only, strict_types, progress, map_location)


def load_as(
    framework: str | None,
    path: str | os.PathLike[str],
    mmap: bool | Literal["auto"],
    verify: Verify,
    only: str | Sequence[str] | None,
    strict_types: bool,
    progress: bool | Progress,
    map_location: Any = None,
) -> Any:
    """As :func:`load`, with all tensors as a framework's."""
    tell = teller(f"loading {_arguments.path('path', path)}", progress)
    if type(mmap) is str and mmap == "auto" and (only is not None or tell is not None):
        mmap = False
    with open(path, mmap=mmap, verify=verify) as checkpoint:
        return checkpoint._restored(only, map_location, framework, strict_types, tell)


def open(  # noqa: A001
    path: str | os.PathLike[str], *, mmap: bool | Literal["auto"] = False, verify: Verify = "touch"
) -> Checkpoint:
    """Opens a checkpoint to look into it; tensors are read when they are asked for.

    Args:
        path: A file, or a checkpoint of a run, as in :func:`load`.
        mmap: Whether tensors are views of a private mapping, which is verified now.
        verify: When checksums are verified: now, when a tensor is touched, or never.

    Returns:
        The checkpoint, which is a context manager.

    Raises:
        NotFound, Foreign, Damaged, NewerVersion: As :func:`load`.

    Example:
        >>> import tensorkeep, numpy
        >>> _ = tensorkeep.save({"model": {"w": numpy.arange(6.0)}}, "open.tkeep", metrics={"loss": 0.5})
        >>> with tensorkeep.open("open.tkeep") as checkpoint:
        ...     print(checkpoint.names(), checkpoint.metrics["loss"])
        ...     print(checkpoint.tensors["model/w"].numpy()[2:4])
        ['model/w'] 0.5
        [2. 3.]
    """
    text = _arguments.path("path", path)
    if not (type(mmap) is bool or type(mmap) is str and mmap == "auto"):
        raise _arguments.wrong("mmap", "True, False or 'auto'", mmap)
    _arguments.word("verify", verify, ("open", "touch", "never"))
    folder, at, which = text.rpartition("@")
    is_run = os.path.isdir(folder) or which == "latest" or which.isdecimal() or which.startswith("best:")
    if at and ("://" in folder or is_run and not os.path.exists(text)):
        return Checkpoint(find(folder, which))
    _file_at(text)
    if mmap == "auto":
        # Where nothing can be mapped, a network file system, it is read.
        with contextlib.suppress(Unsupported):
            return Checkpoint(_tensorkeep.open_file(text, mapped=True, verify=verify))
        mmap = False
    if not mmap and verify == "open":
        verify = "touch"  # Each byte when it is loaded: reading twice finds nothing more.
    return Checkpoint(_tensorkeep.open_file(text, mapped=mmap, verify=verify))


def _file_at(path: str) -> str:
    """A path that is no URL: of the stores that these name, runs are opened, and no files."""
    if "://" in path:
        help = "save to a file and copy that, or open a run there by Store or @latest"
        raise Unsupported(f"{path}: a URL names no file; {help}", help=help, object=path)
    return path


def find(folder: str, which: str) -> _tensorkeep.File:
    """A checkpoint of a run by the words behind the ``@``."""
    if which == "latest":
        return _tensorkeep.find_in_run(folder, None, None)
    if which.isdecimal():
        return _tensorkeep.find_in_run(folder, _arguments.whole("step", int(which)), None)
    words = which.split(":")
    if words[0] == "best" and len(words) in (2, 3):
        mode = words[2] if len(words) == 3 else "min"
        return _tensorkeep.find_in_run(folder, None, (_arguments.text("metric", words[1]), mode))
    raise Invalid(f"{folder}@{which}: expected @latest, @STEP or @best:METRIC[:max]", found=which)
