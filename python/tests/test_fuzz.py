"""Files that lie: every byte flipped, every length cut, and kinds that do not fit what they are said of. Whatever a
file says, an error of ours or a value comes of it: no crash, no code.
"""

from __future__ import annotations

import collections
import pathlib
import random
import warnings
from typing import Any

import hypothesis.strategies as st
import numpy
import pytest
import tensorkeep
from conftest import alike, run
from hypothesis import HealthCheck, given, settings
from tensorkeep import _tensorkeep
from tensorkeep._restore import DECODERS

STATE = {
    "model": collections.OrderedDict(w=numpy.arange(40.0).reshape(5, 8), b=numpy.ones(3, "f4")),
    "betas": (0.9, 0.999, 2**100),
    "seen": {1, 2, "x"},
}


def small_file() -> bytes:
    tensorkeep.save(STATE, "small.tkeep", metrics={"loss": 0.5}, metadata={"note": "x"})
    return pathlib.Path("small.tkeep").read_bytes()


def opens(content: bytes) -> Any:
    """What loading comes to: a state, or None for an error of ours."""
    pathlib.Path("fuzzed.tkeep").write_bytes(content)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return tensorkeep.load("fuzzed.tkeep", mmap=sum(content) % 2 == 0)
    except tensorkeep.Error:
        return None


def test_every_flipped_byte_is_an_error_or_changes_nothing() -> None:
    whole = small_file()
    chooser = random.Random(7)
    for at in range(len(whole)):
        flipped = bytearray(whole)
        flipped[at] ^= 1 << chooser.randrange(8)
        loaded = opens(bytes(flipped))
        assert loaded is None or alike(loaded, STATE), f"byte {at}"


def test_every_cut_is_an_error() -> None:
    whole = small_file()
    for length in range(0, len(whole), 7):
        assert opens(whole[:length]) is None, f"cut to {length}"


def sealed(records: dict[str, Any], types: Any) -> None:
    """A file whose checksums are right, whatever it says."""
    array = numpy.ones(2)
    address = array.__array_interface__["data"][0]
    tensors = [("model/w", "f64", (2,), address, array), ("x", "f64", (2,), address, array)]
    _tensorkeep.save_file("sealed.tkeep", tensors, records, types, metrics=[], metadata=[], codecs=[])


names = st.sampled_from(["model", "model/w", "betas", "betas/0", "", "x", "nothing", "model/w/0"])
kinds = st.recursive(
    st.sampled_from([*DECODERS, "numpy.f32", "numpy.c64", "numpy.bf16", "ndarray", "Parameter", "jax.key", "os.system"])
    | st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=4) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    | st.tuples(st.sampled_from(["x", "OrderedDict"]), inner).map(list),
    max_leaves=5,
)  # fmt: skip


@given(kinds=st.dictionaries(names, kinds, max_size=4), extra=st.dictionaries(st.sampled_from(
    ["v", "order", "bare", "tensors", "kinds"]), kinds, max_size=2), betas=kinds)  # fmt: skip
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_hostile_kinds_give_plain_values_or_an_error(kinds: Any, extra: Any, betas: Any) -> None:
    sealed({"model": {"w": None}, "betas": betas}, {"v": 1, "tensors": "ndarray", "kinds": kinds, **extra})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tensorkeep.load("sealed.tkeep")
        except tensorkeep.Error:
            pass


def test_a_million_kinds_that_name_nothing_are_passed_over() -> None:
    sealed({"model": {"w": None}}, {"v": 1, "tensors": "ndarray", "kinds": {f"k{i}": "tuple" for i in range(1_000_000)}})
    assert list(tensorkeep.load("sealed.tkeep")["model"]) == ["w"]


def test_a_name_in_a_file_runs_nothing() -> None:
    for kind in ("torch.load", "torch.hub.load", "numpy.load", "os.system", ["x", "os.system"], "torch.classes"):
        sealed({"command": "touch ran"}, {"v": 1, "kinds": {"command": kind}})
        with pytest.warns(UserWarning, match="come back plain"):
            assert tensorkeep.load("sealed.tkeep")["command"] == "touch ran"
    assert not pathlib.Path("ran").exists()


WITHOUT_TORCH = """
import sys, warnings
sys.modules["torch"] = None  # Its import fails.
import tensorkeep

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    print(tensorkeep.load("value.tkeep")["dtype"], *(warning.message for warning in caught))
try:
    tensorkeep.load("tensor.tkeep")
except tensorkeep.Unsupported as error:
    print(error)
"""


def test_without_its_framework_a_value_comes_back_plain_and_a_tensor_is_an_error() -> None:
    sealed({"dtype": "float32"}, {"v": 1, "tensors": "ndarray", "kinds": {"dtype": "torch.dtype"}})
    pathlib.Path("sealed.tkeep").rename("value.tkeep")
    sealed({}, {"v": 1, "tensors": "torch"})
    pathlib.Path("sealed.tkeep").rename("tensor.tkeep")
    value, tensor = run(WITHOUT_TORCH, cwd=pathlib.Path.cwd()).stdout.splitlines()
    assert value.startswith("float32 1 values come back plain") and "'dtype': 'torch.dtype'" in value
    assert tensor.startswith("the file has tensors of torch, which cannot be imported")


def test_types_of_a_newer_version_give_plain_values_and_a_warning() -> None:
    sealed({"betas": [1, 2]}, {"v": 2, "kinds": {"betas": "tuple"}})
    with pytest.warns(UserWarning, match="version 2"):
        assert tensorkeep.load("sealed.tkeep")["betas"] == [1, 2]


def test_a_record_and_a_tensor_of_one_name_are_both_there() -> None:
    sealed({"x": {"epoch": 3}}, None)
    loaded = tensorkeep.load("sealed.tkeep")
    assert loaded["x"] == {"epoch": 3} and loaded["x/"]["x"].shape == (2,)


def test_what_notebooks_show_is_escaped() -> None:
    evil = "<script>alert(1)</script>"
    tensorkeep.save({"model": {evil: numpy.ones(2)}}, "evil.tkeep", metrics={evil: 1.0})
    with tensorkeep.open("evil.tkeep") as checkpoint:
        shown = checkpoint._repr_html_()
    assert "<script>" not in shown and "&lt;script&gt;" in shown
    with tensorkeep.Store("runs/evil") as store:
        store.save({"w": numpy.ones(2)}, 1, metrics={evil: 1.0})
        assert "<script>" not in store._repr_html_() and "&lt;script&gt;" in store._repr_html_()
