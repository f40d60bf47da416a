"""Progress of long saves and loads: told to a function, drawn on a terminal and nowhere else."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy
import pytest
import tensorkeep
import tensorkeep.numpy

BYTES = 24_000_000


def state() -> dict[str, Any]:
    generator = numpy.random.default_rng(0)
    return {"model": {name: generator.standard_normal(BYTES // 16) for name in ("a", "b")}, "n": 1}


def check(told: list[tuple[int, int]]) -> None:
    done = [bytes for bytes, _ in told]
    totals = {total for _, total in told}
    assert len(totals) == 1 and done == sorted(done) and done[-1] in totals
    assert len(told) > 1 and 0 < done[0] < done[-1], told


def test_a_function_is_told_of_bytes_done_and_in_all() -> None:
    told: list[tuple[int, int]] = []
    tensorkeep.save(state(), "p.tkeep", codec="max", progress=lambda *bytes: told.append(bytes))
    check(told)
    assert told[-1][1] == BYTES
    told.clear()
    loaded = tensorkeep.load("p.tkeep", progress=lambda *bytes: told.append(bytes))
    assert (loaded["model"]["a"] == state()["model"]["a"]).all() and told[-1][0] == told[-1][1] > BYTES // 2
    for load, options in ((tensorkeep.numpy.load, {"only": "model/a"}), (tensorkeep.load, {"mmap": True})):
        told.clear()
        load("p.tkeep", progress=lambda *bytes: told.append(bytes), **options)  # type: ignore[operator]
        assert all(done <= total for done, total in told)


def test_what_the_function_raises_comes_after_the_save() -> None:
    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tensorkeep.save({"w": numpy.ones(9)}, "p.tkeep", progress=interrupt)
    assert tensorkeep.load("p.tkeep")["w"].sum() == 9
    with pytest.raises(KeyboardInterrupt):
        tensorkeep.load("p.tkeep", progress=interrupt)


def test_a_failed_save_is_told_as_without_progress() -> None:
    with pytest.raises(tensorkeep.NotFound):
        tensorkeep.save({"w": numpy.ones(9)}, "no/such/folder/p.tkeep", progress=lambda *bytes: None)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_bar_is_drawn_on_a_terminal_only(stream: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", stream())
    tensorkeep.save({"w": numpy.ones(125_000)}, "p.tkeep", progress=True)
    tensorkeep.load("p.tkeep", progress=True)
    tensorkeep.load("p.tkeep")
    drawn = sys.stderr.getvalue()  # type: ignore[attr-defined]
    lines = drawn.replace("\r", "").splitlines()
    if stream is io.StringIO:
        assert not drawn
    else:
        assert len(lines) == 2 and lines[0].startswith("saving p.tkeep [####") and "100% of 1.0 MB" in lines[0]
        assert lines[1].startswith("loading p.tkeep")
