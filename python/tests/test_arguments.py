"""Arguments that are wrong: refused with words that name them, before anything is written."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import tensorkeep
import tensorkeep.numpy
from tensorkeep import Every, Keep, Store

NAN = float("nan")
STATE = {"w": numpy.ones(3)}


def refused(call: Callable[[], Any], name: str) -> None:
    with pytest.raises(tensorkeep.Invalid) as wrong:
        call()
    assert str(wrong.value).startswith(f"{name}: expected "), wrong.value
    assert wrong.value.expected and wrong.value.found


@pytest.mark.parametrize("step", [-1, 1.5, 2**64, "3", None, numpy.ones(2)], ids=repr)
def test_a_step_is_a_whole_number(step: Any) -> None:
    with Store("run") as store:
        calls: list[Callable[[], Any]] = [
            lambda: store.save(STATE, step),
            lambda: store.save(STATE, step, wait=False),
            lambda: store.due(step),
            lambda: store.log(step, {"loss": 1.0}),
            lambda: store.open(step),
            lambda: store.pin(step),
            lambda: store.unpin(step),
            lambda: store.delete(step),
        ]
        for call in calls:
            refused(call, "step")
        if step is not None:
            refused(lambda: store.resume(at=step), "at")
        refused(lambda: store.save(STATE, 1, epoch=step), "epoch")
        refused(lambda: next(store.steps(step, STATE)), "total")
        if step is not None:
            refused(lambda: next(store.steps(3, STATE, steps_per_epoch=step)), "steps_per_epoch")
        assert not store.list()
        assert store.save(STATE, numpy.int64(3), epoch=numpy.uint8(1)).step == 3  # type: ignore[arg-type,union-attr]


def test_a_step_of_a_run_is_within_64_bits() -> None:
    with Store("run") as store:
        store.save(STATE, 1)
    refused(lambda: tensorkeep.open(f"run@{2**64}"), "step")


METRICS = [({"loss": "low"}, "metrics['loss']"), ({"loss": None}, "metrics['loss']"), ({"loss": "0.5"}, "metrics['loss']"),
           ({"loss": numpy.ones(2)}, "metrics['loss']"), ({5: 1.0}, "a key of metrics"), (["loss"], "metrics")]  # fmt: skip
METADATA = [({"epoch": 5}, "metadata['epoch']"), ({"x": None}, "metadata['x']"), ({5: "x"}, "a key of metadata"),
            ({"x": "\ud800"}, "metadata['x']"), ("x", "metadata"), ([("a", "b")], "metadata")]  # fmt: skip


@pytest.mark.parametrize(("metrics", "name"), METRICS)
def test_metrics_are_numbers_by_text(metrics: Any, name: str) -> None:
    refused(lambda: tensorkeep.save(STATE, "m.tkeep", metrics=metrics), name)
    with Store("run") as store:
        refused(lambda: store.save(STATE, 1, metrics=metrics), name)
        refused(lambda: store.log(1, metrics), name)
        if isinstance(metrics, dict) and "loss" in metrics:
            refused(lambda: store.metrics(**metrics), name)
    assert not pathlib.Path("m.tkeep").exists()


@pytest.mark.parametrize(("metadata", "name"), METADATA)
def test_metadata_are_text_by_text(metadata: Any, name: str) -> None:
    refused(lambda: tensorkeep.save(STATE, "m.tkeep", metadata=metadata), name)
    refused(lambda: tensorkeep.numpy.save_file(STATE, "m.tkeep", metadata), name)
    with Store("run") as store:
        refused(lambda: store.save(STATE, 1, metadata=metadata), name)


@pytest.mark.parametrize(("start", "stop", "name"), [(-1, 2, "start"), (0, -1, "stop"), (0.5, 2, "start"), (0, 2**64, "stop")])
def test_rows_are_counted_from_0(start: Any, stop: Any, name: str) -> None:
    tensorkeep.save(STATE, "s.tkeep")
    with tensorkeep.open("s.tkeep") as checkpoint:
        refused(lambda: checkpoint.slice("w", start, stop), name)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("path", ""),
        ("remote", ""),
        ("deadline", NAN),
        ("deadline", -1),
        ("deadline", 0),
        ("deadline", "soon"),
        ("in_flight", -1),
        ("in_flight", 1.5),
        ("background_nice", 20),
        ("background_nice", -1),
        ("save", 500),
        ("keep", 3),
        ("keep_remote", 3),
        ("codec", 5),
        ("signals", "on"),
    ],
)
def test_options_of_a_store_are_looked_at(name: str, value: Any) -> None:
    refused(lambda: Store(**{"path": "run", name: value}), name)
    assert not pathlib.Path("run").exists()


def test_a_store_may_wait_for_ever() -> None:
    Store("run", deadline=float("inf")).close()


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        (lambda: Every.steps("5"), "Every.steps"),  # type: ignore[arg-type]
        (lambda: Every.steps(0.5), "Every.steps"),  # type: ignore[arg-type]
        (lambda: Every.epochs(-1), "Every.epochs"),
        (lambda: Every.minutes("5"), "Every.minutes"),  # type: ignore[arg-type]
        (lambda: Every.minutes(NAN), "Every.minutes"),
        (lambda: Every.seconds(-1.0), "Every.seconds"),
        (lambda: Every.best("loss", "least"), "Every.best"),  # type: ignore[arg-type]
        (lambda: Every.best(5), "Every.best"),  # type: ignore[arg-type]
        (lambda: Keep.last(-1), "Keep.last"),
        (lambda: Keep.best("loss", "max", 1.5), "Keep.best"),  # type: ignore[arg-type]
        (lambda: Keep.younger_than(NAN), "Keep.younger_than"),
    ],
)
def test_rules_are_looked_at_where_they_are_written(rule: Callable[[], Any], name: str) -> None:
    refused(rule, name)


def test_files_have_a_path_and_ways_to_be_read() -> None:
    refused(lambda: tensorkeep.save(STATE, ""), "path")
    refused(lambda: tensorkeep.load(""), "path")
    tensorkeep.save(STATE, "f.tkeep")
    refused(lambda: tensorkeep.load("f.tkeep", mmap="maybe"), "mmap")  # type: ignore[arg-type]
    refused(lambda: tensorkeep.save(STATE, "f.tkeep", codec={"w": 5}), "codec['w']")  # type: ignore[dict-item]
