"""Loading into what is there: all of it or nothing, by its own code, and nothing silently left out."""

from __future__ import annotations

import collections
from typing import Any

import numpy
import pytest
import tensorkeep
from conftest import alike, need

ONES, ZEROS = numpy.ones(4), numpy.zeros(4)


class Copies:
    """Holds an array, and gives copies of it."""

    def __init__(self) -> None:
        self.w = numpy.zeros(4)

    def state_dict(self) -> dict[str, Any]:
        return {"w": self.w.copy()}


class Loads(Copies):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.w = numpy.array(state["w"])


class FailsHalfWay(Loads):
    def __init__(self) -> None:
        super().__init__()
        self.log = ["made"]

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.w[:2] = state["w"][:2]
        self.log = ["loaded"]
        if state["w"][0] == 1:
            raise RuntimeError("half way")
        self.w[2:] = state["w"][2:]


def saved(**model: Any) -> str:
    tensorkeep.save({"model": model}, "into.tkeep")
    return "into.tkeep"


def test_an_object_that_gives_copies_is_loaded_by_its_own_code() -> None:
    target = Loads()
    assert tensorkeep.load_into(saved(w=ONES), target).loaded == ["w"]
    assert alike(target.w, ONES)


def test_an_object_that_only_gives_copies_is_refused() -> None:
    target = Copies()
    with pytest.raises(tensorkeep.Invalid, match="w: state_dict.. of the target gives a copy.*load_state_dict"):
        tensorkeep.load_into(saved(w=ONES), target)
    assert alike(target.w, ZEROS)
    target.state_dict = lambda: {"w": target.w}  # type: ignore[method-assign]
    tensorkeep.load_into("into.tkeep", target)
    assert alike(target.w, ONES)


def test_an_error_where_nothing_fits_names_the_groups() -> None:
    tensorkeep.save({"w": ONES}, "flat.tkeep")
    with pytest.raises(tensorkeep.Mismatch, match='group="" takes the top level'):
        tensorkeep.load_into("flat.tkeep", {"w": ZEROS.copy()})
    target = {"w": ZEROS.copy()}
    tensorkeep.load_into("flat.tkeep", target, group="")
    assert alike(target["w"], ONES)
    tensorkeep.save({"model": {"w": ONES}, "ema": {"v": ONES}}, "two.tkeep")
    with pytest.raises(tensorkeep.Mismatch, match="its groups are 'ema'"):
        tensorkeep.load_into("two.tkeep", {"v": ZEROS.copy()})


def test_an_object_that_fails_half_way_is_as_it_was() -> None:
    target = FailsHalfWay()
    with pytest.raises(RuntimeError, match="half way"):
        tensorkeep.load_into(saved(w=ONES), target)
    assert alike(target.w, ZEROS)


@pytest.mark.parametrize(
    ("array", "why"),
    [
        (numpy.lib.stride_tricks.as_strided(numpy.zeros(4), (4, 2), (8, 8)), "share memory"),
        (numpy.broadcast_to(numpy.zeros(2), (4, 2)), "cannot be written"),
        (numpy.ma.array(numpy.zeros((4, 2)), mask=[[1, 0]] * 4), "masked"),
    ],
)
def test_an_array_that_would_hold_something_else_is_refused(array: Any, why: str) -> None:
    target = {"a": numpy.zeros(4), "b": array}
    with pytest.raises(tensorkeep.Invalid, match=f"^b: the target .*{why}"):
        tensorkeep.load_into(saved(a=ONES, b=numpy.ones((4, 2))), target)
    assert alike(target["a"], ZEROS)


def test_arrays_in_any_order_of_memory_are_filled() -> None:
    values = numpy.arange(24.0).reshape(4, 3, 2)
    for target in (numpy.zeros((2, 3, 4)).T, numpy.zeros((8, 6, 4))[::2, ::-2, 1:3], numpy.zeros((3, 4, 2)).swapaxes(0, 1)):
        tensorkeep.load_into(saved(b=values), {"b": target})
        assert (target == values).all()


