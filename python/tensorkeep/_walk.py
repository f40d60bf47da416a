"""The walk through a state, and which encoder knows a value of which type: Python's own are in ``_plain.py``, those
of torch, numpy and jax in modules of theirs, users' are registered.
"""

from __future__ import annotations

import builtins
import collections
import enum
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from . import _arguments
from ._errors import Invalid
from ._paths import SHORT, check_name, refusal

__all__ = ["ENCODERS", "PLAIN", "REGISTERED", "Registered", "Walk", "register"]

#: Lists and maps that a record may have open at once.
DEPTH = 32

#: Types whose values records hold as they are.
PLAIN = frozenset((type(None), bool, float, bytes))


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

    Raises:
        Invalid: The name is another type's, the type is one that states hold anyway, or an argument is none.

    Example:
        >>> import collections, tensorkeep
        >>> Point = collections.namedtuple("Point", "x y")
        >>> tensorkeep.register(Point, to=list, back=lambda xy: Point(*xy), name="doc.Point")
        >>> _ = tensorkeep.save({"at": Point(1, 2)}, "point.tkeep")
        >>> tensorkeep.load("point.tkeep")["at"]
        Point(x=1, y=2)
    """
    if not isinstance(type, builtins.type):
        raise _arguments.wrong("type", "a class", type)
    for argument, given in (("to", to), ("back", back)):
        if not callable(given):
            raise _arguments.wrong(argument, "a function", given)
    own = f"{type.__module__}.{type.__qualname__}"
    name = own if name is None else _arguments.text("name", name)
    if not name:
        raise _arguments.wrong("name", "a name", name)
    if type in ENCODERS and all(type is not known.type for known in REGISTERED.values()) or type in PLAIN:
        raise Invalid(f"{own} is stored as it is; register a subclass of it", found=own)
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


class Walk:
    """One way through a state."""

    def __init__(self) -> None:
        self.tensors: list[tuple[str, str, Sequence[int], int, Any]] = []
        self.kinds: dict[str, Any] = {}
        #: Paths of dicts that come back without their factory.
        self.default_dicts: list[str] = []
        #: Copies that were made of tensors, by what they are copies of.
        self.copies: dict[Any, Any] = {}
        #: Paths of tensors by their framework.
        self.frameworks: collections.defaultdict[str, list[str]] = collections.defaultdict(list)
        self._depth = 0

    def value(self, value: Any, path: str) -> Any:
        """The plain value of any value."""
        kind = type(value)
        if kind in PLAIN:
            return value
        encoder = ENCODERS.get(kind) or self.resolve(kind, value, path)
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

    def resolve(self, kind: type, value: Any, path: str) -> Callable[[Walk, Any, str], Any]:
        """The encoder of a type that was not met before."""
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


#: Methods that give what an object is made of, or tell it in text or numbers.
_METHODS = ("get_state", "getstate", "isoformat", "total_seconds")
#: Modules whose objects are their text.
_AS_TEXT = ("decimal", "fractions", "ipaddress", "uuid")


def _advice(kind: type, value: Any) -> str:
    if hasattr(value, "state_dict"):
        return "store its state_dict()"
    if hasattr(value, "__dataclass_fields__"):
        return "store dataclasses.asdict() of it, or tensorkeep.register() its type"
    if hasattr(value, "__array_interface__"):
        return "store numpy.asarray() of it: its values, without what its type adds"
    if hasattr(value, "bit_generator"):
        return "store bit_generator.state of it"
    for method in _METHODS:
        if hasattr(kind, method):
            return f"store {method}() of it"
    function = _plain_form(kind, value)
    if function:
        return f"store {function}() of it"
    for base in (dict, list, tuple, int, float, str):
        if issubclass(kind, base):
            return f"store {base.__name__}() of it, or tensorkeep.register() its type"
    if isinstance(value, enum.Enum):
        return "store its name, and look it up when loading"
    if callable(value):
        return "code is never stored: store a name, and look it up when loading"
    return "store what it is made of, or tensorkeep.register() its type"


def _plain_form(kind: type, value: Any) -> str | None:
    """The function that makes a plain value of one whose type extends none, or None."""
    if kind is memoryview:
        return "bytes"
    if hasattr(value, "__fspath__") or kind.__module__ in _AS_TEXT:
        return "str"
    if kind.__module__ == "argparse" or kind.__name__ == "SimpleNamespace":
        return "vars"
    if isinstance(value, Mapping) and not isinstance(value, dict):
        return "dict"
    # Not of any class: that of a loader of data may have no end.
    return "list" if kind.__module__ in ("builtins", "collections") and hasattr(kind, "__iter__") else None
