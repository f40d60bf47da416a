"""Makes the foreign files beside it, with the formats' own libraries: numpy, torch, safetensors, gguf.

    pip install numpy torch safetensors gguf && python3 tests/convert/make.py

Every tensor is small and its values follow from its shape, so that tests/convert.rs knows them: element i of tensor t is
(i * 7 + len(name of t)) % 31 - 15, cast to the dtype.
"""

import json
import os
from collections import OrderedDict

import gguf
import numpy as np
import torch
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
os.chdir(HERE)


def values(name, shape):
    count = int(np.prod(shape, dtype=np.int64))
    return ((np.arange(count) * 7 + len(name)) % 31 - 15).reshape(shape)


def complex_values(name, shape):
    return values(name, shape) + 1j * values(name + "imaginary", shape)


# NumPy: dtypes, orders, scalars, empty arrays, and files that must be refused.
np.save("f32.npy", values("array", (3, 5)).astype("<f4"))
np.save("big_endian_columns.npy", np.asfortranarray(values("array", (3, 5)).astype(">i2")))
np.save("big_endian_complex.npy", complex_values("array", (5,)).astype(">c8"))
np.savez("big_endian_complex.npz", wide=complex_values("wide", (3,)).astype(">c16"))
np.save("objects.npy", np.array([{"a": 1}, None], dtype=object), allow_pickle=True)
arrays = {
    "bool": values("bool", (4,)) > 0,
    "i8": values("i8", (2, 3)).astype("i1"),
    "u64": np.arange(3).astype("u8"),
    "f16": values("f16", (2, 2, 2)).astype("f2"),
    "f64": values("f64", (5,)).astype("f8"),
    "c64": values("c64", (3,)).astype("c8"),
    "scalar": np.float32(1.5),
    "empty": np.zeros((0, 4), "f4"),
    "nested/name": values("nested/name", (2,)).astype("i4"),
}
np.savez("stored.npz", **arrays)
np.savez_compressed("deflated.npz", **arrays, columns=np.asfortranarray(values("columns", (4, 3)).astype("f4")))
np.savez("with_text.npz", text=np.array(["a", "b"]), number=np.ones(2, "f4"))

# torch: a state dict with ties, views and parameters, and a whole training checkpoint.
weight = torch.from_numpy(values("fc.weight", (4, 6)).astype("f4"))
state = OrderedDict(
    [
        ("fc.weight", torch.nn.Parameter(weight)),
        ("fc.tied", weight),
        ("fc.transposed", weight.t()),
        ("fc.row", weight[2]),
        ("half", torch.from_numpy(values("half", (3,)).astype("f2"))),
        ("bf16", torch.from_numpy(values("bf16", (3,)).astype("f4")).to(torch.bfloat16)),
        ("f8", torch.tensor([1.0, -2.0, 0.5]).to(torch.float8_e4m3fn)),
        ("steps", torch.tensor(7)),
        ("empty", torch.zeros(0, 2)),
        ("expanded", torch.tensor([3.0]).expand(2, 2)),
    ]
)
torch.save(state, "state_dict.pt")
layer = torch.nn.Linear(2, 2)
with torch.no_grad():
    layer.weight.copy_(torch.from_numpy(values("model.weight", (2, 2)).astype("f4")))
    layer.bias.zero_()
adam = torch.optim.Adam(layer.parameters(), lr=0.25)
layer(torch.ones(1, 2)).sum().backward()
adam.step()
with torch.no_grad():
    layer.weight.copy_(torch.from_numpy(values("model.weight", (2, 2)).astype("f4")))
torch.save({"model": layer.state_dict(), "optimizer": adam.state_dict(), "epoch": 3, "name": "run"}, "checkpoint.pt")


class Custom:
    pass


torch.save({"model": {"w": torch.ones(2)}, "object": Custom()}, "with_object.pt")
torch.save({"w": torch.ones(2)}, "legacy.pt", _use_new_zipfile_serialization=False)

# safetensors: one file, and two with an index.
tensors = {
    "f32": torch.from_numpy(values("f32", (3, 5)).astype("f4")),
    "bf16": torch.from_numpy(values("bf16", (3,)).astype("f4")).to(torch.bfloat16),
    "f8": torch.tensor([1.0, -2.0, 0.5]).to(torch.float8_e5m2),
    "bool": torch.tensor([True, False]),
    "i64": torch.from_numpy(values("i64", (4,))),
    "empty": torch.zeros(0, 2),
    "scalar": torch.tensor(1.5),
}
save_file(tensors, "one.safetensors", metadata={"format": "pt"})
shards = {"model-1-of-2.safetensors": ["f32", "bf16"], "model-2-of-2.safetensors": ["i64", "bool"]}
for file, names in shards.items():
    save_file({name: tensors[name] for name in names}, file)
index = {"metadata": {}, "weight_map": {name: file for file, names in shards.items() for name in names}}
with open("model.safetensors.index.json", "w") as out:
    json.dump(index, out)

# GGUF: plain and quantised.
writer = gguf.GGUFWriter("model.gguf", "llama")
writer.add_block_count(2)
writer.add_float32("test.float", 0.5)
writer.add_array("tokenizer.ggml.tokens", ["a", "b", "ß"])
writer.add_tensor("f32", values("f32", (3, 32)).astype("f4"))
writer.add_tensor("f16", values("f16", (2, 4)).astype("f2"))
quantised = gguf.quants.quantize(values("q", (2, 64)).astype("f4"), gguf.GGMLQuantizationType.Q8_0)
writer.add_tensor("q8", quantised, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()

# GGUF again: integers of all widths below zero, and an alignment that moves the tensors.
writer = gguf.GGUFWriter("aligned.gguf", "llama")
writer.add_custom_alignment(64)
writer.add_int8("test.i8", -7)
writer.add_int16("test.i16", -300)
writer.add_int32("test.i32", -70000)
writer.add_int64("test.i64", -(1 << 40))
writer.add_uint8("test.u8", 200)
writer.add_string("test.text", "end")
writer.add_tensor("f32", values("f32", (3, 5)).astype("f4"))
writer.add_tensor("f16", values("f16", (2, 4)).astype("f2"))
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
