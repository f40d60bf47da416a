"""States of torch: all dtypes, layouts, optimizers and schedulers; views; what is refused; safetensors' names."""

from __future__ import annotations

import collections
import inspect
import io
import pathlib
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy
import pytest
import tensorkeep
from conftest import alike, need, run
from hostile import with_hostile

torch = need("torch")
import tensorkeep.torch as tt  # noqa: E402
from tensorkeep._torch import DTYPES  # noqa: E402


@pytest.fixture(autouse=True)
def no_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # torch's own: of dtypes and layouts that are refused here.
        warnings.filterwarnings("ignore", message=".*(quantiz|ComplexHalf|Sparse|sparse|prototype).*")
        yield


def around(obj: Any) -> Any:
    tt.save(obj, "around.tkeep")
    return tt.load("around.tkeep")


def torch_load(obj: Any) -> Any:
    """What torch makes of it."""
    file = io.BytesIO()
    torch.save(obj, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


def test_there_are_the_twenty_dtypes() -> None:
    assert len(DTYPES) == 20, sorted(DTYPES)


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("name", sorted(DTYPES))
def test_each_dtype_comes_back_bit_for_bit(name: str, mmap: bool) -> None:
    dtype, random = DTYPES[name], torch.randint(0, 256, (4, 3, 16), dtype=torch.uint8)
    full = random.view(dtype) if dtype != torch.bool else random > 127
    state = {"full": full, "row": full[1], "scalar": full.reshape(-1)[0], "empty": full[:0], "none": full[:, :0].clone()}
    tt.save(state, "dtype.tkeep")
    assert alike(state, tt.load("dtype.tkeep", mmap=mmap))
    assert tensorkeep.open("dtype.tkeep").infos()["full"].dtype == name


def test_any_memory_order_comes_back_with_equal_values() -> None:
    base = torch.arange(24.0).reshape(2, 3, 4)
    complex_ = torch.complex(base, base + 1)
    state = {
        "t": base.transpose(0, 2),
        "strided": base[:, ::2, 1::2],
        "last": torch.ones(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "conj": complex_.conj(),
        "neg": complex_.conj().imag,
        "expanded": torch.ones(1).expand(5),
    }
    for name, tensor in around(state).items():
        assert torch.equal(tensor, state[name]), name


def test_ties_come_back_as_one_tensor() -> None:
    model = torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Linear(4, 10, bias=False))
    model[1].weight = model[0].weight
    loaded = around({"model": model.state_dict(), "again": model[0].weight, "t": [model[0].weight.t()] * 2})
    assert loaded["model"]["0.weight"] is loaded["model"]["1.weight"]
    assert loaded["t"][0] is loaded["t"][1]
    assert isinstance(loaded["again"], torch.nn.Parameter)


def test_parameters_and_types_of_torch_come_back() -> None:
    state = {
        "p": torch.nn.Parameter(torch.ones(2)),
        "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "dtype": torch.bfloat16,
        "device": torch.device("cpu"),
        "size": torch.Size([2, 3]),
        "array": numpy.ones(3),
        "scalar": numpy.float32(2),
        "betas": (0.9, 0.999),
    }
    assert alike(state, around(state))


def test_a_state_dict_keeps_its_order_and_versions() -> None:
    model = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2), torch.nn.Linear(3, 3))
    for obj in (model.state_dict(), {"model": model.state_dict(), "epoch": 3}):
        assert alike(torch_load(obj), around(obj))
    assert isinstance(around(model.state_dict()), collections.OrderedDict)


OPTIMIZERS = [
    (name, kind)
    for name, kind in vars(torch.optim).items()
    if inspect.isclass(kind) and issubclass(kind, torch.optim.Optimizer) and kind is not torch.optim.Optimizer
]


@pytest.mark.parametrize(("name", "kind"), OPTIMIZERS, ids=[name for name, _ in OPTIMIZERS])
def test_each_optimizer_comes_back_as_from_torch(name: str, kind: Any) -> None:
    sparse = name == "SparseAdam"
    model = torch.nn.Embedding(5, 4, sparse=sparse) if sparse or name == "Muon" else torch.nn.Linear(4, 3)
    optimizer = kind(model.parameters(), lr=torch.tensor(0.1) if name == "Adam" else 0.1)
    for _ in range(3):

        def closure() -> Any:
            optimizer.zero_grad()
            out = model(torch.tensor([1, 2])) if isinstance(model, torch.nn.Embedding) else model(torch.ones(2, 4))
            loss = out.pow(2).sum()
            loss.backward()
            return loss

        optimizer.step(closure)
    saved = {"optimizer": optimizer.state_dict()}
    loaded = around(saved)
    assert alike(torch_load(saved), loaded)
    optimizer.load_state_dict(loaded["optimizer"])
    optimizer.step(closure)


