"""A checkpoint as the flat state that DCP plans a load with, and the bytes that the plan asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.distributed.checkpoint._nested_dict import flatten_state_dict
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import ReadItem

from . import _tensorkeep, _torch
from ._checkpoint import Checkpoint
from ._errors import Invalid, Mismatch, NotFound
from ._paths import unescape
from ._restore import Loader, restore
from ._views import Info, Records

__all__ = ["PATHS", "Described"]

#: In the record of Python's types: the path of each value in the state, where DCP has flattened it.
PATHS = "dcp"


#: Name, offsets and lengths.
_Box = tuple[str, list[int], list[int]]


class _Meta(Loader):
    """Makes tensors without memory, and knows which of the file's each is. Arrays among torch's tensors are values to
    DCP; they and the tensors within values are the ones in ``inner``.
    """

    def __init__(self, inner: Mapping[str, _tensorkeep.View], arrays_are_values: bool) -> None:
        super().__init__()
        self.inner, self.arrays_are_values = inner, arrays_are_values
        self.made: dict[int, tuple[Info, torch.Tensor]] = {}

    def tensor(self, view: Info, owner: str, kind: str) -> Any:
        if view.name in self.inner:
            return super().tensor(self.inner[view.name], view.name, kind)
        if kind == "jax" or (kind == "ndarray" and self.arrays_are_values):
            return None
        made = torch.empty(view.shape, dtype=_torch.DTYPES.get(view.dtype, torch.uint8), device="meta")
        self.made[id(made)] = view, made
        return made


class Described:
    """A checkpoint as the flat state that DCP plans with."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        #: The record of Python's types, read once.
        self.types = checkpoint._types
        types = self.types if type(self.types) is dict else {}
        paths = types.get(PATHS)
        self.paths: Any = None
        #: Whether the state in the file is what DCP has flattened.
        self.is_flat = type(paths) is dict
        if type(paths) is dict:
            self.paths = {unescape(name): tuple(path) for name, path in paths.items() if type(path) is list}
        self.arrays_are_values = types.get("tensors", "torch") == "torch"
        self.meta = _Meta({}, self.arrays_are_values)
        self.flat = self._flat(self.meta)
        made = self.meta.made
        #: What the file has of each tensor of the flat state.
        self.infos = {name: made[id(value)][0] for name, value in self.flat.items() if id(value) in made}
        self.values: dict[str, Any] | None = None

    def _flat(self, loader: Loader) -> dict[str, Any]:
        checkpoint = self.checkpoint
        viewed = [(info.name, None, info) for info in checkpoint.infos().values()]
        state = restore(dict(Records(checkpoint._file)), self.types, viewed, set(), loader)
        if self.is_flat:
            return dict(state)
        flat: dict[str, Any]
        flat, self.paths = flatten_state_dict(state)
        return flat

    def metadata(self) -> Metadata:
        described: dict[str, Any] = {}
        for name in self.flat:
            info = self.infos.get(name)
            if info is None:
                described[name] = BytesStorageMetadata()
                continue
            size = torch.Size(info.shape)
            # One chunk, whatever it is stored as: boxes are read across pieces.
            chunk = ChunkStorageMetadata(torch.Size([0] * len(size)), size)
            dtype = self.meta.made[id(self.flat[name])][1].dtype
            described[name] = TensorStorageMetadata(TensorProperties(dtype=dtype), size, [chunk])
        meta = StorageMeta(checkpoint_id=self.checkpoint.path)
        return Metadata(described, planner_data=self.paths, storage_meta=meta)

    def value(self, name: str) -> Any:
        """A value that is no tensor, with the tensors that are in it."""
        if self.values is None:
            leaves = {info.name for info in self.infos.values()}
            inner = set(self.checkpoint.infos()) - leaves
            views = {name: view for name, _, view in self.checkpoint._file.views(inner)} if inner else {}
            self.values = self._flat(_Meta(views, self.arrays_are_values))
        return self.values[name]

    def fill(self, wanted: Sequence[tuple[ReadItem, torch.Tensor]]) -> None:
        """Fills tensors, all of them at once that lie as a file has them. Each of the others, as those of a GPU, passes
        through memory of its own.
        """
        in_place: list[tuple[_Box, torch.Tensor]] = []
        others: list[tuple[_Box, torch.Tensor]] = []
        for item, target in wanted:
            box = self._checked(item, target)
            (in_place if _is_as_in_file(target) else others).append((box, target))
        self._fill(in_place)
        for box, target in others:
            loaded = torch.empty(target.shape, dtype=target.dtype)
            self._fill([(box, loaded)])
            target.copy_(loaded)

    def _fill(self, targets: Sequence[tuple[_Box, torch.Tensor]]) -> None:
        rooms: list[Any] = [(*box, target.data_ptr(), target.nbytes, target) for box, target in targets]
        self.checkpoint._file.fill_boxes(rooms)
        for _, target in targets:
            # Autograd notices it, as it does a write by torch.
            torch.autograd.graph.increment_version(target)

    def _checked(self, item: ReadItem, target: torch.Tensor) -> _Box:
        """The box that is asked for, where it is what the state has."""
        info = self.infos.get(item.storage_index.fqn)
        if info is None:
            raise NotFound(f"{self.checkpoint.path}: no tensor {item.storage_index.fqn!r}")
        dtype, lens = _torch.dtype_of(info), tuple(item.lengths)
        if (dtype, lens) != (target.dtype, tuple(target.shape)):
            what = f"{self.checkpoint.path}: tensor {info.name}: the state has another dtype or shape"
            expected, found, help = f"{target.dtype} {tuple(target.shape)}", f"{dtype} {lens}", "make the state as it was saved"
            raise Mismatch(what, tensor=info.name, expected=expected, found=found, help=help)
        if _has_own_memory(target) and not _torch.is_held(target):
            raise Invalid(f"tensor {info.name}: the state's has less memory than elements: its storage was resized")
        begin = item.storage_index.offset or [0] * len(info.shape)
        return info.name, [at + further for at, further in zip(begin, item.storage_offsets)], list(lens)


def _has_own_memory(tensor: torch.Tensor) -> bool:
    """Whether a tensor is the CPU's and its elements are in a storage: those of subclasses may be anywhere."""
    return type(tensor) is torch.Tensor and tensor.is_cpu and tensor.layout is torch.strided and not tensor._is_zerotensor()


def _is_as_in_file(tensor: torch.Tensor) -> bool:
    """Whether a tensor's memory is in row-major order, with nothing to be done to its values."""
    is_written_by_torch = tensor.is_neg() or tensor.is_conj() or tensor.is_inference()
    return _has_own_memory(tensor) and tensor.is_contiguous() and not is_written_by_torch
