"""``only=``: what it chooses, what is left out, patterns that match nothing."""

from __future__ import annotations

import collections
from typing import Any

import numpy
import pytest
import tensorkeep
import tensorkeep.numpy
from conftest import alike
from tensorkeep import _walk

Pair = collections.namedtuple("Pair", "x y")
ONES = numpy.ones(2)


@pytest.fixture
def pairs() -> Any:
    tensorkeep.register(Pair, to=lambda pair: {"x": pair.x, "y": pair.y}, back=lambda d: Pair(**d), name="t.Pair")
    yield
    del _walk.REGISTERED["t.Pair"], _walk.ENCODERS[Pair]


def saved() -> None:
    state = {
        "model": {"weight": ONES, "bias": ONES, "kind": "linear"},
        "optimizer": {"state": {0: {"exp_avg": ONES, "step": 3}}, "param_groups": [{"lr": 0.1}]},
        "layers": [ONES, (ONES, 1)],
        "note": "x",
    }
    tensorkeep.save(state, "only.tkeep")


def only(*patterns: str) -> Any:
    return tensorkeep.load("only.tkeep", only=patterns)


def test_a_pattern_chooses_what_it_matches_and_all_beneath() -> None:
    saved()
    whole = tensorkeep.load("only.tkeep")
    assert alike(only("model"), {"model": whole["model"]}) and alike(only("model/*"), only("model"))
    assert alike(only("optimizer", "note"), {"optimizer": whole["optimizer"], "note": "x"})
    assert alike(only("optimizer/state"), {"optimizer": whole["optimizer"]})


def test_what_a_star_reaches_keeps_its_nesting() -> None:
    saved()
    assert list(only("*/exp_avg")["optimizer"]["state"][0]) == ["exp_avg", "step"]
    assert only("*param_groups*") == {"optimizer": {"state": {0: {"step": 3}}, "param_groups": [{"lr": 0.1}]}}
    assert only("model/kind") == {"model": {"kind": "linear"}}


@pytest.mark.parametrize(
    ("pattern", "meant"),
    [("modle/*", "model/*"), ("model/wieght", "model/weight"), ("optimizer/sate/*", "optimizer/state/*"), ("ntoe", "note")],
)
@pytest.mark.parametrize("mmap", [True, False])
def test_a_pattern_that_matches_nothing_is_an_error(pattern: str, meant: str, mmap: bool) -> None:
    saved()
    with pytest.raises(tensorkeep.NotFound) as missing:
        tensorkeep.load("only.tkeep", only=["note", pattern], mmap=mmap)
    assert f"only: {pattern!r} matches nothing" in str(missing.value) and f"did you mean {meant!r}?" in str(missing.value)


@pytest.mark.parametrize("pattern", ["mod/el", "mod/el/we~ight", "mod/ell"])
def test_a_key_that_is_written_as_it_is_is_told_as_it_is_named(pattern: str) -> None:
    tensorkeep.save({"mod/el": {"we~ight": ONES}, "model": {"w": ONES}}, "only.tkeep")
    with pytest.raises(tensorkeep.NotFound, match="did you mean 'mod~1el"):
        only(pattern)
    with tensorkeep.open("only.tkeep") as checkpoint, pytest.raises(tensorkeep.MissingName, match="'mod~1el/we~0ight'"):
        checkpoint.tensors["mod/el/we~ight"]


def test_a_pattern_without_neighbours_lists_the_groups() -> None:
    saved()
    with pytest.raises(tensorkeep.NotFound, match="layers, model, note, optimizer"):
        only("zzzzzzzzzzzz")


def test_an_empty_group_is_there() -> None:
    tensorkeep.save({"model": {}, "n": 1}, "only.tkeep")
    assert only("model/*") == {"model": {}}


def test_flat_files_are_chosen_from_by_name() -> None:
    tensorkeep.numpy.save_file({"a.weight": ONES, "a.bias": ONES, "[x]": ONES}, "only.tkeep")
    assert list(only("a.*")) == ["a.weight", "a.bias"] and list(only("[x]")) == ["[x]"]
    with pytest.raises(tensorkeep.NotFound, match="a.weight"):
        only("a.wieght")


def test_lists_keep_their_places() -> None:
    saved()
    first, (second, number) = only("layers/1/0")["layers"]
    assert isinstance(first, tensorkeep.LeftOut) and first.name == "layers/0" and "layers/0" in repr(first)
    assert alike(second, ONES) and number == 1
    with pytest.raises(tensorkeep.CannotStore, match="layers/0"):
        tensorkeep.save(only("layers/1/0"), "again.tkeep")


def test_a_registered_value_is_chosen_whole_or_told(pairs: None) -> None:
    state = {"at": Pair(ONES, 2 * ONES), "other": {"at": [Pair(ONES, 1)]}, "w": ONES}
    tensorkeep.save(state, "only.tkeep")
    assert alike(only("w"), {"w": ONES})
    assert alike(only("at"), {"at": state["at"]}) and alike(only("other/*"), {"other": state["other"]})
    with pytest.warns(UserWarning, match="leaves out parts of them: 'at'"):
        assert alike(only("at/x"), {"at": {"x": ONES}})
    with pytest.raises(tensorkeep.Unsupported, match="leaves out parts"):
        tensorkeep.load("only.tkeep", only="at/x", strict_types=True)


@pytest.mark.parametrize("patterns", [5, [5], b"x"])
def test_patterns_are_text(patterns: Any) -> None:
    saved()
    with pytest.raises(tensorkeep.Invalid, match="only"):
        tensorkeep.load("only.tkeep", only=patterns)
