"""Parts of a training: whether a state fits one before it is loaded, and what was there if loading it fails."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ._paths import nearest

__all__ = ["all_or_nothing", "differences", "is_extra", "is_lazy", "is_module", "is_part", "is_tensor", "kind_of",
           "loads_as_compared", "names_differ", "of_a_wrapper"]  # fmt: skip

#: What torch's `DataParallel` and `compile` put before the names of the module that they wrap.
_WRAPPERS = ("module.", "_orig_mod.")
#: What schedulers of torch add to an optimizer's groups of parameters.
_OF_SCHEDULERS = {"params", "param_names", "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum", "swa_lr"}


def is_part(value: Any) -> bool:
    """Whether it can be captured and restored."""
    return hasattr(value, "state_dict") and hasattr(value, "load_state_dict")


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor or an array: of its type, as a parameter without a shape has none to show."""
    return hasattr(type(value), "dtype") and hasattr(type(value), "shape")


def is_module(value: Any) -> bool:
    """Whether it is a module of torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def is_extra(key: Any) -> bool:
    """Whether it is the key of what a module keeps beside its tensors, of whatever length."""
    return str(key).rpartition(".")[2] == "_extra_state"


def loads_as_compared(part: Any) -> bool:
    """Whether nothing but torch's own code loads a state into it, which does not fail with one that was compared."""

    def is_own(module: Any) -> bool:
        methods = (module.load_state_dict, module._load_from_state_dict, module.set_extra_state)
        hooks = (module._load_state_dict_pre_hooks, module._load_state_dict_post_hooks)
        return not any(hooks) and all(method.__module__.startswith("torch.nn.") for method in methods)

    return is_module(part) and all(map(is_own, part.modules()))


