"""An open checkpoint: what it says of itself, its records, its tensors, and the state that they make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from . import _arguments, _tensorkeep
from ._errors import Invalid
from ._only import choose
from ._paths import unescape
from ._progress import Progress
from ._restore import Loader, restore
from ._state import without_collecting
from ._views import Info, Records, Tensors, TensorView

__all__ = ["Checkpoint", "Difference"]

#: The record of what only Python knows of the values of a state.
TYPES = "tensorkeep.python"


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
        from ._files import open

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
        """The finite metrics by name: a run ranks by these. ``Store.list`` has the others, too."""
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
        found = self._file.diff(_arguments.one_of("other", other, Checkpoint)._file)
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
        return self._restored(only, map_location, framework, strict_types, None)

    @without_collecting()
    def _restored(
        self, only: str | Sequence[str] | None, where: Any, framework: str | None, strict: bool, tell: Progress | None
    ) -> Any:
        loader, strict = Loader(framework, where), _arguments.flag("strict_types", strict)
        file, records = self._file, Records(self._file)
        if only is None:
            decoded, viewed, others = dict(records), file.views(None, tell), set[str]()
        else:
            chosen, decoded = choose(only, self.names(), records, self.path)
            viewed, others = file.views(chosen, tell), set(self.infos()).difference(chosen)
        return restore(decoded, self._types, viewed, others, loader, strict)

    def _group(self, group: str, tensors: set[str] | None, framework: str | None) -> Any:
        """The value of one record with the tensors of these names in it; of no group all of the state."""
        file, records, types = self._file, Records(self._file), self._types
        decoded = {name: records[name] for name in records if name == (group or name)}
        if group and type(types) is dict:
            types = {**types, "bare": False}  # Of a state that is no dict the group is "state".
        state = restore(decoded, types, file.views(tensors), set(), Loader(framework), False)
        return state.get(unescape(group) if types is not None else group, {}) if group else state

    def _repr_html_(self) -> str:
        from ._html import checkpoint

        return checkpoint(self)

    def __repr__(self) -> str:
        if self._open is None:
            return f"Checkpoint({self.path!r}, closed)"
        return f"Checkpoint({self.path!r}, step={self.step}, {len(self.infos())} tensors, {self.nbytes} bytes)"

