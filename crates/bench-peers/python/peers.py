"""The peers in Python, measured as the Rust ones are: the same values, the same durability, in a process of its own.

    peers.py list          what is installed, as JSON
    peers.py child TASK    does one task of src/child.rs, and answers with its times as JSON

Imports are not timed, and neither is checking that what was loaded is what was saved.
"""

import ctypes
import importlib.util
import json
import mmap
import os
import shutil
import sys
import time


# --- the state -------------------------------------------------------------------------------------------------------

def open_state(manifest):
    """Names, shapes and numpy arrays over the shared values, every page present."""
    import numpy as np

    with open(manifest) as file:
        manifest = json.load(file)
    # Private, because torch requires a writable mapping; it is never written.
    fd = os.open(manifest["memory"], os.O_RDONLY)
    memory = mmap.mmap(fd, 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE)
    whole = np.frombuffer(memory, dtype=np.uint8)
    whole[::4096].sum()
    state = {}
    for entry in manifest["tensors"]:
        flat = whole[entry["offset"]:entry["offset"] + entry["len"]].view(np.float32)
        state[entry["name"]] = flat.reshape(entry["shape"])
    return state


def checksum(arrays):
    """As `sum` in src/workloads.rs, over arrays in the order of names."""
    import numpy as np

    total, mask = 0, (1 << 64) - 1
    for array in arrays:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        words = flat[:flat.size // 8 * 8].view(np.uint64)
        part = int(words.sum(dtype=np.uint64)) + int(flat[words.size * 8:].sum(dtype=np.uint64))
        total = (total * 31 + part) & mask
    return total


# --- durability ------------------------------------------------------------------------------------------------------

def sync(path):
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def files_in(path):
    """A file, or the files of a folder and its folders, leaves first."""
    if not os.path.isdir(path):
        return [path]
    return [os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names]


def folders_in(path):
    return [folder for folder, _, _ in os.walk(path, topdown=False)] if os.path.isdir(path) else []


def publish(written, path):
    """What no peer does by itself: fsync of all that was written, rename, fsync of the folder and the files."""
    for file in files_in(written):
        sync(file)
    for folder in folders_in(written):
        sync(folder)
    os.rename(written, path)
    sync(os.path.dirname(path) or ".")
    for file in files_in(path):
        sync(file)


def remove(path):
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.unlink(path)


def make_cold(path):
    for file in files_in(path):
        fd = os.open(file, os.O_RDONLY)
        os.fsync(fd)
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(fd)


# --- memory ----------------------------------------------------------------------------------------------------------

def status(field):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(field))


def reset_peak():
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return status("VmRSS:")


# --- the systems -----------------------------------------------------------------------------------------------------

class System:
    """Saves to a path that does not exist, and loads; `ops` lists what it supports."""

    needs = ()
    workloads = "smln"

    def prepare(self, state):
        """The state as this system's users hold it."""
        return state

    def arrays(self, loaded):
        return [loaded[name] for name in sorted(loaded)]


class Torch(System):
    needs = ("torch",)

    def prepare(self, state):
        import torch

        return {name: torch.from_numpy(array) for name, array in state.items()}

    def arrays(self, loaded):
        return [loaded[name].numpy() for name in sorted(loaded)]


class TorchSave(Torch):
    name, extension = "torch.save", "pt"
    ops = ("save_durable", "save_as_called", "open", "touch_all", "load_fresh", "load_cold")

    def save(self, state, path):
        import torch

        torch.save(state, path)

    def load(self, path, _):
        import torch

        return torch.load(path, weights_only=True)

    def map(self, path):
        import torch

        return torch.load(path, weights_only=True, mmap=True)

    def open(self, path):
        return sum(tensor.numel() for tensor in self.map(path).values())


class Safetensors(Torch):
    name, extension = "safetensors (Python)", "safetensors-py"
    needs = ("torch", "safetensors")
    ops = ("save_durable", "save_as_called", "open", "touch_all", "load_fresh", "load_cold")

    def save(self, state, path):
        from safetensors.torch import save_file

        save_file(state, path)

    def load(self, path, _):
        from safetensors.torch import load_file

        return load_file(path)

    map = None

    def open(self, path):
        from safetensors import safe_open

        total = 0
        with safe_open(path, framework="pt") as file:
            for name in file.keys():
                count = 1
                for dim in file.get_slice(name).get_shape():
                    count *= dim
                total += count
        return total


