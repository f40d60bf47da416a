"""numpy's arrays and scalars in states, with the dtypes of ml_dtypes. Imported only where numpy is."""

from __future__ import annotations

import functools
from typing import Any, Callable

import numpy

from ._errors import Unsupported
from ._paths import refusal
from ._walk import ENCODERS, Walk

__all__ = ["DECODERS", "dtype", "from_view", "learn"]

#: Our names of numpy's own dtypes.
_OWN = {
    "bool": "bool",
    "uint8": "u8",
    "int8": "i8",
    "uint16": "u16",
    "int16": "i16",
    "uint32": "u32",
    "int32": "i32",
    "uint64": "u64",
    "int64": "i64",
    "float16": "f16",
    "float32": "f32",
    "float64": "f64",
    "complex64": "c64",
    "complex128": "c128",
}
#: And of those that ml_dtypes adds.
_ADDED = {
    "bfloat16": "bf16",
    "float8_e4m3fn": "f8e4m3fn",
    "float8_e4m3fnuz": "f8e4m3fnuz",
    "float8_e5m2": "f8e5m2",
    "float8_e5m2fnuz": "f8e5m2fnuz",
    "float8_e8m0fnu": "f8e8m0fnu",
    "float8_e4m3": "f8e4m3",
    "float8_e4m3b11fnuz": "f8e4m3b11fnuz",
    "float8_e3m4": "f8e3m4",
}
NAMES = _OWN | _ADDED
_BACK = {ours: theirs for theirs, ours in NAMES.items()}


@functools.cache
def dtype(name: str) -> numpy.dtype[Any]:
    """numpy's dtype of one of our names.

    Raises:
        Unsupported: numpy has it only with ml_dtypes, which is not installed, or not at all.
    """
    theirs = "uint8" if name == "opaque" else _BACK.get(name)
    if theirs in _OWN:
        return numpy.dtype(theirs)
    try:
        import ml_dtypes
    except ImportError:
        raise Unsupported(f"numpy itself has no {name}", help="install ml_dtypes", expected="ml_dtypes") from None
    found = getattr(ml_dtypes, theirs or "", None)
    if found is None:
        raise Unsupported(f"numpy has no {name}", help="install a newer ml_dtypes")
    made: numpy.dtype[Any] = numpy.dtype(found)
    return made


def _advice_on(dtype: numpy.dtype[Any]) -> str:
    """What to store of an array whose dtype no file has."""
    if dtype.kind in "UST" or dtype.hasobject:
        return "store tolist() of it"
    if dtype.kind in "mM":
        return "store view('int64') of it, and its unit"
    # A scalar, and rows that are not contiguous, have no view of narrower elements.
    return f"store {'' if dtype.itemsize == 1 else 'reshape(-1).'}view('uint8') of it"


def _array(walk: Walk, array: numpy.ndarray[Any, Any], path: str) -> None:
    name = NAMES.get(array.dtype.name)
    if name is None or array.dtype.fields is not None:
        raise refusal(path, f"an array of {array.dtype}", _advice_on(array.dtype))
    if not (array.flags.c_contiguous and array.dtype.isnative):
        key = (array.__array_interface__["data"][0], array.dtype.str, array.shape, array.strides)
        copied = walk.copies.get(key)
        if copied is None:
            copied = numpy.array(array, dtype=array.dtype.newbyteorder("="), order="C", copy=True)
            walk.copies[key], walk.copies[key, "of"] = copied, array
        array = copied
    walk.tensor(path, name, array.shape, array.__array_interface__["data"][0], array)
    walk.frameworks["ndarray"].append(path)


def _scalar(walk: Walk, scalar: Any, path: str) -> Any:
    name = NAMES.get(scalar.dtype.name)
    if name is None:
        raise refusal(path, f"a numpy scalar of {scalar.dtype}", f"store {'bytes' if scalar.dtype.kind == 'S' else 'str'}() of it")
    walk.kinds[path] = f"numpy.{name}"
    if scalar != scalar:
        return numpy.asarray(scalar).tobytes()  # As a float, a NaN would lose its bits.
    if scalar.dtype.kind == "V" or scalar.dtype.name in _ADDED:
        return float(scalar)
    value = scalar.item()
    return [value.real, value.imag] if type(value) is complex else value


ENCODERS[numpy.ndarray] = _array


def learn(kind: type) -> None:
    """A scalar type is known once it was met."""
    if issubclass(kind, numpy.generic) or kind.__module__ == "ml_dtypes":
        ENCODERS[kind] = _scalar


def _make_scalar(name: str, value: Any) -> Any:
    made = dtype(name)
    if type(value) is bytes:
        (scalar,) = numpy.frombuffer(value, made)
        return scalar
    if made.kind == "c":
        real, imaginary = value
        value = complex(real, imaginary)
    elif type(value) not in (bool, int, float):
        raise ValueError(value)
    return made.type(value)


DECODERS: dict[str, Callable[[Any], Any]] = {
    f"numpy.{name}": functools.partial(_make_scalar, name) for name in NAMES.values()
}


def from_view(view: Any, kind: str, device: Any) -> numpy.ndarray[Any, Any]:
    """An array over a view's memory, which it may change."""
    found = dtype(view.dtype)
    if view.nbytes == 0:
        return numpy.empty(view.shape, dtype=found)
    return numpy.frombuffer(view, dtype=found).reshape(view.shape)
