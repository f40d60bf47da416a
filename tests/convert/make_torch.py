"""Makes torch's files in tests/convert/torch, and their contents in a form that is readable without torch.

    pip install numpy torch && python3 tests/convert/make_torch.py

What is expected is taken from `torch.load` of each file, with weights_only=True where torch reads it so, and written to
expected.json: for each file its tensors (name, dtype, shape, bytes), which of them are ties, its records, and what is lost.
The flattening is written down once more here, in Python, so that two readers of the same file have to agree.
"""

import argparse
import collections
import json
import os
import struct
import sys
import zipfile

import numpy as np
import torch

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch")
os.makedirs(HERE, exist_ok=True)
os.chdir(HERE)
torch.manual_seed(7)

DTYPES = {
    "bool": "bool", "uint8": "u8", "int8": "i8", "uint16": "u16", "int16": "i16", "uint32": "u32", "int32": "i32",
    "uint64": "u64", "int64": "i64", "float16": "f16", "bfloat16": "bf16", "float32": "f32", "float64": "f64",
    "complex64": "c64", "complex128": "c128", "float8_e4m3fn": "f8e4m3fn", "float8_e4m3fnuz": "f8e4m3fnuz",
    "float8_e5m2": "f8e5m2", "float8_e5m2fnuz": "f8e5m2fnuz", "float8_e8m0fnu": "f8e8m0fnu",
}  # fmt: skip
NOTHING = object()


def raw(tensor):
    """A tensor's values in row-major order, little-endian."""
    if tensor.numel() == 0:
        return b""
    if tensor.is_complex() or tensor.is_floating_point() or tensor.is_neg():
        tensor = tensor.resolve_conj().resolve_neg()
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def name_of(dtype):
    return str(dtype).removeprefix("torch.")


