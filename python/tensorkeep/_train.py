"""What a training step reads and changes, as one object that can be captured and restored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import _arguments
from . import rng as _rng
from ._errors import Invalid, Mismatch
from ._parts import all_or_nothing, differences, is_part, kind_of, names_differ

__all__ = ["TrainState", "check_state", "put_back"]

#: The classes of optimizers and schedulers, by the name of their part, among the parts' states.
KINDS = "kinds"


class TrainState:
    """The parts of a training: everything that the next step depends on.

    A part is anything with ``state_dict()`` and ``load_state_dict()``: a module, an optimizer, a scheduler, a scaler,
    a loader that knows its position. ``extra`` is a dict of plain values and tensors, whose values are replaced when
    it is restored.

    Args:
        rng: Whether the global random generators are part of it. They are captured first and restored last.
        extra: Further values, in a dict of yours.
        **parts: By name, which is their group in the checkpoint.

    Example:
        >>> import tensorkeep
        >>> class Loader:
        ...     position = 0
        ...     def state_dict(self): return {"position": self.position}
        ...     def load_state_dict(self, state): self.position = state["position"]
        >>> loader = Loader()
        >>> state = tensorkeep.TrainState(loader=loader, extra={"note": "first"})
        >>> captured = state.state_dict()
        >>> loader.position = 7
        >>> state.load_state_dict(captured)
        >>> loader.position
        0
    """

    def __init__(self, *, rng: bool = True, extra: dict[str, Any] | None = None, **parts: Any) -> None:
        for name, part in parts.items():
            if name == KINDS:
                raise _arguments.wrong("a part's name", f"another than {KINDS!r}, which says of what kind parts are", name)
            if not is_part(part):
                kind = type(part).__name__
                help = "give it state_dict() and load_state_dict(), or put it into extra"
                raise Invalid(f"{name}: a {kind} is no part of a training; {help}", help=help, found=kind)
        self.parts = parts
        self.rng = _arguments.flag("rng", rng)
        self.extra = None if extra is None else _arguments.one_of("extra", extra, dict)

    def state_dict(self) -> dict[str, Any]:
        """All parts' states by name, and of what kind optimizers and schedulers are."""
        state: dict[str, Any] = {"rng": _rng.capture()} if self.rng else {}
        state.update((name, part.state_dict()) for name, part in self.parts.items())
        if self.extra is not None:
            state["extra"] = dict(self.extra)
        kinds = {name: kind for name, part in self.parts.items() if (kind := kind_of(part)) is not None}
        if kinds:
            state[KINDS] = kinds
        return state

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """Restores all parts; where one does not fit, or fails, none.

        Names are compared, and what modules, optimizers and schedulers hold, before the first is changed. What all
        parts hold is kept meanwhile, on the CPU, and put back when one of them raises.

        Args:
            state: What :meth:`state_dict` gave, perhaps in another process.
            strict: Whether parts that only one side has are an error. Else they are passed over.

        Raises:
            Mismatch: A part is missing, or only in the checkpoint; names, shapes or dtypes of a module differ, or the
                groups or the kind of an optimizer.
            Exception: What a part raised. All are as they were.
        """
        names = self._fitting(state, _arguments.flag("strict", strict))
        generators = _rng.capture() if "rng" in names else {}
        try:
            with all_or_nothing({name: part for name, part in self.parts.items() if name in names}):
                for name in ("rng", *self.parts, "rng"):  # A part may draw from them.
                    if name in names:
                        _rng.restore(state[name]) if name == "rng" else self.parts[name].load_state_dict(state[name])
        except BaseException:
            if generators:
                _rng.restore(generators)
            raise
        if self.extra is not None and "extra" in names:
            self.extra.clear()
            self.extra.update(state["extra"])

    def _fitting(self, state: Any, strict: bool) -> set[str]:
        """The names of what is to be restored. Refuses what does not fit."""
        if not isinstance(state, Mapping):
            raise Mismatch("the checkpoint's state is no dict", expected="a dict", found=type(state).__name__)
        wanted = [*self.parts, *(["rng"] if self.rng else []), *(["extra"] if self.extra is not None else [])]
        # To leave the generators alone is said by ``rng=False``.
        there = [name for name in state if name != KINDS and (self.rng or name != "rng")]
        differ = names_differ(wanted, there, "this training") if strict else []
        if differ:
            shown, help = "\n  ".join(differ), "load_state_dict(state, strict=False) passes them over"
            what = f"the checkpoint has other parts than this training:\n  {shown}\n{help}"
            raise Mismatch(what, help=help)
        names = {name for name in wanted if name in state}
        kinds = state.get(KINDS)
        kinds = {name: kind for name, kind in kinds.items() if type(kind) is str} if isinstance(kinds, Mapping) else {}
        found = {name: differences(part, state[name], kinds.get(name)) for name, part in self.parts.items() if name in names}
        for name in names & {"extra", "rng"}:
            found[name] = [] if isinstance(state[name], dict) else [f"expected a dict, found a {type(state[name]).__name__}"]
        for name, differ in found.items():
            _refuse(name, differ)
        return names


def _refuse(name: str, differ: list[str]) -> None:
    if differ:
        shown = "\n  ".join(differ[:20]) + (f"\n  and {len(differ) - 20} more" if len(differ) > 20 else "")
        raise Mismatch(f"the checkpoint's {name} and this one differ:\n  {shown}", found=differ[0])


def check_state(state: Any) -> None:
    """Refuses what a resume could not restore, before anything is trained."""
    if is_part(state):
        return
    if not isinstance(state, dict):
        raise _arguments.wrong("state", "a dict, or an object with state_dict() and load_state_dict()", state)
    for name, value in state.items():
        # As torch's modules and optimizers give them.
        is_given = hasattr(value, "_metadata") or isinstance(value, dict) and value.keys() >= {"state", "param_groups"}
        if is_given or is_part(value):
            what = "state dict" if is_given else type(value).__name__
            help = "a resume replaces the values of a dict, which reaches no module or optimizer: give a TrainState"
            raise Invalid(f"state[{name!r}] is a {what}; {help}", help=help, found=f"a {what}")


def put_back(state: Any, saved: Any) -> None:
    """Restores what a checkpoint holds."""
    if isinstance(state, TrainState):
        state.load_state_dict(saved)
        return
    if is_part(state):
        _refuse("state", differences(state, saved))
        with all_or_nothing({"the state": state}):
            state.load_state_dict(saved)
        return
    if not isinstance(saved, Mapping):
        raise Mismatch("the checkpoint's state is no dict", expected="a dict", found=type(saved).__name__)
    # The caller holds the dict, so it is what changes.
    state.clear()
    state.update(saved)
