"""Tensors that another thread changes while they are saved: the file verifies all the same."""

from __future__ import annotations

import threading

import numpy
import tensorkeep


def test_fifty_saves_beside_a_writing_thread_all_verify() -> None:
    state = {"model": {f"w{i}": numpy.zeros(200_000) for i in range(8)}}
    done = threading.Event()

    def train() -> None:
        while not done.is_set():
            for tensor in state["model"].values():
                tensor += 1.0

    threads = [threading.Thread(target=train) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for i in range(50):
            tensorkeep.save(state, f"torn{i % 3}.tkeep", codec="raw" if i % 2 else "balanced")
            tensorkeep.load(f"torn{i % 3}.tkeep")
            assert not tensorkeep.open(f"torn{i % 3}.tkeep").verify().damage
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_staged_saves_beside_a_writing_thread_all_verify() -> None:
    state = {"w": numpy.zeros(2_000_000)}
    done = threading.Event()

    def train() -> None:
        while not done.is_set():
            state["w"] += 1.0

    thread = threading.Thread(target=train)
    thread.start()
    try:
        with tensorkeep.Store("run", keep=tensorkeep.Keep.last(3)) as store:
            for step in range(1, 9):
                store.save(state, step, wait=False)
            store.wait()
            for listed in store.list():
                assert not store.open(listed.step).verify().damage
    finally:
        done.set()
        thread.join()