class Flat:
    """The expected contents of one file."""

    def __init__(self):
        self.tensors, self.seen, self.records, self.lost = [], {}, {}, []

    def tensor(self, path, dtype, shape, data, identity):
        entry = {"name": path, "dtype": dtype, "shape": list(shape), "bytes": data.hex(), "identity": identity}
        first = self.seen.setdefault(identity, path)
        if first != path and data:
            entry["tied"] = first
        self.tensors.append(entry)

    def strided(self, path, tensor):
        name = name_of(tensor.dtype)
        identity = (
            tensor.untyped_storage()._cdata, tensor.storage_offset(), tuple(tensor.shape), tensor.stride(), name,
            tensor.is_conj(), tensor.is_neg(),
        )  # fmt: skip
        data = raw(tensor)
        if name in DTYPES:
            self.tensor(path, DTYPES[name], tensor.shape, data, identity)
            return NOTHING
        self.tensor(path, "opaque", [len(data)], data, identity)
        return {"dtype": f"torch.{name}", "shape": list(tensor.shape)}

    def sparse(self, path, tensor):
        if tensor.layout == torch.sparse_coo:
            parts = {"indices": tensor._indices(), "values": tensor._values()}
            more = {"is_coalesced": tensor.is_coalesced()}
        elif tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
            parts = {n: getattr(tensor, n)() for n in ("crow_indices", "col_indices", "values")}
            more = {}
        else:
            parts = {n: getattr(tensor, n)() for n in ("ccol_indices", "row_indices", "values")}
            more = {}
        for name, part in parts.items():
            self.strided(f"{path}.{name}", part)
        return {"layout": str(tensor.layout), "shape": list(tensor.shape), **more}

    def quantised(self, path, tensor):
        ints = tensor.int_repr()
        self.tensor(path, DTYPES[name_of(ints.dtype)], ints.shape, raw(ints), object())
        left = {
            "qscheme": str(tensor.qscheme()), "dtype": str(tensor.dtype), "shape": list(tensor.shape),
        }  # fmt: skip
        if tensor.qscheme() == torch.per_tensor_affine:
            return {**left, "scale": tensor.q_scale(), "zero_point": tensor.q_zero_point()}
        self.strided(f"{path}.scales", tensor.q_per_channel_scales())
        self.strided(f"{path}.zero_points", tensor.q_per_channel_zero_points())
        return {**left, "axis": tensor.q_per_channel_axis()}

    def take(self, path, value):
        """Takes tensors out; returns the rest."""
        if isinstance(value, torch.Tensor):
            if value.is_meta:
                self.lost.append(path)
                return NOTHING
            if value.layout != torch.strided:
                return self.sparse(path, value)
            if value.is_quantized:
                return self.quantised(path, value)
            left = self.strided(path, value)
            attributes = {k: v for k, v in getattr(value, "__dict__", {}).items() if not k.startswith("_")}
            return self.map(path, attributes.items()) if attributes else left
        if isinstance(value, np.ndarray):
            if value.dtype == object:
                return self.list(path, value.tolist())
            plain = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<")).reshape(value.shape)
            known = {"b": "bool", "f": "f", "i": "i", "u": "u", "c": "c"}.get(value.dtype.kind)
            if known is None or value.dtype.itemsize > 8 and value.dtype.kind != "c":
                shape = [*value.shape, value.dtype.itemsize]
                self.tensor(path, "opaque", shape, value.tobytes(), id(value))
                descr = str(np.lib.format.dtype_to_descr(value.dtype)).lstrip("<|")
                return {"dtype": "numpy." + descr, "shape": list(value.shape)}
            dtype = known if known == "bool" else f"{known}{8 * value.dtype.itemsize}"
            self.tensor(path, dtype, value.shape, plain.tobytes(), id(value))
            return NOTHING
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, torch.nn.Module):
            return self.module(path, value)
        if isinstance(value, dict):
            return self.map(path, list(value.items()) + list(getattr(value, "__dict__", {}).items()))
        if isinstance(value, (list, tuple, collections.deque)):
            return self.list(path, value)
        if isinstance(value, (set, frozenset)):
            return self.list(path, list(value))
        if isinstance(value, argparse.Namespace) or type(value).__module__ == "__main__":
            return self.map(path, vars(value).items())
        if isinstance(value, (torch.dtype, torch.layout, torch.device)):
            return str(value)
        return value

    def module(self, path, module):
        pairs = []
        for name, value in vars(module).items():
            if name in ("_parameters", "_buffers", "_modules"):
                pairs += [(k, v) for k, v in value.items() if v is not None]
            elif not (name.startswith("_") and (not value or value is True)):
                pairs.append((name, value))
        return self.map(path, pairs)

    def map(self, path, pairs):
        pairs = list(pairs)
        left = {}
        for key, value in pairs:
            found = self.take(f"{path}.{key}" if path is not None else str(key), value)
            if found is not NOTHING:
                left[key] = found
        return left if left or not pairs else NOTHING

    def list(self, path, items):
        left = [self.take(f"{path}.{number}", item) for number, item in enumerate(items)]
        if left and all(item is NOTHING for item in left):
            return NOTHING
        return [None if item is NOTHING else item for item in left]

    def tell_apart(self):
        """Names that are there twice get numbers, also where they are named as ties."""
        taken = {entry["name"] for entry in self.tensors}
        seen, renamed = set(), {}
        for entry in self.tensors:
            name, number = entry["name"], 2
            if name in seen:
                while (free := f"{name}~{number}") in taken:
                    number += 1
                renamed[entry["identity"]] = entry["name"] = free
                taken.add(free)
            seen.add(name)
        for entry in self.tensors:
            if "tied" in entry:
                entry["tied"] = renamed.get(entry["identity"], entry["tied"])
            del entry["identity"]

    def root(self, value):
        if isinstance(value, torch.nn.Module):
            left = self.module(None, value)
        elif isinstance(value, dict):
            left = self.map(None, list(value.items()) + list(getattr(value, "__dict__", {}).items()))
        else:
            left = self.take("torch", value)
            left = NOTHING if left is NOTHING else {"torch": left}
        self.tell_apart()
        self.records = {} if left is NOTHING else {str(key): neutral(value) for key, value in left.items()}
        return {"tensors": self.tensors, "records": self.records, "lost": self.lost}


def neutral(value):
    """A value as JSON that tells all kinds apart."""
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**64 else {"map": {"int": hex(value)}}
    if isinstance(value, float):
        return {"float": struct.pack(">d", value).hex()}
    if isinstance(value, complex):
        return {"map": {"complex": [neutral(value.real), neutral(value.imag)]}}
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, (list, tuple)):
        return [neutral(item) for item in value]
    if isinstance(value, dict):
        if all(isinstance(key, str) for key in value):
            return {"map": {key: neutral(item) for key, item in value.items()}}
        return {"pairs": [[neutral_key(key), neutral(item)] for key, item in value.items()]}
    raise TypeError(f"{type(value)} {value!r}")


def neutral_key(key):
    """Records have no lists as keys."""
    return repr(key) if isinstance(key, tuple) else neutral(key)


def random(dtype, *shape):
    """Any bits, but for bool."""
    count = int(np.prod(shape, dtype=np.int64))
    if dtype == torch.bool:
        return (torch.arange(count) % 3 == 0).reshape(shape)
    width = torch.empty(0, dtype=dtype).element_size()
    data = torch.randint(0, 256, (max(count, 1) * width,), dtype=torch.uint8)
    return data.view(dtype)[:count].reshape(shape)


