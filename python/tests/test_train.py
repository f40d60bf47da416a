"""A training state is restored whole or not at all."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import tensorkeep
from conftest import alike, need, run
from tensorkeep import Every, Store

torch = need("torch")


class Part:
    """A part that says nothing of what fits it, and fails half way."""

    def __init__(self, value: int, fails: bool = False) -> None:
        self.value, self.other, self.fails = value, value, fails

    def state_dict(self) -> dict[str, int]:
        return {"value": self.value, "other": self.other}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["value"]
        if self.fails and state["value"] == 1:
            raise RuntimeError("half way")
        self.other = state["other"]


def training(groups: int = 1, **parts: Any) -> tensorkeep.TrainState:
    model = torch.nn.Linear(3, 2)
    split = [[model.weight], [model.bias]] if groups == 2 else [list(model.parameters())]
    optimizer = torch.optim.AdamW([{"params": group} for group in split], lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    return tensorkeep.TrainState(model=model, optimizer=optimizer, rng=False, extra={"n": groups}, **parts)


def plain(state: tensorkeep.TrainState) -> Any:
    return torch.load(_saved(state.state_dict()), weights_only=False)


def _saved(state: Any) -> str:
    torch.save(state, "plain.pt")
    return "plain.pt"


def test_an_optimizer_with_other_groups_leaves_the_model() -> None:
    one, two = training(), training(groups=2)
    before = plain(two)
    with pytest.raises(tensorkeep.Mismatch, match="(?s)optimizer.*2 groups of parameters, found 1"):
        two.load_state_dict(one.state_dict())
    assert alike(before, plain(two))


def test_a_group_with_other_parameters_leaves_the_model() -> None:
    one, two = training(), training()
    state = plain(one)
    state["optimizer"]["param_groups"][0]["params"] = [0]
    before = plain(two)
    with pytest.raises(tensorkeep.Mismatch, match="(?s)optimizer.*group 0: expected 2 parameters, found 1"):
        two.load_state_dict(state)
    assert alike(before, plain(two))


@pytest.mark.parametrize("first", [True, False])
def test_a_part_that_fails_leaves_all_as_they_were(first: bool) -> None:
    one = training(loader=Part(1), other=Part(1))
    two = training(loader=Part(2, fails=first), other=Part(2, fails=not first))
    before = plain(two)
    with pytest.raises(RuntimeError, match="half way"):
        two.load_state_dict(one.state_dict())
    assert alike(before, plain(two))


@pytest.mark.parametrize(("name", "value"), [("extra", 5), ("optimizer", {}), ("optimizer", 5), ("model", 5)])
def test_a_state_of_another_shape_leaves_all_as_they_were(name: str, value: Any) -> None:
    one, two = training(), training()
    before = plain(two)
    with pytest.raises(tensorkeep.Mismatch, match=name):
        two.load_state_dict({**one.state_dict(), name: value})
    assert alike(before, plain(two))


class HalfWay(torch.nn.Linear):  # type: ignore[name-defined,misc]
    """A module whose own code raises when the weight is loaded, and the bias is not."""

    def load_state_dict(self, state: Any, strict: bool = True, assign: bool = False) -> Any:
        with torch.no_grad():
            self.weight.copy_(state["weight"])
        raise RuntimeError("half way")


class HalfWaySgd(torch.optim.SGD):  # type: ignore[name-defined,misc]
    """An optimizer whose own code changes tensors in place, and raises."""

    fails = True

    def load_state_dict(self, state: Any) -> None:
        for group in self.param_groups:
            group["lr"] = state["param_groups"][0]["lr"]
        for held in self.state.values():
            held["momentum_buffer"].zero_()
        if self.fails:
            raise RuntimeError("half way")
        super().load_state_dict(state)


def test_a_module_or_an_optimizer_that_fails_is_as_it_was() -> None:
    def made(module: Any, lr: float) -> tensorkeep.TrainState:
        optimizer = HalfWaySgd(module.parameters(), lr=lr, momentum=0.9)
        module(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        return tensorkeep.TrainState(rng=False, first=Part(3), model=module, optimizer=optimizer)

    one = made(torch.nn.Linear(3, 2), 0.5)
    for module in (HalfWay(3, 2), torch.nn.Linear(3, 2)):
        two = made(module, 0.25)
        before = plain(two)
        with pytest.raises(RuntimeError, match="half way"):
            two.load_state_dict(one.state_dict())
        assert alike(before, plain(two))
    two.parts["optimizer"].fails = False
    two.load_state_dict(one.state_dict())
    assert two.parts["optimizer"].param_groups[0]["lr"] == 0.5


def test_an_optimizer_of_no_framework_is_as_it_was(tmp_path: Path) -> None:
    code = """
