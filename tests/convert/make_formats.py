"""Makes made/: files of every dtype and layout that numpy, ml_dtypes, safetensors and gguf write, and expected.json with
what is in them: for each tensor dtype, shape and bytes in row-major, little-endian order, as those libraries have them.

    pip install numpy ml_dtypes safetensors gguf && python3 tests/convert/make_formats.py

tests/convert_made.rs compares. Values are random bytes of a fixed seed: every bit pattern has to come through.
"""

import json
import os
import zipfile

import gguf
import ml_dtypes
import numpy as np
from safetensors import TensorSpec, serialize_file

HERE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "made")
os.makedirs(HERE, exist_ok=True)
os.chdir(HERE)
random = np.random.default_rng(17)
expected = {}

# NumPy's own dtypes, by ours.
NUMBERS = {
    "bool": "?", "u8": "u1", "i8": "i1", "u16": "u2", "i16": "i2", "u32": "u4", "i32": "i4", "u64": "u8", "i64": "i8",
    "f16": "f2", "f32": "f4", "f64": "f8", "c64": "c8", "c128": "c16",
}
SHAPES = [(), (2, 0, 3), (1, 5), (3, 4)]


def array(dtype, shape):
    """Random bytes as elements."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape, dtype=np.int64))
    if dtype == np.bool_:
        return random.integers(0, 2, count).astype(bool).reshape(shape)
    return np.frombuffer(random.bytes(count * dtype.itemsize), dtype).reshape(shape)


def entry(dtype, array, shape=None):
    little = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"))
    return {"dtype": dtype, "shape": list(array.shape if shape is None else shape), "bytes": little.tobytes().hex()}


def opaque(array):
    """Elements that are no numbers: their bytes as they lie, one more axis."""
    shape = [*array.shape, array.dtype.itemsize]
    return {"dtype": "opaque", "shape": shape, "bytes": np.ascontiguousarray(array).tobytes().hex()}


def layouts(array):
    """The same elements as NumPy can hold and save them."""
    yield "c", np.ascontiguousarray(array)
    yield "fortran", np.asfortranarray(array)
    yield "big", array.astype(array.dtype.newbyteorder(">"))
    yield "big-fortran", np.asfortranarray(array.astype(array.dtype.newbyteorder(">")))
    if array.ndim:
        yield "reversed", np.ascontiguousarray(array[::-1])[::-1]


# .npz of everything, stored and deflated; a few .npy.
arrays, says = {}, {}
for ours, code in NUMBERS.items():
    for shape in SHAPES:
        for layout, values in layouts(array(code, shape)) if shape == SHAPES[-1] else [("c", array(code, shape))]:
            name = f"{ours}/{'x'.join(map(str, shape))}/{layout}"
            arrays[name], says[name] = values, entry(ours, values)
arrays["bf16"] = array(np.uint16, (3, 4)).view(ml_dtypes.bfloat16)
says["bf16"] = {"dtype": "bf16", "shape": [3, 4], "bytes": arrays["bf16"].tobytes().hex()}
arrays["f8e5m2"] = array(np.uint8, (7,)).view(ml_dtypes.float8_e5m2)
says["f8e5m2"] = {"dtype": "f8e5m2", "shape": [7], "bytes": arrays["f8e5m2"].tobytes().hex()}
for small in ["float8_e4m3fn", "float8_e8m0fnu", "float4_e2m1fn", "float6_e2m3fn", "int4", "uint2"]:
    arrays[small] = array(np.uint8, (2, 3)).view(getattr(ml_dtypes, small))
    says[small] = {"dtype": "opaque", "shape": [2, 3, 1], "bytes": arrays[small].tobytes().hex()}
record = np.dtype([("shape", "<f4"), ("b", "<i2", (2, 3)), ("c", [("d", "u1")])])
others = {
    "void": array("V2", (4,)),
    "text": np.array(["a", "ß", "模型"]),
    "text-fortran": np.asfortranarray(np.array([["a", "b"], ["c", "d"]])),
    "bytes": np.array([b"abc", b""]),
    "empty-text": np.zeros((2, 3), "S0"),
    "dates": np.array(["2026-11-29", "NaT"], "M8[s]"),
    "spans": np.array([1, 2, 3], "m8[D]"),
    "records": array(record, (2, 2)),
}
for name, values in others.items():
    arrays[name], says[name] = values, opaque(values)
np.savez("everything.npz", **arrays)
np.savez_compressed("deflated.npz", **arrays)
expected["everything.npz"] = expected["deflated.npz"] = says
for name, values in {"big.npy": array(">c16", (2, 3)), "columns.npy": np.asfortranarray(array("<f4", (3, 2, 2)))}.items():
    np.save(name, values)
    expected[name] = {"array": entry("c128" if name == "big.npy" else "f32", values)}
# A header of version 2, which NumPy writes for long ones, with version 1 beside it in one archive under a plain name.
with zipfile.ZipFile("versions.npz", "w") as archive:
    for name, version in {"two.npy": (2, 0), "plain": (1, 0)}.items():
        with archive.open(name, "w") as member:
            np.lib.format.write_array(member, np.arange(6, dtype="<i4").reshape(2, 3), version=version)
expected["versions.npz"] = {
    name: entry("i32", np.arange(6, dtype="<i4").reshape(2, 3)) for name in ["two", "plain"]
}

# safetensors: every dtype of the format, sub-byte ones as the bytes that they are.
SAFE = {
    "bool": ("bool", "bool"), "u8": ("uint8", "u8"), "i8": ("int8", "i8"), "u16": ("uint16", "u16"),
    "i16": ("int16", "i16"), "u32": ("uint32", "u32"), "i32": ("int32", "i32"), "u64": ("uint64", "u64"),
    "i64": ("int64", "i64"), "f16": ("float16", "f16"), "bf16": ("bfloat16", "bf16"), "f32": ("float32", "f32"),
    "f64": ("float64", "f64"), "c64": ("complex64", "c64"), "f8e4m3fn": ("float8_e4m3fn", "f8e4m3fn"),
    "f8e5m2": ("float8_e5m2", "f8e5m2"), "f8e8m0": ("float8_e8m0fnu", "f8e8m0fnu"),
    "f8e4m3fnuz": ("float8_e4m3fnuz", "f8e4m3fnuz"), "f8e5m2fnuz": ("float8_e5m2fnuz", "f8e5m2fnuz"),
}
BYTES = {"bf16": 2}
says, tensors = {}, {}
for name, (theirs, ours) in SAFE.items():
    for shape in SHAPES:
        size = np.dtype(NUMBERS[name]).itemsize if name in NUMBERS else BYTES.get(name, 1)
        count = int(np.prod(shape, dtype=np.int64))
        data = array("?", shape).tobytes() if name == "bool" else random.bytes(count * size)
        key = f"{name}/{'x'.join(map(str, shape))}"
        tensors[key] = (theirs, shape, data)
        says[key] = {"dtype": ours, "shape": list(shape), "bytes": data.hex()}
# Pairs of F4 in torch's way of counting: 8 elements a row.
for key, (theirs, shape, size) in {"f4": ("float4_e2m1fn_x2", (2, 4), 8)}.items():
    data = random.bytes(size)
    tensors[key] = (theirs, shape, data)
    says[key] = {"dtype": "opaque", "shape": [size], "bytes": data.hex()}
specs = {}
for key, (theirs, shape, data) in tensors.items():
    buffer = np.frombuffer(data, np.uint8)
    specs[key] = (theirs, shape, buffer)


def write_safetensors(path, specs, metadata):
    keep = [buffer for _, _, buffer in specs.values()]
    serialize_file(
        {
            key: TensorSpec(dtype=theirs, shape=list(shape), data_ptr=buffer.ctypes.data, data_len=buffer.nbytes)
            for key, (theirs, shape, buffer) in specs.items()
        },
        path,
        metadata,
    )
    return keep


write_safetensors("everything.safetensors", specs, {"format": "np", "ß": "模型"})
expected["everything.safetensors"] = says

# GGUF: every type, as the bytes that its blocks are.
writer = gguf.GGUFWriter("everything.gguf", "llama")
says = {}
PLAIN = {"F32": "f32", "F16": "f16", "F64": "f64", "I8": "i8", "I16": "i16", "I32": "i32", "I64": "i64"}
for kind in gguf.GGMLQuantizationType:
    if kind.name == "Q8_1":  # gguf-py's blocks are four bytes longer than ggml's
        continue
    block, size = gguf.GGML_QUANT_SIZES[kind]
    name = f"t.{kind.name}"
    if kind.name in PLAIN:
        values = array(np.dtype(NUMBERS[PLAIN[kind.name]]), (2, 3))
        writer.add_tensor(name, values)
        says[name] = entry(PLAIN[kind.name], values)
        continue
    blocks = np.frombuffer(random.bytes(2 * size), np.uint8).reshape(2, size)
    writer.add_tensor(name, blocks, raw_dtype=kind)
    if kind.name == "BF16":
        says[name] = {"dtype": "bf16", "shape": [2, 1], "bytes": blocks.tobytes().hex()}
    else:
        says[name] = {"dtype": "opaque", "shape": [2 * size], "bytes": blocks.tobytes().hex()}
writer.add_array("test.nested", [[1, 2], [3]])
writer.add_uint64("test.u64", 2**64 - 1)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
expected["everything.gguf"] = says

writer = gguf.GGUFWriter("split.gguf", "llama", split_max_tensors=1)
says = {}
for name, count in {"a": 8, "b": 4, "c": 2}.items():
    values = array("f4", (count,))
    writer.add_tensor(name, values)
    says[name] = entry("f32", values)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
for part in range(1, 4):
    expected[f"split-{part:05}-of-00003.gguf"] = says
writer = gguf.GGUFWriter("big_endian.gguf", "llama", endianess=gguf.GGUFEndian.BIG)
writer.add_tensor("plain", np.arange(8, dtype="f4").reshape(2, 4))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

with open("expected.json", "w") as out:
    json.dump(expected, out, indent=1, sort_keys=True)
    out.write("\n")
