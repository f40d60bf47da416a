"""Two checkpoints compared."""

from __future__ import annotations

import math
import pathlib
from typing import Any

import numpy
import pytest
import tensorkeep


def diff(left: Any, right: Any) -> dict[str, tensorkeep.Difference]:
    tensorkeep.save(left, "left.tkeep")
    tensorkeep.save(right, "right.tkeep")
    with tensorkeep.open("left.tkeep") as a, tensorkeep.open("right.tkeep", mmap=True) as b:
        return a.diff(b)


def test_equal_checkpoints_have_no_difference() -> None:
    assert diff({"w": numpy.ones(3), "n": 1}, {"w": numpy.ones(3), "n": 2}) == {}


def test_each_difference_is_told_by_name() -> None:
    left = {"m": {"same": numpy.ones(2), "far": numpy.array([1.0, 2.0]), "shape": numpy.ones(2), "here": numpy.ones(1)}}
    right = {"m": {"same": numpy.ones(2), "far": numpy.array([1.0, -2.5]), "shape": numpy.ones(3, "f4"), "there": numpy.ones(1)}}
    found = diff(left, right)
    assert {name: it.verdict for name, it in found.items()} == {
        "m/far": "differ", "m/shape": "incompatible", "m/here": "only left", "m/there": "only right"}  # fmt: skip
    assert found["m/far"].max_abs == 4.5 and found["m/far"].relative_l2 == pytest.approx(4.5 / math.sqrt(5))
    assert found["m/shape"].detail == "f64 [2] | f32 [3]" and found["m/shape"].max_abs is None


def test_a_nan_on_one_side_is_a_difference() -> None:
    largest = diff({"w": numpy.array([1.0])}, {"w": numpy.array([numpy.nan])})["w"].max_abs
    assert largest is not None and math.isnan(largest)
    assert diff({"w": numpy.array([numpy.nan])}, {"w": numpy.array([numpy.nan])}) == {}
    assert diff({"w": numpy.zeros(1)}, {"w": -numpy.zeros(1)})["w"].verdict == "close"


def test_damage_and_a_replaced_file_are_errors() -> None:
    tensorkeep.save({"w": numpy.arange(1000.0)}, "a.tkeep")
    tensorkeep.save({"w": numpy.ones(1000)}, "b.tkeep")
    a, b = tensorkeep.open("a.tkeep"), tensorkeep.open("b.tkeep")
    tensorkeep.save({"w": numpy.zeros(1000)}, "b.tkeep")
    with pytest.raises(tensorkeep.NotFound, match="replaced"):
        a.diff(b)
    content = bytearray(pathlib.Path("a.tkeep").read_bytes())
    content[a.infos()["w"].offset + 8] ^= 1
    pathlib.Path("a.tkeep").write_bytes(content)
    with pytest.raises(tensorkeep.Damaged, match="a.tkeep"):
        tensorkeep.open("b.tkeep").diff(tensorkeep.open("a.tkeep"))


def test_checkpoints_are_compared_after_the_process_changed_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    tensorkeep.save({"w": numpy.ones(3)}, "left.tkeep")
    with tensorkeep.open("left.tkeep") as a, tensorkeep.open("left.tkeep", mmap=True) as b:
        pathlib.Path("elsewhere").mkdir()
        monkeypatch.chdir("elsewhere")
        assert a.diff(b) == {}
