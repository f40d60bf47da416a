"""What a training step reads and changes, as one object that can be captured and restored."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from . import _arguments
from . import rng as _rng
from ._errors import Invalid, Mismatch

__all__ = ["TrainState", "check_state", "put_back"]


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
            if not (hasattr(part, "state_dict") and hasattr(part, "load_state_dict")):
                kind = type(part).__name__
                help = "give it state_dict() and load_state_dict(), or put it into extra"
                raise Invalid(f"{name}: a {kind} is no part of a training; {help}", help=help, found=kind)
        self.parts = parts
        self.rng = rng
        self.extra = extra

    def state_dict(self) -> dict[str, Any]:
        """All parts' states by name."""
        state: dict[str, Any] = {"rng": _rng.capture()} if self.rng else {}
        state.update((name, part.state_dict()) for name, part in self.parts.items())
        if self.extra is not None:
            state["extra"] = dict(self.extra)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores all parts; where one does not fit, none.

        All parts are looked for, and modules and optimizers compared, before the first is changed. Those that cannot
        be compared are loaded first, and put back when one fails.

        Args:
            state: What :meth:`state_dict` gave, perhaps in another process.

        Raises:
            Mismatch: A part is missing; a module's names, shapes or dtypes differ, or an optimizer's groups.
            Exception: What a part raised. Parts that cannot be compared are put back; a module or an optimizer whose
                own code raises has been changed as far as it came.
        """
        opaque = self._check(state)
        before = {name: copy.deepcopy(self.parts[name].state_dict()) for name in opaque}
        generators = _rng.capture() if self.rng else {}
        try:
            if self.rng:
                _rng.restore(state["rng"])
            for name in [*opaque, *(name for name in self.parts if name not in opaque)]:
                self.parts[name].load_state_dict(state[name])
        except Exception:
            for name in opaque:
                self.parts[name].load_state_dict(before[name])
            if self.rng:
                _rng.restore(generators)
            raise
        if self.extra is not None:
            self.extra.clear()
            self.extra.update(state["extra"])
        if self.rng:
            _rng.restore(state["rng"])  # A part may have drawn from them.

    def _check(self, state: dict[str, Any]) -> list[str]:
        """Refuses what does not fit; the parts of which only loading them can tell."""
        wanted = [*self.parts, *(["rng"] if self.rng else []), *(["extra"] if self.extra is not None else [])]
        missing = [name for name in wanted if name not in state]
        if missing:
            there = ", ".join(state)
            raise Mismatch(f"the checkpoint has no {', '.join(missing)}", expected=", ".join(wanted), found=there)
        found = {name: _differences(part, state[name]) for name, part in self.parts.items()}
        if self.extra is not None:
            found["extra"] = _is_no_dict(state["extra"])
        for name, differ in found.items():
            if differ:
                shown = "\n  ".join(differ[:20])
                raise Mismatch(f"the checkpoint's {name} and this one differ:\n  {shown}", found=differ[0])
        return [name for name, differ in found.items() if differ is None]


def _differences(part: Any, state: Any) -> list[str] | None:
    """How a state differs from what a part holds, or None where only loading it can tell."""
    is_module = hasattr(part, "named_parameters")
    if not is_module and not hasattr(part, "param_groups"):
        return None
    here = part.state_dict()
    if not is_module and "param_groups" not in here:
        return None
    return _is_no_dict(state) or (_in_tensors(here, state) if is_module else _in_groups(here, state))


def _is_no_dict(state: Any) -> list[str]:
    return [] if isinstance(state, Mapping) else [f"expected a dict, found a {type(state).__name__}"]


def _in_tensors(here: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    both = ((key, _described(here.get(key)), _described(state.get(key))) for key in dict.fromkeys([*here, *state]))
    return [f"{key}: expected {mine}, found {its}" for key, mine, its in both if mine != its]


def _in_groups(here: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    """What torch would refuse behind the first part: other groups, and groups of another length."""
    try:
        mine, its = ([len(group["params"]) for group in side["param_groups"]] for side in (here, state))
    except (KeyError, TypeError):
        return ["it has no param_groups"]
    if len(mine) != len(its):
        return [f"expected {len(mine)} groups of parameters, found {len(its)}"]
    both = enumerate(zip(mine, its))
    return [f"group {i}: expected {ours} parameters, found {theirs}" for i, (ours, theirs) in both if ours != theirs]


def _described(tensor: Any) -> str:
    if tensor is None:
        return "nothing"
    return f"{tensor.dtype} {list(tensor.shape)}" if hasattr(tensor, "shape") else type(tensor).__name__


def check_state(state: Any) -> None:
    """Refuses what a resume could not restore, before anything is trained."""
    if hasattr(state, "state_dict") and hasattr(state, "load_state_dict"):
        return
    if not isinstance(state, dict):
        raise _arguments.wrong("state", "a dict, or an object with state_dict() and load_state_dict()", state)
    for name, value in state.items():
        # As torch's modules and optimizers give them.
        if hasattr(value, "_metadata") or (isinstance(value, dict) and value.keys() >= {"state", "param_groups"}):
            help = "a resume replaces the values of a dict, which reaches no module or optimizer: give a TrainState"
            raise Invalid(f"state[{name!r}] is a state dict; {help}", help=help, found="a state dict")


def put_back(state: Any, saved: Any) -> None:
    """Restores what a checkpoint holds."""
    if hasattr(state, "load_state_dict"):
        state.load_state_dict(saved)
        return
    if not isinstance(saved, Mapping):
        raise Mismatch("the checkpoint's state is no dict", expected="a dict", found=type(saved).__name__)
    # The caller holds the dict, so it is what changes.
    state.clear()
    state.update(saved)
