"""Warnings at the line of the program that called this package, from however deep in it."""

from __future__ import annotations

import sys
import types
import warnings

__all__ = ["warn"]


def warn(text: str) -> None:
    """Warns at the first line outside of this package. Python shows a text once for each line."""
    level, frame = 1, sys._getframe()
    # A function under a decorator of contextlib is called by a frame of that module.
    while frame.f_back is not None and _package_of(frame) in ("tensorkeep", "contextlib"):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)


def _package_of(frame: types.FrameType) -> str:
    return str(frame.f_globals.get("__name__", "")).partition(".")[0]
