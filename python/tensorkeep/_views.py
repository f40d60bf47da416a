"""What an open file has, by name: tensors, of which only the index is read, and records."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from . import _tensorkeep
from ._errors import MissingName
from ._paths import nearest
from ._restore import Loader

__all__ = ["Info", "Records", "TensorView", "Tensors"]

#: How names of the library's own records begin.
_OWN = "tensorkeep."


class Info(NamedTuple):
    """What the index of a file says of one tensor."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    nbytes: int
    #: Bytes in the file.
    stored_nbytes: int
    #: Where they begin.
    offset: int
    #: Whether they are stored as they are, in one piece.
    raw: bool
    #: The tensor whose bytes these are, when this is a second name.
    alias_of: str | None


class TensorView:
    """One tensor of an open checkpoint; its bytes are read when they are asked for, once."""

    def __init__(self, file: _tensorkeep.File, info: Info) -> None:
        self._file = file
        self._view: _tensorkeep.View | None = None
        self.info = info

    @property
    def dtype(self) -> str:
        """The name of the dtype, as ``"f32"``."""
        return self.info.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Lengths of the axes."""
        return self.info.shape

    @property
    def nbytes(self) -> int:
        """Length in bytes."""
        return self.info.nbytes

    @property
    def alias_of(self) -> str | None:
        """The tensor whose bytes these are, when this is a second name."""
        return self.info.alias_of

    def view(self) -> _tensorkeep.View:
        """Its memory, which speaks the buffer protocol and DLPack."""
        if self._view is None:
            self._view = self._file.view(self.info.name)
        return self._view

    def numpy(self) -> Any:
        """As a numpy array over this memory."""
        return Loader().tensor(self.view(), self.info.name, "ndarray")

    def torch(self) -> Any:
        """As a torch tensor over this memory."""
        return Loader().tensor(self.view(), self.info.name, "torch")

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        array = self.numpy()
        if copy is False and dtype is not None and array.dtype != dtype:
            raise ValueError(f"{self.info.name}: {array.dtype} as {dtype} is a copy")  # As numpy asks for.
        return array if dtype is None and not copy else array.astype(dtype or array.dtype, copy=bool(copy))

    def __dlpack__(self, **how: Any) -> Any:
        return self.view().__dlpack__(**how)

    def __dlpack_device__(self) -> tuple[int, int]:
        return (1, 0)

    def __repr__(self) -> str:
        return f"TensorView({self.info.name!r}, {self.dtype}, {self.shape})"


Value = TypeVar("Value")


class _Named(Mapping[str, Value]):
    """What a file holds by name; each is read when it is asked for."""

    def __init__(self, file: _tensorkeep.File, names: Mapping[str, Any]) -> None:
        self._file, self._names = file, names

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


class Tensors(_Named[TensorView]):
    """Tensors by name."""

    def __init__(self, file: _tensorkeep.File, infos: dict[str, Info]) -> None:
        super().__init__(file, infos)
        self._made: dict[str, TensorView] = {}

    def __getitem__(self, name: str) -> TensorView:
        if name not in self:
            raise missing("tensor", name, list(self._names), self._file.name)
        if name not in self._made:
            self._made[name] = TensorView(self._file, self._names[name])
        return self._made[name]


class Records(_Named[Any]):
    """Records by name, but for the library's own."""

    def __init__(self, file: _tensorkeep.File) -> None:
        super().__init__(file, dict.fromkeys(name for name in file.records() if not name.startswith(_OWN)))

    def __getitem__(self, name: str) -> Any:
        if name not in self:
            raise missing("record", name, list(self._names), self._file.name)
        return self._file.record(name)


def missing(what: str, name: str, names: Sequence[str], where: str) -> MissingName:
    """The error of a name that is not there."""
    near = nearest(name, names) if isinstance(name, str) else None
    help = f"did you mean {near!r}?" if near else "names() lists them"
    shown = repr(name) if isinstance(name, str) else reprlib.repr(name)
    return MissingName(f"{where}: no {what} {shown}; {help}", object=where, help=help, **{what: name})