def schedulers() -> dict[str, Any]:
    s = torch.optim.lr_scheduler
    return {
        "LambdaLR": lambda o: s.LambdaLR(o, lambda step: 0.9**step),
        "MultiplicativeLR": lambda o: s.MultiplicativeLR(o, lambda step: 0.9),
        "StepLR": lambda o: s.StepLR(o, 2),
        "MultiStepLR": lambda o: s.MultiStepLR(o, [1, 3]),
        "ConstantLR": lambda o: s.ConstantLR(o),
        "LinearLR": lambda o: s.LinearLR(o),
        "ExponentialLR": lambda o: s.ExponentialLR(o, 0.9),
        "PolynomialLR": lambda o: s.PolynomialLR(o),
        "CosineAnnealingLR": lambda o: s.CosineAnnealingLR(o, 10),
        "CosineAnnealingWarmRestarts": lambda o: s.CosineAnnealingWarmRestarts(o, 3),
        "CyclicLR": lambda o: s.CyclicLR(o, 0.01, 0.1),
        "OneCycleLR": lambda o: s.OneCycleLR(o, 0.1, total_steps=20),
        "ReduceLROnPlateau": lambda o: s.ReduceLROnPlateau(o),
        "SequentialLR": lambda o: s.SequentialLR(o, [s.ConstantLR(o), s.ExponentialLR(o, 0.9)], [2]),
        "ChainedScheduler": lambda o: s.ChainedScheduler([s.ConstantLR(o), s.ExponentialLR(o, 0.9)], o),
    }


@pytest.mark.parametrize("name", sorted(schedulers()))
def test_each_scheduler_comes_back_as_from_torch(name: str) -> None:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scheduler = schedulers()[name](optimizer)
        for _ in range(3):
            optimizer.step()
            scheduler.step(*([0.5] if name == "ReduceLROnPlateau" else []))
        saved = {"scheduler": scheduler.state_dict(), "optimizer": optimizer.state_dict()}
        loaded = around(saved)
        assert alike(torch_load(saved), loaded)
        scheduler.load_state_dict(loaded["scheduler"])


def test_views_can_be_written_and_the_file_stays() -> None:
    state = {"w": torch.ones(1_000_000), "small": torch.zeros(3)}
    tt.save(state, "views.tkeep")
    before = pathlib.Path("views.tkeep").read_bytes()
    loaded = tt.load("views.tkeep", mmap=True)
    loaded["w"].mul_(3).add_(1)
    loaded["small"][1] = 7
    assert loaded["w"].sum() == 4_000_000
    tt.save(loaded, "views.tkeep")
    assert alike(tt.load("views.tkeep"), loaded)
    tt.save(state, "views.tkeep")
    assert pathlib.Path("views.tkeep").read_bytes() == before


def refused() -> dict[str, tuple[Any, str]]:
    two, freed, shrunk = torch.ones(2, 2), torch.ones(2), torch.ones(1 << 20, 2)
    columns, last = shrunk.T, shrunk[-1]
    freed.untyped_storage().resize_(0)
    shrunk.untyped_storage().resize_(4096)
    return {
        "freed": (freed, "memory was freed"),
        "shrunk": (shrunk, "memory was freed"),
        "shrunk columns": (columns, "memory was freed"),
        "shrunk and behind": (last, "memory was freed"),
        "meta": (torch.empty(2, device="meta"), "meta"),
        "sparse": (two.to_sparse(), "to_dense()"),
        "csr": (two.to_sparse_csr(), "to_dense()"),
        "quantized": (torch.quantize_per_tensor(two, 0.1, 0, torch.qint8), "dequantize()"),
        "complex32": (torch.ones(2, dtype=torch.complex32), "complex32"),
        "subclass": (two.as_subclass(type("Mine", (torch.Tensor,), {})), "register"),
        "module": (torch.nn.Linear(1, 1), "state_dict()"),
        "optimizer": (torch.optim.SGD([two.requires_grad_()], 0.1), "state_dict()"),
        "generator": (torch.Generator(), "get_state()"),
        "nested": (torch.nested.nested_tensor([two[0], two[0, :1]]), "unbind()"),
        "jagged": (torch.nested.nested_tensor([two[0], two[0, :1]], layout=torch.jagged), "unbind()"),
    }


