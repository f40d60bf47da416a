"""The Python package beside its peers, in one process: torch.save, safetensors, Orbax, ztensor.

    python crates/bench-peers/python/package.py [folder] [rounds]

Needs the package and torch, and takes the peers that are installed. Prints a row each: the lowest and the median time of all
rounds in ms. Peers take turns within a round, so that what the machine does beside it meets all of them.
"""

from __future__ import annotations

import gc
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tensorkeep
import tensorkeep.torch as tk
import torch

try:
    import safetensors.torch as st
except ImportError:
    st = None
try:
    import ztensor.numpy as zt
except ImportError:
    zt = None
try:
    import orbax.checkpoint as ocp
except ImportError:
    ocp = None

Act = Callable[[], Any]


def state(parts: int = 16, numbers: int = 1_048_576) -> dict[str, torch.Tensor]:
    """201 MB: weights and AdamW's moments of 16 layers."""
    generator = torch.Generator().manual_seed(0)
    made = {}
    for i in range(parts):
        for name in ("weight", "exp_avg", "exp_avg_sq"):
            made[f"{name}.{i}"] = torch.randn(numbers, generator=generator)
        made[f"step.{i}"] = torch.tensor(float(i))
    return made


def durable(write: Callable[[Path], Any], path: Path) -> None:
    """What a peer writes, made durable as our files are: fsync, rename, fsync of the folder."""
    temporary = path.with_suffix(".tmp")
    write(temporary)
    with open(temporary, "rb") as file:
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def measure(rows: dict[str, Act], rounds: int) -> dict[str, list[float]]:
    times: dict[str, list[float]] = {name: [] for name in rows}
    for _ in range(rounds):
        for name, act in rows.items():
            gc.collect()
            began = time.perf_counter()
            kept = act()
            times[name].append(1000 * (time.perf_counter() - began))
            del kept
    return times


def show(title: str, times: dict[str, list[float]]) -> None:
    print(f"\n{title}\n| | min ms | median ms |\n|---|---:|---:|")
    for name, found in times.items():
        print(f"| {name} | {min(found):.1f} | {statistics.median(found):.1f} |", flush=True)


def of_many_bytes(folder: Path, rounds: int) -> None:
    tensors = state()
    nested = {"model": tensors, "lr": 0.1}
    files = {name: folder / name for name in ("ours", "torch", "plain.torch", "safe", "plain.safe", "zt")}
    saves: dict[str, Act] = {
        "tensorkeep, durable": lambda: tk.save(nested, files["ours"]),
        "torch.save, made durable": lambda: durable(lambda path: torch.save(nested, path), files["torch"]),
        "torch.save, not durable": lambda: torch.save(nested, files["plain.torch"]),
    }
    loads: dict[str, Act] = {
        "tensorkeep, mapped, verified": lambda: tk.load(files["ours"]),
        "tensorkeep, mapped, not verified": lambda: tk.load(files["ours"], verify="never"),
        "tensorkeep, read, verified": lambda: tk.load(files["ours"], mmap=False),
        "torch.load, not verified": lambda: torch.load(files["torch"], weights_only=True),
        "torch.load(mmap=True), not verified": lambda: torch.load(files["torch"], weights_only=True, mmap=True),
    }
    if st is not None:
        saves["safetensors, made durable"] = lambda: durable(lambda path: st.save_file(tensors, path), files["safe"])
        saves["safetensors, not durable"] = lambda: st.save_file(tensors, files["plain.safe"])
        loads["safetensors, not verified"] = lambda: st.load_file(files["safe"])
    if zt is not None:
        as_arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        saves["ztensor, made durable"] = lambda: durable(lambda path: zt.save_file(as_arrays, path), files["zt"])
        loads["ztensor, not verified"] = lambda: zt.load_file(files["zt"])
    if ocp is not None:
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        number = iter(range(1_000_000))
        last = [folder / "orbax-none"]

        def orbax() -> None:
            last[0] = folder / f"orbax-{next(number)}"
            keeper.save(last[0], arrays)
            keeper.wait_until_finished() if hasattr(keeper, "wait_until_finished") else None

        keeper = ocp.Checkpointer(ocp.PyTreeCheckpointHandler())
        saves["Orbax"] = orbax
        loads["Orbax"] = lambda: keeper.restore(last[0])
    show("save 201 MB", measure(saves, rounds))
    show("load 201 MB, from the page cache", measure(loads, rounds))
    copies = {name: tensor.clone() for name, tensor in tensors.items()}
    stages: dict[str, list[float]] = {"staged save, the trainer stands still": [], "a copy into warm memory": []}
    with tensorkeep.Store(folder / "run", keep=tensorkeep.Keep.last(1)) as store:
        for step in range(1, rounds + 3):
            began = time.perf_counter()
            pending = store.save(nested, step, wait=False)
            stages["staged save, the trainer stands still"].append(1000 * (time.perf_counter() - began))
            pending.result()
            began = time.perf_counter()
            for name, tensor in tensors.items():
                copies[name].copy_(tensor)
            stages["a copy into warm memory"].append(1000 * (time.perf_counter() - began))
    # The first ones allocate.
    show("stage 201 MB", {name: found[2:] for name, found in stages.items()})
    stalls = {name: [longest_stall(act) for _ in range(rounds)] for name, act in (
        ("nothing", lambda: time.sleep(0.2)), ("tensorkeep save", saves["tensorkeep, durable"]),
        ("tensorkeep load", loads["tensorkeep, read, verified"]), ("torch.save", saves["torch.save, not durable"]),
        ("torch.load", loads["torch.load, not verified"]),
    )}  # fmt: skip
    show("how long another thread stands still", stalls)


def longest_stall(act: Act) -> float:
    longest, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal longest
        before = time.perf_counter()
        while not done.is_set():
            time.sleep(0.0005)
            now = time.perf_counter()
            longest, before = max(longest, now - before), now

    watcher = threading.Thread(target=watch)
    watcher.start()
    act()
    done.set()
    watcher.join()
    return 1000 * longest


def of_many_tensors(folder: Path, rounds: int, count: int = 100_000) -> None:
    from tensorkeep import _state

    tensors = {f"layer{i}.weight": torch.zeros(64) for i in range(count)}
    saves: dict[str, Act] = {
        "tensorkeep, durable": lambda: tk.save(tensors, folder / "many.ours"),
        "of it walking the state": lambda: _state.encode(tensors),
        "torch.save, not durable": lambda: torch.save(tensors, folder / "many.torch"),
    }
    loads: dict[str, Act] = {
        "tensorkeep": lambda: tk.load(folder / "many.ours"),
        "torch.load": lambda: torch.load(folder / "many.torch", weights_only=True),
    }
    if st is not None:
        saves["safetensors, not durable"] = lambda: st.save_file(tensors, folder / "many.safe")
        loads["safetensors"] = lambda: st.load_file(folder / "many.safe")
    show(f"save {count} tensors of 256 bytes", measure(saves, rounds))
    show(f"load {count} tensors of 256 bytes", measure(loads, rounds))


def main() -> None:
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    with tempfile.TemporaryDirectory(dir=sys.argv[1] if len(sys.argv) > 1 else None) as temporary:
        of_many_bytes(Path(temporary), rounds)
        of_many_tensors(Path(temporary), min(rounds, 3))


if __name__ == "__main__":
    main()
