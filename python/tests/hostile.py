"""Arguments of all sorts, for everything that takes one."""

from __future__ import annotations

import pathlib
import reprlib
from collections.abc import Callable
from typing import Any

import numpy
import tensorkeep
from tensorkeep import Every, Keep

NAN = float("nan")


class Raises:
    """Fails in all that it is asked."""

    def __fspath__(self) -> str:
        raise RuntimeError("no path")

    def __repr__(self) -> str:
        raise RuntimeError("no words")

    def __index__(self) -> int:
        raise RuntimeError("no number")

    __float__ = __len__ = __iter__ = __bool__ = __index__  # type: ignore[assignment]


HOSTILE: list[Any] = [None, True, 1, 0, -1, 3.5, NAN, 2**70, "", "\ud800", "a\0b", "foo", b"x", b"\xff", [], [5], (), {}, {5: 5}, {"a": 5},
                      {"SIGKILL": "save"}, {"signal": "save"}, {"SIGTERM": 5}, print, object(), Raises(), numpy.ones(2),
                      numpy.int8(3), numpy.bool_(True), pathlib.Path("p"), Every.steps(2), Keep.last(1)]  # fmt: skip


def with_hostile(call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    """Calls with each argument replaced by all sorts: it works, or raises an error of ours that has words."""
    for place in (*range(len(arguments)), *named):
        for hostile in HOSTILE:
            some, others = list(arguments), dict(named)
            if isinstance(place, int):
                some[place] = hostile
            else:
                others[place] = hostile
            try:
                call(*some, **others)
            except tensorkeep.Error as refused:
                assert len(str(refused)) > 10, (place, refused)
            except Exception as raw:
                raise AssertionError(f"{call} with {place} = {reprlib.repr(hostile)}: {raw!r}") from raw