@pytest.mark.parametrize("name", sorted(refused()))
def test_what_torch_has_and_no_file_is_refused_with_advice(name: str) -> None:
    value, words = refused()[name]
    with pytest.raises(tensorkeep.CannotStore) as error:
        tt.save({"model": {"layers": [value]}}, "refused.tkeep")
    assert error.value.path == "model/layers/0" and words in str(error.value)


def test_a_tensor_without_memory_is_refused_with_its_path() -> None:
    def save(row: Any) -> Any:
        with pytest.raises(tensorkeep.CannotStore, match="model/layers/0") as error:
            tt.save({"model": {"layers": [row]}}, "refused.tkeep")
        assert error.value.help
        return row

    torch.vmap(save)(torch.ones(2, 2))


def test_requires_grad_comes_back_of_any_tensor() -> None:
    leaf = torch.ones(2, requires_grad=True)
    state = {"leaf": leaf, "of": leaf * 2, "plain": leaf.detach(), "last": torch.ones(2, dtype=torch.complex64)}
    state["turned"] = torch.ones(2, 3, requires_grad=True).t()
    loaded = around(state)
    assert {name: t.requires_grad for name, t in loaded.items()} == {name: t.requires_grad for name, t in state.items()}
    assert all(t.is_leaf for t in loaded.values()) and torch.equal(loaded["turned"], state["turned"])


def test_parameters_beside_more_arrays_come_back() -> None:
    state = {"p": torch.nn.Parameter(torch.ones(2)), "t": torch.ones(2), "g": torch.ones(2, requires_grad=True),
             **{f"a{i}": numpy.ones(2) for i in range(9)}}  # fmt: skip
    assert alike(state, around(state))


def test_a_parameter_of_whole_numbers_needs_no_gradient() -> None:
    state = {"p": torch.nn.Parameter(torch.ones(2, dtype=torch.int64), requires_grad=False)}
    assert alike(state, around(state))
    from tensorkeep import _state, _tensorkeep

    tensors, records, types = _state.encode(state)
    types["kinds"] = {"p": "Parameter"}
    _tensorkeep.save_file("lying.tkeep", tensors, records, types, metrics=[], metadata=[], codecs=[])
    assert not tt.load("lying.tkeep")["p"].requires_grad


def test_load_into_fills_a_module_all_or_nothing() -> None:
    first, second = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    tt.save({"model": first.state_dict(), "epoch": 1}, "into.tkeep")
    report = tt.load_into("into.tkeep", second)
    assert report.loaded == ["weight", "bias"] and torch.equal(first.weight, second.weight)
    other = torch.nn.Linear(3, 3)
    before = other.bias.clone()
    with pytest.raises(tensorkeep.Mismatch, match="f32"):
        tt.load_into("into.tkeep", other)
    assert torch.equal(before, other.bias)
    wider = torch.nn.ModuleDict({"weights": torch.nn.Linear(3, 2)})
    with pytest.raises(tensorkeep.Mismatch, match="missing"):
        tt.load_into("into.tkeep", wider)
    assert tt.load_into("into.tkeep", wider, strict=False).unexpected == ["weight", "bias"]


def test_map_location_says_where_tensors_go() -> None:
    tt.save({"w": torch.ones(3)}, "where.tkeep")
    assert tt.load("where.tkeep", map_location="meta")["w"].is_meta
    assert tt.load("where.tkeep", map_location=torch.device("cpu"))["w"].is_cpu
    assert tt.load("where.tkeep", map_location={"cpu": "meta"})["w"].is_meta
    assert tt.load("where.tkeep", map_location={"cuda:0": "cpu"})["w"].is_cpu
    with pytest.raises(tensorkeep.Invalid, match="map_location.*a function"):
        tt.load("where.tkeep", map_location=lambda storage, place: storage)