def test_a_value_of_a_target_that_is_no_tensor_is_refused() -> None:
    with pytest.raises(tensorkeep.Invalid, match="epoch: a int of the target is no tensor; load.. gives"):
        tensorkeep.load_into(saved(w=ONES, epoch=3), {"w": numpy.zeros(4), "epoch": 0})


@pytest.mark.parametrize("extra", [{"calls": 3}, "text", None, numpy.ones(7)], ids=repr)
def test_what_a_module_keeps_beside_tensors_is_loaded(extra: Any) -> None:
    torch = need("torch")

    class Counting(torch.nn.Linear):  # type: ignore[name-defined,misc]
        extra: Any = None

        def get_extra_state(self) -> Any:
            return self.extra

        def set_extra_state(self, state: Any) -> None:
            self.extra = state

    first, second = Counting(3, 2), Counting(3, 2)
    first.extra = torch.ones(7) if isinstance(extra, numpy.ndarray) else extra
    second.extra = torch.ones(2) if isinstance(extra, numpy.ndarray) else 5
    tensorkeep.save({"model": first.state_dict()}, "into.tkeep")
    report = tensorkeep.load_into("into.tkeep", second)
    assert report.loaded == ["weight", "bias", "_extra_state"] and alike(first.extra, second.extra)
    with pytest.raises(tensorkeep.Mismatch, match="_extra_state: not in the target"):
        tensorkeep.load_into("into.tkeep", torch.nn.Linear(3, 2))


def half_way(torch: Any) -> Any:
    class HalfWay(torch.nn.Linear):  # type: ignore[name-defined,misc]
        fails, loaded = True, 0

        def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
            self.loaded += 1
            with torch.no_grad():
                self.weight.copy_(state["weight"])
            if self.fails:
                raise RuntimeError("half way")
            return super().load_state_dict(state, strict)

    return HalfWay(3, 2)


def test_a_module_whose_own_code_fails_half_way_is_as_it_was() -> None:
    torch = need("torch")
    target = half_way(torch)
    tensorkeep.save({"model": torch.nn.Linear(3, 2).state_dict()}, "into.tkeep")
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(RuntimeError, match="half way"):
        tensorkeep.load_into("into.tkeep", target)
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items()) and target.loaded == 0
    target.fails = False
    tensorkeep.load_into("into.tkeep", target)
    assert target.loaded == 1


def test_a_hook_that_fails_leaves_the_module_as_it_was() -> None:
    torch = need("torch")

    def fail(module: Any, incompatible: Any) -> None:
        raise RuntimeError("from a hook")

    target, other = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    target.register_load_state_dict_post_hook(fail)
    before = target.weight.detach().clone()
    tensorkeep.save({"model": other.state_dict()}, "into.tkeep")
    with pytest.raises(RuntimeError, match="from a hook"):
        tensorkeep.load_into("into.tkeep", target)
    assert torch.equal(before, target.weight)


def test_parameters_without_a_shape_get_that_of_the_file() -> None:
    torch = need("torch")
    lazy, full = torch.nn.LazyLinear(2), torch.nn.Linear(3, 2)
    tensorkeep.save({"model": full.state_dict()}, "into.tkeep")
    assert tensorkeep.load_into("into.tkeep", lazy).loaded == ["weight", "bias"]
    assert torch.equal(lazy.weight, full.weight)
    with pytest.raises(tensorkeep.CannotStore, match="without a shape yet; run the module once"):
        tensorkeep.save({"model": torch.nn.LazyLinear(2).state_dict()}, "lazy.tkeep")


