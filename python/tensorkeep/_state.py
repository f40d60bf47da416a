"""Nested states as tensors, records and kinds. Knows Python's own types; torch, numpy and jax add theirs.

A record holds natural MessagePack: a tuple is a list there, an int beyond 64 bits is bytes. The kind at its path,
in the record ``tensorkeep.python``, says what it was. A tensor's place in a record is None; its name in the table
of tensors is its path, so that nothing else has to mark it.
"""

from __future__ import annotations

import collections
import contextlib
import gc
import importlib
import re
import sys
from typing import Any, Callable, Iterator, Mapping, NamedTuple, Sequence

from ._errors import CannotStore, Invalid

__all__ = ["Encoded", "Registered", "Walk", "encode", "escape", "register", "unescape"]

VERSION = 1
#: Lists and maps that a record may have open at once.
DEPTH = 32
NAME_BYTES = 1024
#: Characters of a path that is no longer than a name, whatever they are.
SHORT = NAME_BYTES // 4
#: Records that a file may have are 65,536, of which the library has some.
MOST_RECORDS = 60_000

_SPECIAL = re.compile("[/~\x00-\x1f\x7f]")
_PLAIN = frozenset((type(None), bool, float, bytes))


class Encoded(NamedTuple):
    """A state, ready to be handed over."""

    #: (name, dtype, shape, address, owner) of each tensor.
    tensors: list[tuple[str, str, Sequence[int], int, Any]]
    records: dict[str, Any]
    #: The record ``tensorkeep.python``.
    types: dict[str, Any]


class Registered(NamedTuple):
    """A type of the user's own."""

    type: type
    to: Callable[[Any], Any]
    back: Callable[[Any], Any]


#: By exact type: how a value becomes a plain one.
ENCODERS: dict[type, Callable[[Walk, Any, str], Any]] = {}
#: By name.
REGISTERED: dict[str, Registered] = {}


def register(type: type, to: Callable[[Any], Any], back: Callable[[Any], Any], name: str | None = None) -> None:
    """Lets states hold values of a type of your own.

    A file names the type and holds what ``to`` gave; ``back`` is called only in programs that registered the name.
    A reader that has not gets that value, and a warning.

    Args:
        type: Exactly this type; subclasses register themselves.
        to: Makes a value that can be stored: plain values, tensors, dicts, lists of such.
        back: Makes the object again out of it.
        name: What files call it; module and class name by default. Keep it when the class moves.

    Example:
        >>> import collections, tensorkeep
        >>> Point = collections.namedtuple("Point", "x y")
        >>> tensorkeep.register(Point, to=list, back=lambda xy: Point(*xy), name="doc.Point")
        >>> _ = tensorkeep.save({"at": Point(1, 2)}, "point.tkeep")
        >>> tensorkeep.load("point.tkeep")["at"]
        Point(x=1, y=2)
    """
    own = f"{type.__module__}.{type.__qualname__}"
    name = name or own
    other = REGISTERED[name].type if name in REGISTERED else type
    if own != f"{other.__module__}.{other.__qualname__}":  # A notebook defines a class again under the same name.
        raise Invalid(f"{name!r} is the name of {other.__module__}.{other.__qualname__}; give another", found=name)
    REGISTERED[name] = Registered(type, to, back)

    def encode_registered(walk: Walk, value: Any, path: str) -> Any:
        made = to(value)
        kind = made.__class__
        if any(kind is known.type for known in REGISTERED.values()):
            what = f"to() of {name} gave a {kind.__qualname__}, which is registered, too"
            raise refusal(path, what, "let it give plain values; registered ones may be inside of a list or dict")
        plain = walk.value(made, path)
        # What `to` gave has a kind of its own, perhaps; it is the inner one.
        inner = walk.kinds.get(path)
        walk.kinds[path] = ["x", name] if inner is None else ["x", name, inner]
        return plain

    ENCODERS[type] = encode_registered


def escape(key: str) -> str:
    """A key as a segment of a path: as in JSON Pointer, and control characters as ``~x1f``."""

    def special(found: re.Match[str]) -> str:
        character = found.group()
        return {"~": "~0", "/": "~1"}.get(character) or f"~x{ord(character):02x}"

    return _SPECIAL.sub(special, key)


def unescape(segment: str) -> str:
    """The key of a segment."""
    back = {"~0": "~", "~1": "/"}
    return re.sub("~(?:[01]|x[01][0-9a-f]|x7f)", lambda found: back.get(found[0]) or chr(int(found[0][2:], 16)), segment)


class Walk:
    """One way through a state."""

    def __init__(self) -> None:
        self.tensors: list[tuple[str, str, Sequence[int], int, Any]] = []
        self.kinds: dict[str, Any] = {}
        #: Copies that were made of tensors, by what they are copies of.
        self.copies: dict[Any, Any] = {}
        #: Paths of tensors by their framework.
        self.frameworks: collections.defaultdict[str, list[str]] = collections.defaultdict(list)
        self._depth = 0

    def value(self, value: Any, path: str) -> Any:
        """The plain value of any value."""
        kind = type(value)
        if kind in _PLAIN:
            return value
        encoder = ENCODERS.get(kind) or self._resolve(kind, value, path)
        return encoder(self, value, path)

    def enter(self, path: str) -> None:
        """One list or map more is open."""
        self._depth += 1
        if self._depth > DEPTH:
            raise refusal(path, f"more than {DEPTH} dicts and lists within each other", "is there a cycle?")

    def leave(self) -> None:
        """One less."""
        self._depth -= 1

    def tensor(self, path: str, dtype: str, shape: Sequence[int], address: int, owner: Any) -> None:
        """Adds a tensor, whose place in the record is None."""
        if not path or len(path) > SHORT:
            check_name(path)
        self.tensors.append((path, dtype, shape, address, owner))

    def _resolve(self, kind: type, value: Any, path: str) -> Callable[[Walk, Any, str], Any]:
        for base in kind.__mro__:
            framework = _MODULES.get(base.__module__.partition(".")[0])
            if framework is not None:
                adaptor = importlib.import_module(f"tensorkeep.{framework}")
                adaptor.learn(kind)
                if kind in ENCODERS:
                    return ENCODERS[kind]
        what = f"a {kind.__module__}.{kind.__qualname__}".replace("a builtins.", "a ")
        raise refusal(path, f"{what} cannot be stored", _advice(kind, value))