def test_the_names_of_safetensors_work() -> None:
    tensors = {"a/b": torch.ones(3, 4), "w": torch.arange(6).reshape(2, 3).t(), "h": torch.ones(2, dtype=torch.bfloat16)}
    tensors["tied"] = tensors["h"]
    written = tt.save_file(tensors, "flat.tkeep", metadata={"format": "pt"})
    assert written.tensors == 3
    for backend in ("mmap", "read"):
        loaded = tt.load_file("flat.tkeep", backend=backend)
        assert set(loaded) == set(tensors) and all(torch.equal(loaded[n], tensors[n]) for n in tensors)
        assert loaded["tied"] is loaded["h"]
    with tt.safe_open("flat.tkeep", framework="pt", device="cpu") as f:
        assert f.metadata() == {"format": "pt"} and torch.equal(f.get_tensor("w"), tensors["w"])
        part = f.get_slice("a/b")
        assert part.get_shape() == [3, 4] and torch.equal(part[1:, :2], torch.ones(2, 2))
    with pytest.raises(tensorkeep.CannotStore, match="where a tensor is expected"):
        tt.save_file({"a": 1}, "flat.tkeep")
    model = torch.nn.Linear(2, 2)
    tt.save_model(model, "model.tkeep")
    assert tt.load_model(torch.nn.Linear(2, 2), "model.tkeep") == ([], [])


def test_dlpack_shares_memory_in_both_versions() -> None:
    tt.save({"w": torch.arange(100.0), "h": torch.ones(4, 4, dtype=torch.bfloat16)}, "dlpack.tkeep")
    with tensorkeep.open("dlpack.tkeep", mmap=True) as checkpoint:
        for name, view in checkpoint.tensors.items():
            shared = torch.from_dlpack(view)
            again = torch.utils.dlpack.from_dlpack(view.__dlpack__())
            shared.view(-1)[0] = 42
            assert again.view(-1)[0] == 42 and view.torch().view(-1)[0] == 42, name
        array = numpy.from_dlpack(checkpoint.tensors["w"])
        assert array[0] == 42 and array.flags.writeable
        del checkpoint
    assert array[1] == 1.0
    unused = tensorkeep.open("dlpack.tkeep").tensors["w"].__dlpack__(max_version=(1, 0))
    del unused


def test_dtypes_that_torch_lacks_come_as_bytes_with_a_warning() -> None:
    ml_dtypes = need("ml_dtypes")
    import tensorkeep.numpy

    arrays = {"a": numpy.ones(4, ml_dtypes.float8_e3m4), "b": numpy.ones(4, ml_dtypes.bfloat16)}
    tensorkeep.numpy.save_file(arrays, "ml.tkeep")
    assert alike(arrays, tensorkeep.numpy.load_file("ml.tkeep"))
    with pytest.warns(UserWarning, match="f8e3m4"):
        loaded = tt.load_file("ml.tkeep")
    assert loaded["a"].dtype == torch.uint8 and loaded["b"].dtype == torch.bfloat16


def test_rng_states_come_back() -> None:
    state = tensorkeep.rng.capture()
    torch.rand(3), numpy.random.rand(3)
    loaded = around({"rng": state})["rng"]
    tensorkeep.rng.restore(loaded)
    first = (torch.rand(3).tolist(), numpy.random.rand(3).tolist())
    tensorkeep.rng.restore(state)
    assert first == (torch.rand(3).tolist(), numpy.random.rand(3).tolist())
    generator = numpy.random.default_rng(7)
    assert alike(generator.bit_generator.state, around({"g": generator.bit_generator.state})["g"])


@pytest.mark.parametrize("mmap", [False, "auto"])
def test_a_damaged_file_loads_into_nothing(tmp_path: Path, mmap: Any) -> None:
    file = tmp_path / "d.tkeep"
    tensorkeep.save({"model": {"a": torch.arange(5000.0), "b": torch.arange(5000.0)}}, file)
    with tensorkeep.open(file) as checkpoint:
        offset = checkpoint.infos()["model/b"].offset
    data = bytearray(file.read_bytes())
    data[offset + 8] ^= 4
    file.write_bytes(data)
    target = {"a": torch.zeros(5000), "b": torch.zeros(5000)}
    with pytest.raises(tensorkeep.Damaged), tensorkeep.open(file, mmap=mmap) as checkpoint:
        tensorkeep.load_into(checkpoint, target)
    assert not target["a"].any()


