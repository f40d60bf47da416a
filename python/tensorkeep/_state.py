"""Nested states as tensors, records and kinds. ``_walk.py`` goes through them.

A record holds natural MessagePack: a tuple is a list there, an int beyond 64 bits is bytes. The kind at its path,
in the record ``tensorkeep.python``, says what it was. A tensor's place in a record is None; its name in the table
of tensors is its path, so that nothing else has to mark it.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from ._paths import check_name, refusal, segments
from ._plain import metadata_of
from ._walk import ENCODERS, Walk
from ._warn import warn

__all__ = ["VERSION", "Encoded", "encode", "without_collecting"]

VERSION = 1
#: Records that a file may have are 65,536, of which the library has some.
MOST_RECORDS = 60_000


class Encoded(NamedTuple):
    """A state, ready to be handed over."""

    #: (name, dtype, shape, address, owner) of each tensor.
    tensors: list[tuple[str, str, Sequence[int], int, Any]]
    records: dict[str, Any]
    #: The record ``tensorkeep.python``.
    types: dict[str, Any]


def _is_top(obj: Any) -> bool:
    """Whether the keys of a state can be names of records."""
    if type(obj) not in (dict, collections.OrderedDict) or not obj or len(obj) > MOST_RECORDS and _has_records(obj):
        return False
    return all(type(key) is str and key and not key.startswith("tensorkeep.") for key in obj)


def _has_records(obj: dict[str, Any]) -> bool:
    torch = sys.modules.get("torch")
    tensor = getattr(torch, "Tensor", ())
    return sum(not isinstance(value, tensor) for value in obj.values()) > MOST_RECORDS


@contextlib.contextmanager
def without_collecting() -> Iterator[None]:
    """Walks make many objects and no cycle: looking for some, again and again, is half of their time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@without_collecting()
def encode(obj: Any) -> Encoded:
    """A state as tensors, records and kinds.

    Raises:
        CannotStore: A value is neither a tensor nor plain; the message has its path.
    """
    try:
        return _encode(obj)
    except RuntimeError as error:
        # As Python's dicts say it: "dictionary changed size during iteration".
        if "during iteration" not in str(error):
            raise
        raise refusal("", "another thread changed it while it was looked through", "save where it does not change") from error


def _encode(obj: Any) -> Encoded:
    walk = Walk()
    records: dict[str, Any] = {}
    types: dict[str, Any] = {"v": VERSION}
    if not _is_top(obj):
        types["bare"] = True
        obj = {"state": obj}
    elif type(obj) is collections.OrderedDict:
        metadata = getattr(obj, "_metadata", None)
        walk.kinds[""] = "OrderedDict" if metadata is None else ["OrderedDict", metadata_of(metadata, "")]
    order = segments(obj, "")
    for name, value in zip(order, obj.values()):
        count, encoder = len(walk.tensors), ENCODERS.get(type(value))
        plain = walk.value(value, name) if encoder is None else encoder(walk, value, name)
        # A tensor at the top has no record: there may be more of them than there may be records.
        if plain is not None or len(walk.tensors) == count:
            check_name(name)
            records[name] = plain
    types["order"] = order
    if walk.frameworks:
        framework = max(walk.frameworks, key=lambda name: len(walk.frameworks[name]))
        types["tensors"] = framework
        for other, paths in walk.frameworks.items():
            if other != framework:
                for path in paths:
                    outer = walk.kinds.get(path, other)
                    walk.kinds[path] = [*outer, other] if type(outer) is list else outer
    if walk.kinds:
        types["kinds"] = walk.kinds
    if walk.default_dicts:
        _tell_of_factories(walk.default_dicts)
    return Encoded(walk.tensors, records, types)


def _tell_of_factories(paths: list[str]) -> None:
    """Says at the save, where something can be done about it, what a load will not bring back."""
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    what = "a defaultdict comes back as a dict: its factory is code, which no file holds"
    warn(f"{paths[0]!r}{more}: {what}; save dict() of it, and make it one again after loading")
