"""How values of Python's own types become plain ones, which records hold: ``_walk.py`` walks, this knows the types."""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
from typing import Any

from ._paths import checked_text, refusal, segments
from ._walk import ENCODERS, PLAIN, Walk

__all__ = ["metadata_of"]


def _text(walk: Walk, value: str, path: str) -> str:
    return checked_text(value, path)


def _int(walk: Walk, value: int, path: str) -> Any:
    if -(1 << 63) <= value < 1 << 64:
        return value
    if -(1 << 127) <= value < 1 << 127:
        walk.kinds[path] = "int"
        return value.to_bytes(16, "big", signed=True)
    if 0 <= value < 1 << 128:
        walk.kinds[path] = "uint"
        return value.to_bytes(16, "big")
    walk.kinds[path] = "bigint"
    return value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True)


def _complex(walk: Walk, value: complex, path: str) -> list[float]:
    walk.enter(path)
    walk.leave()
    walk.kinds[path] = "complex"
    return [value.real, value.imag]


def _list(walk: Walk, value: Sequence[Any], path: str) -> list[Any]:
    if not value:
        return []
    walk.enter(path)
    out = []
    for i, item in enumerate(value):
        kind = type(item)
        if kind in PLAIN:
            out.append(item)
        else:
            encoder = ENCODERS.get(kind) or walk.resolve(kind, item, f"{path}/{i}")
            out.append(encoder(walk, item, f"{path}/{i}"))
    walk.leave()
    return out


def _tuple(walk: Walk, value: tuple[Any, ...], path: str) -> list[Any]:
    walk.kinds[path] = "tuple"
    return _list(walk, value, path)


def _dict(walk: Walk, value: dict[Any, Any], path: str) -> dict[Any, Any]:
    if not value:
        return {}
    walk.enter(path)
    out = {}
    for (key, item), segment in zip(value.items(), segments(value, path)):
        kind = type(item)
        if kind in PLAIN:
            out[key] = item
        else:
            encoder = ENCODERS.get(kind) or walk.resolve(kind, item, f"{path}/{segment}")
            out[key] = encoder(walk, item, f"{path}/{segment}")
    walk.leave()
    return out


def _ordered_dict(walk: Walk, value: collections.OrderedDict[Any, Any], path: str) -> dict[Any, Any]:
    metadata = getattr(value, "_metadata", None)
    walk.kinds[path] = "OrderedDict" if metadata is None else ["OrderedDict", metadata_of(metadata, path)]
    return _dict(walk, value, path)


def metadata_of(metadata: Any, path: str) -> Any:
    """What torch keeps beside a state dict: versions, by module."""
    walk = Walk()
    plain = walk.value(dict(metadata), path)
    if walk.tensors or walk.kinds:
        raise refusal(path, "_metadata with other values than numbers and text", "delete it from the state dict")
    return plain


def _named(name: str, make: Callable[[Walk, Any, str], Any]) -> Callable[[Walk, Any, str], Any]:
    def encoder(walk: Walk, value: Any, path: str) -> Any:
        plain = make(walk, value, path)
        walk.kinds[path] = name
        return plain

    return encoder


def _default_dict(walk: Walk, value: collections.defaultdict[Any, Any], path: str) -> dict[Any, Any]:
    walk.kinds[path] = "defaultdict"
    walk.default_dicts.append(path)
    return _dict(walk, value, path)


def _set(walk: Walk, value: set[Any], path: str) -> list[Any]:
    # In an order that does not depend on hashes, which differ from process to process.
    return _list(walk, sorted(value, key=_rank), path)


def _rank(item: Any) -> tuple[str, bool, Any]:
    sorts = type(item) in (int, float, str, bytes, bool) and item == item
    return type(item).__name__, sorts, item if sorts else repr(item)


ENCODERS.update({
    str: _text,
    int: _int,
    complex: _complex,
    list: _list,
    tuple: _tuple,
    dict: _dict,
    collections.OrderedDict: _ordered_dict,
    collections.Counter: _named("Counter", _dict),
    collections.defaultdict: _default_dict,
    set: _named("set", _set),
    frozenset: _named("frozenset", _set),
    bytearray: _named("bytearray", lambda walk, value, path: bytes(value)),
})  # fmt: skip
