"""Loading into existing tensors: no second copy of the model in memory, and all or nothing."""

from __future__ import annotations

import copy
import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from . import _arguments
from ._checkpoint import Checkpoint
from ._errors import Invalid, Mismatch
from ._files import open
from ._parts import all_or_nothing, differences, is_extra, is_lazy, is_module, is_part, is_tensor, loads_as_compared
from ._parts import names_differ, of_a_wrapper
from ._paths import segments
from ._sharing import contradicting, place_of

__all__ = ["LoadReport", "load_into"]


class LoadReport(NamedTuple):
    """What :func:`load_into` loaded, and what did not fit. Names are those in the file, where a ``/`` in a key that
    :func:`save` was given is ``~1``, and a ``~`` is ``~0``.
    """

    #: Names that were loaded.
    loaded: list[str]
    #: Names of the target that the checkpoint does not have.
    missing: list[str]
    #: Names of the checkpoint's group that the target does not have.
    unexpected: list[str]
    #: Names whose shape or dtype differ: what was expected, what was found.
    mismatched: dict[str, tuple[str, str]]


def load_into(
    source: str | os.PathLike[str] | Checkpoint,
    target: Any,
    *,
    group: str = "model",
    strict: bool = True,
) -> LoadReport:
    """Copies tensors of a checkpoint into those of ``target``.

    All names, shapes and dtypes are compared before the first byte is written: a target is loaded whole or left as it
    was. Of an object with ``load_state_dict`` that is called, with what else the group holds beside tensors; where it
    is not torch's own, what was there is kept meanwhile and put back if it raises.

    Args:
        source: A file, a checkpoint of a run (``"runs/a@latest"``), or an open checkpoint.
        target: A module, an optimizer, or a dict of tensors or arrays by name.
        group: Which group of the file, as its names begin: tensors named ``model/…``. The empty text is for files
            without groups, such as :func:`tensorkeep.torch.save_file` makes.
        strict: Whether names that only one side has are an error. Shapes and dtypes always have to match.

    Returns:
        What was loaded, and what only one side has.

    Raises:
        Mismatch: Names, shapes or dtypes differ; ``report`` has all of them. Or two tensors of the
            target share memory, and the file has different values for it.
        Invalid: A tensor of the target cannot be written, or is a copy, or a value of a dict is no tensor.

    Example:
        >>> import tensorkeep, numpy
        >>> _ = tensorkeep.save({"model": {"w": numpy.ones(3)}}, "into.tkeep")
        >>> weights = {"w": numpy.zeros(3)}
        >>> tensorkeep.load_into("into.tkeep", weights).loaded
        ['w']
        >>> weights["w"]
        array([1., 1., 1.])
    """
    group = _arguments.text("group", group)
    _arguments.flag("strict", strict)
    if not isinstance(source, Checkpoint):
        with open(source, mmap="auto", verify="open") as checkpoint:
            return load_into(checkpoint, target, group=group, strict=strict)
    if is_part(target):
        return _into_part(source, target, group, strict)
    escaped = source._types is not None
    targets = _targets(target, escaped)
    if hasattr(target, "state_dict"):
        _check_no_copies(target, targets, escaped)
    prefix = f"{group}/" if group else ""
    there = {name.removeprefix(prefix): info for name, info in source.infos().items() if name.startswith(prefix)}
    report = LoadReport([], [], [name for name in there if name not in targets], {})
    for name, tensor in targets.items():
        info = there.get(name)
        if info is None:
            report.missing.append(name)
            continue
        check_target(name, tensor)
        _compare(report, name, _described(tensor), f"{info.dtype} {list(info.shape)}")
    _refuse(source, group, report, strict)
    views = source.tensors
    # All are verified before the first is copied.
    pairs = [(targets[name], _like(targets[name], views[prefix + name])) for name in report.loaded]
    _check_shared(source, {name: targets[name] for name in report.loaded}, views, prefix)
    for tensor, loaded in pairs:
        _copy(tensor, loaded)
    return report


