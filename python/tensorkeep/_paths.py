"""Paths of values in a state, which are the names of tensors in a file: made of keys, and back."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import _tensorkeep
from ._errors import CannotStore

__all__ = ["SHORT", "check_name", "checked_text", "escape", "nearest", "refusal", "segments", "unescape"]

NAME_BYTES = 1024
#: Characters of a path that is no longer than a name, whatever they are.
SHORT = NAME_BYTES // 4

_SPECIAL = re.compile("[/~\x00-\x1f\x7f]")


def escape(key: str) -> str:
    """A key as a segment of a path: as in JSON Pointer, and control characters as ``~x1f``."""

    def special(found: re.Match[str]) -> str:
        character = found.group()
        return {"~": "~0", "/": "~1"}.get(character) or f"~x{ord(character):02x}"

    return _SPECIAL.sub(special, key)


def unescape(segment: str) -> str:
    """The key of a segment."""
    if "~" not in segment:
        return segment
    back = {"~0": "~", "~1": "/"}
    return re.sub("~(?:[01]|x[01][0-9a-f]|x7f)", lambda found: back.get(found[0]) or chr(int(found[0][2:], 16)), segment)


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
        return escape(checked_text(key, f"{path}/{key!r}"))
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


def checked_text(value: str, path: str) -> str:
    """Text that is Unicode."""
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise refusal(path, "text with half of a surrogate pair", "it is no Unicode: store bytes") from None
    return value


def nearest(wanted: str, names: Iterable[str]) -> str | None:
    """The name that was meant, perhaps: also where keys are written as they are, and a path has them escaped."""
    written: dict[str, str] = {}
    for name in names:
        written.setdefault(name, name)
        if "~" in name:
            written.setdefault("/".join(map(unescape, name.split("/"))), name)
    if wanted in written:
        return written[wanted]
    try:
        near = _tensorkeep.nearest_name(wanted, list(written))
    except UnicodeEncodeError:
        return None
    return None if near is None else written[near]
