"""Warnings: of what is lost by a save, and always at the line of the program that made it."""

from __future__ import annotations

import collections
import linecache
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import pytest
import tensorkeep
from conftest import alike, need
from tensorkeep import Every, Store


class Celsius(float):
    pass


def counted() -> Any:
    return collections.defaultdict(list, {"seen": [1, 2]})


def told(act: Callable[[], object], filter: Any = "always") -> list[tuple[str, str]]:
    """What an act warns about: each text, and the line of this file that it points at."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter(filter)
        act()
    assert [warning.filename for warning in caught] == [__file__] * len(caught)
    return [(str(warning.message), linecache.getline(__file__, warning.lineno).strip()) for warning in caught]


def save() -> None:
    tensorkeep.save({"stats": counted()}, "stats.tkeep")  # the line of save


def save_in_a_run() -> None:
    with Store("run") as store:
        store.save({"stats": counted()}, 1)  # the line of save


def save_in_a_loop() -> None:
    with Store("loop", save=Every.steps(1)) as store:
        for _ in store.steps(3, {"stats": counted()}):  # the line of save
            pass


@pytest.mark.parametrize("act", [save, save_in_a_run, save_in_a_loop])
def test_a_defaultdict_is_told_once_where_it_is_saved(act: Callable[[], None]) -> None:
    ((text, line),) = told(act, "default")
    assert text.startswith("'stats': a defaultdict comes back as a dict") and "dict() of it" in text
    assert line.endswith("# the line of save")


def test_a_defaultdict_is_loaded_as_a_dict_without_a_word() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        save()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert alike({"stats": {"seen": [1, 2]}}, tensorkeep.load("stats.tkeep"))


def test_many_defaultdicts_of_one_save_are_one_warning() -> None:
    state = {f"stats{i}": [counted()] for i in range(3)}
    ((text, _),) = told(lambda: tensorkeep.save(state, "many.tkeep"))
    assert "'stats0/0' and 2 more" in text


def test_jax_gives_a_defaultdict_as_it_gives_other_nodes() -> None:
    need("jax")
    import tensorkeep.jax

    tree = {"stats": collections.defaultdict(int, {"a": numpy.ones(2, "f4")})}
    assert told(lambda: tensorkeep.jax.save(tree, "tree.tkeep")) == []
    assert isinstance(tensorkeep.jax.load("tree.tkeep", like=tree)["stats"], collections.defaultdict)


@pytest.fixture
def of_an_unknown_type() -> Iterator[None]:
    from tensorkeep import _walk

    tensorkeep.register(Celsius, to=float, back=Celsius, name="test.Celsius")
    try:
        tensorkeep.save({"at": Celsius(3.0)}, "celsius.tkeep")
    finally:
        del _walk.REGISTERED["test.Celsius"], _walk.ENCODERS[Celsius]
    yield


@pytest.mark.usefixtures("of_an_unknown_type")
def test_what_is_told_by_loading_points_at_the_load() -> None:
    def load() -> None:
        tensorkeep.load("celsius.tkeep")  # the line of load

    def of_a_checkpoint() -> None:
        with tensorkeep.open("celsius.tkeep") as checkpoint:
            checkpoint.state()  # the line of load

    for act in (load, of_a_checkpoint):
        ((text, line),) = told(act)
        assert "test.Celsius" in text and line.endswith("# the line of load")


def test_a_dtype_that_torch_lacks_is_told_at_the_load() -> None:
    need("torch")
    ml_dtypes = need("ml_dtypes")
    import tensorkeep.torch

    tensorkeep.save({"a": [numpy.ones(2, ml_dtypes.float8_e4m3)]}, "rare.tkeep")

    def load() -> None:
        tensorkeep.torch.load_file("rare.tkeep")  # the line of load

    ((text, line),) = told(load)
    assert "torch has no f8e4m3" in text and line.endswith("# the line of load")
