"""What the tests share: frameworks that may be missing, child processes, equality to the bit."""

from __future__ import annotations

import importlib
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def need(name: str) -> Any:
    """A framework, or the test is skipped; with `TENSORKEEP_REQUIRE=name,…` it fails instead."""
    if name in os.environ.get("TENSORKEEP_REQUIRE", "").split(","):
        return importlib.import_module(name)
    return pytest.importorskip(name)


def run(code: str, *arguments: object, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a script in a child process to its end."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    options.setdefault("timeout", 120)
    return subprocess.run(command, cwd=cwd, text=True, capture_output=True, **options)


def start(code: str, *arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """Starts a script in a child process, whose stdout is read."""
    command = [sys.executable, "-u", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def alike(a: Any, b: Any) -> bool:
    """Whether two values are equal in type, order and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, float):
        return struct.pack("d", a) == struct.pack("d", b)
    if isinstance(a, complex):
        return alike(a.real, b.real) and alike(a.imag, b.imag)
    if isinstance(a, dict):
        if len(a) != len(b) or getattr(a, "_metadata", None) != getattr(b, "_metadata", None):
            return False
        return all(alike(*pair) for pairs in zip(a.items(), b.items()) for pair in zip(*pairs))
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(alike(*items) for items in zip(a, b))
    if isinstance(a, (set, frozenset)):
        return len(a) == len(b) and all(any(alike(x, y) for y in b) for x in a)
    if hasattr(a, "untyped_storage"):
        import torch

        flags = (a.dtype, a.shape, a.requires_grad, type(a))
        if flags != (b.dtype, b.shape, b.requires_grad, type(b)):
            return False
        bits = [t.detach().contiguous().reshape(-1).view(torch.uint8) for t in (a, b)] if a.numel() else [a, b]
        return torch.equal(*bits)
    if hasattr(a, "tobytes"):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    return bool(a == b)


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
