"""What a save of DCP's writes: its plans as one list of tensors and pieces, and the values beside them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.checkpoint.planner import SavePlan, SavePlanner, WriteItem
from torch.distributed.checkpoint.storage import WriteResult

from . import _state, _torch
from ._dcp_read import PATHS
from ._errors import CannotStore, Invalid, Mismatch, Unsupported
from ._paths import escape

__all__ = ["Part", "Stored", "Shard", "encoded", "globals_of", "is_stored", "tensor_of", "value_of", "written"]

#: Offsets and lengths of a box, and the rank that stores it.
Piece = tuple[list[int], list[int], int]
#: Name, dtype, shape, pieces.
Global = tuple[str, str, list[int], list[Piece]]
#: Rank, file id, length, checksum of the index.
Shard = tuple[int, bytes, int, int]


class Part(NamedTuple):
    """What a rank is told by the coordinator."""

    save: str
    rank: int
    world: int
    tensors: list[Global]

    @property
    def is_alone(self) -> bool:
        """Whether everything is in one process, and whole: then there are no shards, but a plain file."""
        if self.world > 1:
            return False
        return all(pieces in ([], [([0] * len(shape), shape, 0)]) for _, _, shape, pieces in self.tensors)


class Stored(NamedTuple):
    """What a rank says of an item that it wrote."""

    shard: Shard | None = None
    #: An item that is no tensor is written by the coordinator.
    is_value: bool = False
    value: Any = None


def is_stored(item: WriteItem) -> bool:
    """Whether a piece has elements."""
    return item.tensor_data is not None and math.prod(item.tensor_data.chunk.sizes) > 0


def globals_of(plans: list[SavePlan]) -> list[Global]:
    """All tensors with all of their pieces."""
    found: dict[str, Global] = {}
    for rank, plan in enumerate(plans):
        for item in plan.items:
            data, fqn = item.tensor_data, item.index.fqn
            if not fqn or fqn.startswith("tensorkeep."):
                what = f"{fqn!r}: not a name for a tensor or a value"
                raise CannotStore(what, path=fqn, help="rename it in the state")
            if data is None:
                continue
            dtype = _torch.NAMES.get(data.properties.dtype)
            if dtype is None:
                advice = _torch.advice_on(data.properties.dtype)
                raise Unsupported(f"{fqn!r}: a tensor of {data.properties.dtype}", help=advice)
            name, told = escape(fqn), (dtype, list(data.size))
            known = found.setdefault(fqn, (name, *told, []))
            if known[1:3] != told:
                raise Mismatch(
                    f"tensor {name}: ranks disagree on it",
                    tensor=name,
                    expected=f"{known[1]} {known[2]}",
                    found=f"{dtype} {told[1]} on rank {rank}",
                    help="look at what each rank saves",
                )
            if is_stored(item):
                known[3].append((list(data.chunk.offsets), list(data.chunk.sizes), rank))
    return list(found.values())


def encoded(state: dict[str, Any], metadata: Metadata) -> _state.Encoded:
    """What lies in the file itself, for a state whose other tensors are torch's."""
    tensors, records, types = _state.encode(state) if state else _state.Encoded([], {}, {"v": _state.VERSION})
    framework = types.get("tensors", "torch")
    if framework != "torch":
        # Of which the file says nothing is torch's.
        kinds = types.setdefault("kinds", {})
        for name, *_ in tensors:
            kinds.setdefault(name, framework)
    types |= {"tensors": "torch", PATHS: _paths(metadata)}
    return _state.Encoded(tensors, records, types)


def value_of(planner: SavePlanner, item: WriteItem) -> Any:
    lookup = getattr(planner, "lookup_object", None)
    if lookup is not None:
        return lookup(item.index)
    packed = planner.resolve_data(item)
    return torch.load(packed, weights_only=True)


def tensor_of(planner: SavePlanner, item: WriteItem) -> torch.Tensor:
    tensor = planner.resolve_data(item)
    if not isinstance(tensor, torch.Tensor):
        raise Invalid(f"{item.index.fqn!r}: the planner gave a {type(tensor).__qualname__} for a tensor")
    return tensor.detach()


def written(item: WriteItem, shard: Shard | None) -> WriteResult:
    data = item.tensor_data
    assert data is not None
    size = math.prod(data.chunk.sizes) * data.properties.dtype.itemsize
    return WriteResult(item.index, size, Stored(shard))


def _paths(metadata: Metadata) -> dict[str, list[Any]]:
    """Where each value was, for whoever loads without a state to fill."""
    data = metadata.planner_data
    if type(data) is not dict:
        return {}
    paths = ((name, path) for name, path in data.items() if type(name) is str and isinstance(path, (tuple, list)))
    return {escape(name): list(path) for name, path in paths}