#: Which module of ours knows the types of a package.
_MODULES = {"torch": "_torch", "numpy": "_numpy", "ml_dtypes": "_numpy", "jax": "_jax", "jaxlib": "_jax"}


def refusal(path: str, what: str, advice: str) -> CannotStore:
    """The error of a value that cannot be stored."""
    place = repr(path) if path else "the state itself"
    return CannotStore(f"{place}: {what}; {advice}", path=path, help=advice, found=what)


def check_name(path: str) -> None:
    """Refuses a path that cannot be a name."""
    if not path:
        raise refusal(path, "a tensor without a name", "give its key at least one character")
    length = len(path.encode("utf-8", "surrogatepass"))
    if length > NAME_BYTES:
        raise refusal(path[:60] + "…", f"a path of {length} bytes, and names have {NAME_BYTES}", "use shorter keys")


def _advice(kind: type, value: Any) -> str:
    if hasattr(value, "state_dict"):
        return "store its state_dict()"
    if hasattr(value, "__fspath__"):
        return "store str() of it"
    if hasattr(value, "__dataclass_fields__"):
        return "store dataclasses.asdict() of it, or tensorkeep.register() its type"
    if kind is memoryview:
        return "store bytes() of it"
    for base in (dict, list, tuple, int, float, str):
        if issubclass(kind, base):
            return f"store {base.__name__}() of it, or tensorkeep.register() its type"
    if callable(value):
        return "code is never stored: store a name, and look it up when loading"
    return "store what it is made of, or tensorkeep.register() its type"


def _text(walk: Walk, value: str, path: str) -> str:
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise refusal(path, "text with half of a surrogate pair", "it is no Unicode: store bytes") from None
    return value


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
        if kind in _PLAIN:
            out.append(item)
        else:
            encoder = ENCODERS.get(kind) or walk._resolve(kind, item, f"{path}/{i}")
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
        if kind in _PLAIN:
            out[key] = item
        else:
            encoder = ENCODERS.get(kind) or walk._resolve(kind, item, f"{path}/{segment}")
            out[key] = encoder(walk, item, f"{path}/{segment}")
    walk.leave()
    return out


def segments(keys: Mapping[Any, Any], path: str) -> Sequence[str]:
    """The segments of a dict's keys, no two alike."""
    # One look at all of them: nearly always they are plain text.
    if set(map(type, keys)) == {str}:
        joined = "".join(keys)
        if not _SPECIAL.search(joined) and joined.isascii():
            return list(keys)
    found: dict[str, Any] = {}
    for key in keys:
        segment = _segment(key, path)
        if segment in found:
            what = f"two keys with one path: {found[segment]!r} and {key!r}"
            raise refusal(path, what, "use keys that differ as text, too")
        found[segment] = key
    return list(found)


def _segment(key: Any, path: str) -> str:
    kind = type(key)
    if kind is str:
        return escape(_text(Walk(), key, f"{path}/{key!r}"))
    if kind is int and not -(1 << 63) <= key < 1 << 64:
        raise refusal(path, "a key that is an int of more than 64 bits", "use text as the key")
    if kind in (int, float, bool, type(None), bytes):
        return escape(str(key))
    raise refusal(path, f"a key that is a {kind.__qualname__}", _key_advice(key))


def _key_advice(key: Any) -> str:
    for base in (str, int, float, bytes):
        if isinstance(key, base):
            return f"use {base.__name__}() of it as the key"
    return "use item() of it as the key" if hasattr(key, "item") else "use text or a number as the key"


def _ordered_dict(walk: Walk, value: collections.OrderedDict[Any, Any], path: str) -> dict[Any, Any]:
    metadata = getattr(value, "_metadata", None)
    walk.kinds[path] = "OrderedDict" if metadata is None else ["OrderedDict", _metadata(metadata, path)]
    return _dict(walk, value, path)


def _metadata(metadata: Any, path: str) -> Any:
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
    collections.defaultdict: _named("defaultdict", _dict),
    set: _named("set", _set),
    frozenset: _named("frozenset", _set),
    bytearray: _named("bytearray", lambda walk, value, path: bytes(value)),
})  # fmt: skip


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
    walk = Walk()
    records: dict[str, Any] = {}
    types: dict[str, Any] = {"v": VERSION}
    if not _is_top(obj):
        types["bare"] = True
        obj = {"state": obj}
    elif type(obj) is collections.OrderedDict:
        metadata = getattr(obj, "_metadata", None)
        walk.kinds[""] = "OrderedDict" if metadata is None else ["OrderedDict", _metadata(metadata, "")]
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
    return Encoded(walk.tensors, records, types)
