"""PyTorch's Distributed Checkpoint (``torch.distributed.checkpoint``) over tensorkeep: a shard for each rank that
stores something, one manifest whose rename is the commit, every byte verified when it is read, and no pickle.

Example:
    >>> import tensorkeep.dcp, torch, torch.distributed.checkpoint as dcp
    >>> state = {"model": {"w": torch.arange(6.0).reshape(2, 3)}, "step": 7}
    >>> _ = dcp.save(state, storage_writer=tensorkeep.dcp.StorageWriter("step7.tkeep"))
    >>> empty = {"model": {"w": torch.zeros(2, 3)}, "step": 0}
    >>> dcp.load(empty, storage_reader=tensorkeep.dcp.StorageReader("step7.tkeep"))
    >>> empty["model"]["w"], empty["step"]
    (tensor([[0., 1., 2.],
            [3., 4., 5.]]), 7)
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import secrets
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch.distributed.checkpoint import storage
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.metadata import Metadata, StorageMeta
from torch.distributed.checkpoint.planner import (
    LoadItemType,
    LoadPlan,
    LoadPlanner,
    SavePlan,
    SavePlanner,
    WriteItem,
    WriteItemType,
)
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from . import _arguments, _state, _tensorkeep
from ._dcp_read import Described
from ._dcp_write import Part, Shard, Stored, encoded, globals_of, is_stored, tensor_of, value_of, written
from ._errors import Error, Invalid, Unsupported
from ._files import Codec
from ._files import open as _open
from ._paths import escape

__all__ = ["StorageReader", "StorageWriter"]


class StorageWriter(storage.StorageWriter):  # type: ignore[misc]
    """Writes a checkpoint of all ranks: ``dcp.save(state, storage_writer=StorageWriter("step7.tkeep"))``.

    The path, or the ``checkpoint_id`` of the call, is the manifest: what every reader of tensorkeep opens as one
    checkpoint. Until its rename the path is the old checkpoint, whole; the shards of the old one go behind it. A
    single process writes a plain file. Values that are no tensors are stored as by :func:`tensorkeep.save`.

    Args:
        path: The manifest. All ranks need to see its folder, ``shards/`` beside it included.
        codec: As in :func:`tensorkeep.save`.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, *, codec: Codec | Mapping[str, Codec] = "raw"
    ) -> None:
        self._path = None if path is None else _arguments.path("path", path)
        self._codecs = _arguments.codecs(codec)
        self._part: Part | None = None
        #: The manifest and this rank's shard of the newest save.
        self._written: tuple[str, str] | None = None
        #: Of a single process: what its plain file will have.
        self._whole: dict[str, Any] = {}

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begins another save, to ``checkpoint_id`` where one is given."""
        self._end_earlier()
        if checkpoint_id is not None:
            self._path = _arguments.path("checkpoint_id", checkpoint_id)
        self._part, self._whole = None, {}

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Refuses to begin without a path."""
        self._end_earlier()
        self._manifest  # noqa: B018

    def _end_earlier(self) -> None:
        """Deletes this rank's shard of the save before, if it failed: by now every rank has heard how it ended."""
        if self._written is not None:
            manifest, shard = self._written
            self._written = None
            if shard not in _shards(manifest):
                _unlink([shard])

    @property
    def _manifest(self) -> str:
        if self._path is None:
            raise Invalid("StorageWriter: no path", help="give it one, or the call a checkpoint_id")
        return self._path

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """The plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Tells every rank what all of them store. Refuses pieces that overlap or leave a hole."""
        if not all(plan.usable for plan in plans):
            help = "make the planner without enable_plan_caching"
            raise Unsupported("plans of an earlier save, which name its shards", help=help)
        part = Part(secrets.token_hex(8), 0, len(plans), globals_of(plans))
        _tensorkeep.Job(part.save, part.world, part.tensors)
        self._part = part
        return [dataclasses.replace(plan, storage_data=part._replace(rank=rank)) for rank, plan in enumerate(plans)]

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Writes this rank's shard, durably."""
        part: Part = plan.storage_data
        values, pieces = [], []
        for item in plan.items:
            if item.type == WriteItemType.BYTE_IO:
                values.append((item, value_of(planner, item)))
            elif is_stored(item) or part.is_alone:
                pieces.append((item, tensor_of(planner, item)))
        results = [WriteResult(item.index, 0, Stored(is_value=True, value=value)) for item, value in values]
        if part.is_alone:
            self._whole = {item.index.fqn: tensor for item, tensor in pieces}
            results += [written(item, None) for item, _ in pieces]
        elif pieces:
            shard = self._write_shard(part, pieces)
            results += [written(item, shard) for item, _ in pieces]
        future: Future[list[WriteResult]] = Future()
        future.set_result(results)
        return future

    def _write_shard(self, part: Part, pieces: list[tuple[WriteItem, torch.Tensor]]) -> Shard:
        given = _state.encode({str(number): tensor for number, (_, tensor) in enumerate(pieces)})
        tensors = [
            (escape(pieces[int(number)][0].index.fqn), *others) for number, *others in given.tensors
        ]
        offsets = [list(pieces[int(number)][0].tensor_data.chunk.offsets) for number, *_ in given.tensors]
        job = _tensorkeep.Job(part.save, part.world, part.tensors)
        name = f"shards/{part.rank % 16:x}/{part.save}-r{part.rank:05}.tkeep"
        self._written = self._manifest, os.path.realpath(os.path.join(os.path.dirname(self._manifest), name))
        return job.write_shard(self._manifest, part.rank, tensors, offsets, self._codecs)

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Writes the manifest: the commit."""
        part, all_results = self._part, [result for of_rank in results for result in of_rank]
        if part is None:
            raise Invalid("StorageWriter: finish comes behind prepare_global_plan")
        values = {result.index.fqn: result.storage_data.value for result in all_results if result.storage_data.is_value}
        shards = {result.storage_data.shard for result in all_results} - {None}
        tensors, records, types = encoded(self._whole | values, metadata)
        replaced = _shards(self._manifest)
        if part.is_alone:
            _tensorkeep.save_file(
                self._manifest, tensors, records, types, metrics=[], metadata=[], codecs=self._codecs
            )
        else:
            job = _tensorkeep.Job(part.save, part.world, part.tensors)
            job.write_manifest(self._manifest, tensors, records, types, list(shards), self._codecs)
        self._whole = {}
        if replaced:
            # A copy in the same folder may name them, too.
            _unlink(replaced - _shards(self._manifest) - _named_beside(self._manifest))

    def storage_meta(self) -> StorageMeta | None:
        """The path, for planners."""
        return StorageMeta(checkpoint_id=self._path)

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it is a path."""
        return "://" not in os.fspath(checkpoint_id)