def layouts(name, dtype):
    """One dtype in every way to lie in a storage."""
    whole = random(dtype, 3, 4)
    yield f"{name}.whole", whole
    yield f"{name}.transposed", whole.t()
    yield f"{name}.row", whole[1]
    yield f"{name}.column", whole[:, 2]
    yield f"{name}.steps", whole[::2, 1::2]
    yield f"{name}.scalar", random(dtype, 1)[0]
    yield f"{name}.empty", whole[:0]
    yield f"{name}.expanded", random(dtype, 3)[None, :, None].expand(2, 3, 2)
    yield f"{name}.permuted", random(dtype, 2, 3, 2).permute(2, 0, 1)
    yield f"{name}.windows", random(dtype, 5).as_strided((4, 2), (1, 1))


def all_dtypes():
    state = {}
    for name in DTYPES:
        state.update(layouts(name, getattr(torch, name)))
    return state


def opaque_dtypes():
    state = {"plain": torch.arange(3.0)}
    for name in ("complex32", "float4_e2m1fn_x2"):
        dtype = getattr(torch, name, None)
        if dtype is None:
            continue
        width = torch.empty(0, dtype=dtype).element_size()
        state[name] = torch.arange(6 * width, dtype=torch.uint8).view(dtype)
    return state


def bits():
    """Views whose numbers torch negates when they are used."""
    state = {}
    for name in ("complex64", "complex128"):
        numbers = torch.tensor([1 + 2j, 3 - 4j, complex(0, -0.0), complex(float("inf"), 1)], dtype=getattr(torch, name))
        # Not zeros: torch's vectorised negation of those has another sign than its scalar one.
        whole = torch.tensor([1 + 2j, 3 - 4j], dtype=getattr(torch, name))
        state.update({
            f"{name}.plain": numbers, f"{name}.conj": numbers.conj(), f"{name}.again": numbers.conj(),
            f"{name}.imaginary": numbers.clone().conj().imag, f"{name}.real": numbers.clone().conj().real,
            f"{name}.adjoint": numbers.reshape(2, 2).mH, f"{name}.negative": torch._neg_view(whole),
            f"{name}.both": torch._neg_view(whole.conj()),
        })  # fmt: skip
    for name in ("float16", "bfloat16", "float32", "float64", "int8", "int64"):
        state[f"{name}.negative"] = torch._neg_view(torch.tensor([2, 1, -3, 127]).to(getattr(torch, name)))
    return state


def ties():
    whole = torch.arange(6.0)
    other = torch.arange(4.0)
    return {
        "a.b": whole, "a": {"b": other, "again": whole}, "c": whole, "d": other, "view": whole[:4], "view2": whole[:4],
        "reshaped": whole.reshape(2, 3), "reshaped2": whole.view(2, 3),
        "parameter": torch.nn.Parameter(whole), "empty": torch.zeros(0), "empty2": torch.zeros(0),
    }  # fmt: skip


def plain():
    """Everything that torch's own reader without code accepts as data, in every kind."""
    inner = collections.OrderedDict(weight=torch.ones(2), count=3)
    inner._metadata = collections.OrderedDict({"": {"version": 2}, "bn": {"version": 1}})
    return {
        "none": None, "yes": True, "no": False, "texts": ["", "ß \U0001f600", "a\nb"],
        "ints": [0, 255, 256, 65535, 65536, 2**31 - 1, 2**31, -1, -(2**31) - 1, 2**63 - 1, -(2**63)],
        "beyond": [2**63, 2**64 - 3, 2**64, 2**127 + 5, -(2**63) - 1, -(2**127), 10**60],
        "floats": [0.0, -0.0, 1.5, float("inf"), 5e-324, 1.7976931348623157e308], "complex": [1 + 2j, complex(0, -0.0)],
        "bytes": [b"ab", bytes(range(256))], "bytearray": bytearray(b"\x00\xff"), "set": {7}, "tuple": (1, ("a",)),
        "counter": collections.Counter({30: 1, 80: 2}), "ordered": inner, "size": torch.Size([2, 3]),
        "device": torch.device("cpu"), "dtype": torch.bfloat16, "layout": torch.strided, "empty": {}, "empty_list": [],
        "keys": {1: "int", "1": "text", (1, 2): "tuple", None: "none", b"ab": "bytes", 1.5: "float", (): "empty"},
        "nested": {"state": {0: {"exp_avg": torch.ones(3), "step": 5}, 1: {"exp_avg": torch.zeros(3), "step": 6}}},
        "mixed": [torch.ones(1), "text", {"t": torch.zeros(1)}], "parameter": torch.nn.Parameter(torch.ones(2)),
    }  # fmt: skip


