"""Random generators: capturing and restoring the state of all that are in use.

Whatever is imported is captured: Python's ``random``, numpy's global generator, torch's on the CPU and on each CUDA
device. JAX has no global state: its keys are part of yours.
"""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Mapping
from typing import Any

from ._errors import Mismatch

__all__ = ["capture", "restore"]


def capture() -> dict[str, Any]:
    """The state of each global generator, to be stored with a checkpoint.

    Returns:
        States by name: ``"python"``, ``"numpy"``, ``"torch"``, ``"cuda"``.

    Example:
        >>> import random, tensorkeep
        >>> state = tensorkeep.rng.capture()
        >>> first = random.random()
        >>> tensorkeep.rng.restore(state)
        >>> random.random() == first
        True
    """
    import random  # Not before it is wanted: it takes as long as all of this package.

    state: dict[str, Any] = {"python": random.getstate()}
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        state["numpy"] = numpy.random.get_state()
    if torch is not None:
        state["torch"] = torch.get_rng_state()
        if torch.cuda.is_available() and torch.cuda.is_initialized():
            state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore(state: dict[str, Any]) -> None:
    """Puts back what :func:`capture` gave. A generator that the state has and this process has not is imported.

    Args:
        state: What :func:`capture` gave, perhaps in another process.

    Raises:
        Mismatch: A generator does not take its state.
    """
    if not isinstance(state, Mapping) or "python" not in state:
        raise Mismatch("the state of random generators", expected="what capture() gave", found=reprlib.repr(state))
    for name, restore_one in _RESTORE.items():
        if name in state:
            try:
                restore_one(state[name])
            except ImportError:
                raise
            except Exception as error:
                what = f"the state of {name}'s random generator is none that it takes: {error}"
                raise Mismatch(what, expected="what capture() gave", found=reprlib.repr(state[name])) from error


def _python(state: Any) -> None:
    import random

    random.setstate(_tuples(state))


def _numpy(state: Any) -> None:
    import numpy

    numpy.random.set_state(state)


def _torch(state: Any) -> None:
    import torch

    torch.set_rng_state(state)


def _cuda(state: Any) -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state)


_RESTORE = {"python": _python, "numpy": _numpy, "torch": _torch, "cuda": _cuda}


def _tuples(state: Any) -> Any:
    """Lists as the tuples that ``random.setstate`` wants, in a file whose kinds were lost."""
    version, internal, gauss = state
    return version, tuple(internal), gauss
