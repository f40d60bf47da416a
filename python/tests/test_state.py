"""Nested states come back equal: types, order, float bits, ties. What cannot be stored is refused with its path."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import enum
import fractions
import pathlib
import random
import types
import uuid
import warnings
from typing import Any

import hypothesis.strategies as st
import numpy
import pytest
import tensorkeep
from conftest import alike, need
from hypothesis import HealthCheck, given, settings

text = st.text(max_size=8)
ints = st.integers(-(2**200), 2**200) | st.sampled_from([2**63, 2**64, 2**127, 2**127 - 1, 2**128 - 1, -(2**127)])
scalars = st.sampled_from([numpy.float32(1.5), numpy.float16(-0.0), numpy.int8(-3), numpy.uint64(2**63), numpy.bool_(True),
                           numpy.complex64(1 + 2j)])  # fmt: skip
arrays = st.sampled_from([numpy.arange(6.0).reshape(2, 3), numpy.zeros((0, 3), "i2"), numpy.array(7), numpy.ones(3, "?"),
                          numpy.arange(6, dtype="u8").reshape(2, 3).T, numpy.array([1 + 2j]), numpy.ones(2, ">f4")])  # fmt: skip
leaves = st.none() | st.booleans() | st.floats() | st.binary(max_size=8) | text | ints | st.complex_numbers() | scalars
keys = text | st.integers(-(2**63), 2**64 - 1) | st.booleans() | st.none() | st.binary(max_size=4)
hashables = st.none() | st.booleans() | st.binary(max_size=4) | text | ints


def nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(keys, inner, max_size=4)
        | st.dictionaries(text, inner, max_size=4).map(collections.OrderedDict)
        | st.dictionaries(text, st.integers(0, 9), max_size=4).map(collections.Counter)
        | st.sets(hashables, max_size=4)
        | st.frozensets(hashables, max_size=4)
        | st.binary(max_size=4).map(bytearray)
    )


states = st.recursive(leaves | arrays, nested, max_leaves=12)


def native(value: Any) -> Any:
    """With arrays in the machine's byte order and row-major: what is kept is their values."""
    if isinstance(value, numpy.ndarray):
        return numpy.ascontiguousarray(value, value.dtype.newbyteorder("=")).reshape(value.shape)
    if isinstance(value, (collections.OrderedDict, dict)) and not isinstance(value, collections.Counter):
        return type(value)((key, native(item)) for key, item in value.items())
    return type(value)(native(item) for item in value) if type(value) in (list, tuple) else value


@given(state=states)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_state_comes_back_equal_or_is_refused_with_its_path(state: Any) -> None:
    try:
        tensorkeep.save(state, "state.tkeep")
    except tensorkeep.CannotStore as refused:
        assert refused.help and refused.found
        assert any(why in str(refused) for why in ("one path", "surrogate", "without a name", "64 bits")), refused
        return
    for mmap in (True, False):
        assert alike(native(state), tensorkeep.load("state.tkeep", mmap=mmap)), state


@given(state=states)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_state_that_came_back_is_saved_to_the_same_bytes(state: Any) -> None:
    try:
        tensorkeep.save(state, "first.tkeep")
    except tensorkeep.CannotStore:
        return
    tensorkeep.save(tensorkeep.load("first.tkeep"), "second.tkeep")
    assert pathlib.Path("first.tkeep").read_bytes() == pathlib.Path("second.tkeep").read_bytes()


class Colour(enum.IntEnum):
    RED = 1


Point = collections.namedtuple("Point", "x y")
cycle: list[Any] = []
cycle.append(cycle)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (print, "store a name"),
        (Colour.RED, "int()"),
        (Point(1, 2), "tuple()"),
        (pathlib.Path("x"), "str()"),
        (object(), "register"),
        (cycle, "a cycle?"),
        ({(1, 2): 3}, "a key that is a tuple"),
        ({2**70: 3}, "more than 64 bits"),
        ({0: 1, "0": 2}, "two keys with one path"),
        (numpy.array(["a"]), "tolist()"),
        (numpy.array([None]), "tolist()"),
        (numpy.datetime64("2026-01-01"), "str()"),
        (memoryview(b"x"), "bytes()"),
        (memoryview(numpy.ones(2)), "bytes()"),
        ("\ud800", "surrogate"),
        ({"k" * 2000: numpy.zeros(2)}, "names have 1024"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_cannot_be_stored_is_refused(value: Any, words: str) -> None:
    with pytest.raises(tensorkeep.CannotStore, match=".") as refused:
        tensorkeep.save({"optimizer": {"groups": [0, value]}}, "refused.tkeep")
    assert words in str(refused.value)
    if value is not cycle and "k" * 2000 not in str(value):
        assert refused.value.path == "optimizer/groups/1"
    assert isinstance(refused.value, (TypeError, ValueError))
    assert not pathlib.Path("refused.tkeep").exists()


@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "c8", "c16"])
def test_scalars_of_numpy_keep_the_bits_of_nan(kind: str) -> None:
    size, drawn = numpy.dtype(kind).itemsize, numpy.random.default_rng(7)
    state = {"signed": -numpy.dtype(kind).type(float("nan"))}
    for i in range(100):
        bits = bytearray(drawn.bytes(size))
        bits[-2:] = (bits[-2] | 0xF0, bits[-1] | 0x7F)
        state[f"{i}"] = numpy.frombuffer(bits, kind)[0]
    tensorkeep.save(state, "nan.tkeep")
    assert alike(state, tensorkeep.load("nan.tkeep"))