def _into_part(source: Checkpoint, part: Any, group: str, strict: bool) -> LoadReport:
    """By the object's own ``load_state_dict``: what ``state_dict`` gave may be copies, and more than tensors."""
    here, found = part.state_dict(), _group(source, group, "torch" if is_module(part) else None)
    if not isinstance(here, Mapping) or not isinstance(found, Mapping):
        kind = type(found if isinstance(here, Mapping) else part).__name__
        raise Invalid(f"a {kind} has no tensors by name", expected="a dict of tensors", found=kind)
    escaped, infos, prefix = source._types is not None, source.infos(), f"{group}/" if group else ""
    names, compared = _names(here, escaped), {}
    report = LoadReport([], [], [name for key, name in _names(found, escaped).items() if key not in here], {})
    for key, name in names.items():
        if key not in found:
            report.missing.append(name)
        elif is_module(part) and is_tensor(here[key]) and not is_lazy(here[key]) and not is_extra(key):
            check_target(name, here[key])
            compared[name] = here[key]
            info = infos.get(prefix + name)
            _compare(report, name, _described(here[key]), f"{info.dtype} {list(info.shape)}" if info else "a plain value")
        else:
            report.loaded.append(name)
    _refuse(source, group, report, strict)
    differ = [] if is_module(part) else differences(part, found)
    if differ:
        raise Mismatch(f"{source.path}: group {group!r} and the target differ:\n  " + "\n  ".join(differ), object=source.path)
    _check_shared(source, compared, source.tensors, prefix)
    given: Any = copy.copy(here) if isinstance(here, dict) else dict(here)
    given.update((key, found[key]) for key in here if key in found)
    with all_or_nothing({} if loads_as_compared(part) else {type(part).__name__: part}):
        part.load_state_dict(given)
    return report


def _names(state: Mapping[Any, Any], escaped: bool) -> dict[Any, str]:
    """The names of keys in a file: :func:`save` escapes them, and other writers do not."""
    return dict(zip(state, segments(state, "") if escaped else map(str, state)))


def _group(source: Checkpoint, group: str, framework: str | None) -> Any:
    """A group of a file as a nested state."""
    if not group and source._types is None:
        return {name: view.torch() if framework == "torch" else view.numpy() for name, view in source.tensors.items()}
    inside = None if not group else {name for name in source.infos() if f"{name}/".startswith(f"{group}/")}
    return source._group(group, inside, framework)


def _compare(report: LoadReport, name: str, expected: str, found: str) -> None:
    if expected == found:
        report.loaded.append(name)
    else:
        report.mismatched[name] = (expected, found)


def _refuse(source: Checkpoint, group: str, report: LoadReport, strict: bool) -> None:
    if report.mismatched or strict and (report.missing or report.unexpected):
        raise _mismatch(source, group, report)


def _targets(target: Any, escaped: bool) -> dict[str, Any]:
    """Tensors by the names that they have in a file."""
    state = target.state_dict() if hasattr(target, "state_dict") else target
    if not isinstance(state, Mapping):
        kind = type(target).__name__
        raise Invalid(f"a {kind} has no tensors by name", expected="a module or a dict of tensors", found=kind)
    flat: dict[str, Any] = {}
    for key, name in _names(state, escaped).items():
        value = state[key]
        if isinstance(value, Mapping):
            found = {f"{name}/{inner}": tensor for inner, tensor in _targets(value, escaped).items()}
        elif is_tensor(value):
            found = {name: value}
        else:
            kind, help = type(value).__name__, "load() gives values that are not"
            raise Invalid(f"{name}: a {kind} of the target is no tensor; {help}", found=kind, help=help)
        twice = flat.keys() & found.keys()
        if twice:
            raise Invalid(f"two tensors of the target would be {min(twice)!r} in the file", found=min(twice))
        flat.update(found)
    return flat


def _check_no_copies(target: Any, targets: dict[str, Any], escaped: bool) -> None:
    """Refuses an object that gives copies of what it holds, which would be filled in its place."""
    for name, again in _targets(target, escaped).items():
        if _address(again) != _address(targets[name]):
            what = f"{name}: state_dict() of the target gives a copy, and there is no load_state_dict()"
            help = "give it one, or pass a dict of its tensors"
            raise Invalid(f"{what}; {help}", expected="the tensor itself", found="a copy", help=help)


def _address(tensor: Any) -> Any:
    if _is_torch(tensor):
        return tensor.data_ptr() if tensor.numel() and not tensor.is_meta else 0
    return tensor.__array_interface__["data"][0] if getattr(tensor, "size", 0) and hasattr(tensor, "flags") else 0


