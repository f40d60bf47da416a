"""Crash-safe checkpoints for training: one file at a time, or a run that resumes.

``save`` and ``load`` are for single files, ``Store`` for a run. ``tensorkeep.torch``, ``tensorkeep.numpy`` and
``tensorkeep.jax`` have what is about one framework; importing this imports none of them.
"""

from __future__ import annotations

#: True to type checkers. That of ``typing`` would have to be imported.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from ._names import *
    from ._names import __version__ as __version__
else:

    def __getattr__(name):
        # When one of the names is first asked for: a program starts at once, though it may save in an hour.
        import importlib

        if name == "rng":
            return importlib.import_module(".rng", __name__)
        if name[0] != "_" or name in ("__all__", "__version__"):
            names = vars(importlib.import_module("._names", __name__))
            public = {known: value for known, value in names.items() if known[0] != "_" and known != "annotations"}
            globals().update(public, __all__=sorted(public), __version__=names["__version__"])
        if name not in globals():
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return globals()[name]

    def __dir__():
        return sorted({*globals(), *__getattr__("__all__")})
