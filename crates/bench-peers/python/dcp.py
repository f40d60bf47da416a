"""`tensorkeep.dcp` beside DCP's own files: the same processes, state and planner, taking turns.

    python crates/bench-peers/python/dcp.py [folder] [ranks] [megabytes a rank] [rounds]

Each rank holds its rows of the weights and of AdamW's moments. Prints the seconds until a save is durable (the slowest rank;
DCP's files are fsynced, which is its default), the stall of `async_save`, and a load of all of it on 3 ranks; median and lowest of
all rounds. tensorkeep verifies every byte that it loads.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.tensor import DTensor, Shard, init_device_mesh

LAYERS = 8
COLUMNS = 1024


def state(megabytes: int, saved_by: int) -> dict[str, Any]:
    """Rows of `LAYERS` tensors of three kinds: of each rank that saved, `megabytes`."""
    world = dist.get_world_size()
    mesh = init_device_mesh("cpu", (world,))
    rows = megabytes * 1_000_000 // (3 * LAYERS * COLUMNS * 4) * saved_by
    own = len(torch.empty(rows).chunk(world)[dist.get_rank()])
    generator = torch.Generator().manual_seed(dist.get_rank())
    made: dict[str, Any] = {"step": 7}
    for layer in range(LAYERS):
        for kind in ("weight", "exp_avg", "exp_avg_sq"):
            local = torch.randn(own, COLUMNS, generator=generator)
            made[f"{kind}.{layer}"] = DTensor.from_local(local, mesh, [Shard(0)], shape=(rows, COLUMNS), stride=(COLUMNS, 1))
    return made


def doors(system: str, path: Path) -> tuple[Any, Any]:
    """A writer and a reader for a path."""
    if system == "DCP":
        return dcp.FileSystemWriter(path, sync_files=True), dcp.FileSystemReader(path)
    import tensorkeep.dcp

    return tensorkeep.dcp.StorageWriter(path / "job.tkeep"), tensorkeep.dcp.StorageReader(path / "job.tkeep")


def timed(act: Any) -> float:
    """Seconds until `act` returns on the slowest rank. What it returns is waited for afterwards: meanwhile the ranks
    are at calls of their own.
    """
    dist.barrier()
    begin = time.perf_counter()
    begun = act()
    took = torch.tensor(time.perf_counter() - begin)
    if isinstance(begun, Future):
        begun.result()
    dist.all_reduce(took, dist.ReduceOp.MAX)
    return took.item()


def rank(which: int, world: int, folder: Path, megabytes: int, rounds: int, saved_by: int) -> None:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous{world}", rank=which, world_size=world)
    whole = state(megabytes, saved_by)
    for number in range(rounds):
        for system in ("tensorkeep", "DCP") if number % 2 else ("DCP", "tensorkeep"):
            saves = {"save": dcp.save, "stall": dcp.async_save}
            if world == saved_by:
                for what, save in saves.items():
                    # As in a run: each save has a folder of its own, and the one before it goes when it is whole.
                    path, before = (folder / f"{system}.{what}.{at}" for at in (number, number - 1))
                    if which == 0:
                        path.mkdir()
                    say = timed(lambda: save(whole, storage_writer=doors(system, path)[0]))
                    if which == 0:
                        print(what, system, say, flush=True)
                        shutil.rmtree(before, ignore_errors=True)
            else:
                path = folder / f"{system}.save.{rounds - 1}"
                say = timed(lambda: dcp.load(whole, storage_reader=doors(system, path)[1]))
                print("load", system, say, flush=True) if which == 0 else None
    dist.barrier()
    dist.destroy_process_group()


def run(world: int, folder: Path, *others: int) -> str:
    """All ranks in processes of their own: what rank 0 printed."""
    def start(which: int) -> subprocess.Popen[str]:
        words = [sys.executable, __file__, "--rank", which, world, folder, *others]
        return subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, text=True)

    ranks = [start(which) for which in range(world)]
    said = [process.communicate()[0] for process in ranks]
    if any(process.returncode for process in ranks):
        sys.exit("a rank has failed")
    return said[0]


def main(folder: str | None = None, world: int = 8, megabytes: int = 200, rounds: int = 3) -> None:
    where = Path(tempfile.mkdtemp(dir=folder))
    try:
        said = run(world, where, megabytes, rounds, world) + run(3, where, megabytes, rounds, world)
        times: dict[tuple[str, str], list[float]] = {}
        for line in said.splitlines():
            what, system, seconds = line.split()
            times.setdefault((what, system), []).append(float(seconds))
        print(f"{world} ranks of {megabytes} MB, {rounds} rounds, {os.cpu_count()} cores; seconds")
        for what in ("save", "stall", "load"):
            ours, theirs = (times[what, system] for system in ("tensorkeep", "DCP"))
            middle = statistics.median(ours), statistics.median(theirs)
            print(f"{what:6} tensorkeep {middle[0]:.2f} (lowest {min(ours):.2f}), DCP {middle[1]:.2f} "
                  f"(lowest {min(theirs):.2f}): {middle[0] / middle[1]:.2f}")  # fmt: skip
    finally:
        shutil.rmtree(where)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--rank"]:
        which, world, folder, megabytes, rounds, saved_by = sys.argv[2:]
        rank(int(which), int(world), Path(folder), int(megabytes), int(rounds), int(saved_by))
    else:
        main(*sys.argv[1:2], *map(int, sys.argv[2:]))
