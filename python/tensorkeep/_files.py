"""Single files: saving a state, loading it, looking into it. Stores are in ``_store.py``."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from . import _arguments, _state, _tensorkeep
from ._errors import Invalid, Unsupported
from ._only import choose
from ._restore import Loader, restore
from ._views import Info, Records, Tensors, TensorView

__all__ = ["Checkpoint", "Difference", "Info", "TensorView", "Written", "load", "open", "save"]

Path = "str | os.PathLike[str]"
Verify = Literal["open", "touch", "never"]
Codec = Literal["raw", "balanced", "max"]

#: The record of what only Python knows of the values of a state.
TYPES = "tensorkeep.python"


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
) -> Written:
    """Saves a nested state to one file, atomically and durably.

    When this returns, ``path`` is the new file, whole, also after a power cut; whatever ends this process before,
    ``path`` is the old file or the new one. Tensors are written from where they lie; other Python threads run
    meanwhile. What another thread changes meanwhile is saved partly as it was: the file verifies, and may mix two
    steps. Use :meth:`Store.save` with ``wait=False`` to train on.

    Args:
        obj: Dicts, lists, tuples and plain values with tensors or arrays in them. The keys of a dict at the top are
            groups: ``{"model": model.state_dict()}`` makes tensors named ``model/conv1.weight``.
        path: Where to. Its folder must exist.
        metadata: Lines of text for people.
        metrics: Finite numbers by name, to rank checkpoints by.
        codec: ``"raw"`` can be mapped; ``"balanced"`` makes floats smaller; ``{"optimizer/*": "balanced"}`` chooses
            by name.

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
    tensors, records, types = _state.encode(obj)
    return Written(*_tensorkeep.save_file(
        _arguments.path("path", path), tensors, records, types, metrics=_arguments.metrics(metrics),
        metadata=_arguments.metadata(metadata), codecs=_arguments.codecs(codec),
    ))  # fmt: skip