def _is_torch(tensor: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(tensor, torch.Tensor)


def _dtype(tensor: Any) -> str:
    if _is_torch(tensor):
        from ._torch import NAMES

        return NAMES.get(tensor.dtype, str(tensor.dtype))
    from ._numpy import NAMES as NUMPY_NAMES

    return NUMPY_NAMES.get(tensor.dtype.name, str(tensor.dtype))


def _described(tensor: Any) -> str:
    return f"{_dtype(tensor)} {list(tensor.shape)}"


def _overlaps(shape: Sequence[int], strides: Sequence[int], item: int) -> bool:
    """Whether two elements may share memory: whether a step along one axis stays within what the shorter ones span."""
    span = item
    for stride, size in sorted((abs(stride), size) for stride, size in zip(strides, shape) if size > 1):
        if stride < span:
            return True
        span += stride * (size - 1)
    return False


def check_target(name: str, tensor: Any) -> None:
    """Refuses a tensor that cannot be written element by element."""
    why = None
    if _is_torch(tensor):
        import torch

        if torch.nn.parameter.is_lazy(tensor):
            why = "has no shape yet; run the module once"
        elif tensor.is_inference() and not torch.is_inference_mode_enabled():
            why = "was made in inference mode, outside of which it cannot be written"
        elif tensor.device.type == "meta":
            why = "is on meta, where it has no elements; make it with `to_empty`"
        elif tensor.layout != torch.strided:
            why = f"has the layout {tensor.layout}"
        elif tensor.numel() and _overlaps(tensor.shape, tensor.stride(), 1):
            why = "has elements that share memory"
    elif not getattr(getattr(tensor, "flags", None), "writeable", False):
        why = "cannot be written"
    elif hasattr(tensor, "mask"):
        why = "is masked, and no file holds a mask: pass its data"
    elif tensor.size and _overlaps(tensor.shape, tensor.strides, tensor.itemsize):
        why = "has elements that share memory"
    if why:
        raise Invalid(f"{name}: the target {why}", expected="a tensor whose elements can be written", found=why)


def _check_shared(source: Checkpoint, targets: Mapping[str, Any], views: Mapping[str, Any], prefix: str) -> None:
    """Refuses targets that share memory where the file has two values for it: one would be lost."""
    infos = source.infos()
    stored = {name: infos[prefix + name].alias_of or prefix + name for name in targets}
    places = [place_of(name, stored[name], tensor, _is_torch(tensor)) for name, tensor in targets.items()]
    two = contradicting([place for place in places if place], lambda name: views[prefix + name].view())
    if two:
        what = f"{source.path}: {two[0]} and {two[1]} share memory in the target, and the file has different values for it"
        raise Mismatch(what, object=source.path, help="give each memory of its own")


def _like(target: Any, view: Any) -> Any:
    return view.torch() if _is_torch(target) else view.numpy()


def _copy(target: Any, loaded: Any) -> None:
    if not _is_torch(target):
        target[...] = loaded
        return
    import torch

    with torch.no_grad():
        target.copy_(loaded)


def _mismatch(source: Checkpoint, group: str, report: LoadReport) -> Mismatch:
    lines = [f"{name}: expected {expected}, found {found}" for name, (expected, found) in report.mismatched.items()]
    lines += names_differ(report.missing, report.unexpected, "the target")
    shown = "\n  ".join(lines[:20]) + (f"\n  and {len(lines) - 20} more" if len(lines) > 20 else "")
    what = f"group {group!r}" if group else "its tensors"
    message = f"{source.path}: {what} and the target differ:\n  {shown}"
    help = None if report.loaded else of_a_wrapper(report.missing, report.unexpected) or _other_groups(source, group)
    return Mismatch(message, report=report, object=source.path, help=help)


def _other_groups(source: Checkpoint, group: str) -> str:
    """What else of a file may have been meant, where nothing of a group fits."""
    names = source.infos()
    groups = sorted({name.split("/", 1)[0] for name in names if "/" in name} - {group})
    if group and any(name.startswith(f"{group}.") for name in names):
        how = f"tensorkeep edit {source.path} --rename '^{re.escape(group)}\\.=>{group}/' -o NEW makes the group"
        return f"its names begin with '{group}.', as an import of nested dicts makes them: {how}"
    told = ['group="" takes the top level of the file'] if group else []
    if groups:
        told.append(f"its groups are {', '.join(map(repr, groups[:8]))}" + (", …" if len(groups) > 8 else ""))
    return "\n  ".join(told)
