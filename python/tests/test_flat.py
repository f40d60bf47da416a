"""The names of safetensors, beside safetensors itself where it is installed."""

from __future__ import annotations

from typing import Any

import numpy
import pytest
import tensorkeep
import tensorkeep.numpy as tn
from conftest import alike, need


def opened(arrays: dict[str, Any], metadata: dict[str, str] | None = None) -> tuple[Any, Any]:
    """The same arrays in a file of either library."""
    need("safetensors")
    import safetensors.numpy

    tn.save_file(arrays, "flat.tkeep", metadata)
    safetensors.numpy.save_file(arrays, "flat.safetensors", metadata)
    return tn.safe_open("flat.tkeep", framework="np"), safetensors.safe_open("flat.safetensors", framework="np")


def test_metadata_is_none_where_there_is_none() -> None:
    for metadata in (None, {"format": "np"}):
        ours, theirs = opened({"w": numpy.ones(2)}, metadata)
        assert ours.metadata() == theirs.metadata() == metadata


@pytest.mark.parametrize("index", [(), ..., slice(None), slice(1, 3), (slice(1, 2), slice(0, 2)), 1, (..., 0), (slice(None), 1)],
                         ids=str)  # fmt: skip
def test_slices_are_those_of_safetensors(index: Any) -> None:
    ours, theirs = opened({"w": numpy.arange(12.0).reshape(4, 3)})
    assert alike(numpy.asarray(ours.get_slice("w")[index]), numpy.asarray(theirs.get_slice("w")[index]))


def test_a_scalar_is_sliced_to_itself() -> None:
    ours, _ = opened({"s": numpy.array(7.0)})
    assert ours.get_slice("s")[()] == 7.0 and ours.get_slice("s").get_shape() == []


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8", "c8"])
def test_dtypes_have_the_names_of_safetensors(dtype: str) -> None:
    ours, theirs = opened({"w": numpy.zeros(2, dtype)})
    assert ours.get_slice("w").get_dtype() == theirs.get_slice("w").get_dtype()


def test_dtypes_of_ml_dtypes_have_the_names_of_safetensors() -> None:
    ml_dtypes = need("ml_dtypes")
    expected = {"bfloat16": "BF16", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
                "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ"}  # fmt: skip
    tn.save_file({name: numpy.zeros(2, getattr(ml_dtypes, name)) for name in expected}, "flat.tkeep")
    with tn.safe_open("flat.tkeep") as file:
        assert {name: file.get_slice(name).get_dtype() for name in expected} == expected


def test_all_tensors_at_once() -> None:
    arrays = {"b": numpy.ones(2), "a": numpy.zeros((2, 2), "i4")}
    ours, theirs = opened(arrays)
    assert alike(dict(sorted(ours.get_tensors().items())), dict(sorted(theirs.get_tensors().items())))


def test_the_backends_of_safetensors_are_known() -> None:
    tn.save_file({"w": numpy.ones(2)}, "flat.tkeep")
    for backend in ("mmap", "read", "pread"):
        assert tn.load_file("flat.tkeep", backend=backend)["w"][1] == 1  # type: ignore[arg-type]
        with tn.safe_open("flat.tkeep", framework="np", backend=backend) as file:  # type: ignore[arg-type]
            assert file.get_tensor("w")[1] == 1
    with pytest.raises(tensorkeep.Invalid, match="backend"):
        tn.safe_open("flat.tkeep", framework="np", backend="tape")  # type: ignore[arg-type]