def test_an_optimizer_is_loaded_by_its_own_code() -> None:
    torch = need("torch")

    def made(kind: Any) -> Any:
        model = torch.nn.Linear(3, 2)
        optimizer = kind(model.parameters(), lr=0.5)
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        return optimizer

    first, second = made(torch.optim.AdamW), made(torch.optim.AdamW)
    first.param_groups[0]["lr"] = 0.25
    tensorkeep.save({"optimizer": first.state_dict()}, "into.tkeep")
    tensorkeep.load_into("into.tkeep", second, group="optimizer")
    assert second.param_groups[0]["lr"] == 0.25
    assert torch.equal(*(side.state_dict()["state"][0]["exp_avg"] for side in (first, second)))
    with pytest.raises(tensorkeep.Mismatch, match="(?s)momentum.*betas"):
        tensorkeep.load_into("into.tkeep", made(torch.optim.SGD), group="optimizer")


def test_not_strictly_a_module_takes_what_there_is() -> None:
    torch = need("torch")
    target, full = torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)
    before = target.bias.detach().clone()
    state = collections.OrderedDict(weight=full.weight.detach(), other=torch.ones(1))
    tensorkeep.save({"model": state}, "into.tkeep")
    report = tensorkeep.load_into("into.tkeep", target, strict=False)
    assert (report.loaded, report.missing, report.unexpected) == (["weight"], ["bias"], ["other"])
    assert torch.equal(target.weight, full.weight) and torch.equal(target.bias, before)


def test_an_array_of_numpy_fills_a_module() -> None:
    torch = need("torch")
    target = torch.nn.Linear(3, 2)
    arrays = {"weight": numpy.ones((2, 3), "f4"), "bias": numpy.ones(2, "f4")}
    tensorkeep.load_into(saved(**arrays), target)
    assert torch.equal(target.weight, torch.ones(2, 3))


def overlapping(made: Any) -> list[Any]:
    """Targets over one memory, and what a file has for them that cannot be true at once."""
    whole = made(numpy.zeros((4, 2)))
    row = whole.reshape(8)
    return [
        ({"a": whole, "b": whole[:2]}, {"a": numpy.ones((4, 2)), "b": numpy.zeros((2, 2))}),
        ({"a": whole, "b": whole}, {"a": numpy.ones((4, 2)), "b": numpy.zeros((4, 2))}),
        ({"a": whole.T[1], "b": {"c": whole[3]}}, {"a": numpy.ones(4), "b": {"c": numpy.zeros(2)}}),
        ({"a": whole.reshape(8), "b": whole}, {"a": numpy.arange(8.0), "b": numpy.arange(8.0).reshape(2, 4).T.copy()}),
        ({"0": row[:2], "a": row[1:], "b": row[6:]}, {"0": numpy.ones(2), "a": numpy.ones(7), "b": numpy.zeros(2)}),
    ]


def torch_of(array: Any) -> Any:
    return need("torch").from_numpy(array.copy())


@pytest.mark.parametrize("made", [numpy.copy, torch_of])
@pytest.mark.parametrize("case", range(5))
def test_targets_over_one_memory_take_no_two_values(made: Any, case: int) -> None:
    target, model = overlapping(made)[case]
    second = "b/c" if case == 2 else "b"
    with pytest.raises(tensorkeep.Mismatch, match=f"into.tkeep: a and {second} share memory in the target"):
        tensorkeep.load_into(saved(**model), target)
    assert not target["a"].any(), "nothing was written"


def test_an_array_and_a_tensor_over_it_take_no_two_values() -> None:
    torch, array = need("torch"), numpy.zeros(4)
    target = {"a": array[::-1], "b": torch.from_numpy(array)}
    with pytest.raises(tensorkeep.Mismatch, match="a and b share memory"):
        tensorkeep.load_into(saved(a=numpy.arange(4.0), b=numpy.arange(4.0)), target)
    assert not array.any()
    tensorkeep.load_into(saved(a=numpy.arange(4.0), b=numpy.arange(4.0)[::-1].copy()), target)
    assert alike(array, numpy.arange(4.0)[::-1])


