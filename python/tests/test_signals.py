"""Signals ask a loop to save, or to save and stop; nothing ends a save or a step in its middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy
import pytest
import tensorkeep
from conftest import start
from tensorkeep import Store

LOOP = """
import sys, time, numpy, tensorkeep
state = {"w": numpy.zeros(100_000), "whole": True}
with tensorkeep.Store("run") as store:
    for step in store.steps(100_000, state):
        state["whole"] = False
        print(step, flush=True)
        end = time.monotonic() + {work}
        while time.monotonic() < end:
            pass
        state["w"] += 1
        state["whole"] = True
print("END", step + 1, flush=True)
"""


def loop(tmp_path: Path, work: float = 0.05) -> Any:
    code = LOOP.replace("{work}", str(work))
    child = start(code, cwd=tmp_path)
    assert child.stdout is not None
    while (line := child.stdout.readline()) != "2\n":
        assert line, "the child ended"
    return child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_behind_the_step_and_stops(number: int, tmp_path: Path) -> None:
    child = loop(tmp_path)
    child.send_signal(number)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0 and "END" in out, out
    loaded = tensorkeep.open(tmp_path / "run@latest")
    assert loaded.step == int(out.split("END")[1].split()[0])
    assert loaded.state()["whole"] is True and loaded.state()["w"][0] == loaded.step
    told = subprocess.run(
        [sys.executable, "-m", "tensorkeep", "history", "run", "--json"], cwd=tmp_path, capture_output=True, check=True
    )
    assert [life["end"] for life in json.loads(told.stdout)["attempts"]] == [f"stopped by {signal.Signals(number).name}"]


def test_sigusr1_saves_and_training_goes_on(tmp_path: Path) -> None:
    child = loop(tmp_path)
    child.send_signal(signal.SIGUSR1)
    time.sleep(0.5)
    child.send_signal(signal.SIGTERM)
    out, _ = child.communicate(timeout=60)
    assert child.returncode == 0, out
    with Store(tmp_path / "run") as store:
        steps = [listed.step for listed in store.list()]
    assert len(steps) == 2 and steps[1] > steps[0], steps


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, -2)])
def test_a_second_request_ends_the_program_at_once(number: int, code: int, tmp_path: Path) -> None:
    child = loop(tmp_path, work=3.0)
    child.send_signal(number)
    time.sleep(0.3)
    child.send_signal(number)
    child.communicate(timeout=60)
    assert child.returncode == code


def test_an_own_handler_from_before_is_called_and_comes_back() -> None:
    heard: list[int] = []

    def own(number: int, frame: object) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGTERM, own)
    try:
        with Store("run") as store:
            assert signal.getsignal(signal.SIGTERM) is own
            assert store.due(1) is None
            os.kill(os.getpid(), signal.SIGTERM)
            assert store.due(1) == "signal" and not store.should_stop
            store.save({"w": 1}, 1)
            assert store.should_stop and store.due(1) is None
        assert heard == [signal.SIGTERM] and signal.getsignal(signal.SIGTERM) is own
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_handler_that_was_set_later_stays() -> None:
    def later(number: int, frame: object) -> None:
        pass

    before = signal.getsignal(signal.SIGTERM)
    try:
        with Store("run") as store:
            store.due(1)
            signal.signal(signal.SIGTERM, later)
        assert signal.getsignal(signal.SIGTERM) is later
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_second_stop_raises_where_the_program_is() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Store("run") as store:
        store.due(1)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(SystemExit) as ended:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        assert ended.value.code == 143
    assert signal.getsignal(signal.SIGTERM) is before


def test_slurms_signal_can_stop() -> None:
    with Store("run", signals={"SIGUSR1": "save+stop"}) as store:
        store.due(1)
        os.kill(os.getpid(), signal.SIGUSR1)
        assert store.due(1) == "signal"
        store.save({"w": 1}, 1)
        assert store.should_stop
    with pytest.raises(tensorkeep.Invalid, match="SIGNONE"):
        Store("run", signals={"SIGNONE": "save"})


def test_another_thread_installs_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    done: list[Any] = []

    def use() -> None:
        with Store("run") as store:
            done.append(store.due(1))
            done.append(signal.getsignal(signal.SIGTERM) is before)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert done == [None, True]


def test_ctrl_c_ends_waiting_and_the_save_goes_on() -> None:
    with Store("run") as store:
        pending = store.save({"w": numpy.zeros(20_000_000)}, 1, wait=False)
        assert pending is not None
        threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT)).start()
        try:
            pending.result()
            time.sleep(1)
        except KeyboardInterrupt:
            pass
        assert pending.result().step == 1
