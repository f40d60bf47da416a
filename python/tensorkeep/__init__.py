"""Crash-safe checkpoints for training: one file at a time, or a run that resumes.

``save`` and ``load`` are for single files, ``Store`` for a run. ``tensorkeep.torch``, ``tensorkeep.numpy`` and
``tensorkeep.jax`` have what is about one framework; importing this imports none of them.
"""

from __future__ import annotations

#: True to type checkers. That of ``typing`` would have to be imported.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from . import rng as rng
    from ._errors import *
    from ._files import Checkpoint as Checkpoint, Difference as Difference, Info as Info, TensorView as TensorView
    from ._files import Written as Written, load as load, open as open, save as save
    from ._into import LoadReport as LoadReport, load_into as load_into
    from ._policy import Every as Every, Keep as Keep
    from ._restore import LeftOut as LeftOut
    from ._state import register as register
    from ._store import Listed as Listed, Pending as Pending, Resumed as Resumed, Saved as Saved, Store as Store
    from ._tensorkeep import __version__ as __version__
    from ._train import TrainState as TrainState
else:
    #: The public names by module. A module is imported when one of its names is first asked for: a program starts at
    #: once, though it may save in an hour.
    _NAMES = {
        "_errors": """AlreadyExists Busy CannotStore ClosedError Damaged Error Fenced FileNotFound Foreign ForkedError
            Invalid IoError LimitExceeded Locked Mismatch MissingName NewerVersion NoSpace NotFound NotPromoted Poisoned
            UnknownOutcome Unsupported""",
        "_files": "Checkpoint Difference Info TensorView Written load open save",
        "_into": "LoadReport load_into",
        "_policy": "Every Keep",
        "_restore": "LeftOut",
        "_state": "register",
        "_store": "Listed Pending Resumed Saved Store",
        "_tensorkeep": "__version__",
        "_train": "TrainState",
    }
    _MODULES = {name: module for module, names in _NAMES.items() for name in names.split()}
    __all__ = sorted({*_MODULES, "rng"} - {"__version__"})

    def __getattr__(name):
        import importlib

        if name == "rng":
            return importlib.import_module(".rng", __name__)
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
        return found

    def __dir__():
        return sorted({*globals(), *__all__})