def test_scalars_of_ml_dtypes_keep_all_bits() -> None:
    ml_dtypes = need("ml_dtypes")
    for name in ("bfloat16", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e8m0fnu", "float8_e3m4"):
        dtype = numpy.dtype(getattr(ml_dtypes, name))
        every = numpy.arange(1 << 16, dtype="u2").view(dtype)[:: 1 if dtype.itemsize == 1 else 97]
        state = {str(i): scalar for i, scalar in enumerate(every[:2000])}
        tensorkeep.save(state, "nan.tkeep")
        assert alike(state, tensorkeep.load("nan.tkeep")), name


def test_control_characters_and_slashes_in_keys_come_back() -> None:
    state = {"a/b~c\x00\x1f\x7fä": {"x/\x01": numpy.ones(2), "~1": {"y": (1,)}}, "~x00": numpy.zeros(1)}
    tensorkeep.save(state, "keys.tkeep")
    assert alike(state, tensorkeep.load("keys.tkeep"))
    assert "a~1b~0c~x00~x1f~x7fä/x~1~x01" in tensorkeep.open("keys.tkeep").names()


def test_arrays_over_the_same_memory_come_back_as_one() -> None:
    shared = numpy.arange(1000.0)
    turned = numpy.arange(6.0).reshape(2, 3).T
    written = tensorkeep.save({"a": shared, "b": {"c": shared}, "d": turned, "e": turned}, "ties.tkeep")
    assert written.tensors == 2
    loaded = tensorkeep.load("ties.tkeep")
    assert loaded["a"] is loaded["b"]["c"] and loaded["d"] is loaded["e"]


def test_a_state_with_other_keys_than_text_is_kept_whole() -> None:
    for state in ([1, (2,)], {}, {1: 2}, {"": 1}, {"tensorkeep.x": 1}, 5, None, {"state": 1}, numpy.ones(2)):
        tensorkeep.save(state, "bare.tkeep")
        assert alike(state, tensorkeep.load("bare.tkeep")), state


def test_a_registered_type_comes_back_and_else_its_plain_value() -> None:
    tensorkeep.register(Point, to=lambda point: {"x": point.x, "y": point.y}, back=lambda d: Point(**d), name="t.Point")
    state = {"at": Point(numpy.ones(2), (1, 2))}
    try:
        tensorkeep.save(state, "point.tkeep")
        assert alike(state, tensorkeep.load("point.tkeep"))
    finally:
        from tensorkeep import _walk

        del _walk.REGISTERED["t.Point"], _walk.ENCODERS[Point]
    with pytest.warns(UserWarning, match="t.Point"):
        assert alike({"at": {"x": numpy.ones(2), "y": (1, 2)}}, tensorkeep.load("point.tkeep"))
    with pytest.raises(tensorkeep.Unsupported):
        tensorkeep.load("point.tkeep", strict_types=True)


def test_only_loads_what_was_asked_for() -> None:
    state = {"model": {"a": numpy.ones(2), "b": numpy.zeros(2)}, "optimizer": {"lr": 0.1}, "note": "x"}
    tensorkeep.save(state, "only.tkeep")
    assert alike({"model": state["model"]}, tensorkeep.load("only.tkeep", only="model/*"))
    assert alike({"model": {"a": state["model"]["a"]}}, tensorkeep.load("only.tkeep", only=["model/a"]))
    assert alike({"optimizer": {"lr": 0.1}, "note": "x"}, tensorkeep.load("only.tkeep", only=["optimizer", "note"]))


def test_seventy_thousand_plain_values_are_one_state() -> None:
    state = {f"k{i}": i for i in range(70_000)}
    tensorkeep.save(state, "many.tkeep")
    assert tensorkeep.load("many.tkeep") == state


def test_no_warning_for_a_plain_state() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tensorkeep.save({"a": {"b": [1, (2.5, None)]}}, "quiet.tkeep")
        assert tensorkeep.load("quiet.tkeep") == {"a": {"b": [1, (2.5, None)]}}


def test_a_registered_value_that_is_stored_as_none_is_made_again(tmp_path: Path) -> None:
    class Maybe:
        def __init__(self, value: object) -> None:
            self.value = value

    tensorkeep.register(Maybe, to=lambda maybe: maybe.value, back=Maybe, name="test.Maybe")
    tensorkeep.save({"x": Maybe(None), "y": Maybe(3)}, tmp_path / "f")
    loaded = tensorkeep.load(tmp_path / "f", strict_types=True)
    assert (type(loaded["x"]), loaded["x"].value, loaded["y"].value) == (Maybe, None, 3)

    class Around(Maybe):
        pass

    tensorkeep.register(Around, to=lambda around: Maybe(around.value), back=Around, name="test.Around")
    with pytest.raises(tensorkeep.CannotStore, match="'x': to.. of test.Around gave a .*Maybe, which is registered"):
        tensorkeep.save({"x": Around(1)}, tmp_path / "f")
    with pytest.raises(tensorkeep.Invalid, match="'test.Maybe' is the name of"):
        tensorkeep.register(Around, to=vars, back=Around, name="test.Maybe")


def test_two_names_of_a_list_or_dict_come_back_as_two() -> None:
    shared, array = [1, {"x": 2}], numpy.ones(2)
    state = {"a": shared, "b": {"again": shared, "inner": shared[1]}, "arrays": [array, {"w": array}]}
    tensorkeep.save(state, "twice.tkeep")
    loaded = tensorkeep.load("twice.tkeep")
    assert alike(loaded, state)
    assert loaded["a"] is not loaded["b"]["again"] and loaded["a"][1] is not loaded["b"]["inner"]
    assert loaded["arrays"][0] is loaded["arrays"][1]["w"], "tensors are one"
    said = " ".join(str(tensorkeep.save.__doc__).split())
    assert "Two names of one list or dict come back as two with equal values" in said


def follow(advice: str, value: Any, **names: Any) -> Any:
    """What the advice of a refusal tells to store."""
    words = advice.removeprefix("store ").partition(" of it")[0]
    function = words.partition("(")[0]
    by_name = function in ("bytes", "dict", "list", "str", "vars", "torch.view_as_real")
    return eval(f"{function}(value)" if by_name else f"value.{words}", {"value": value, **names})


RARE = ["longdouble", "clongdouble", "M8[s]", "m8[ns]", "U3", "S3", "O", [("a", "i4"), ("b", "f8")], [("a", "O")], "V7"]


@pytest.mark.parametrize("dtype", RARE, ids=str)
@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
def test_what_is_advised_for_an_array_can_be_done(dtype: Any, shape: Any) -> None:
    array = numpy.zeros(shape, dtype)
    with pytest.raises(tensorkeep.CannotStore) as refused:
        tensorkeep.save({"a": array}, "advised.tkeep")
    tensorkeep.save({"a": follow(refused.value.help, array)}, "advised.tkeep")
    if shape == () and dtype not in ("O", [("a", "O")]):
        with pytest.raises(tensorkeep.CannotStore) as refused:
            tensorkeep.save({"a": array[()]}, "advised.tkeep")
        tensorkeep.save({"a": follow(refused.value.help, array[()])}, "advised.tkeep")


def test_what_is_advised_for_a_tensor_can_be_done() -> None:
    torch = need("torch")
    made = 0
    for name in ("complex32", "bcomplex32", "bits16", "bits8", "bits2x4", "int4", "uint1", "float4_e2m1fn_x2"):
        for shape in ((), (2,), (2, 3)):
            if not hasattr(torch, name):
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                tensor = torch.empty(shape, dtype=getattr(torch, name))
            with pytest.raises(tensorkeep.CannotStore) as refused:
                tensorkeep.save({"a": tensor}, "advised.tkeep")
            stored = follow(refused.value.help, tensor, torch=torch)
            tensorkeep.save({"a": stored}, "advised.tkeep")
            assert stored.is_floating_point() == tensor.is_complex(), "complex numbers stay numbers"
            made += 1
    assert made >= 6


OWN: list[Any] = [
    argparse.Namespace(lr=0.1),
    types.SimpleNamespace(lr=0.1),
    types.MappingProxyType({"lr": 0.1}),
    datetime.datetime(2026, 1, 1),
    datetime.timedelta(1),
    uuid.UUID(int=7),
    decimal.Decimal("0.1"),
    fractions.Fraction(1, 3),
    collections.deque([1]),
    {"a": 1}.keys(),
    (i for i in range(3)),
    random.Random(7),
    numpy.random.RandomState(7),
    numpy.random.default_rng(7),
]


@pytest.mark.parametrize("value", OWN, ids=lambda value: type(value).__name__)
def test_what_is_advised_for_an_object_can_be_done(value: Any) -> None:
    with pytest.raises(tensorkeep.CannotStore) as refused:
        tensorkeep.save({"a": value}, "advised.tkeep")
    assert refused.value.help and "register" not in refused.value.help
    tensorkeep.save({"a": follow(refused.value.help, value)}, "advised.tkeep")


def test_an_enum_and_a_generator_are_told_what_to_store() -> None:
    with pytest.raises(tensorkeep.CannotStore, match="store its name, and look it up when loading"):
        tensorkeep.save({"a": enum.Enum("Mode", "TRAIN TEST").TRAIN}, "advised.tkeep")  # type: ignore[attr-defined]
    torch = need("torch")
    with pytest.raises(tensorkeep.CannotStore) as refused:
        tensorkeep.save({"a": torch.Generator()}, "advised.tkeep")
    tensorkeep.save({"a": follow(refused.value.help, torch.Generator())}, "advised.tkeep")
