"""Targets that share memory, and whether what a file has for them can be true at once."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

__all__ = ["Place", "contradicting", "place_of"]


class Place(NamedTuple):
    """Where the elements of a target are."""

    device: str
    #: Addresses: of its first byte, and behind its last.
    start: int
    end: int
    #: Of its first element, which of a reversed array is the last in memory.
    first: int
    shape: tuple[int, ...]
    #: In bytes.
    strides: tuple[int, ...]
    element_bytes: int
    is_torch: bool
    #: The tensor of the file whose bytes it gets: ties have one.
    stored: str
    name: str


def place_of(name: str, stored: str, tensor: Any, is_torch: bool) -> Place | None:
    """The place of a target, or None where it has no elements."""
    if is_torch:
        element_bytes = tensor.element_size()
        first, device = (tensor.data_ptr() if tensor.numel() else 0), ("cpu" if tensor.is_cpu else str(tensor.device))
        strides = tuple(stride * element_bytes for stride in tensor.stride())
    else:
        element_bytes, strides = tensor.itemsize, tensor.strides
        first, device = (tensor.__array_interface__["data"][0] if tensor.size else 0), "cpu"
    if not first:
        return None
    shape = tuple(tensor.shape)
    strides = tuple(stride if size > 1 else 0 for stride, size in zip(strides, shape))
    lengths = [stride * (size - 1) for stride, size in zip(strides, shape)]
    start = first + sum(length for length in lengths if length < 0)
    end = first + sum(length for length in lengths if length > 0) + element_bytes
    return Place(device, start, end, first, shape, strides, element_bytes, is_torch, stored, name)


def contradicting(places: Iterable[Place], values: Callable[[str], Any]) -> tuple[str, str] | None:
    """The names of two places that share elements for which a file has different values.

    Args:
        places: Each without elements that share memory.
        values: What the file has for a name, as a buffer of its bytes in row-major order. Only those
            that may share memory are asked for.
    """
    for group in _overlapping(places):
        if not _agree(group, values):
            pairs = ((a, b) for i, a in enumerate(group) for b in group[i + 1 :] if a.start < b.end and b.start < a.end)
            return next((a.name, b.name) for a, b in pairs if not _agree([a, b], values))
    return None


def _overlapping(places: Iterable[Place]) -> Iterator[list[Place]]:
    """Groups of places whose ranges overlap, as those of a matrix' columns do; ties count once."""
    groups: list[list[Place]] = []
    end = 0
    for place in sorted(places, key=operator.itemgetter(0, 1)):
        if not groups or place.device != groups[-1][0].device or place.start >= end:
            groups.append([])
            end = 0
        groups[-1].append(place)
        end = max(end, place.end)
    for group in groups:
        different: dict[Any, Place] = {}
        for place in group if len(group) > 1 else ():
            different.setdefault(place[:-1], place)  # All but the name.
        if len(different) > 1:
            yield list(different.values())


def _agree(group: Sequence[Place], values: Callable[[str], Any]) -> bool:
    """Whether all places have their values when all are written, which is tried elsewhere."""
    start = min(place.start for place in group)
    memory = bytearray(max(place.end for place in group) - start)
    # Where a tensor shares memory with an array, it is on the CPU, and numpy is there.
    with_torch = all(place.is_torch for place in group)
    sides = [_both_sides(memory, start, place, values(place.name), with_torch) for place in group]
    for target, given in sides:
        target[...] = given
    return all(bool((target == given).all()) for target, given in sides)


def _both_sides(memory: bytearray, start: int, place: Place, given: Any, with_torch: bool) -> tuple[Any, Any]:
    """A place's bytes within a copy of its memory, and those that a file has, in one shape."""
    offset, shape, strides = place.first - start, (*place.shape, place.element_bytes), (*place.strides, 1)
    if with_torch:  # As numpy may not be installed.
        import torch

        target = torch.frombuffer(memory, dtype=torch.uint8).as_strided(shape, strides, offset)
        return target, torch.frombuffer(given, dtype=torch.uint8).reshape(shape)
    import numpy

    return numpy.ndarray(shape, "u1", memory, offset, strides), numpy.frombuffer(given, "u1").reshape(shape)