def special():
    dense = torch.tensor([[0.0, 0.0, 3.0], [4.0, 0.0, 5.0]])
    blocks = torch.tensor([[1.0, 2.0, 0, 0], [3.0, 4.0, 0, 0]])
    numbers = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    with_state = torch.nn.Parameter(torch.ones(2))
    with_state.note = "kept"
    return {
        "plain": torch.arange(3.0), "coo": dense.to_sparse(), "csr": dense.to_sparse_csr(), "csc": dense.to_sparse_csc(),
        "bsr": blocks.to_sparse_bsr((2, 2)), "bsc": blocks.to_sparse_bsc((2, 2)),
        "hybrid": torch.sparse_coo_tensor([[0, 1]], [[1.0, 2.0], [3.0, 4.0]], (3, 2)),
        "qint8": torch.quantize_per_tensor(numbers, 0.1, 10, torch.qint8),
        "quint8": torch.quantize_per_tensor(numbers, 0.5, 3, torch.quint8).t(),
        "qint32": torch.quantize_per_tensor(numbers, 0.25, 0, torch.qint32),
        "channels": torch.quantize_per_channel(
            numbers, torch.tensor([0.1, 0.5], dtype=torch.float64), torch.tensor([1, 2]), 0, torch.qint8
        ),
        "meta": torch.empty(2, 3, device="meta"), "with_state": with_state,
    }  # fmt: skip


def training():
    net = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.25)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 80])
    net(torch.ones(4, 3)).sum().backward()
    optimizer.step()
    return {
        "model": net.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "epoch": 3,
        "rng": torch.get_rng_state(),
    }  # fmt: skip


class Attributes(dict):
    pass


class Items(list):
    pass


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 3)
        self.fc = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.ReLU())
        self.register_buffer("anchors", torch.arange(3.0))
        self.stride = 8


def python():
    """Files that torch reads only by running code: other classes, NumPy."""
    extended = Attributes(weight=torch.ones(2), lr=0.5)
    generator = np.random.Generator(np.random.PCG64(1))
    array = np.arange(6, dtype="f4").reshape(2, 3)
    return {
        "namespace": argparse.Namespace(lr=0.1, depth=18, name="resnet", weight=torch.zeros(1)), "extended": extended,
        "items": Items([1, torch.ones(1), "x"]), "default": collections.defaultdict(list, {"a": [1]}),
        "frozen": frozenset(["a"]), "deque": collections.deque([1.5, 2.5], maxlen=9), "net": Net(),
        "scalars": {
            "f64": np.float64(0.125), "f32": np.float32(0.5), "f16": np.float16(0.25), "i64": np.int64(-7),
            "u64": np.uint64(2**64 - 3), "i8": np.int8(-1), "bool": np.bool_(True), "c64": np.complex64(1 - 2j),
        },
        "arrays": {
            "plain": array, "columns": np.asfortranarray(array), "big": array.astype(">f4"), "again": array,
            "complex": np.array([1 + 2j, 3 - 4j], ">c16"), "bool": np.array([True, False]), "scalar": np.array(7, "i2"),
            "empty": np.zeros((0, 2)), "objects": np.array([1, "a", None], dtype=object), "text": np.array(["ab", "c"]),
        },
        "mt19937": np.random.RandomState(3).get_state(), "pcg64": generator.bit_generator.state,
    }  # fmt: skip


expected = {}


def save(name, value, weights_only=True, **options):
    torch.save(value, name, **options)
    expect(name, weights_only)


def expect(name, weights_only=True):
    expected[name] = Flat().root(torch.load(name, weights_only=weights_only))
    expected[name]["weights_only"] = weights_only


def deflate(source, target):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            new.writestr(member, old.read(member))


save("dtypes.pt", all_dtypes())
deflate("dtypes.pt", "deflated.pt")
expect("deflated.pt")
save("opaque.pt", opaque_dtypes())
save("bits.pt", bits())
save("ties.pt", ties())
save("plain.pt", plain())
for protocol in (3, 4, 5):
    save(f"plain-{protocol}.pt", plain(), weights_only=False, pickle_protocol=protocol)
save("special.pt", special())
save("training.pt", training())
save("tensor.pt", torch.arange(4.0))
save("list.pt", [torch.arange(2), "text", 5])
save("python.pt", python(), weights_only=False)
save("python-5.pt", python(), weights_only=False, pickle_protocol=5)
save("module.pt", Net(), weights_only=False)
old = {"_use_new_zipfile_serialization": False}
save("legacy.pth", {**ties(), **plain(), "half": torch.arange(3.0).half()}, **old)

with open("expected.json", "w") as out:
    json.dump(expected, out, separators=(",", ":"), sort_keys=True)
print(f"{len(expected)} files, {sum(os.path.getsize(name) for name in os.listdir('.'))} bytes", file=sys.stderr)