def load(
    path: str | os.PathLike[str],
    *,
    map_location: Any = None,
    mmap: bool | Literal["auto"] = "auto",
    verify: Verify = "open",
    only: str | Sequence[str] | None = None,
    strict_types: bool = False,
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
    with open(path, mmap=mmap if only is None or mmap is True else False, verify=verify) as checkpoint:
        return checkpoint.state(only=only, map_location=map_location, strict_types=strict_types)


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
    if mmap not in (True, False, "auto"):
        raise _arguments.wrong("mmap", "True, False or 'auto'", mmap)
    folder, at, which = text.rpartition("@")
    if at and os.path.isdir(folder) and not os.path.exists(text):
        return Checkpoint(find(folder, which))
    if mmap == "auto":
        # Where nothing can be mapped, a network file system, it is read.
        with contextlib.suppress(Unsupported):
            return Checkpoint(_tensorkeep.open_file(text, mapped=True, verify=verify))
        mmap = False
    if not mmap and verify == "open":
        verify = "touch"  # Each byte when it is loaded: reading twice finds nothing more.
    return Checkpoint(_tensorkeep.open_file(text, mapped=mmap, verify=verify))


def find(folder: str, which: str) -> _tensorkeep.File:
    """A checkpoint of a run by the words behind the ``@``."""
    if which == "latest":
        return _tensorkeep.find_in_run(folder, None, None)
    if which.isdecimal():
        return _tensorkeep.find_in_run(folder, _arguments.whole("step", int(which)), None)
    words = which.split(":")
    if words[0] == "best" and len(words) in (2, 3):
        return _tensorkeep.find_in_run(folder, None, (words[1], words[2] if len(words) == 3 else "min"))
    raise Invalid(f"{folder}@{which}: expected @latest, @STEP or @best:METRIC[:max]", found=which)


class Report(NamedTuple):
    """What :meth:`Checkpoint.verify` found."""

    tensors: int
    records: int
    chunks: int
    nbytes: int
    #: All damage, in words; empty when the file is whole.
    damage: list[str]


class Difference(NamedTuple):
    """How a tensor differs between two checkpoints."""

    #: ``"differ"``; ``"close"``: other bytes of equal numbers; ``"incompatible"``: another dtype or shape; ``"only
    #: left"`` or ``"only right"``.
    verdict: str
    #: The largest absolute difference; NaN where one side alone has a NaN, None where numbers are not compared.
    max_abs: float | None
    #: ``|a - b| / |a|``, Euclidean.
    relative_l2: float | None
    #: Dtype and shape of both sides, where they are incompatible.
    detail: str | None


class Checkpoint:
    """An open checkpoint: what it says of itself, its records and its tensors. See :func:`open`.

    Closing it ends new access; views that were given out live on.
    """

    def __init__(self, file: _tensorkeep.File) -> None:
        self._open: _tensorkeep.File | None = file
        self._infos: dict[str, Info] | None = None
        self.path: str = file.name

    @property
    def _file(self) -> _tensorkeep.File:
        if self._open is None:
            raise Invalid(f"{self.path}: this checkpoint is closed", help="open it again")
        return self._open

    def __enter__(self) -> Checkpoint:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends access through this object."""
        self._open = None

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path,)

    @property
    def _types(self) -> Any:
        """The record of Python's types, or None in a file that :func:`save` did not make."""
        return self._file.record(TYPES) if TYPES in self._file.records() else None

    @property
    def step(self) -> int | None:
        """Completed steps, if the checkpoint says so."""
        progress = self._file.progress()
        return progress and progress[0]

    @property
    def epoch(self) -> int | None:
        """Completed epochs, if the checkpoint says so."""
        progress = self._file.progress()
        return progress and progress[1]

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics by name."""
        return self._file.metrics()

    @property
    def metadata(self) -> dict[str, str]:
        """Lines of text by key."""
        return self._file.metadata()

    @property
    def nbytes(self) -> int:
        """Length of the file in bytes."""
        return self._file.nbytes

    def infos(self) -> dict[str, Info]:
        """What the index says of each tensor, by name. Reads no tensor."""
        file = self._file
        if self._infos is None:
            found = (Info._make(row) for row in file.tensors())
            self._infos = {info.name: info._replace(shape=tuple(info.shape)) for info in found}
        return self._infos

    def names(self) -> list[str]:
        """Names of all tensors, in the order of the file."""
        return list(self.infos())

    @property
    def tensors(self) -> Mapping[str, TensorView]:
        """Tensors by name."""
        return Tensors(self._file, self.infos())

    @property
    def records(self) -> Mapping[str, Any]:
        """Records by name, as plain values: a tuple is a list, and a tensor's place is None."""
        return Records(self._file)

    def slice(self, name: str, start: int, stop: int) -> Any:
        """Rows ``start`` to ``stop``, both counted from 0, of a tensor as a numpy array; only their chunks are read."""
        start, stop = _arguments.whole("start", start), _arguments.whole("stop", stop)
        self.tensors[name]  # Raises where it is missing.
        return Loader().tensor(self._file.rows(name, start, stop), name, "ndarray")

    def verify(self) -> Report:
        """Verifies every byte of the file, whatever was verified before."""
        return Report(*self._file.verify())

    def diff(self, other: Checkpoint) -> dict[str, Difference]:
        """Compares all tensors with those of another checkpoint by name. Floats of two widths are compared as numbers.

        Args:
            other: The right side.

        Returns:
            The tensors that differ; nothing where all are equal.

        Raises:
            Damaged: A tensor of either side is.
            NotFound: A file was replaced since it was opened.

        Example:
            >>> import tensorkeep, numpy
            >>> _ = tensorkeep.save({"w": numpy.zeros(2), "b": numpy.ones(1)}, "left.tkeep")
            >>> _ = tensorkeep.save({"w": numpy.full(2, 0.5), "b": numpy.ones(1)}, "right.tkeep")
            >>> with tensorkeep.open("left.tkeep") as left, tensorkeep.open("right.tkeep") as right:
            ...     for name, difference in left.diff(right).items():
            ...         print(name, difference.verdict, difference.max_abs)
            w differ 0.5
        """
        found = self._file.diff(other._file)
        return {name: Difference(*row) for name, row in found.items()}

    def state(
        self,
        only: str | Sequence[str] | None = None,
        *,
        map_location: Any = None,
        framework: str | None = None,
        strict_types: bool = False,
    ) -> Any:
        """The nested state, as :func:`load` gives it."""
        with _state.without_collecting():
            return self._state(only, map_location, framework, strict_types)

    def _state(self, only: str | Sequence[str] | None, map_location: Any, framework: str | None, strict: bool) -> Any:
        file, records = self._file, Records(self._file)
        if only is None:
            decoded, viewed, others = dict(records), file.views(None), set[str]()
        else:
            chosen, decoded = choose(only, self.names(), records, self.path)
            viewed, others = file.views(chosen), set(self.infos()).difference(chosen)
        return restore(decoded, self._types, viewed, others, Loader(framework, map_location), strict)

    def _repr_html_(self) -> str:
        from ._html import checkpoint

        return checkpoint(self)

    def __repr__(self) -> str:
        if self._open is None:
            return f"Checkpoint({self.path!r}, closed)"
        return f"Checkpoint({self.path!r}, step={self.step}, {len(self.infos())} tensors, {self.nbytes} bytes)"

