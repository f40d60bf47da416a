"""JAX's arrays and keys in states. Imported only where JAX is."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy

from . import _arguments, _numpy
from ._paths import refusal
from ._walk import ENCODERS, Walk
from ._warn import warn

__all__ = ["from_view", "key", "learn"]

_IMPLS = ("threefry2x32", "rbg", "unsafe_rbg")


def _array(walk: Walk, array: Any, path: str) -> None:
    if not array.is_fully_addressable:
        raise refusal(path, "an array of which other processes have parts", "gather it, or save each process's part")
    here = numpy.asarray(array)
    count = len(walk.tensors)
    ENCODERS[numpy.ndarray](walk, here, path)
    walk.frameworks["ndarray"].remove(path)
    walk.frameworks["jax"].append(path)
    # The array on its device is what has to live; on the CPU `here` is a view of it.
    walk.tensors[count] = (*walk.tensors[count][:4], (array, walk.tensors[count][4]))
    if not walk.frameworks["ndarray"]:
        del walk.frameworks["ndarray"]


def _key(walk: Walk, keys: Any, path: str) -> None:
    _array(walk, jax.random.key_data(keys), path)
    walk.frameworks["jax"].remove(path)
    walk.kinds[path] = ["jax.key", str(jax.random.key_impl(keys))]


_ARRAY = type(jnp.zeros(0))
_KEY = type(jax.random.key(0))


def learn(kind: type) -> None:
    """An array or a key; tracers, which have no values, are refused."""
    if kind is _ARRAY:
        ENCODERS[kind] = _array
    elif kind is _KEY:
        ENCODERS[kind] = _key


def key(data: Any, impl: Any) -> Any:
    """Typed keys of their data, or the data where the file names no generator that there is."""
    if impl in _IMPLS and data.dtype == jnp.uint32 and data.ndim > 0:
        return jax.random.wrap_key_data(data, impl=impl)
    return data


def from_view(view: Any, kind: str, device: Any) -> Any:
    """An array of a view's values."""
    array = _numpy.from_view(view, "ndarray", None)
    if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
        warn(f"{array.dtype} comes as numpy's: JAX has it only with jax_enable_x64")
        return array
    return jax.device_put(array, _device(device))


def _device(device: Any) -> Any:
    """A device of JAX; text is the first of that platform."""
    try:
        found = jax.devices(device)[0] if isinstance(device, str) else device
    except RuntimeError:
        found = ...
    if not isinstance(found, (jax.Device, jax.sharding.Sharding, type(None))):
        raise _arguments.wrong("map_location", "a device of JAX, as 'cpu'", device)
    return found
