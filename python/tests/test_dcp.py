"""torch.distributed.checkpoint over tensorkeep: values, layouts, other numbers of ranks, and what goes wrong."""

from __future__ import annotations

import copy
import pathlib
import shutil
import subprocess
import sys
from typing import Any

import numpy
import pytest
from conftest import alike, need, run

torch = need("torch")
dcp = need("torch.distributed.checkpoint")
CheckpointException = dcp.CheckpointException

import tensorkeep
import tensorkeep.dcp
from tensorkeep import _tensorkeep

pytestmark = pytest.mark.filterwarnings("ignore:torch.distributed is")


def state() -> dict[str, Any]:
    """What a trainer saves, with every kind of value that DCP flattens or does not."""
    torch.manual_seed(7)
    model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    model(torch.randn(5, 4)).sum().backward()
    optimizer.step()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "betas": (0.9, 0.999),
        "rng": {"seed": 2**63 + 1, "draws": numpy.arange(3)},
        "empty": torch.zeros(0, 4),
        "scalar": torch.tensor(2.5, dtype=torch.bfloat16),
    }


def emptied(value: Any) -> Any:
    """The same state with other numbers: what a load has to fill."""
    if isinstance(value, torch.Tensor):
        return torch.zeros_like(value)
    if isinstance(value, dict):
        empty = copy.copy(value)
        empty.update((key, emptied(item)) for key, item in value.items())
        return empty
    return type(value)(map(emptied, value)) if isinstance(value, (list, tuple)) else None


def save(value: dict[str, Any], path: str = "job.tkeep", **options: Any) -> None:
    dcp.save(value, storage_writer=tensorkeep.dcp.StorageWriter(path, **options))


def load(into: dict[str, Any], path: str = "job.tkeep") -> dict[str, Any]:
    dcp.load(into, storage_reader=tensorkeep.dcp.StorageReader(path))
    return into


@pytest.mark.parametrize("codec", ["raw", "balanced"])
def test_a_state_comes_back_as_it_was(codec: str) -> None:
    saved = state()
    save(saved, codec=codec)
    assert alike(load(emptied(saved)), saved)
    assert not pathlib.Path("shards").exists(), "a single process writes a plain file"
    with tensorkeep.open("job.tkeep") as checkpoint:
        assert checkpoint.verify().damage == []


def test_targets_are_filled_however_they_lie() -> None:
    saved = {name: torch.arange(1, 13.0).reshape(3, 4) for name in ("plain", "columns", "rows", "leaf", "mirrored")}
    saved |= {"flags": torch.tensor([True, False]), "pair": torch.tensor([1 + 2j]), "tied": torch.ones(3), "again": torch.ones(3)}
    saved["apart"] = 2 * torch.ones(3)
    save(saved)
    memory = torch.zeros(3)
    into = {
        "plain": torch.zeros(3, 4),
        "columns": torch.zeros(4, 3).t(),
        "rows": torch.zeros(3, 8)[:, ::2],
        "leaf": torch.zeros(3, 4, requires_grad=True),
        "mirrored": torch.zeros(3, 4, dtype=torch.complex64).conj().imag,
        "flags": torch.zeros(2, dtype=torch.bool),
        "pair": torch.zeros(1, dtype=torch.complex64).conj(),
        # Of one memory: filled one after the other.
        "tied": memory,
        "again": memory,
        "apart": torch.zeros(4)[1:],
    }
    lies_as_in_file = {name: tensor.is_contiguous() and not tensor.is_neg() for name, tensor in into.items()}
    assert [name for name, does in lies_as_in_file.items() if not does] == ["columns", "rows", "mirrored"]
    targets = dict(into)
    load(into)
    for name, target in targets.items():
        assert torch.equal(target.detach().resolve_conj().resolve_neg(), saved[name]), name


def test_a_target_without_memory_of_its_own_is_written_by_torch() -> None:
    from torch.testing._internal.two_tensor import TwoTensor

    save({"w": torch.ones(4)})
    loaded = load({"w": TwoTensor(torch.zeros(4), torch.zeros(4))})["w"]
    assert torch.equal(loaded.a, torch.ones(4)) and torch.equal(loaded.b, torch.ones(4))


