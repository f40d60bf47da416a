"""A run that is killed and started again ends with the same bits as one that was never killed."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from conftest import need, run, start

NUMPY = """
import hashlib, random, sys
import numpy, tensorkeep
from tensorkeep import Every, Keep, Store, TrainState

class Adam:
    def __init__(self): self.m, self.t = numpy.zeros(50_000), 0
    def state_dict(self): return {"m": self.m, "t": self.t}
    def load_state_dict(self, state): self.m, self.t = state["m"], state["t"]

run, total, slow = sys.argv[1], 60, float(sys.argv[2])
weights, adam = {"w": numpy.ones(50_000), "losses": []}, Adam()
random.seed(1), numpy.random.seed(1)
import time
with Store(run, save=Every.steps(7), keep=Keep.last(2)) as store:
    for step in store.steps(total, TrainState(adam=adam, extra=weights)):
        gradient = numpy.random.randn(50_000) * random.random()
        adam.m = 0.9 * adam.m + 0.1 * gradient
        adam.t += 1
        weights["w"] -= 0.01 * adam.m
        weights["losses"].append(float(weights["w"].sum()))
        time.sleep(slow)
what = weights["w"].tobytes() + adam.m.tobytes() + repr((adam.t, weights["losses"], random.random())).encode()
print("END", hashlib.sha256(what).hexdigest())
"""

TORCH = """
import hashlib, random, sys, time
import numpy, torch, tensorkeep.torch as tt
from tensorkeep import Every, Keep

torch.set_num_threads(1)
run, total, slow = sys.argv[1], 60, float(sys.argv[2])
random.seed(1), numpy.random.seed(1), torch.manual_seed(1)
model = torch.nn.Sequential(torch.nn.Linear(20, 64), torch.nn.BatchNorm1d(64), torch.nn.ReLU(), torch.nn.Dropout(0.2),
                            torch.nn.Linear(64, 3))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
log = {"losses": [], "order": torch.randperm(640)}
state = tt.TrainState(model=model, optimizer=optimizer, schedule=schedule, extra=log)
with tt.Store(run, save=Every.steps(7), keep=Keep.last(2)) as store:
    for step in store.steps(total, state):
        if step % 20 == 0:
            log["order"] = torch.randperm(640)
        x = torch.randn(32, 20) + random.random() + numpy.random.rand()
        y = log["order"][32 * (step % 20):][:32] % 3
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad(), loss.backward(), optimizer.step(), schedule.step()
        log["losses"].append(loss.item())
        time.sleep(slow)
tensors = [*model.state_dict().values(), *[t for s in optimizer.state.values() for t in s.values()]]
what = b"".join(t.detach().numpy().tobytes() for t in tensors)
what += repr((log["losses"], schedule.get_last_lr(), torch.rand(1).item(), random.random())).encode()
print("END", hashlib.sha256(what).hexdigest())
"""


def ends(script: str, folder: str, tmp_path: Path, kills: int, window: tuple[float, float]) -> str:
    """What a run comes to that is killed so many times, within a window of seconds of each life."""
    chooser = random.Random(kills)
    for _ in range(kills):
        child = start(script, folder, 0.02, cwd=tmp_path)
        time.sleep(chooser.uniform(*window))
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    finished = run(script, folder, 0, cwd=tmp_path)
    assert "END" in finished.stdout, finished.stderr
    return finished.stdout.split("END")[1].strip()


def test_twelve_kills_change_no_bit_of_a_run(tmp_path: Path) -> None:
    quiet = ends(NUMPY, "quiet", tmp_path, 0, (0, 0))
    assert ends(NUMPY, "killed", tmp_path, 12, (0.1, 2.0)) == quiet


def test_kills_change_no_bit_of_a_torch_run(tmp_path: Path) -> None:
    need("torch")
    quiet = ends(TORCH, "quiet", tmp_path, 0, (0, 0))
    assert ends(TORCH, "killed", tmp_path, 4, (5.0, 9.0)) == quiet


SAVES = """
import sys, numpy, tensorkeep
n = 0
while True:
    n += 1
    tensorkeep.save({"n": n, "w": numpy.full(300_000, float(n))}, "one.tkeep")
    print(n, flush=True)
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_kill_inside_a_save_leaves_the_old_file_or_the_new(seed: int, tmp_path: Path) -> None:
    import tensorkeep

    child = start(SAVES, cwd=tmp_path)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(random.Random(seed).uniform(0.0, 0.3))
    os.kill(child.pid, signal.SIGKILL)
    told = [1, *(int(line) for line in child.stdout.read().split())]
    loaded = tensorkeep.load(tmp_path / "one.tkeep")
    assert loaded["n"] in (told[-1], told[-1] + 1)
    assert (loaded["w"] == loaded["n"]).all()