class Dcp(Torch):
    name, extension = "DCP", "dcp"
    workloads = "sml"
    ops = ("save_durable", "save_as_called", "stage", "open", "load_into")

    def save(self, state, path):
        import torch.distributed.checkpoint as dcp

        dcp.save(state, checkpoint_id=path, no_dist=True)

    def stage(self, state, path):
        import torch.distributed.checkpoint as dcp

        return dcp.async_save(state, checkpoint_id=path, no_dist=True).result

    def existing(self, state):
        import torch

        return {name: torch.ones_like(tensor) for name, tensor in state.items()}

    def load(self, path, existing):
        import torch.distributed.checkpoint as dcp

        dcp.load(existing, checkpoint_id=path, no_dist=True)
        return existing

    def open(self, path):
        from torch.distributed.checkpoint import FileSystemReader

        metadata = FileSystemReader(path).read_metadata()
        return sum(entry.size.numel() for entry in metadata.state_dict_metadata.values())


class Orbax(System):
    name, extension = "Orbax", "orbax"
    needs = ("orbax", "jax")
    workloads = "sml"
    ops = ("save_durable", "save_as_called", "load_fresh")

    def save(self, state, path):
        import orbax.checkpoint as ocp

        with ocp.PyTreeCheckpointer() as checkpointer:
            checkpointer.save(path, state)

    def load(self, path, _):
        import orbax.checkpoint as ocp

        with ocp.PyTreeCheckpointer() as checkpointer:
            return checkpointer.restore(path)


SYSTEMS = (TorchSave(), Safetensors(), Dcp(), Orbax())


# --- one task --------------------------------------------------------------------------------------------------------

class Timed:
    def __enter__(self):
        self.start = time.perf_counter()
        return self

    def __exit__(self, *_):
        self.seconds = time.perf_counter() - self.start


def do(system, task, state, existing, path):
    """Does the operation once; returns seconds and, where there is one, the sum of the loaded values."""
    op = task["op"]
    written = path + ".unpublished"
    remove(written)
    if op == "save_durable":
        with Timed() as timed:
            system.save(state, written)
            if os.path.isdir(path):
                old = path + ".old"
                os.rename(path, old)
            publish(written, path)
        remove(path + ".old")
        return timed.seconds, None
    if op == "save_as_called":
        with Timed() as timed:
            system.save(state, written)
        remove(path)
        os.rename(written, path)
        return timed.seconds, None
    if op == "stage":
        with Timed() as timed:
            wait = system.stage(state, written)
        wait()
        remove(written)
        return timed.seconds, None
    if op == "open":
        with Timed() as timed:
            elements = system.open(path)
        expected = sum(array.size for array in system.arrays(state))
        assert elements == expected, f"{elements} elements instead of {expected}"
        return timed.seconds, None
    if op == "load_cold":
        make_cold(path)
    if op == "touch_all":
        # The reading loop is in the time: a mapping alone has loaded nothing.
        with Timed() as timed:
            total = checksum(system.arrays((system.map or (lambda path: system.load(path, None)))(path)))
        return timed.seconds, total
    with Timed() as timed:
        loaded = system.load(path, existing)
        if op == "load_cold":
            total = checksum(system.arrays(loaded))
    return timed.seconds, checksum(system.arrays(loaded))


def child(task):
    system = next(system for system in SYSTEMS if system.name == task["system"])
    for module in system.needs:
        importlib.import_module(module if module != "orbax" else "orbax.checkpoint")
    state = system.prepare(open_state(task["values"]))
    existing = system.existing(state) if task["op"] == "load_into" else None
    # Freed memory is returned: the peak must be of one time, without the allocator's caches.
    ctypes.CDLL(None).malloc_trim(0)
    resident = reset_peak()
    seconds = []
    for turn in range(task["warm"] + task["times"]):
        taken, found = do(system, task, state, existing, task["file"])
        if found is not None and found != task["expected_sum"]:
            sys.exit(f"wrong values: {found} instead of {task['expected_sum']}")
        if turn >= task["warm"]:
            seconds.append([task["op"], taken])
    print(json.dumps({"seconds": seconds, "peak_rss": max(0, status("VmHWM:") - resident)}), flush=True)
    # Checkpointing libraries keep threads that would hold the exit back.
    os._exit(0)


def listing():
    there, absent = [], []
    for system in SYSTEMS:
        missing = [module for module in ("numpy", *system.needs) if importlib.util.find_spec(module) is None]
        if missing:
            absent.append(f"{system.name}: Python has no {', '.join(missing)}")
        else:
            there.append({"name": system.name, "extension": system.extension, "ops": system.ops,
                          "workloads": system.workloads})
    print(json.dumps({"systems": there, "absent": absent}))


if __name__ == "__main__":
    if sys.argv[1:] == ["list"]:
        listing()
    else:
        child(json.loads(sys.argv[2]))