def test_a_target_whose_storage_was_freed_is_refused() -> None:
    save({"w": torch.ones(4)})
    freed = torch.zeros(4)
    freed.untyped_storage().resize_(0)
    with pytest.raises(CheckpointException, match="less memory than elements"):
        load({"w": freed})


def test_a_load_is_a_change_to_autograd() -> None:
    save({"w": torch.ones(4)})
    weight = torch.zeros(4, requires_grad=True)
    loss = (weight * weight).sum()
    load({"w": weight})
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_planner_gets_its_two_calls_in_pairs() -> None:
    class Staging(dcp.DefaultLoadPlanner):
        """Holds one tensor between its calls, as those do that convert what they load."""

        staged = None

        def resolve_tensor(self, read_item: Any) -> Any:
            assert self.staged is None
            self.staged = super().resolve_tensor(read_item), torch.zeros(4)
            return self.staged[1]

        def commit_tensor(self, read_item: Any, tensor: Any) -> None:
            target, staged = self.staged
            assert tensor is staged
            target.copy_(staged)
            self.staged = None

    saved = {name: torch.rand(4) for name in "abc"}
    save(saved)
    into = {name: torch.zeros(4) for name in saved}
    dcp.load(into, storage_reader=tensorkeep.dcp.StorageReader("job.tkeep"), planner=Staging())
    assert alike(into, saved)


def test_every_reader_opens_it() -> None:
    saved = state()
    save(saved)
    loaded = tensorkeep.load("job.tkeep")
    assert alike(loaded["model.0.weight"], saved["model"]["0.weight"]) and loaded["epoch"] == 3
    assert alike(loaded["rng.draws"], saved["rng"]["draws"])


def test_what_tensorkeep_saved_is_loaded_by_dcp() -> None:
    saved = state()
    tensorkeep.save(saved, "plain.tkeep")
    assert alike(load(emptied(saved), "plain.tkeep"), saved)


def test_a_place_in_a_run_is_read() -> None:
    with tensorkeep.Store("runs/a") as store:
        store.save({"model": {"w": torch.arange(3.0)}}, 5)
    assert load({"model": {"w": torch.zeros(3)}}, "runs/a@latest")["model"]["w"].tolist() == [0, 1, 2]


def test_tensors_in_values_come_back() -> None:
    """Where the planner does not flatten, a whole optimizer is one value."""
    saved = {"optimizer": {"state": [torch.arange(3.0)], "lr": 0.5}}
    save_planner = dcp.DefaultSavePlanner(flatten_state_dict=False)
    load_planner = dcp.DefaultLoadPlanner(flatten_state_dict=False, flatten_sharded_tensors=False)
    dcp.save(saved, storage_writer=tensorkeep.dcp.StorageWriter("job.tkeep"), planner=save_planner)
    loaded: dict[str, Any] = {"optimizer": None}
    dcp.load(loaded, storage_reader=tensorkeep.dcp.StorageReader("job.tkeep"), planner=load_planner)
    assert alike(loaded, saved)


def test_another_shape_or_dtype_is_refused() -> None:
    save({"w": torch.ones(2, 3)})
    with pytest.raises(CheckpointException, match=r"(?i)size|shape"):
        load({"w": torch.zeros(3, 2)})
    with pytest.raises(CheckpointException, match="float64"):
        load({"w": torch.zeros(2, 3, dtype=torch.float64)})


def test_a_path_comes_from_the_call_too() -> None:
    dcp.save({"w": torch.ones(2)}, checkpoint_id="call.tkeep", storage_writer=tensorkeep.dcp.StorageWriter())
    into = {"w": torch.zeros(2)}
    dcp.load(into, checkpoint_id="call.tkeep", storage_reader=tensorkeep.dcp.StorageReader())
    assert into["w"].tolist() == [1, 1]
    with pytest.raises(CheckpointException, match="no path"):
        dcp.save(into, storage_writer=tensorkeep.dcp.StorageWriter())


