"""A training state is restored whole or not at all."""

from __future__ import annotations

from typing import Any

import pytest
import tensorkeep
from conftest import alike, need

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


def test_generators_that_do_not_fit_leave_all_as_they_were() -> None:
    one, two = training(loader=Part(1)), training(loader=Part(2))
    one.rng = two.rng = True
    before = plain(two)
    torch.rand(1)
    with pytest.raises((TypeError, RuntimeError)):
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