def _shards(manifest: str) -> set[str]:
    """Paths of the shards of a checkpoint."""
    try:
        return set(map(os.path.realpath, _tensorkeep.open_file(manifest, mapped=False, verify="touch").shards()))
    except Error:
        return set()  # None is there, or nothing that names shards.


def _named_beside(manifest: str) -> set[str]:
    """Shards of the other checkpoints in its folder."""
    folder, name = os.path.split(manifest)
    others = [other for other in os.listdir(folder or ".") if other.endswith(".tkeep") and other != name]
    return set().union(*(_shards(os.path.join(folder, other)) for other in others))


def _unlink(shards: Iterable[str]) -> None:
    for shard in shards:
        with contextlib.suppress(OSError):
            os.unlink(shard)


class StorageReader(storage.StorageReader):  # type: ignore[misc]
    """Reads into any layout: ``dcp.load(state, storage_reader=StorageReader("step7.tkeep"))``.

    Reads what :class:`StorageWriter` wrote, on any number of ranks, and any other checkpoint of tensorkeep: a tensor
    ``model/conv1.weight`` is ``{"model": {"conv1.weight": ...}}`` to DCP. Each rank reads the bytes of its own boxes,
    each byte verified.

    Args:
        path: The file, or a place in a run: ``"runs/a@latest"``. See :func:`tensorkeep.open`.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._path = None if path is None else _arguments.path("path", path)
        self._state: Described | None = None

    def reset(self, checkpoint_id: str | os.PathLike[str] | None = None) -> None:
        """Begins another load, from ``checkpoint_id`` where one is given."""
        if checkpoint_id is not None:
            self._path = _arguments.path("checkpoint_id", checkpoint_id)
        self._state = None

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """Names, dtypes and shapes of all tensors, and the other values' names. Reads no tensor."""
        if self._path is None:
            raise Invalid("StorageReader: no path", help="give it one, or the call a checkpoint_id")
        self._state = Described(_open(self._path))
        return self._state.metadata()

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """The plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """The plans as they are."""
        return plans

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Fills this rank's tensors and values."""
        state = self._state
        if state is None:
            raise Invalid("StorageReader: read_data comes behind read_metadata")
        tensors = []
        for item in plan.items:
            if item.type == LoadItemType.BYTE_IO:
                # DCP's planners take a pickle: one that is made here, of values that are plain.
                packed = io.BytesIO()
                torch.save(state.value(item.storage_index.fqn), packed)
                packed.seek(0)
                planner.load_bytes(item, packed)
            else:
                tensors.append(item)
        # torch's own planner has nothing to commit. Another may hold a tensor between its two calls.
        is_plain = type(planner).commit_tensor is DefaultLoadPlanner.commit_tensor
        at_once = max(len(tensors), 1) if is_plain else 1
        for begin in range(0, len(tensors), at_once):
            targets = [(item, planner.resolve_tensor(item)) for item in tensors[begin : begin + at_once]]
            state.fill([(item, target.detach()) for item, target in targets])
            for item, target in targets:
                planner.commit_tensor(item, target)
        future: Future[None] = Future()
        future.set_result(None)
        return future

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        """Whether it is a path."""
        return "://" not in os.fspath(checkpoint_id)
