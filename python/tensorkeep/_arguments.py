"""Arguments as the extension module takes them, or an error that says which argument is wrong, and how."""

from __future__ import annotations

import operator
import os
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from ._errors import Invalid

__all__ = ["codecs", "flag", "metadata", "metrics", "number", "one_of", "path", "patterns", "progress", "seconds", "text",
           "whole", "word", "wrong"]  # fmt: skip

U64 = (1 << 64) - 1
CODECS = ("raw", "balanced", "max")
Kind = TypeVar("Kind")


def wrong(name: str, expected: str, found: Any) -> Invalid:
    """The error of an argument."""
    shown = reprlib.repr(found)
    return Invalid(f"{name}: expected {expected}, found {shown}", expected=expected, found=shown)


def whole(name: str, value: Any, most: int = U64) -> int:
    """A whole number from 0 on: an int, or what is one, such as numpy's."""
    try:
        number = operator.index(value)
    except Exception:  # A TypeError, or whatever a tensor of several numbers says.
        number = -1
    if not 0 <= number <= most:
        raise wrong(name, f"a whole number from 0 to {most}", value)
    return number


def number(name: str, value: Any) -> float:
    """A float of any number, such as a 0-d tensor."""
    if not isinstance(value, (str, bytes)):
        try:
            # torch warns where a loss is read with its graph.
            return float(value.detach() if hasattr(value, "detach") else value)
        except Exception:  # Of whatever kind: it is no number.
            pass
    raise wrong(name, "a number", value)


def seconds(name: str, value: Any) -> float:
    """A time above 0, which may be infinite."""
    found = number(name, value)
    if not found > 0:
        raise wrong(name, "a time above 0", value)
    return found


def progress(step: Any, epoch: Any) -> tuple[int, int]:
    """Completed steps and epochs."""
    return whole("step", step), whole("epoch", epoch)


def text(name: str, value: Any) -> str:
    """Text that is Unicode."""
    try:
        if isinstance(value, str) and (value.isascii() or value.encode()):
            return value
    except UnicodeEncodeError:
        pass
    raise wrong(name, "text", value)


def path(name: str, value: Any) -> str:
    """A path that names something."""
    try:
        found = os.fsdecode(os.fspath(value))
        os.fsencode(found)  # Half of a surrogate pair names nothing.
    except Exception as error:  # Also what the `__fspath__` of another class raises.
        raise wrong(name, "a path: text or os.PathLike", value) from error
    if not found or "\0" in found:
        raise wrong(name, "a path", found)
    return found


def _items(name: str, values: Any) -> list[tuple[str, Any]]:
    if values is None:
        return []
    if not isinstance(values, Mapping):
        raise wrong(name, "a dict", values)
    return [(text(f"a key of {name}", key), value) for key, value in values.items()]


def metrics(values: Any) -> list[tuple[str, float]]:
    """Numbers by name."""
    return [(key, number(f"metrics[{key!r}]", value)) for key, value in _items("metrics", values)]


def metadata(values: Any) -> list[tuple[str, str]]:
    """Lines of text by key."""
    return [(key, text(f"metadata[{key!r}]", value)) for key, value in _items("metadata", values)]


def codecs(value: Any) -> list[tuple[str, str]]:
    """Codecs by pattern; that of the empty pattern is for everything else."""
    if isinstance(value, str):
        return [("", word("codec", value, CODECS))]
    return [(key, word(f"codec[{key!r}]", found, CODECS)) for key, found in _items("codec", value)]


def flag(name: str, value: Any) -> bool:
    """True or False: 1 and an array's element are neither."""
    if type(value) is not bool:
        raise wrong(name, "True or False", value)
    return value


def word(name: str, value: Any, words: Sequence[str]) -> str:
    """One of a few words."""
    if type(value) is not str or value not in words:
        known = [repr(known) for known in words]
        raise wrong(name, f"{', '.join(known[:-1])} or {known[-1]}", value)
    return value


def one_of(name: str, value: Any, kind: type[Kind]) -> Kind:
    """An object of a class of ours."""
    if not isinstance(value, kind):
        raise wrong(name, f"a {kind.__name__}", value)
    return value


def patterns(name: str, value: Any) -> list[str]:
    """Patterns of names: one, or some."""
    try:
        some = [value] if isinstance(value, str) else [] if isinstance(value, bytes) else list(value)
    except Exception:
        some = []
    if not some and not isinstance(value, (list, tuple, set)):
        raise wrong(name, "a pattern or a list of them", value)
    return [text(name, pattern) for pattern in some]
