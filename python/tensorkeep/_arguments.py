"""Arguments as the extension module takes them, or an error that says which argument is wrong, and how."""

from __future__ import annotations

import operator
import os
import reprlib
from collections.abc import Mapping
from typing import Any

from ._errors import Invalid

__all__ = ["codecs", "metadata", "metrics", "number", "path", "patterns", "progress", "seconds", "text", "whole", "wrong"]

U64 = (1 << 64) - 1


def wrong(name: str, expected: str, found: Any) -> Invalid:
    """The error of an argument."""
    shown = reprlib.repr(found)
    return Invalid(f"{name}: expected {expected}, found {shown}", expected=expected, found=shown)


def whole(name: str, value: Any, most: int = U64) -> int:
    """A whole number from 0 on: an int, or what is one, such as numpy's."""
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number <= most:
        raise wrong(name, f"a whole number from 0 to {most}", value)
    return number


def number(name: str, value: Any) -> float:
    """A float of any number, such as a 0-d tensor."""
    if not isinstance(value, (str, bytes)):
        try:
            return float(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):
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
    found = os.fspath(value)
    if not found:
        raise wrong(name, "a path", found)
    return os.fsdecode(found)


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
        return [("", value)]
    return [(key, text(f"codec[{key!r}]", word)) for key, word in _items("codec", value)]


def patterns(name: str, value: Any) -> list[str]:
    """Patterns of names: one, or some."""
    some = [value] if isinstance(value, str) else value
    if isinstance(some, bytes) or not hasattr(some, "__iter__"):
        raise wrong(name, "a pattern or a list of them", value)
    return [text(name, pattern) for pattern in some]
