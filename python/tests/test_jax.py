"""JAX's pytrees: plain ones, named tuples by `like`, typed keys, dtypes, a run that is resumed."""

from __future__ import annotations

import collections
from typing import Any

import numpy
import pytest
import tensorkeep
from conftest import need
from hostile import with_hostile
from tensorkeep import Every, Store

jax = need("jax")
import jax.numpy as jnp  # noqa: E402
import tensorkeep.jax as tj  # noqa: E402

Adam = collections.namedtuple("Adam", "count mu nu")


def same(a: Any, b: Any) -> bool:
    left, right = jax.tree_util.tree_flatten(a), jax.tree_util.tree_flatten(b)
    return left[1] == right[1] and all(
        x.dtype == y.dtype and numpy.asarray(x).tobytes() == numpy.asarray(y).tobytes() for x, y in zip(left[0], right[0])
    )


def test_plain_pytrees_come_back_with_their_types() -> None:
    tree = {
        "params": {"kernel": jnp.arange(6.0).reshape(2, 3), "half": jnp.ones(5, jnp.bfloat16)},
        "seq": [jnp.zeros((), jnp.int32), (jnp.ones(3, jnp.float8_e4m3fn), None)],
        "empty": jnp.zeros((0, 2)),
    }
    tj.save({**tree, "step": 3, "betas": (0.9, 0.99)}, "tree.tkeep")
    for mmap in (True, False):
        loaded = tj.load("tree.tkeep", mmap=mmap)
        assert loaded.pop("step") == 3 and loaded.pop("betas") == (0.9, 0.99)
        assert same(loaded, tree) and isinstance(loaded["params"]["half"], jax.Array)


def test_named_tuples_come_back_by_like() -> None:
    params = {"w": jnp.ones((4, 4))}
    state = {"params": params, "opt": (Adam(jnp.zeros((), jnp.int32), params, {"w": jnp.zeros((4, 4))}), Adam(1, 2, 3))}
    tj.save(state, "named.tkeep")
    assert tj.load("named.tkeep")["opt"][0]["mu"]["w"].shape == (4, 4)
    loaded = tj.load("named.tkeep", like=state)
    assert isinstance(loaded["opt"][0], Adam) and loaded["opt"][1] == Adam(1, 2, 3)
    assert same(loaded["params"], params)
    shapes = jax.eval_shape(lambda: params)
    assert same(tj.load("named.tkeep", like={"params": shapes})["params"], params)
    with pytest.raises(tensorkeep.Mismatch, match="float32"):
        tj.load("named.tkeep", like={"params": {"w": jnp.ones((4, 5))}})
    with pytest.raises(tensorkeep.Mismatch, match="bias"):
        tj.load("named.tkeep", like={"params": {"bias": jnp.ones(4)}})


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_typed_keys_come_back(impl: str) -> None:
    keys = jax.random.split(jax.random.key(7, impl=impl), 3)
    tj.save({"key": keys, "raw": jax.random.PRNGKey(1)}, "keys.tkeep")
    loaded = tj.load("keys.tkeep")
    assert loaded["key"].dtype == keys.dtype
    assert jnp.array_equal(jax.random.normal(loaded["key"][1], (3,)), jax.random.normal(keys[1], (3,)))


def test_a_tracer_is_refused() -> None:
    def traced(x: Any) -> Any:
        tj.save({"x": x}, "traced.tkeep")
        return x

    with pytest.raises(tensorkeep.CannotStore, match="x"):
        jax.jit(traced)(jnp.ones(2))


def test_views_are_shared_by_dlpack() -> None:
    tj.save_file({"w": jnp.arange(1000.0), "h": jnp.ones(1000, jnp.bfloat16)}, "flat.tkeep")
    with tensorkeep.open("flat.tkeep", mmap=True) as checkpoint:
        for name, loaded in tj.load_file("flat.tkeep").items():
            assert jnp.array_equal(jnp.from_dlpack(checkpoint.tensors[name]), loaded)


def test_a_run_of_jax_is_resumed_bit_for_bit() -> None:
    @jax.jit
    def update(params: Any, key: Any) -> Any:
        noise = jax.random.normal(key, params["w"].shape)
        return {"w": 0.9 * params["w"] + 0.1 * noise}

    def train(run: str, until: int) -> Any:
        state = {"params": {"w": jnp.ones(16)}, "key": jax.random.key(3)}
        with Store(run, save=Every.steps(3), signals="off") as store:
            for step in store.steps(11, state):
                state["key"], key = jax.random.split(state["key"])
                state["params"] = update(state["params"], key)
                if step + 1 == until:
                    break
        return state["params"]

    quiet = train("quiet", 11)
    train("stopped", 7)
    assert same(train("stopped", 11), quiet)


@pytest.mark.filterwarnings("ignore")
def test_no_argument_raises_what_is_not_ours() -> None:
    tree = {"a": jnp.ones(2)}
    tj.save(tree, "j.tkeep")
    tj.save_file(tree, "f.tkeep")
    with_hostile(tj.load, "j.tkeep", like=tree, mmap="auto", verify="open", only=None, progress=False)
    with_hostile(tj.save, tree, "k.tkeep", metadata=None, metrics=None, codec="raw", progress=False)
    with_hostile(tj.save_file, tree, "k.tkeep", None)
    with_hostile(tj.load_file, "f.tkeep", None)
    with_hostile(tj.restore_like, tree, tree)
    with_hostile(tensorkeep.load, "j.tkeep", map_location=None)
