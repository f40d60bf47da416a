"""Names of any text: slashes and tildes, names that are beginnings of others, keys that only look like text."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy
import pytest
import tensorkeep
import tensorkeep.numpy
from conftest import need
from hypothesis import HealthCheck, given, settings

names = st.text(alphabet="ab/~.0", min_size=1, max_size=6)
quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def count(value: Any) -> int:
    """How many arrays there are."""
    return sum(map(count, value.values())) if isinstance(value, dict) else 1


@given(names=st.sets(names, min_size=1, max_size=6))
@quick
def test_a_save_loads_into_tensors_of_any_names(names: set[str]) -> None:
    tensorkeep.save({"model": {name: numpy.full(2, i) for i, name in enumerate(names)}}, "escaped.tkeep")
    target = {name: numpy.zeros(2, int) for name in names}
    report = tensorkeep.load_into("escaped.tkeep", target)
    assert len(report.loaded) == len(names) and not report.missing and not report.unexpected
    assert [int(array[0]) for array in target.values()] == list(range(len(names)))


@given(names=st.sets(names, min_size=1, max_size=6))
@quick
def test_a_flat_file_loads_into_tensors_of_any_names(names: set[str]) -> None:
    tensorkeep.numpy.save_file({name: numpy.full(2, i) for i, name in enumerate(names)}, "flat.tkeep")
    target = {name: numpy.zeros(2, int) for name in names}
    assert sorted(tensorkeep.load_into("flat.tkeep", target, group="").loaded) == sorted(names)
    assert [int(array[0]) for array in target.values()] == list(range(len(names)))


def test_a_target_with_numbers_as_keys_is_filled() -> None:
    tensorkeep.save({"model": {0: numpy.ones(2), "inner": {1: numpy.ones(3)}}}, "ints.tkeep")
    target = {0: numpy.zeros(2), "inner": {1: numpy.zeros(3)}}
    assert tensorkeep.load_into("ints.tkeep", target).loaded == ["0", "inner/1"]
    assert target[0][0] == 1


@given(names=st.lists(names, min_size=1, max_size=6, unique=True))
@quick
def test_load_of_a_flat_file_keeps_every_tensor(names: list[str]) -> None:
    tensorkeep.numpy.save_file({name: numpy.ones(2) for name in names}, "flat.tkeep")
    assert count(tensorkeep.load("flat.tkeep")) == len(names)


def test_names_that_begin_others_do_not_hide_them() -> None:
    tensorkeep.numpy.save_file({"a": numpy.zeros(1), "a/b": numpy.ones(1), "a/": numpy.zeros(1)}, "begin.tkeep")
    loaded = tensorkeep.load("begin.tkeep")
    assert count(loaded) == 3 and loaded["a"][0] == 0


class Text(str):
    """Text of one's own."""


@pytest.mark.parametrize("key", [Text("k"), numpy.str_("k"), numpy.int64(3), (1,)], ids=repr)
@pytest.mark.parametrize("wrap", [dict, lambda pairs: {"deep": [dict(pairs)]}], ids=["top", "deep"])
def test_keys_of_other_types_are_refused_with_advice(key: Any, wrap: Any) -> None:
    with pytest.raises(tensorkeep.CannotStore, match="a key that is a") as refused:
        tensorkeep.save(wrap([(key, 1)]), "keys.tkeep")
    assert refused.value.help and "use" in refused.value.help


@pytest.mark.parametrize("name", [5, None, b"w"])
def test_flat_names_are_text(name: Any) -> None:
    with pytest.raises(tensorkeep.CannotStore, match="text"):
        tensorkeep.numpy.save_file({name: numpy.ones(1)}, "flat.tkeep")


def test_a_mapping_answers_as_mappings_do() -> None:
    tensorkeep.save({"model": {"weight": numpy.ones(2)}, "epoch": 3}, "map.tkeep")
    with tensorkeep.open("map.tkeep") as checkpoint:
        for mapping in (checkpoint.tensors, checkpoint.records):
            assert mapping.get("weigth") is None and mapping.get("weigth", 7) == 7
            assert "weigth" not in mapping
            with pytest.raises(KeyError) as missing:
                mapping["weigth"]
            assert isinstance(missing.value, tensorkeep.NotFound)
            with pytest.raises(KeyError):
                mapping["tensorkeep.python"]
        for ask in (checkpoint.tensors.__getitem__, lambda name: checkpoint.slice(name, 0, 1)):
            with pytest.raises(tensorkeep.MissingName, match="did you mean 'model/weight'"):
                ask("model/weigth")
        assert string.Template("$epoch").substitute(checkpoint.records) == "3"
        assert string.Template("$nothing").safe_substitute(checkpoint.records) == "$nothing"


def test_targets_that_cannot_be_filled_are_refused_before_the_first(tmp_path: Path) -> None:
    torch = need("torch")
    import tensorkeep.torch

    tensorkeep.save({"a": torch.ones(3), "b": torch.ones(3)}, tmp_path / "f")
    with torch.inference_mode():
        frozen = torch.zeros(3)
    first = torch.zeros(3)
    tensorkeep.save({"model": torch.nn.Linear(3, 2).state_dict()}, tmp_path / "lazy")
    with pytest.raises(tensorkeep.Invalid, match="b: the target was made in inference mode"):
        tensorkeep.load_into(tmp_path / "f", {"a": first, "b": frozen}, group="")
    assert not first.any()
    with pytest.raises(tensorkeep.Invalid, match="has no shape yet"):
        tensorkeep.load_into(tmp_path / "lazy", torch.nn.LazyLinear(2).state_dict())
    tensorkeep.torch.save_file({"a/b": torch.ones(1)}, tmp_path / "flat")
    with pytest.raises(tensorkeep.Invalid, match="two tensors of the target would be 'a/b'"):
        tensorkeep.load_into(tmp_path / "flat", {"a": {"b": torch.zeros(1)}, "a/b": torch.zeros(1)}, group="")