def is_lazy(value: Any) -> bool:
    """Whether it is a parameter of torch that gets its shape later."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor) and bool(torch.nn.parameter.is_lazy(value))


def _has_groups(part: Any) -> bool:
    return hasattr(part, "param_groups")


def kind_of(part: Any) -> str | None:
    """The class of an optimizer or a scheduler, whose states say nothing of it themselves, or None."""
    torch = sys.modules.get("torch")
    schedulers = () if torch is None else (torch.optim.lr_scheduler.LRScheduler,)
    kind = type(part)
    return f"{kind.__module__}.{kind.__qualname__}" if _has_groups(part) or isinstance(part, schedulers) else None


def names_differ(expected: Any, found: Any, where: str) -> list[str]:
    """What only one side has, in words, with the name that was meant, perhaps."""
    missing = [name for name in expected if name not in found]
    unexpected = [name for name in found if name not in expected]
    lines = []
    for name in missing:
        near = nearest(str(name), map(str, unexpected))
        lines.append(f"{name}: missing" + (f"; did you mean {near}?" if near else ""))
    return [*lines, *(f"{name}: not in {where}" for name in unexpected)]


def of_a_wrapper(missing: Sequence[str], unexpected: Sequence[str]) -> str | None:
    """What to do where one side is a module that was wrapped, and the other is not; else None."""
    for prefix in _WRAPPERS:
        if missing and sorted(missing) == sorted(prefix + name for name in unexpected):
            return f"the names of the target begin with {prefix!r}, as of a wrapped module: load into its {prefix[:-1]}"
        if missing and sorted(unexpected) == sorted(prefix + name for name in missing):
            how = "load() it, and torch's consume_prefix_in_state_dict_if_present takes that away"
            return f"the names of the file begin with {prefix!r}, as of a wrapped module: {how}"
    return None


def differences(part: Any, state: Any, kind: str | None = None) -> list[str]:
    """How a state differs from what a part takes, as far as that can be told before it is loaded.

    Args:
        part: A module, an optimizer, a scheduler; of others nothing is known.
        state: What is to be loaded.
        kind: The class whose state it is, where that is known.
    """
    mine = kind_of(part)
    if not is_module(part) and mine is None:
        return []
    if not isinstance(state, Mapping):
        return [f"expected a dict, found a {type(state).__name__}"]
    here = part.state_dict()
    if is_module(part):
        return _in_tensors(here, state)
    if _has_groups(part):
        return _in_groups(part, here, state, kind)
    other_kind = kind != mine and (kind is not None or here.keys() - state.keys() and state.keys() - here.keys())
    return [_of_another_kind(mine, kind, here.keys(), state.keys())] if other_kind and here.keys() != state.keys() else []


def _in_tensors(here: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    lines = names_differ(here, state, "the module")
    help = of_a_wrapper([name for name in here if name not in state], [name for name in state if name not in here])
    if help:
        lines.insert(0, help)
    for key in here:
        # What a module keeps beside its tensors has the length that it has.
        if key in state and not is_extra(key) and not is_lazy(here[key]):
            mine, its = _described(here[key]), _described(state[key])
            if mine != its:
                lines.append(f"{key}: expected {mine}, found {its}")
    return lines


def _described(value: Any) -> str:
    if not is_tensor(value):
        return "a plain value"
    return "a parameter without a shape" if is_lazy(value) else f"{value.dtype} {list(value.shape)}"


def _in_groups(part: Any, here: Mapping[str, Any], state: Mapping[str, Any], kind: str | None) -> list[str]:
    """What torch would refuse behind the first part, groups of another length, and what it would take: the state of
    another kind of optimizer.
    """
    if "param_groups" not in here:
        return []
    groups: Any = state.get("param_groups")
    if not _are_groups(groups):
        return ["it has no param_groups"]
    if not isinstance(state.get("state", {}), Mapping):
        return [f"state: expected a dict, found a {type(state['state']).__name__}"]
    mine, its = ([len(group["params"]) for group in side] for side in (here["param_groups"], groups))
    options = [{key for group in side for key in group} for side in (here["param_groups"], groups)]
    ours, theirs = (found - _OF_SCHEDULERS for found in options)
    # A version more or less has more or fewer options; another kind has both.
    if ours - theirs and theirs - ours or kind not in (None, kind_of(part)) and ours != theirs:
        return [_of_another_kind(kind_of(part), kind, ours, theirs)]
    if len(mine) != len(its):
        return [f"expected {len(mine)} groups of parameters, found {len(its)}"]
    both = enumerate(zip(mine, its))
    return [f"group {i}: expected {ours} parameters, found {theirs}" for i, (ours, theirs) in both if ours != theirs]


def _are_groups(groups: Any) -> bool:
    def is_group(group: Any) -> bool:
        return isinstance(group, Mapping) and isinstance(group.get("params"), (list, tuple))

    return isinstance(groups, (list, tuple)) and all(map(is_group, groups))


def _of_another_kind(mine: str | None, its: str | None, ours: Any, theirs: Any) -> str:
    def only(some: Any, others: Any) -> str:
        return ", ".join(sorted(map(str, some - others))) or "nothing more"

    found = its or "another kind"
    return f"expected the state of {mine}, with {only(ours, theirs)}; found that of {found}, with {only(theirs, ours)}"


@contextlib.contextmanager
def all_or_nothing(parts: Mapping[str, Any]) -> Iterator[None]:
    """Keeps what parts hold, on the CPU, and puts it back where loading fails, whatever it has changed by then."""
    kept = {name: _Kept(part) for name, part in parts.items()}
    try:
        yield
    except BaseException as error:
        for name, was in kept.items():
            was.put_back(name, error)
        raise


class _Kept:
    """What a part held."""

    def __init__(self, part: Any) -> None:
        self.part = part
        self.attributes = dict(getattr(part, "__dict__", {}))
        #: Dicts and lists, and what they had in them; tensors, their class and memory, and their values.
        self.containers: list[tuple[Any, Any]] = []
        self.tensors: list[tuple[Any, type, Any, Any]] = []
        if is_module(part):
            self._keep([of for module in part.modules() for of in (module._parameters, module._buffers)], parameters=True)
        elif _has_groups(part):
            self._keep([getattr(part, "state", {}), part.param_groups], parameters=False)
        live = {tensor.data_ptr() for tensor, *_ in self.tensors if not is_lazy(tensor) and _has_memory(tensor)}
        self.state = copied(part.state_dict(), live)

    def _keep(self, todo: list[Any], *, parameters: bool) -> None:
        torch, seen = sys.modules.get("torch"), set()
        while todo:
            value = todo.pop()
            if id(value) in seen:
                continue  # Tied ones once.
            seen.add(id(value))
            if isinstance(value, (dict, list)):
                self.containers.append((value, copy.copy(value)))
                todo += value.values() if isinstance(value, dict) else value
            elif torch is not None and isinstance(value, torch.Tensor) and (parameters or not isinstance(value, torch.nn.Parameter)):
                self.tensors.append((value, type(value), value.data, _copied_tensor(value)))

    def put_back(self, name: str, error: BaseException) -> None:
        """Everything as it was; what cannot be told to the part itself is set where it is."""
        self._put_back_here()
        try:
            self.part.load_state_dict(self.state)
        except Exception as failed:
            if hasattr(self.part, "__dict__"):
                vars(self.part).clear()
                vars(self.part).update(self.attributes)
            kind = type(failed).__name__
            error.add_note(f"{name} refused what it had held, too ({kind}: {failed}): its attributes were put back")
            self._put_back_here()
        else:
            if is_module(self.part):
                self._put_back_here()  # Its code may have drawn, or counted.

    def _put_back_here(self) -> None:
        for of, was in self.containers:
            of.clear()
            of.update(was) if isinstance(of, dict) else of.extend(was)
        for tensor, kind, data, values in self.tensors:
            if type(tensor) is not kind:
                tensor.__class__ = kind  # A parameter that got its shape.
            tensor.data = data
            if values is not None:
                tensor.data.copy_(values)


def _has_memory(tensor: Any) -> bool:
    return bool(not tensor.is_meta and tensor.layout is sys.modules["torch"].strided and tensor.numel())


def _copied_tensor(tensor: Any) -> Any:
    """Its values, or None where it has none."""
    if is_lazy(tensor) or tensor.is_meta:
        return None
    return tensor.detach().to("cpu", copy=True)


def copied(value: Any, live: set[int] = frozenset()) -> Any:  # type: ignore[assignment]
    """A copy of a state on the CPU, but for tensors at addresses that are kept elsewhere."""
    kind = type(value)
    if kind in (list, tuple):
        return kind(copied(item, live) for item in value)
    if isinstance(value, dict) and kind.__module__ in ("builtins", "collections") and kind.__name__.endswith("ict"):
        made = copy.copy(value)  # With the attributes that torch's have.
        for key, item in value.items():
            made[key] = copied(item, live)
        return made
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(value, torch.Tensor):
        if is_lazy(value) or value.is_meta or (_has_memory(value) and value.data_ptr() in live):
            return value
        return value.detach().to("cpu", copy=True).requires_grad_(value.requires_grad)
    return copy.deepcopy(value)
