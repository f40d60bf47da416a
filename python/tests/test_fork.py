"""Forked and spawned children, exits: whose store it is, who keeps the lock, what is saved."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy
import pytest
import tensorkeep
from conftest import need, run, start
from tensorkeep import Store

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")


def in_child(act: object) -> int:
    """Forks; the exit code of the child, which is 0 when `act` returned True."""
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if act() else 1)  # type: ignore[operator]
        except BaseException:
            os._exit(2)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError("the child hangs")


def test_a_forked_child_is_refused_and_the_parent_saves_on() -> None:
    with Store("run") as store:
        pending = store.save({"w": numpy.zeros(3_000_000)}, 1, wait=False)

        def refused() -> bool:
            try:
                store.save({"w": numpy.zeros(3)}, 2)
            except tensorkeep.ForkedError as error:
                return "spawn" in str(error) and isinstance(error, RuntimeError)
            return False

        assert in_child(refused) == 0
        assert pending is not None and pending.result().step == 1
        store.save({"w": numpy.zeros(3)}, 2)


def test_a_child_drops_what_it_inherited_without_a_hang() -> None:
    import gc

    stores = [Store("run")]
    stores[0].save({"w": numpy.zeros(3_000_000)}, 1, wait=False)

    def drop() -> bool:
        stores.clear()
        gc.collect()
        return True

    assert in_child(drop) == 0
    stores[0].close()
    assert tensorkeep.open("run@latest").step == 1


HOLDER = """
import os, sys, time, tensorkeep
store = tensorkeep.Store("run")
if os.fork() == 0:
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    os.dup2(1, 2)
    time.sleep(60)
    os._exit(0)
print("open", flush=True)
time.sleep(60)
"""


def test_a_child_that_lives_on_does_not_keep_the_lock(tmp_path: Path) -> None:
    holder = start(HOLDER, cwd=tmp_path)
    assert holder.stdout is not None and holder.stdout.readline() == "open\n"
    with pytest.raises(tensorkeep.Locked):
        Store(tmp_path / "run")
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    Store(tmp_path / "run").close()


EXIT = """
import sys, numpy, tensorkeep
store = tensorkeep.Store("run")
store.save({"w": numpy.ones(3_000_000)}, 1, wait=False)
store.itself = store
{end}
"""


@pytest.mark.parametrize(
    ("end", "code"), [("", 0), ("sys.exit(3)", 3), ("raise ValueError", 1), ("sys.modules['kept'] = store", 0)]
)
def test_a_script_that_ends_behind_a_staged_save_has_saved(end: str, code: int, tmp_path: Path) -> None:
    ended = run(EXIT.replace("{end}", end), cwd=tmp_path)
    assert ended.returncode == code, ended.stderr
    assert (tensorkeep.load(tmp_path / "run@latest")["w"] == 1).all()


def test_os_exit_leaves_nothing_half(tmp_path: Path) -> None:
    ended = run("import os\n" + EXIT.replace("{end}", "os._exit(0)"), cwd=tmp_path)
    assert ended.returncode == 0
    with Store(tmp_path / "run") as store:
        assert store.resume().step in (0, 1)


SPAWN = """
import multiprocessing, tensorkeep, numpy
def child(path): return tensorkeep.load(path)["w"].sum()
if __name__ == "__main__":
    with tensorkeep.Store("run") as store:
        store.save({"w": numpy.ones(10)}, 1)
        for how in ("spawn", "forkserver", "fork"):
            with multiprocessing.get_context(how).Pool(1) as pool:
                print(how, pool.apply(child, ("run@latest",)))
"""


def test_children_of_all_kinds_load(tmp_path: Path) -> None:
    script = tmp_path / "spawn.py"
    script.write_text(SPAWN)
    ended = run(f"import subprocess, sys; subprocess.run([sys.executable, {str(script)!r}], check=True)", cwd=tmp_path)
    assert ended.stdout.split() == ["spawn", "10.0", "forkserver", "10.0", "fork", "10.0"], ended.stderr


LOADER = """
import torch, tensorkeep.torch as tt
class Data(torch.utils.data.Dataset):
    def __len__(self): return 32
    def __getitem__(self, i): return torch.full((1000,), float(i))
model = torch.nn.Linear(1000, 1)
seen = 0
with tt.Store("run", save=tt_every) as store:
    for epoch in range(3):
        for batch in torch.utils.data.DataLoader(Data(), batch_size=4, num_workers=2, multiprocessing_context="fork"):
            seen += len(batch)
            if store.due(seen // 4):
                store.save({"model": model.state_dict()}, seen // 4, wait=False)
    steps = [listed.step for listed in store.list()]
print(seen, len(steps))
""".replace("tt_every", "__import__('tensorkeep').Every.steps(4)")


def test_data_loaders_with_workers_train_beside_saves(tmp_path: Path) -> None:
    need("torch")
    ended = run(LOADER, cwd=tmp_path)
    assert ended.stdout.split()[0] == "96" and int(ended.stdout.split()[1]) >= 5, ended.stderr
