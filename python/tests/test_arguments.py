"""Arguments that are wrong: refused with words that name them, before anything is written."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy
import pytest
import tensorkeep
import tensorkeep.numpy
from hostile import HOSTILE, NAN, Raises, with_hostile
from tensorkeep import Every, Keep, Store, _walk

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


@pytest.mark.filterwarnings("ignore")
def test_no_argument_of_a_file_raises_what_is_not_ours() -> None:
    tensorkeep.save({"model": STATE, "n": 1}, "f.tkeep")
    options: dict[str, Any] = {"metadata": None, "metrics": None, "codec": "raw", "progress": False}
    with_hostile(tensorkeep.save, STATE, "g.tkeep", **options)
    options = {"mmap": "auto", "verify": "open", "only": None, "strict_types": False, "progress": False}
    with_hostile(tensorkeep.load, "f.tkeep", **options)
    with_hostile(tensorkeep.numpy.load, "f.tkeep", **options)
    with_hostile(tensorkeep.open, "f.tkeep", mmap=False, verify="touch")
    with_hostile(tensorkeep.numpy.save_file, STATE, "g.tkeep", None, codec="raw")
    with_hostile(tensorkeep.numpy.load_file, "f.tkeep", backend="mmap")
    with_hostile(tensorkeep.numpy.safe_open, "f.tkeep", "np", "cpu", backend="mmap")
    with_hostile(tensorkeep.load_into, "f.tkeep", {"w": numpy.zeros(3)}, group="model", strict=True)
    with_hostile(tensorkeep.rng.restore, tensorkeep.rng.capture())
    with tensorkeep.open("f.tkeep") as checkpoint:
        with_hostile(checkpoint.diff, checkpoint)
        with_hostile(checkpoint.slice, "model/w", 0, 1)
        with_hostile(checkpoint.state, None, framework=None, strict_types=False)
        with_hostile(checkpoint.tensors.__getitem__, "model/w")
        with_hostile(checkpoint.records.__getitem__, "n")
        for hostile in HOSTILE:
            assert hostile not in checkpoint.tensors and checkpoint.records.get(hostile) is None


@pytest.mark.filterwarnings("ignore")
def test_no_argument_of_a_run_raises_what_is_not_ours() -> None:
    number = iter(range(1_000_000))

    def opened(path: Any = None, **options: Any) -> None:
        with Store(f"runs/{next(number)}" if path is None else path, **options):
            pass

    with_hostile(opened, None, save=None, keep=None, remote=None, keep_remote=None, codec="raw", in_flight=1, when_full="wait",
                 background_nice=0, signals="auto", deadline=9.0)  # fmt: skip
    with Store("run") as store:
        store.save(STATE, 1)
        with_hostile(lambda *some, **named: store.save(some[0], next(number) + 10, **named), STATE, epoch=0, metrics=None,
                     metadata=None, wait=True)  # fmt: skip
        with_hostile(lambda *some: store.save(*some) and store.delete(int(some[1])), STATE, 2)
        with_hostile(lambda **named: store.resume(**named), state=None, at=1)
        with_hostile(store.due, 5, 0)
        with_hostile(store.log, 5, {"a": 1.0}, epoch=0)
        with_hostile(lambda value: store.metrics(loss=value), 1.0)
        with_hostile(store.best, "loss", "min")
        for one in (store.open, store.pin, store.unpin, store.delete):
            with_hostile(one, 1)
        with_hostile(lambda *some, **named: list(store.steps(*some, **named)), 0, dict(STATE), steps_per_epoch=1)


@pytest.mark.filterwarnings("ignore")
def test_no_rule_part_or_type_raises_what_is_not_ours() -> None:
    class Mine:
        pass

    for rules in (Every, Keep):
        for name in vars(rules):
            if isinstance(vars(rules)[name], classmethod):
                sample = ["loss", "min"] if name == "best" else [] if name in ("never", "all", "auto") else [3]
                with_hostile(getattr(rules, name), *sample)
        with_hostile(rules.best("loss").__or__, rules.best("loss"))
    with_hostile(lambda **named: tensorkeep.TrainState(**named), rng=False, extra=None, part=tensorkeep.TrainState())
    before = dict(_walk.REGISTERED)
    with_hostile(tensorkeep.register, Mine, list, Mine, "tests.Mine")
    _walk.REGISTERED.clear()
    _walk.REGISTERED.update(before)
    del _walk.ENCODERS[Mine]
    state = tensorkeep.TrainState(rng=True, extra={})
    with_hostile(state.load_state_dict, state.state_dict(), True)
    pending = Store("run").save(STATE, 1, wait=False)
    assert isinstance(pending, tensorkeep.Pending)
    with_hostile(pending.wait, 1.0)
    with_hostile(pending.result, 1.0)
    with_hostile(pending.add_done_callback, lambda _: None)


@pytest.mark.parametrize("name", [signal for signal in ("SIGKILL", "SIGSTOP", "SIGSEGV", "SIGNONE", "signal", 15)])
def test_signals_that_nobody_hears_are_refused(name: Any) -> None:
    refused(lambda: Store("run", signals={name: "save"}), "signals")
    assert not pathlib.Path("run").exists()


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: tensorkeep.load("f.tkeep", mmap=1), "mmap"),  # type: ignore[arg-type]
        (lambda: tensorkeep.load("f.tkeep", only="w", mmap="maybe"), "mmap"),  # type: ignore[arg-type]
        (lambda: tensorkeep.load("f.tkeep", verify="always"), "verify"),  # type: ignore[arg-type]
        (lambda: tensorkeep.open("f.tkeep").diff(3), "other"),  # type: ignore[arg-type]
        (lambda: tensorkeep.open("f.tkeep").state(framework="foo"), "framework"),
        (lambda: Every.steps(1) | 3, "Every | …"),  # type: ignore[operator]
        (lambda: 3 | Every.steps(1), "Every | …"),  # type: ignore[operator]
        (lambda: Every.steps(1) | Keep.last(1), "Every | …"),  # type: ignore[operator]
        (lambda: tensorkeep.TrainState(extra=3), "extra"),  # type: ignore[arg-type]
        (lambda: tensorkeep.register(Raises, None, None), "to"),  # type: ignore[arg-type]
        (lambda: tensorkeep.register(Raises, list, Raises, "\ud800"), "name"),
        (lambda: tensorkeep.load(Raises()), "path"),
        (lambda: tensorkeep.load(5), "path"),  # type: ignore[arg-type]
    ],
)
def test_what_was_raw_is_refused_with_words(call: Callable[[], Any], name: str) -> None:
    tensorkeep.save(STATE, "f.tkeep")
    refused(call, name)


@pytest.mark.parametrize("kind", [dict, str, float, numpy.ndarray])
def test_types_that_states_hold_anyway_are_not_registered(kind: type) -> None:
    with pytest.raises(tensorkeep.Invalid, match="stored as it is"):
        tensorkeep.register(kind, to=repr, back=str)
    assert tensorkeep.save({"a": {"b": "c"}, "w": numpy.ones(2)}, "t.tkeep")


def test_text_that_is_no_unicode_is_refused_as_a_name() -> None:
    for save in (tensorkeep.save, tensorkeep.numpy.save_file):
        with pytest.raises(tensorkeep.CannotStore, match="surrogate"):
            save({"a\ud800": numpy.ones(2)}, "s.tkeep")


def test_an_array_in_a_row_is_not_replaced_by_one_of_its_name() -> None:
    refused(lambda: tensorkeep.numpy.savez("z.tkeep", numpy.zeros(1), arr_0=numpy.ones(1)), "a keyword")


def test_a_view_is_copied_only_where_that_is_allowed() -> None:
    tensorkeep.save(STATE, "v.tkeep")
    with tensorkeep.open("v.tkeep") as checkpoint:
        view = checkpoint.tensors["w"]
        assert numpy.asarray(view, dtype="f4").dtype == "f4" and numpy.array(view, copy=True).sum() == 3
        with pytest.raises(ValueError, match="is a copy"):
            numpy.array(view, dtype="f4", copy=False)