def test_an_error_of_a_background_save_is_raised() -> None:
    future = dcp.async_save(
        {"w": torch.ones(2)}, storage_writer=tensorkeep.dcp.StorageWriter("no/such/folder/job.tkeep"), no_dist=True
    )
    with pytest.raises(CheckpointException, match="no/such/folder"):
        future.result()


# --- Many ranks, in processes of their own.

JOB = """
import os, sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor, init_device_mesh
import tensorkeep.dcp

rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
mesh = init_device_mesh("cpu", (world,))

def whole(rows, columns, seed):
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))

def laid(tensor, *placements):
    return distribute_tensor(tensor, mesh, placements)

def state(factor):
    return {
        "rows": laid(whole(5, 3, 1) * factor, Shard(0)),
        "columns": laid(whole(4, 7, 2) * factor, Shard(1)),
        "few": laid(whole(1, 3, 3) * factor, Shard(0)),
        "everywhere": laid(whole(2, 2, 4) * factor, Replicate()),
        "plain": whole(3, 3, 5) * factor,
        "step": 11 * factor,
    }

def save(state, path="job.tkeep"):
    dcp.save(state, storage_writer=tensorkeep.dcp.StorageWriter(path))

def check(state, expected):
    for name, tensor in expected.items():
        found = state[name]
        if isinstance(found, DTensor):
            found, tensor = found.full_tensor(), tensor.full_tensor()
        assert torch.equal(found, tensor) if isinstance(tensor, torch.Tensor) else found == tensor, name

def load(path="job.tkeep"):
    into = state(0)
    dcp.load(into, storage_reader=tensorkeep.dcp.StorageReader(path))
    check(into, state(1))

"""
#: torch's own threads abort one process in a hundred that ends in another way.
END = "\ndist.barrier()\ndist.destroy_process_group()\nsys.stdout.flush()\nos._exit(0)\n"


