"""Runs: steps, resuming, retention, metrics, errors of the background, closing."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import pathlib
import pickle
import signal
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import tensorkeep
from tensorkeep import Every, Keep, Store


def state() -> dict[str, Any]:
    return {"w": numpy.zeros(1000), "n": 0}


def train(total: int, **options: Any) -> list[int]:
    steps, current = [], state()
    with Store("run", **options) as store:
        for step in store.steps(total, current):
            current["w"] += step
            steps.append(step)
            store.metrics(loss=1.0 / (step + 1))
    return steps


def steps_there() -> list[int]:
    with Store("run") as store:
        return [listed.step for listed in store.list()]


def test_an_interval_that_decides_itself_is_first_due_after_a_minute() -> None:
    assert train(3, save=Every.auto()) == [0, 1, 2]
    assert steps_there() == [3], "the last step alone"
    assert train(5, save=Every.auto() | Every.steps(2)) == [3, 4]
    assert steps_there() == [3, 4, 5]
    assert repr(Every.auto()) == "Every.auto()"


def test_a_run_resumes_where_it_ended_and_rotates() -> None:
    assert train(5, save=Every.steps(2), keep=Keep.last(2)) == [0, 1, 2, 3, 4]
    assert steps_there() == [4, 5]
    assert train(8, save=Every.steps(2), keep=Keep.last(2) | Keep.best("loss")) == [5, 6, 7]
    assert steps_there()[-2:] == [6, 8] or steps_there()[-1] == 8
    current = state()
    with Store("run") as store:
        resumed = store.resume(current)
        assert (resumed.step, resumed.tier, resumed.skipped) == (8, "local", [])
        assert current["w"][0] == sum(range(8))
        assert store.best("loss").step == 8 and store.latest().metrics["loss"] == 1 / 8
    assert train(8) == []


def test_a_loss_that_diverged_is_listed_and_ranks_nothing() -> None:
    with Store("run", keep=Keep.all()) as store:
        for step, loss in [(1, 0.5), (2, float("nan")), (3, float("inf"))]:
            store.log(step, {"loss": loss, "lr": 0.1})
            store.save(state(), step=step)
        listed = [listed.metrics["loss"] for listed in store.list()]
        assert listed[0] == 0.5 and listed[1] != listed[1] and listed[2] == float("inf")
        assert [listed.metrics["lr"] for listed in store.list()] == [0.1] * 3
        assert store.best("loss").step == 1


@pytest.mark.parametrize("wait", [True, False])
def test_a_loss_that_diverged_is_saved_and_told_once(wait: bool, caplog: pytest.LogCaptureFixture) -> None:
    losses = {1: 0.5, 2: math.nan, 3: -math.inf, 4: math.inf}
    with caplog.at_level(logging.WARNING, "tensorkeep"), Store("run", keep=Keep.all()) as store:
        for step, loss in losses.items():
            store.save(state(), step, metrics={"loss": loss, "lr": 0.1}, wait=wait)
        store.wait()
        assert str([listed.metrics["loss"] for listed in store.list()]) == "[0.5, nan, -inf, inf]"
        assert [listed.metrics["lr"] for listed in store.list()] == [0.1] * 4
        assert store.best("loss").step == store.best("loss", "max").step == 1
    (told,) = caplog.messages
    assert told == "run: the metric 'loss' is nan: it ranks no checkpoint as best"


def test_a_loss_that_diverged_ends_no_loop(caplog: pytest.LogCaptureFixture) -> None:
    save, keep = Every.steps(1) | Every.best("loss"), Keep.all() | Keep.best("loss")
    with caplog.at_level(logging.WARNING, "tensorkeep"), Store("run", save=save, keep=keep) as store:
        for step in store.steps(4, state()):
            store.metrics(loss=math.nan if step % 2 else 1 / (step + 1))
            store.log(step, {"norm": math.inf})
        store.wait()
        assert [listed.metrics["loss"] for listed in store.list()][::2] == [1.0, 1 / 3]
        assert all(math.isnan(listed.metrics["loss"]) for listed in store.list()[1::2])
        assert store.best("loss").step == 3
    assert [told.partition("metric ")[2][:13] for told in caplog.messages] == ["'norm' is inf", "'loss' is nan"]


def leave(saving: bool) -> int:
    """Breaks out of a loop in its fifth step; where the next run goes on."""
    current = state()
    heard = signal.getsignal(signal.SIGINT)
    with Store("run", save=Every.steps(3), keep=Keep.all()) as store:
        for step in store.steps(9, current):
            current["w"] += 1
            if step == 4:
                if saving:
                    store.save(current, step + 1)
                break
        assert signal.getsignal(signal.SIGINT) is heard
    with Store("run") as store:
        resumed = store.resume(current)
        assert current["w"][0] == resumed.step
        return resumed.step


def test_break_saves_nothing_and_a_save_before_it_does() -> None:
    page = (pathlib.Path(__file__).parents[2] / "docs/guide/python-runs.md").read_text()
    assert "`break` saves nothing" in page and "call `store.save(training, step + 1)` before the `break`" in page
    assert leave(saving=False) == 3
    assert leave(saving=True) == 5


def test_an_exception_in_the_loop_goes_on_and_the_save_completes() -> None:
    with pytest.raises(ZeroDivisionError), Store("run", save=Every.steps(1)) as store:
        for step in store.steps(10, state()):
            1 // (2 - step)
    assert steps_there() == [1, 2]


def test_the_newest_checkpoint_that_verifies_is_resumed_from(caplog: pytest.LogCaptureFixture) -> None:
    train(3, save=Every.steps(1))
    newest = sorted(pathlib.Path("run").glob("*.tkeep"))[-1]
    os.chmod(newest, 0o644)
    content = bytearray(newest.read_bytes())
    content[5000] ^= 1
    newest.write_bytes(content)
    with caplog.at_level(logging.WARNING, "tensorkeep"), Store("run") as store:
        resumed = store.resume(state())
    assert resumed.step == 2 and resumed.skipped[0][0] == 3
    assert "skipped the checkpoint of step 3" in caplog.text


def test_a_run_whose_checkpoints_are_all_damaged_is_an_error() -> None:
    train(1)
    only = next(pathlib.Path("run").glob("*.tkeep"))
    os.chmod(only, 0o644)
    only.write_bytes(only.read_bytes()[:-100])
    with Store("run") as store, pytest.raises(tensorkeep.Damaged):
        store.resume(state())


def test_rollback_pins_and_deletion() -> None:
    train(4, save=Every.steps(1))
    with Store("run", keep=Keep.last(1)) as store:
        store.pin(2)
        assert store.resume(at=3).step == 3
        store.save(state(), 10)
        assert [listed.step for listed in store.list() if listed.pinned] == [2]
        with pytest.raises(tensorkeep.Invalid):
            store.delete(2)
        store.unpin(2)
        store.delete(2)
        assert "newest" in store.kept()[10]
        with pytest.raises(tensorkeep.NotFound):
            store.open(2)


def test_two_writers_are_told_apart() -> None:
    with Store("run") as first:
        with pytest.raises(tensorkeep.Locked):
            Store("run")
        first.save(state(), 1)


def test_a_step_is_saved_once() -> None:
    with Store("run") as store:
        store.save(state(), 1)
        with pytest.raises(tensorkeep.AlreadyExists):
            store.save(state(), 1)


def test_an_error_of_the_background_is_raised_by_the_next_call() -> None:
    store = Store("run")
    store.save(state(), 2)
    pending = store.save(state(), 1, wait=False)
    assert isinstance(pending, tensorkeep.Pending)
    assert isinstance(pending.exception(), tensorkeep.Error)
    with pytest.raises(tensorkeep.Error) as failed:
        store.save(state(), 3)
    assert failed.value.step == 1 and "all the same" in failed.value.__notes__[-1]
    assert [listed.step for listed in store.list()] == [2, 3]
    store.close()


def test_closing_raises_an_error_nobody_has_heard() -> None:
    with pytest.raises(tensorkeep.Error), Store("run") as store:
        store.save(state(), 2)
        store.save(state(), 1, wait=False)
    with pytest.raises(KeyError) as own, Store("run2") as store:
        store.save(state(), 2)
        store.save(state(), 1, wait=False)
        raise KeyError("own")
    assert "closing the store failed" in own.value.__notes__[0]


def test_pending_saves_are_futures() -> None:
    called = []

    async def awaited(store: Store) -> Any:
        pending = store.save(state(), 2, wait=False)
        return await pending  # type: ignore[misc]

    with Store("run") as store:
        pending = store.save(state(), 1, wait=False)
        pending.add_done_callback(called.append)
        saved = pending.result(timeout=60)
        assert saved.step == 1 and saved.nbytes > 8000 and pending.done()
        assert asyncio.run(awaited(store)).step == 2
    assert called == [pending]


def test_a_full_background_skips_or_refuses() -> None:
    big = {"w": numpy.zeros(10_000_000)}
    for when_full, expected in (("skip", None), ("error", tensorkeep.Busy)):
        with Store(f"run-{when_full}", when_full=when_full) as store:
            store.save(big, 1, wait=False)
            if expected is None:
                assert store.save(big, 2, wait=False) is None
            else:
                with pytest.raises(expected):
                    store.save(big, 2, wait=False)


def test_a_closed_store_says_so_and_closing_twice_is_fine() -> None:
    store = Store("run")
    store.close()
    store.close()
    used: list[Callable[[], Any]] = [
        lambda: store.save(state(), 1),
        lambda: store.due(1),
        lambda: store.should_stop,
        lambda: store.metrics(loss=1.0),
        lambda: store.metrics(),
        lambda: store.log(1, {}),
        lambda: store.resume(),
        lambda: next(iter(store.steps(3, state()))),
        lambda: store.wait(),
        lambda: store.list(),
        lambda: store.latest(),
        lambda: store.attempt,
        lambda: store.__enter__(),
    ]
    before = signal.getsignal(signal.SIGTERM)
    for use in used:
        with pytest.raises(tensorkeep.ClosedError, match="^run: this store is closed; open the run again$"):
            use()
    assert signal.getsignal(signal.SIGTERM) is before, "a closed store hears no signal"
    assert "closed" in repr(store)


def test_a_store_is_not_pickled_and_a_checkpoint_is_by_its_path() -> None:
    with Store("run") as store:
        with pytest.raises(tensorkeep.Unsupported, match="other process"):
            pickle.dumps(store)
        store.save(state(), 1, metadata={"commit": "abc"})
    checkpoint = pickle.loads(pickle.dumps(tensorkeep.open("run@latest")))
    assert checkpoint.step == 1 and checkpoint.metadata == {"commit": "abc"}


def test_checkpoints_of_runs_are_found_by_words() -> None:
    train(4, save=Every.steps(1))
    assert tensorkeep.open("run@latest").step == 4
    assert tensorkeep.open("run@2").step == 2
    assert tensorkeep.open("run@best:loss").step == 4
    assert tensorkeep.open("run@best:loss:max").step == 1
    with pytest.raises(tensorkeep.NotFound, match="no checkpoint of step 9"):
        tensorkeep.open("run@9")
    with pytest.raises(tensorkeep.NotFound):
        tensorkeep.open("no-run@latest")
    with pytest.raises(tensorkeep.Invalid, match="expected"):
        tensorkeep.open("run@newest")


def test_a_second_folder_gets_what_it_keeps() -> None:
    with Store("near", remote="far", keep=Keep.last(1), keep_remote=Keep.every_steps(2)) as store:
        for step in range(1, 5):
            store.save(state(), step)
    assert tensorkeep.open("far@4").step == 4 and tensorkeep.open("far@2").step == 2


def test_urls_are_runs_in_a_build_with_object_stores_or_refused() -> None:
    try:
        with Store("memory://run") as store:
            assert store.save(state(), 1).step == 1 and [listed.step for listed in store.list()] == [1]
    except tensorkeep.Unsupported as refused:
        assert "memory://run" in str(refused) and "--features object-store" in str(refused)
        for call in (lambda: Store("near", remote="s3://bucket/run"), lambda: tensorkeep.open("s3://bucket/run@latest")):
            with pytest.raises(tensorkeep.Unsupported, match="s3://bucket/run.*--features object-store"):
                call()
    for one in (lambda: tensorkeep.save(state(), "s3://bucket/file"), lambda: tensorkeep.load("s3://bucket/file")):
        with pytest.raises(tensorkeep.Unsupported, match="a URL names no file"):
            one()


def test_policies_are_values() -> None:
    every, keep = Every.steps(5) | Every.best("loss"), Keep.last(3) | Keep.best("loss", "max", 2)
    assert repr(every) == "Every.steps(5) | Every.best('loss', 'min')" and eval(repr(keep)) == keep
    assert pickle.loads(pickle.dumps(every)) == every and hash(every) == hash(every)
    with pytest.raises(AttributeError):
        every.x = 1
    with pytest.raises(tensorkeep.Invalid):
        Store("run", save=Every.steps(0))


class Part:
    def __init__(self, value: int) -> None:
        self.value = value

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["value"]


def test_a_train_state_is_restored_whole_or_not_at_all() -> None:
    part, extra = Part(1), {"cfg": (1, 2)}
    training = tensorkeep.TrainState(part=part, extra=extra)
    with Store("run") as store:
        store.save(training, 1)
        part.value, extra["cfg"] = 2, (3,)
        store.resume(training)
        assert part.value == 1 and extra == {"cfg": (1, 2)}
        more = tensorkeep.TrainState(part=part, other=Part(3))
        part.value = 5
        with pytest.raises(tensorkeep.Mismatch, match="other"):
            store.resume(more)
        assert part.value == 5
    with pytest.raises(tensorkeep.Invalid, match="state_dict"):
        tensorkeep.TrainState(part=3)


def test_a_run_that_this_process_has_open_is_told_so() -> None:
    with Store("run"):
        with pytest.raises(tensorkeep.Locked, match="this process has it open: close that store") as locked:
            Store(pathlib.Path("run").absolute())
    assert "stop it" not in str(locked.value)


@pytest.mark.parametrize("wait", [True, False])
def test_a_loop_that_never_asks_what_is_due_records_metrics(wait: bool) -> None:
    with Store("run", keep=Keep.best("loss")) as store:
        for step, loss in [(1, 0.5), (2, 0.25), (3, math.nan), (4, 1.0)]:
            store.metrics(loss=loss)
            store.save(state(), step, wait=wait)
        store.save(state(), 5)
        assert store.best("loss").step == 2
        assert {listed.step: listed.metrics for listed in store.list()} == {2: {"loss": 0.25}, 5: {}}


@pytest.mark.parametrize("per_epoch", [None, 2])
def test_a_loop_whose_body_saves_is_not_saved_twice(per_epoch: int | None) -> None:
    with Store("run", save=Every.steps(1), keep=Keep.all()) as store:
        for step in store.steps(4, state(), steps_per_epoch=per_epoch):
            store.save(state(), step + 1, wait=step % 2 == 0)
        store.wait()
        assert [listed.step for listed in store.list()] == [1, 2, 3, 4]