import sys, tensorkeep
class Mine:
    def __init__(self): self.param_groups, self.state = [{"params": [0], "lr": 1.0}], {0: [1.0]}
    def state_dict(self): return {"param_groups": self.param_groups, "state": self.state}
    def load_state_dict(self, state):
        self.param_groups[0]["lr"] = state["param_groups"][0]["lr"]
        self.state[0].append(2.0)
        raise RuntimeError("half way")
mine, state = Mine(), tensorkeep.TrainState(rng=False, mine=Mine()).state_dict()
state["mine"]["param_groups"][0]["lr"] = 5.0
try:
    tensorkeep.TrainState(rng=False, mine=mine).load_state_dict(state)
except RuntimeError as error:
    print(error, mine.param_groups, mine.state, "torch" in sys.modules)
"""
    assert run(code, cwd=tmp_path).stdout == "half way [{'params': [0], 'lr': 1.0}] {0: [1.0]} False\n"


def test_an_interrupt_leaves_all_as_they_were() -> None:
    class Interrupted(Part):
        def load_state_dict(self, state: Any) -> None:
            raise KeyboardInterrupt

    one, two = training(loader=Part(1)), training(loader=Interrupted(2))
    before = plain(two)
    with pytest.raises(KeyboardInterrupt):
        two.load_state_dict(one.state_dict())
    assert alike(before, plain(two))


def test_a_part_given_to_a_store_itself_is_as_it_was(tmp_path: Path) -> None:
    module = HalfWay(3, 2)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with tensorkeep.Store(tmp_path / "run") as store:
        store.save(torch.nn.Linear(3, 2).state_dict(), 1)
        with pytest.raises(RuntimeError, match="half way"):
            store.resume(module)
        with pytest.raises(tensorkeep.Mismatch, match="weight: expected"):
            store.resume(torch.nn.Linear(4, 2))
    assert all(torch.equal(before[name], tensor) for name, tensor in module.state_dict().items())


def test_a_parameter_that_got_its_shape_loses_it_again() -> None:
    class Fails(Part):
        def load_state_dict(self, state: Any) -> None:
            if state["value"] == 1:
                raise RuntimeError("half way")

    full, lazy = torch.nn.Linear(3, 2), torch.nn.LazyLinear(2)
    one = tensorkeep.TrainState(rng=False, model=full, loader=Part(1))
    two = tensorkeep.TrainState(rng=False, model=lazy, loader=Fails(2))
    with pytest.raises(RuntimeError, match="half way"):
        two.load_state_dict(one.state_dict())
    assert lazy.has_uninitialized_params()
    three = tensorkeep.TrainState(rng=False, model=lazy, loader=Part(2))
    three.load_state_dict(one.state_dict())
    assert torch.equal(lazy.weight, full.weight) and torch.equal(lazy(torch.ones(1, 3)), full(torch.ones(1, 3)))


def test_extra_state_of_another_length_is_restored() -> None:
    class Counting(torch.nn.Linear):  # type: ignore[name-defined,misc]
        extra: Any = None

        def get_extra_state(self) -> Any:
            return self.extra

        def set_extra_state(self, state: Any) -> None:
            self.extra = state

    first, second = Counting(3, 2), Counting(3, 2)
    first.extra, second.extra = torch.ones(7), torch.ones(2)
    one, two = (tensorkeep.TrainState(rng=False, model=torch.nn.Sequential(module)) for module in (first, second))
    two.load_state_dict(one.state_dict())
    assert torch.equal(second.extra, torch.ones(7))


def optimizers() -> list[Any]:
    names = ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam", "RAdam", "Adadelta", "Rprop", "ASGD", "LBFGS")
    return [getattr(torch.optim, name) for name in names]


@pytest.mark.parametrize("kind", optimizers())
def test_an_optimizer_takes_no_state_of_another_kind(kind: Any) -> None:
    def made(other: Any, named: bool) -> Any:
        state = tensorkeep.TrainState(rng=False, optimizer=other(torch.nn.Linear(3, 2).parameters(), lr=0.1))
        return state, {name: value for name, value in state.state_dict().items() if named or name != "kinds"}

    mine, state = made(kind, True)
    mine.load_state_dict(state)
    for other in optimizers():
        if other is kind or {other, kind} == {torch.optim.Adam, torch.optim.AdamW}:
            continue  # Adam and AdamW have one state, which says of itself which it is.
        before = plain(mine)
        with pytest.raises(tensorkeep.Mismatch, match=rf"optimizer.*\n.*expected the state of .*\.{kind.__name__}, .*{other.__name__}"):
            mine.load_state_dict(made(other, True)[1])
        assert alike(before, plain(mine))
    if kind is torch.optim.SGD:
        with pytest.raises(tensorkeep.Mismatch, match="(?s)momentum.*that of another kind, with .*betas"):
            mine.load_state_dict(made(torch.optim.AdamW, False)[1])


def test_an_optimizer_takes_the_state_of_another_version() -> None:
    one, two = training(), training()
    state = plain(one)
    del state["optimizer"]["param_groups"][0]["fused"]
    two.load_state_dict(state)
    state["optimizer"]["param_groups"][0]["initial_lr"] = 0.1  # A scheduler was there.
    two.load_state_dict(state)


def test_a_scheduler_takes_no_state_of_another_kind() -> None:
    def made(kind: Any, *arguments: Any) -> tensorkeep.TrainState:
        optimizer = torch.optim.SGD(torch.nn.Linear(1, 1).parameters(), lr=0.1)
        return tensorkeep.TrainState(rng=False, scheduler=kind(optimizer, *arguments))

    one, two = made(torch.optim.lr_scheduler.StepLR, 3), made(torch.optim.lr_scheduler.CosineAnnealingLR, 9)
    with pytest.raises(tensorkeep.Mismatch, match="(?s)CosineAnnealingLR, with .*T_max.* StepLR|CosineAnnealingLR.*StepLR"):
        two.load_state_dict(one.state_dict())


def test_parts_that_only_one_side_has_are_told() -> None:
    one, two = training(loader=Part(1)), training(lodaer=Part(2))
    before = plain(two)
    with pytest.raises(tensorkeep.Mismatch, match="(?s)lodaer: missing; did you mean loader.*loader: not in this training"):
        two.load_state_dict(one.state_dict())
    assert alike(before, plain(two))
    two.load_state_dict(one.state_dict(), strict=False)
    assert alike(plain(two)["model"], plain(one)["model"]) and two.parts["lodaer"].value == 2
    without = tensorkeep.TrainState(rng=False, model=two.parts["model"], optimizer=two.parts["optimizer"], loader=Part(2))
    with pytest.raises(tensorkeep.Mismatch, match="extra: not in this training"):
        without.load_state_dict(one.state_dict())


def test_a_part_is_not_named_as_what_says_of_what_kind_they_are() -> None:
    with pytest.raises(tensorkeep.Invalid, match="'kinds'"):
        training(kinds=Part(1))


def test_generators_are_left_alone_where_that_is_asked() -> None:
    one, two = training(), training()
    one.rng = True
    two.load_state_dict(one.state_dict())
    with pytest.raises(tensorkeep.Mismatch, match="rng: missing"):
        one.load_state_dict(two.state_dict())


def test_generators_that_do_not_fit_leave_all_as_they_were() -> None:
    one, two = training(loader=Part(1)), training(loader=Part(2))
    one.rng = two.rng = True
    before = plain(two)
    torch.rand(1)
    with pytest.raises(tensorkeep.Mismatch, match="torch's random generator"):
        two.load_state_dict({**before, "rng": {**before["rng"], "torch": torch.zeros(3, dtype=torch.uint8)}})
    after = plain(two)
    assert alike(before["model"], after["model"]) and alike(before["loader"], after["loader"])


def test_what_fits_is_restored() -> None:
    one, two = training(loader=Part(3)), training(loader=Part(4))
    two.load_state_dict(plain(one))
    assert alike(plain(one), plain(two))


def test_what_a_resume_could_not_restore_is_refused_before_training(tmp_path: Path) -> None:
    torch = need("torch")
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters())
    with tensorkeep.Store(tmp_path / "run") as store:
        for state, words in [
            (None, "state: expected a dict"),
            ([5], "state: expected a dict"),
            ({"model": model.state_dict()}, r"state\['model'\] is a state dict; .*give a TrainState"),
            ({"optimizer": optimizer.state_dict()}, r"state\['optimizer'\] is a state dict"),
        ]:
            with pytest.raises(tensorkeep.Invalid, match=words):
                next(iter(store.steps(4, state)))
        store.save([1], 1)
    mine = {"mine": 1}
    with tensorkeep.Store(tmp_path / "run") as store, pytest.raises(tensorkeep.Mismatch, match="no dict"):
        store.resume(mine)
    assert mine == {"mine": 1}


def test_a_dict_of_parts_is_refused_before_a_step_is_trained() -> None:
    refused = pytest.raises(tensorkeep.Invalid, match=r"state\['net'\] is a Linear; .*TrainState")
    with Store("run", save=Every.steps(1)) as store, refused:
        for _ in store.steps(2, {"net": torch.nn.Linear(2, 2)}):
            raise AssertionError("a step")


def test_a_loss_with_its_graph_is_a_metric_without_a_warning() -> None:
    loss = torch.ones(3, requires_grad=True).sum()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Store("run") as store:
            store.metrics(loss=loss)
            store.save({"a": 1}, 1, metrics={"other": loss})
            assert store.list()[0].metrics == {"loss": 3.0, "other": 3.0}