@pytest.mark.parametrize("made", [numpy.copy, torch_of])
def test_targets_over_one_memory_take_what_agrees(made: Any) -> None:
    values, whole = numpy.arange(8.0).reshape(4, 2), made(numpy.zeros((4, 2)))
    ties = {"a": whole, "b": whole}
    for model in ({"a": values, "b": values}, {"a": values, "b": values.copy()}):
        whole[...] = 0
        assert tensorkeep.load_into(saved(**model), ties).loaded == ["a", "b"]
        assert (numpy.asarray(whole) == values).all()
    views = {"all": whole, "turned": whole.T, "some": whole[1:3], "left": whole[:, 0], "right": whole[:, 1]}
    names = {"all": values, "turned": values.T.copy(), "some": values[1:3], "left": values[:, 0], "right": values[:, 1]}
    whole[...] = 0
    tensorkeep.load_into(saved(**names), views)
    assert (numpy.asarray(whole) == values).all()


def test_columns_of_one_matrix_share_nothing() -> None:
    whole = numpy.zeros((4, 2))
    tensorkeep.load_into(saved(a=numpy.ones(4), b=numpy.full(4, 2.0)), {"a": whole[:, 0], "b": whole[:, 1]})
    assert (whole == [[1, 2]] * 4).all()


def tied(torch: Any) -> Any:
    model = torch.nn.Sequential(torch.nn.Embedding(6, 4), torch.nn.Linear(4, 6, bias=False), torch.nn.Linear(6, 4, bias=False))
    model[1].weight = model[0].weight
    model[2].weight = torch.nn.Parameter(model[0].weight.t())
    return model


def test_a_module_with_ties_takes_one_value_for_them() -> None:
    torch = need("torch")
    model, other = tied(torch), tied(torch)
    tensorkeep.save({"model": other.state_dict()}, "into.tkeep")
    tensorkeep.load_into("into.tkeep", model)
    assert torch.equal(model[0].weight, other[0].weight) and model[1].weight is model[0].weight
    before = model[0].weight.detach().clone()
    for untied in ("1.weight", "2.weight"):
        state = {key: value.clone() for key, value in other.state_dict().items()}
        state[untied] += 1
        tensorkeep.save({"model": state}, "untied.tkeep")
        with pytest.raises(tensorkeep.Mismatch, match=f"0.weight and {untied} share memory"):
            tensorkeep.load_into("untied.tkeep", model)
        assert torch.equal(model[0].weight, before)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod."])
def test_a_wrapped_module_is_told_from_a_plain_one(prefix: str) -> None:
    torch = need("torch")
    plain = torch.nn.Linear(3, 2)
    wrapped = torch.nn.Module()
    wrapped.add_module(prefix[:-1], torch.nn.Linear(3, 2))
    tensorkeep.save({"model": plain.state_dict()}, "plain.tkeep")
    tensorkeep.save({"model": wrapped.state_dict()}, "wrapped.tkeep")
    with pytest.raises(tensorkeep.Mismatch, match=f"names of the target begin with '{prefix}'.*load into its {prefix[:-1]}$"):
        tensorkeep.load_into("plain.tkeep", wrapped)
    tensorkeep.load_into("plain.tkeep", wrapped.get_submodule(prefix[:-1]))
    with pytest.raises(tensorkeep.Mismatch, match=f"names of the file begin with '{prefix}'"):
        tensorkeep.load_into("wrapped.tkeep", plain)
    training = tensorkeep.TrainState(model=wrapped, rng=False)
    with pytest.raises(tensorkeep.Mismatch, match=f"load into its {prefix[:-1]}\n"):
        training.load_state_dict({"model": plain.state_dict()})
    state = tensorkeep.load("wrapped.tkeep")["model"]
    torch.nn.modules.utils.consume_prefix_in_state_dict_if_present(state, prefix)
    plain.load_state_dict(state)
