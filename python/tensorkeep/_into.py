"""Loading into existing tensors: no second copy of the model in memory, and all or nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from . import _state, _tensorkeep
from ._errors import Invalid, Mismatch
from ._files import Checkpoint, open

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
    was.

    Args:
        source: A file, a checkpoint of a run (``"runs/a@latest"``), or an open checkpoint.
        target: A module, or a dict of tensors or arrays by name.
        group: Which group of the file, as its names begin: tensors named ``model/…``. The empty text is for files
            without groups, such as :func:`tensorkeep.torch.save_file` makes.
        strict: Whether names that only one side has are an error. Shapes and dtypes always have to match.

    Returns:
        What was loaded, and what only one side has.

    Raises:
        Mismatch: Names, shapes or dtypes differ; ``report`` has all of them.

    Example:
        >>> import tensorkeep, numpy
        >>> _ = tensorkeep.save({"model": {"w": numpy.ones(3)}}, "into.tkeep")
        >>> weights = {"w": numpy.zeros(3)}
        >>> tensorkeep.load_into("into.tkeep", weights).loaded
        ['w']
        >>> weights["w"]
        array([1., 1., 1.])
    """
    if not isinstance(source, Checkpoint):
        with open(source, mmap="auto", verify="open") as checkpoint:
            return load_into(checkpoint, target, group=group, strict=strict)
    targets = _targets(target, escaped=source._types is not None)
    prefix = f"{group}/" if group else ""
    there = {name.removeprefix(prefix): info for name, info in source.infos().items() if name.startswith(prefix)}
    report = LoadReport([], [], [name for name in there if name not in targets], {})
    for name, tensor in targets.items():
        info = there.get(name)
        if info is None:
            report.missing.append(name)
            continue
        _check_target(name, tensor)
        expected, found = f"{_dtype(tensor)} {list(tensor.shape)}", f"{info.dtype} {list(info.shape)}"
        if expected == found:
            report.loaded.append(name)
        else:
            report.mismatched[name] = (expected, found)
    if report.mismatched or strict and (report.missing or report.unexpected):
        raise _mismatch(source, group, report)
    views = source.tensors
    # All are verified before the first is copied.
    pairs = [(targets[name], _like(targets[name], views[prefix + name])) for name in report.loaded]
    for tensor, loaded in pairs:
        _copy(tensor, loaded)
    return report


def _targets(target: Any, escaped: bool) -> dict[str, Any]:
    """Tensors by the names that they have in a file: :func:`save` escapes keys, and other writers do not."""
    state = target.state_dict() if hasattr(target, "state_dict") else target
    if not isinstance(state, Mapping):
        kind = type(target).__name__
        raise Invalid(f"a {kind} has no tensors by name", expected="a module or a dict of tensors", found=kind)
    flat: dict[str, Any] = {}
    names = _state.segments(state, "") if escaped else map(str, state)
    for name, value in zip(names, state.values()):
        if isinstance(value, Mapping):
            found = {f"{name}/{inner}": tensor for inner, tensor in _targets(value, escaped).items()}
        else:
            # Of its type: a lazy parameter has no shape yet, and is refused by name.
            is_tensor = hasattr(type(value), "dtype") and hasattr(type(value), "shape")
            found = {name: value} if is_tensor else {}
        twice = flat.keys() & found.keys()
        if twice:
            raise Invalid(f"two tensors of the target would be {min(twice)!r} in the file", found=min(twice))
        flat.update(found)
    return flat


def _is_torch(tensor: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(tensor, torch.Tensor)


def _dtype(tensor: Any) -> str:
    if _is_torch(tensor):
        from ._torch import NAMES

        return NAMES.get(tensor.dtype, str(tensor.dtype))
    from ._numpy import NAMES as NUMPY_NAMES

    return NUMPY_NAMES.get(tensor.dtype.name, str(tensor.dtype))


def _check_target(name: str, tensor: Any) -> None:
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
        elif any(size > 1 and stride == 0 for size, stride in zip(tensor.shape, tensor.stride())):
            why = "is expanded: several of its elements share memory"
    elif not getattr(getattr(tensor, "flags", None), "writeable", False):
        why = "cannot be written"
    if why:
        raise Invalid(f"{name}: the target {why}", expected="a tensor whose elements can be written", found=why)


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
    lines = []
    for name, (expected, found) in report.mismatched.items():
        lines.append(f"{name}: expected {expected}, found {found}")
    for name in report.missing:
        near = _tensorkeep.nearest_name(name, report.unexpected)
        lines.append(f"{name}: missing" + (f"; did you mean {near}?" if near else ""))
    lines += [f"{name}: not in the target" for name in report.unexpected]
    shown = "\n  ".join(lines[:20]) + (f"\n  and {len(lines) - 20} more" if len(lines) > 20 else "")
    what = f"group {group!r}" if group else "its tensors"
    return Mismatch(f"{source.path}: {what} and the target differ:\n  {shown}", report=report, object=source.path)