@pytest.mark.parametrize("b", [torch.zeros(1).expand(2), torch.zeros(2, device="meta")])
def test_a_target_that_cannot_be_written_leaves_the_others(tmp_path: Path, b: torch.Tensor) -> None:
    tensorkeep.save({"model": {"a": torch.ones(2), "b": torch.ones(2)}}, tmp_path / "p.tkeep")
    target = {"a": torch.zeros(2), "b": b}
    with pytest.raises(tensorkeep.Invalid, match="^b: "):
        tensorkeep.load_into(tmp_path / "p.tkeep", target)
    assert not target["a"].any()


def test_the_name_of_a_dtype_imports_nothing(tmp_path: Path) -> None:
    code = """
import sys, torch, tensorkeep._torch as t
try:
    t._dtype("_dynamo")
except ValueError:
    sys.exit("torch._dynamo" in sys.modules)
"""
    assert run(code, cwd=tmp_path).returncode == 0


@pytest.mark.filterwarnings("ignore")
def test_no_argument_raises_what_is_not_ours() -> None:
    model, tensors = torch.nn.Linear(3, 2), {"w": torch.ones(3)}
    tt.save({"model": model.state_dict()}, "m.tkeep")
    tt.save_file(tensors, "f.tkeep")
    with_hostile(tt.load, "m.tkeep", map_location=None)
    with_hostile(tt.load_file, "f.tkeep", "cpu", backend="mmap")
    with_hostile(tt.save_file, tensors, "g.tkeep", None, codec="raw")
    with_hostile(tt.safe_open, "f.tkeep", "pt", "cpu", backend="mmap")
    with tt.safe_open("f.tkeep") as opened:
        with_hostile(opened.get_tensor, "w")
        with_hostile(opened.get_slice, "w")
    with_hostile(tt.save_model, model, "g.tkeep", None)
    tt.save_model(model, "f.tkeep")
    with_hostile(tt.load_model, model, "f.tkeep", True)
    with_hostile(tt.load_into, "m.tkeep", model)
    optimizer = torch.optim.AdamW(model.parameters())
    state = optimizer.state_dict()
    training = tensorkeep.TrainState(rng=False, optimizer=optimizer)
    with_hostile(lambda found: training.load_state_dict({"optimizer": found}), state)
    with_hostile(lambda found: training.load_state_dict({"optimizer": {**state, "state": found}}), {})
    with_hostile(lambda found: training.load_state_dict({"optimizer": {"state": {}, "param_groups": found}}), [])
    with_hostile(lambda found: training.load_state_dict({"optimizer": {"state": {}, "param_groups": [found]}}), {})
    with_hostile(lambda found: training.load_state_dict({"optimizer": state, "kinds": found}), {})
    with_hostile(lambda found: training.load_state_dict({"optimizer": state, "kinds": {"optimizer": found}}), "x")


def tensorkeep_(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "tensorkeep", *arguments], check=True, capture_output=True)


def test_an_imported_state_dict_goes_into_its_module(tmp_path: Path) -> None:
    first, second = (torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2)) for _ in range(2))
    torch.save(first.state_dict(), "old.pt")
    torch.save({"model": first.state_dict(), "epoch": 3}, "nested.pt")
    for name in ("old.pt", "nested.pt"):
        tensorkeep_("import", name, "-o", f"{name}.tkeep")
    assert second.load_state_dict(tt.load("old.pt.tkeep")).missing_keys == []
    assert tt.load("old.pt.tkeep")._metadata == first.state_dict()._metadata
    with pytest.raises(tensorkeep.Mismatch, match="begin with 'model.', as") as told:
        tt.load_into("nested.pt.tkeep", second)
    _, _, rename = str(told.value.help).partition("--rename ")
    tensorkeep_("edit", "nested.pt.tkeep", "--rename", rename.split("'")[1], "-o", "nested.tkeep")
    tt.load_into("nested.tkeep", second)
    assert all(map(torch.equal, first.state_dict().values(), second.state_dict().values()))
    assert second.load_state_dict(tt.load("nested.tkeep")["model"]).unexpected_keys == []
    # As the guide has it: all of it, with its types.
    tt.save(torch.load("nested.pt"), "whole.tkeep")
    assert alike(torch.load("nested.pt"), tt.load("whole.tkeep"))
