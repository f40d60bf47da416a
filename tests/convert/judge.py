"""Reads exported files with the safetensors package and numpy, and compares them with what was imported.

    python3 tests/convert/judge.py EXPECTED.json NAME FILE...

NAME is a file of expected.json; each FILE an export of it: .safetensors, its .index.json, or .npz. Exit code 0 when every
tensor has its bytes, and its shape where it is no opaque one. Run by the command line's tests where both are installed.
"""

import json
import os
import sys

import numpy as np
from safetensors import deserialize


def safetensors(path):
    with open(path, "rb") as file:
        return {name: (bytes(tensor["data"]), tensor["shape"]) for name, tensor in deserialize(file.read())}


def index(path):
    with open(path) as file:
        weight_map = json.load(file)["weight_map"]
    tensors = {}
    for shard in sorted(set(weight_map.values())):
        held = safetensors(os.path.join(os.path.dirname(path), shard))
        assert {name for name, file in weight_map.items() if file == shard} == set(held), shard
        tensors.update(held)
    return tensors


def npz(path):
    with np.load(path, allow_pickle=False) as arrays:
        return {name: (np.ascontiguousarray(arrays[name]).tobytes(), list(arrays[name].shape)) for name in arrays.files}


def main(expected, name, *files):
    with open(expected) as file:
        expected = json.load(file)[name]
    for path in files:
        read = index if path.endswith(".json") else npz if path.endswith(".npz") else safetensors
        found = read(path)
        assert set(found) == set(expected), (path, set(found) ^ set(expected))
        for tensor, says in expected.items():
            data, shape = found[tensor]
            assert data.hex() == says["bytes"], (path, tensor)
            # safetensors has no name for c128: its bytes are all that is there, and the export says that they are.
            is_bytes = says["dtype"] == "opaque" or says["dtype"] == "c128" and read is not npz
            assert is_bytes or list(shape) == says["shape"], (path, tensor, shape, says["shape"])


main(*sys.argv[1:])
