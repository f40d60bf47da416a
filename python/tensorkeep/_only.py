"""``only=``: which tensors and records of a file its patterns choose."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from . import _arguments, _tensorkeep
from ._errors import NotFound
from ._paths import nearest
from ._restore import segments_of_any

__all__ = ["choose"]


def choose(
    only: str | Sequence[str], tensors: Sequence[str], records: Mapping[str, Any], where: str
) -> tuple[set[str], dict[str, Any]]:
    """Names of the tensors that are chosen, and the records, decoded, in which something is.

    A pattern chooses what it matches and all beneath it. Of a record the plain values come whole.

    Raises:
        NotFound: A pattern matches nothing: misspelt, perhaps.
    """
    chosen: set[str] = set()
    held: set[str] = set()
    decoded: dict[str, Any] = {}
    for pattern in _arguments.patterns("only", only):
        wanted = _matching(pattern, tensors)
        inside = {name.partition("/")[0] for name in wanted}.intersection(records)
        for name in records:
            if name not in inside and _may_reach(pattern, name):
                if name not in decoded:
                    decoded[name] = records[name]
                if _matching(pattern, list(_paths(decoded[name], name))):
                    inside.add(name)
        if not wanted and not inside:
            raise _nothing(pattern, tensors, records, where)
        chosen.update(wanted)
        held |= inside
    return chosen, {name: decoded[name] if name in decoded else records[name] for name in records if name in held}


def _matching(pattern: str, names: Sequence[str]) -> list[str]:
    """Names that a pattern matches, or that are beneath one."""
    return _tensorkeep.matching_names([pattern, f"{pattern.rstrip('/')}/*"], names)


def _may_reach(pattern: str, record: str) -> bool:
    """Whether what a pattern begins with lets it match something in a record."""
    literal, beneath = re.split("[*?]", pattern, maxsplit=1)[0], f"{record}/"
    return beneath.startswith(literal) or literal.startswith(beneath)


def _paths(value: Any, path: str) -> Iterator[str]:
    """The paths of a value and of all in it; a list or map has one that ends with a slash, too."""
    yield path
    if type(value) is dict:
        inner = zip(segments_of_any(value, path), value.values())
    elif type(value) is list:
        inner = zip(map(str, range(len(value))), value)
    else:
        return
    yield f"{path}/"
    for segment, item in inner:
        yield from _paths(item, f"{path}/{segment}")


def _nothing(pattern: str, tensors: Sequence[str], records: Mapping[str, Any], where: str) -> NotFound:
    names = [*records, *tensors, *(path for name in records for path in _paths(records[name], name))]
    groups = dict.fromkeys(name.partition("/")[0] for name in names)
    beneath = dict.fromkeys(f"{name[: slash.start()]}/*" for name in names for slash in re.finditer("/", name))
    near = nearest(pattern, [*groups, *beneath, *names])
    some = sorted(groups)
    listed = ", ".join(some[:10]) + (f" and {len(some) - 10} more" if len(some) > 10 else "")
    help = f"did you mean {near!r}?" if near else f"it has {listed}"
    return NotFound(f"{where}: only: {pattern!r} matches nothing; {help}", object=where, help=help)
