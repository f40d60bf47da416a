"""Types: mypy --strict, the stubs against the extension module, examples in docstrings, what importing costs."""

from __future__ import annotations

import doctest
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorkeep
from conftest import need, run

PACKAGE = Path(tensorkeep.__file__).parent
ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "python/tensorkeep"
FRAMEWORKS = {"torch": "torch", "_torch": "torch", "numpy": "numpy", "_numpy": "numpy", "jax": "jax", "_jax": "jax",
              "dcp": "torch", "_dcp_read": "torch", "_dcp_write": "torch", "lightning": "lightning",
              "hf": "transformers"}  # fmt: skip
PLAIN = sorted(path.stem for path in PACKAGE.glob("*.py") if path.stem not in (*FRAMEWORKS, "__init__", "__main__"))


def test_mypy_finds_nothing() -> None:
    need("mypy")
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml"), str(SOURCE)]
    checked = subprocess.run(command, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stdout


def test_the_stubs_are_those_of_the_extension_module() -> None:
    need("mypy")
    environment = {**os.environ, "MYPYPATH": str(SOURCE.parent)}
    command = [sys.executable, "-m", "mypy.stubtest", "tensorkeep._tensorkeep", "--ignore-missing-stub",
               "--mypy-config-file", str(ROOT / "pyproject.toml")]  # fmt: skip
    checked = subprocess.run(command, text=True, capture_output=True, env=environment)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("name", ["", *PLAIN, *FRAMEWORKS])
def test_the_examples_of_the_docstrings_run(name: str) -> None:
    for framework in ("numpy", *([FRAMEWORKS[name]] if name in FRAMEWORKS else [])):
        need(framework)
    module = importlib.import_module(f"tensorkeep.{name}".rstrip("."))
    assert doctest.testmod(module).failed == 0


def test_public_names_are_documented() -> None:
    for name in tensorkeep.__all__:
        assert getattr(tensorkeep, name).__doc__, name


def test_every_exception_is_a_public_name() -> None:
    from tensorkeep import _errors

    assert set(_errors.__all__) <= set(tensorkeep.__all__)
    assert set(tensorkeep.__all__) <= set(dir(tensorkeep))
    with pytest.raises(AttributeError, match="'tensorkeep' has no attribute 'Stor'"):
        tensorkeep.Stor  # type: ignore[attr-defined]  # noqa: B018


def test_importing_takes_no_time_and_imports_no_framework(tmp_path: Path) -> None:
    code = """
import sys, time
began = time.process_time()
import tensorkeep
took = time.process_time() - began
tensorkeep.Store, tensorkeep.load
print(*[name for name in ("numpy", "torch", "jax", "lightning", "asyncio") if name in sys.modules], took)
"""
    times = [run(code, cwd=tmp_path).stdout.split() for _ in range(5)]
    assert all(len(words) == 1 for words in times), times
    fastest = min(float(words[0]) for words in times)
    print("import tensorkeep:", fastest, "s")
    assert fastest < 0.01
