"""torch's tensors and types in states. Imported only where torch is."""

from __future__ import annotations

from typing import Any, Callable

import torch

from . import _arguments
from ._errors import Unsupported
from ._paths import SHORT, check_name, refusal
from ._walk import ENCODERS, Walk
from ._warn import warn

__all__ = ["DECODERS", "DTYPES", "advice_on", "from_view", "learn"]

#: Our names of torch's dtypes.
NAMES: dict[torch.dtype, str] = {
    torch.bool: "bool",
    torch.uint8: "u8",
    torch.int8: "i8",
    torch.int16: "i16",
    torch.int32: "i32",
    torch.int64: "i64",
    torch.float16: "f16",
    torch.bfloat16: "bf16",
    torch.float32: "f32",
    torch.float64: "f64",
    torch.complex64: "c64",
    torch.complex128: "c128",
}
for _torch_name, _name in (
    ("uint16", "u16"),
    ("uint32", "u32"),
    ("uint64", "u64"),
    ("float8_e4m3fn", "f8e4m3fn"),
    ("float8_e4m3fnuz", "f8e4m3fnuz"),
    ("float8_e5m2", "f8e5m2"),
    ("float8_e5m2fnuz", "f8e5m2fnuz"),
    ("float8_e8m0fnu", "f8e8m0fnu"),
):
    if hasattr(torch, _torch_name):
        NAMES[getattr(torch, _torch_name)] = _name

#: And back.
DTYPES: dict[str, torch.dtype] = {name: dtype for dtype, name in NAMES.items()}

_COMPLEX = ("c64", "c128")
#: What is said of a nested tensor, and what to do.
_NESTED = ("a nested tensor", "store list(unbind()) of it")
#: The same of one whose storage `resize_` made smaller than the tensor: reading it reads other memory.
_FREED = ("a tensor whose memory was freed", "gather it first: FSDP frees what is on other ranks")


def _tensor(walk: Walk, tensor: torch.Tensor, path: str) -> None:
    # Of a hundred thousand tensors each question here costs 20 ms.
    name, needs_grad = NAMES.get(tensor.dtype), tensor.requires_grad
    try:
        if name is None or not tensor.is_cpu:
            tensor, name = _elsewhere(walk, tensor, path, name)
        if not tensor.is_contiguous() or tensor.is_neg() or (name in _COMPLEX and tensor.is_conj()):
            tensor = _row_major(walk, tensor, path)
        elif tensor.untyped_storage().nbytes() < tensor.storage_offset() * tensor.element_size() + tensor.nbytes:
            _check_held(tensor, path)
        address = tensor.data_ptr()
        shape = tensor.shape
    except RuntimeError:
        # Only tensors without a storage have no address.
        _refuse(tensor, path, name)
        raise
    if not path or len(path) > SHORT:
        check_name(path)
    walk.tensors.append((path, name, shape, address, tensor))
    walk.frameworks["torch"].append(path)
    if needs_grad:
        walk.kinds[path] = "requires_grad"


def _elsewhere(walk: Walk, tensor: torch.Tensor, path: str, name: str | None) -> tuple[torch.Tensor, str]:
    """A tensor of another device, on the CPU."""
    _refuse(tensor, path, name)
    _check_held(tensor, path)
    key = ("device", tensor.device, tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
    copied = walk.copies.get(key)
    if copied is None:
        copied = walk.copies[key] = tensor.detach().cpu()
    return copied, NAMES[tensor.dtype]


def advice_on(dtype: torch.dtype) -> str:
    """What to store of a tensor whose dtype no file has."""
    if dtype.is_complex:
        return "store torch.view_as_real() of it"
    if str(dtype).startswith(("torch.qint", "torch.quint")):
        return "store dequantize() of it, or int_repr() and its scale"
    # A scalar, and rows that are not contiguous, have no view of narrower elements.
    return f"store {'' if dtype.itemsize == 1 else 'reshape(-1).'}view(torch.uint8) of it"


def _refuse(tensor: torch.Tensor, path: str, name: str | None) -> None:
    """Refuses tensors whose values no file can hold."""
    if tensor.is_nested:
        raise refusal(path, *_NESTED)
    if tensor.layout is not torch.strided:
        raise refusal(path, f"a tensor of layout {tensor.layout}", "store to_dense() of it, or indices() and values()")
    if tensor.is_meta:
        raise refusal(path, "a tensor on the meta device, which has no values", "materialise it before saving")
    if name is None:
        raise refusal(path, f"a tensor of {tensor.dtype}", advice_on(tensor.dtype))
    try:
        tensor.data_ptr()
    except RuntimeError as error:
        raise refusal(path, f"a tensor without memory of its own: {error}", "store it outside of the transform") from error


def _check_held(tensor: torch.Tensor, path: str) -> None:
    """Refuses a tensor that its storage does not hold any more."""
    if not is_held(tensor):
        raise refusal(path, *_FREED)


def is_held(tensor: torch.Tensor) -> bool:
    """Whether a tensor's storage has all of its elements: `resize_` can make it smaller than the tensor."""
    last = tensor.storage_offset() + sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return not tensor.numel() or tensor.untyped_storage().nbytes() >= (last + 1) * tensor.element_size()


def _row_major(walk: Walk, tensor: torch.Tensor, path: str) -> torch.Tensor:
    """A copy in row-major order, one for all names of the same memory."""
    tensor = tensor.detach()
    _check_held(tensor, path)
    key = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride(), tensor.is_conj(), tensor.is_neg())
    copied = walk.copies.get(key)
    if copied is None:
        copied = tensor.resolve_conj().resolve_neg().contiguous()
        # The tensor is kept as well: its address must not become another's while this walk lasts.
        walk.copies[key], walk.copies[key, "of"] = copied, tensor
    return copied


