"""Threads that save and load at a time, through one store and through files."""

from __future__ import annotations

import concurrent.futures
import threading
import time

import numpy
import pytest
import tensorkeep
from tensorkeep import Store


def test_eight_threads_save_and_load_their_files() -> None:
    def work(number: int) -> bool:
        for i in range(6):
            state = {"w": numpy.full(50_000, number + i / 10), "t": (number, i)}
            tensorkeep.save(state, f"{number}.tkeep")
            loaded = tensorkeep.load(f"{number}.tkeep")
            if loaded["t"] != (number, i) or (loaded["w"] != state["w"]).any():
                return False
        return True

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_threads_that_save_to_one_path_leave_a_whole_file() -> None:
    def work(number: int) -> None:
        for _ in range(5):
            tensorkeep.save({"w": numpy.full(100_000, float(number))}, "one.tkeep")

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    loaded = tensorkeep.load("one.tkeep")["w"]
    assert (loaded == loaded[0]).all()


def test_two_threads_save_through_one_store() -> None:
    with Store("run", in_flight=2) as store:
        steps = iter(range(1, 21))
        order = threading.Lock()

        def work(_: int) -> None:
            for _ in range(10):
                with order:
                    step = next(steps)
                    store.save({"w": numpy.zeros(10_000)}, step, wait=step % 3 == 0)

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            list(pool.map(work, range(2)))
        store.wait()
        assert [listed.step for listed in store.list()] == list(range(1, 21))


def test_other_threads_run_while_one_saves_and_loads() -> None:
    longest, done = 0.0, threading.Event()

    def watch() -> None:
        nonlocal longest
        before = time.perf_counter()
        while not done.is_set():
            time.sleep(0.0005)
            now = time.perf_counter()
            longest, before = max(longest, now - before), now

    state = {f"w{i}": numpy.zeros(2_500_000) for i in range(8)}
    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.perf_counter()
    for _ in range(3):
        tensorkeep.save(state, "big.tkeep")
        tensorkeep.load("big.tkeep", mmap=False)
    took = time.perf_counter() - began
    done.set()
    watcher.join()
    # A call that held the interpreter would stop the watcher for most of its time; a machine that
    # is busy stops it now and then.
    assert longest < max(0.1, took / 6), (longest, took)


class Changing:
    """Changes the state while it is looked through, as another thread may."""


def test_a_state_that_another_thread_changes_is_refused_with_words() -> None:
    state: dict[str, object] = {"inner": {"a": Changing(), "b": 1}}
    tensorkeep.register(Changing, to=lambda _: state["inner"].update(c=2) or 1, back=lambda _: Changing())  # type: ignore[attr-defined]
    with pytest.raises(tensorkeep.CannotStore, match="another thread changed it"):
        tensorkeep.save(state, "changing.tkeep")
    assert tensorkeep.save(state, "changing.tkeep")