def job(code: str, world: int) -> list[str]:
    """Runs code on so many ranks: what each said, if all ended well."""
    here = pathlib.Path.cwd()
    (here / "rendezvous").unlink(missing_ok=True)
    script = JOB + code + END
    ranks = [
        subprocess.Popen([sys.executable, "-c", script, str(rank), str(world), str(here)], cwd=here, text=True,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for rank in range(world)
    ]  # fmt: skip
    said = [rank.communicate(timeout=180) for rank in ranks]
    assert all(rank.returncode == 0 for rank in ranks), said
    return [out for out, _ in said]


def test_two_ranks_save_and_any_number_loads() -> None:
    job("save(state(1)); load()", 2)
    assert sorted(path.name[-10:] for path in pathlib.Path("shards").glob("*/*")) == ["0000.tkeep", "0001.tkeep"]
    for world in (1, 3):
        job("load()", world)
    loaded = tensorkeep.load("job.tkeep")
    assert loaded["rows"].shape == (5, 3) and loaded["columns"].shape == (4, 7) and loaded["step"] == 11
    with tensorkeep.open("job.tkeep") as checkpoint:
        assert checkpoint.verify().damage == []


def test_the_old_checkpoint_stays_until_the_new_one_is_whole() -> None:
    job("save(state(1))", 2)
    before = {path: path.read_bytes() for path in pathlib.Path().glob("**/*.tkeep")}
    fails = """
class Fails(dcp.DefaultSavePlanner):
    def resolve_data(self, item):
        if rank == 1:
            raise ValueError("the disk of rank 1 is full")
        return super().resolve_data(item)

try:
    dcp.save(state(2), storage_writer=tensorkeep.dcp.StorageWriter("job.tkeep"), planner=Fails())
except BaseException as error:
    print("the disk of rank 1 is full" in str(error))
"""
    assert job(fails + "load()", 2) == ["True\n", "True\n"]
    assert all(path.read_bytes() == content for path, content in before.items())
    job("save(state(2)); save(state(1)); load()", 2)
    there = set(pathlib.Path("shards").glob("*/*"))
    assert not there & before.keys(), "the shards of the replaced checkpoint go"


def test_shards_of_a_save_that_failed_are_deleted_by_the_next() -> None:
    job("""
class Fails(dcp.DefaultSavePlanner):
    def resolve_data(self, item):
        if rank == 1:
            raise ValueError("the disk of rank 1 is full")
        return super().resolve_data(item)

writer = tensorkeep.dcp.StorageWriter("job.tkeep")
try:
    dcp.save(state(2), storage_writer=writer, planner=Fails())
except BaseException as error:
    pass
dcp.save(state(1), storage_writer=writer)
dcp.save(state(1), storage_writer=writer)
load()
""", 2)  # fmt: skip
    assert len(set(pathlib.Path("shards").glob("*/*"))) == 2


def test_a_copy_beside_a_checkpoint_keeps_its_shards() -> None:
    job("save(state(1))", 2)
    shutil.copy("job.tkeep", "best.tkeep")
    job('save(state(2)); load("best.tkeep")', 2)


def test_a_flipped_bit_of_a_shard_is_found() -> None:
    job("save(state(1))", 2)
    shard = next(pathlib.Path("shards").glob("1/*"))
    content = bytearray(shard.read_bytes())
    content[4096] ^= 1
    shard.write_bytes(content)
    told = run(JOB.replace("rank, world, folder =", "rank, world, folder = 0, 1, sys.argv[1] #") + """
try:
    load()
except BaseException as error:
    print(error)
""" + END, pathlib.Path.cwd(), cwd=pathlib.Path.cwd())  # fmt: skip
    assert "checksum" in told.stdout or "damaged" in told.stdout, told


def test_fully_sharded_models_come_back_on_other_ranks() -> None:
    model = """
from torch.distributed.fsdp import fully_shard
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

def made(seed):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    model(torch.ones(4, 6)).sum().backward()
    optimizer.step()
    return model, optimizer

def stated(model, optimizer):
    model, optimizer = get_state_dict(model, optimizer)
    return {"model": model, "optimizer": optimizer}

"""
    save = "save(stated(*made(1)))"
    load = """
model, optimizer = made(2)
into = stated(model, optimizer)
dcp.load(into, storage_reader=tensorkeep.dcp.StorageReader("job.tkeep"))
set_state_dict(model, optimizer, model_state_dict=into["model"], optim_state_dict=into["optimizer"])
for name, value in model.state_dict().items():
    print(name, value.full_tensor().double().sum().item())
"""
    said = {*job(model + save + load, 2), *job(model + load, 3)}
    assert len(said) == 1 and "0.weight" in said.pop()


# --- What a coordinator plans.


def pieces(*rows: tuple[int, int, int]) -> list[tuple[list[int], list[int], int]]:
    return [([begin, 0], [count, 2], rank) for begin, count, rank in rows]


@pytest.mark.parametrize(
    ("world", "boxes", "words"),
    [
        (2, pieces((0, 2, 0), (1, 3, 1)), "w"),
        (2, pieces((0, 1, 0), (2, 2, 1)), "w"),
        (2, pieces((0, 2, 0), (2, 2, 2)), "rank 2"),
        (0, pieces((0, 4, 0)), "world"),
    ],
)
def test_pieces_that_do_not_tile_are_refused(world: int, boxes: list[Any], words: str) -> None:
    with pytest.raises(tensorkeep.Invalid, match=words):
        _tensorkeep.Job("save", world, [("w", "f32", [4, 2], boxes)])


def test_sharded_tensors_take_no_space_for_their_boxes() -> None:
    world = 64
    boxes = pieces(*((2 * rank, 2, rank) for rank in range(world)))
    tensors = [(f"layer{number}.weight", "f32", [2 * world, 2], boxes) for number in range(1000)]
    shards = [(rank, bytes([rank]) * 16, 4096, rank) for rank in range(world)]
    _tensorkeep.Job("save", world, tensors).write_manifest("job.tkeep", [], {}, {"v": 1}, shards, [])
    assert pathlib.Path("job.tkeep").stat().st_size < 200_000