def _parameter(walk: Walk, parameter: torch.nn.Parameter, path: str) -> None:
    _tensor(walk, parameter.data, path)
    walk.kinds[path] = "Parameter" if parameter.requires_grad else "Parameter-frozen"


def _kind(name: str, make: Callable[[Any], Any]) -> Callable[[Walk, Any, str], Any]:
    def encoder(walk: Walk, value: Any, path: str) -> Any:
        walk.kinds[path] = name
        return make(value)

    return encoder


ENCODERS[torch.Tensor] = _tensor
ENCODERS[torch.nn.Parameter] = _parameter
ENCODERS[torch.dtype] = _kind("torch.dtype", lambda dtype: str(dtype).removeprefix("torch."))
ENCODERS[torch.device] = _kind("torch.device", str)
ENCODERS[torch.Size] = _kind("torch.Size", list)


def _nested(walk: Walk, tensor: torch.Tensor, path: str) -> None:
    raise refusal(path, *_NESTED)


def _lazy(walk: Walk, tensor: Any, path: str) -> None:
    raise refusal(path, "a parameter without a shape yet", "run the module once before saving")


def learn(kind: type) -> None:
    """All types that are stored are above. Subclasses are refused; of some it is known what to do."""
    if kind.__name__ == "NestedTensor":
        ENCODERS[kind] = _nested
    if issubclass(kind, torch.nn.parameter.UninitializedTensorMixin):
        ENCODERS[kind] = _lazy


def _dtype(value: Any) -> torch.dtype:
    # Not by `getattr`, which imports submodules of that name.
    found = vars(torch).get(value) if type(value) is str else None
    if not isinstance(found, torch.dtype):
        raise ValueError(value)
    return found


def _device(value: Any) -> torch.device:
    if type(value) is not str:
        raise ValueError(value)
    return torch.device(value)


def _size(value: Any) -> torch.Size:
    if type(value) is not list:
        raise ValueError(value)
    return torch.Size(value)


DECODERS: dict[str, Callable[[Any], Any]] = {"torch.dtype": _dtype, "torch.device": _device, "torch.Size": _size}


def dtype_of(view: Any) -> torch.dtype:
    """What a tensor of a file is in torch."""
    dtype = DTYPES.get(view.dtype)
    if dtype is None:
        dtype = torch.uint8
        if view.dtype != "opaque":
            warn(f"torch has no {view.dtype}: its bytes come as uint8; tensorkeep.numpy has it")
    return dtype


def from_view(view: Any, kind: str, device: Any) -> torch.Tensor:
    """A tensor over a view's memory, which it may change."""
    dtype = dtype_of(view)
    if view.nbytes == 0:
        tensor = torch.empty(view.shape, dtype=dtype)
    else:
        shape = view.shape
        tensor = torch.frombuffer(view, dtype=dtype)
        if len(shape) != 1:
            tensor = tensor.view(shape)
    if device is not None:
        tensor = _moved(tensor, device)
    if kind == "torch":
        return tensor
    # A file may say it of whole numbers, which have no gradient.
    has_gradient = tensor.is_floating_point() or tensor.is_complex()
    if kind == "Parameter" or kind == "Parameter-frozen":
        return torch.nn.Parameter(tensor, requires_grad=kind == "Parameter" and has_gradient)
    return tensor.requires_grad_() if kind == "requires_grad" and has_gradient else tensor


def _moved(tensor: torch.Tensor, device: Any) -> torch.Tensor:
    try:
        where = torch.device(device)
    except (RuntimeError, TypeError, ValueError) as error:
        raise _arguments.wrong("map_location", "a device, as 'cpu' or 'cuda:1'", device) from error
    if where.type == "cuda" and not torch.cuda.is_available():
        raise Unsupported("map_location: this process has no CUDA", found=str(where), help="load to the CPU")
    return tensor.to(where)
