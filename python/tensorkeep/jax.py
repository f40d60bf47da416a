"""Checkpoints of JAX: pytrees, typed keys, shardings.

Example:
    >>> import tensorkeep.jax, jax.numpy as jnp
    >>> params = {"dense": {"kernel": jnp.ones((2, 3)), "bias": jnp.zeros(3)}}
    >>> _ = tensorkeep.jax.save({"params": params, "step": 7}, "jax.tkeep")
    >>> tensorkeep.jax.load("jax.tkeep")["params"]["dense"]["bias"]
    Array([0., 0., 0.], dtype=float32)
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax

from . import _flat
from ._errors import Mismatch
from ._files import Codec, Verify, Written, load_as
from ._files import save as _save
from ._progress import Progress

__all__ = ["load", "load_file", "plain", "restore_like", "save", "save_file"]


def plain(tree: Any) -> Any:
    """A pytree as dicts, lists and tuples: other nodes (named tuples, dataclasses, flax's and optax's states) are
    dicts by the names of their children.
    """
    if type(tree) is dict:
        return {key: plain(value) for key, value in tree.items()}
    if type(tree) in (list, tuple):
        return type(tree)(plain(value) for value in tree)
    if tree is None or jax.tree_util.all_leaves([tree]):
        return tree
    children, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda node: node is not tree)
    return {_name(path[0]): plain(child) for path, child in children}


def _name(key: Any) -> Any:
    for attribute in ("key", "name", "idx"):
        if hasattr(key, attribute):
            return getattr(key, attribute)
    return str(key)


def save(
    tree: Any,
    path: str | os.PathLike[str],
    *,
    metadata: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
    codec: Codec | Mapping[str, Codec] = "raw",
    progress: bool | Progress = False,
) -> Written:
    """Saves a pytree, as :func:`tensorkeep.save` does a nested state.

    Args:
        tree: Arrays, typed keys and plain values in dicts, lists, tuples and registered nodes. For a :class:`Store`,
            which does not know nodes, pass :func:`plain` of it.
        path: Where to.
        metadata: Lines of text for people.
        metrics: As there.
        codec: As there.
        progress: As there.

    Raises:
        CannotStore: A leaf is neither an array nor plain, or other processes have parts of it.
    """
    return _save(plain(tree), path, metadata=metadata, metrics=metrics, codec=codec, progress=progress)


def load(
    path: str | os.PathLike[str],
    *,
    like: Any = None,
    mmap: bool | Literal["auto"] = "auto",
    verify: Verify = "open",
    only: str | Sequence[str] | None = None,
    progress: bool | Progress = False,
) -> Any:
    """Loads a pytree.

    Args:
        path: A file, or a checkpoint of a run.
        like: A pytree whose nodes the result has, and whose arrays say dtype, shape and sharding; of
            ``jax.ShapeDtypeStruct`` where there are no arrays yet. None gives dicts, lists and tuples.
        mmap: As in :func:`tensorkeep.load`.
        verify: As there.
        only: As there.
        progress: As there.

    Returns:
        The pytree.

    Raises:
        Mismatch: ``like`` has a leaf that the file lacks, or of another dtype or shape.
    """
    state = load_as("jax", path, mmap, verify, only, False, progress)
    return state if like is None else restore_like(state, like)


def restore_like(state: Any, like: Any) -> Any:
    """The leaves of a loaded state in the nodes of ``like``, on its devices."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    found = [_leaf(state, path, leaf) for path, leaf in leaves]
    return jax.tree_util.tree_unflatten(structure, found)


def _leaf(state: Any, path: Any, like: Any) -> Any:
    value = state
    for key in path:
        try:
            value = value[_name(key)]
        except (KeyError, IndexError, TypeError):
            where = jax.tree_util.keystr(path)
            raise Mismatch(f"the checkpoint has no {where}", expected=where) from None
    if not hasattr(like, "dtype") or not hasattr(like, "shape"):
        return value
    expected = f"{like.dtype}{list(like.shape)}"
    actual = f"{value.dtype}{list(value.shape)}" if hasattr(value, "dtype") else type(value).__name__
    if expected != actual:
        raise Mismatch(f"{jax.tree_util.keystr(path)} differs", expected=expected, found=actual)
    sharding = getattr(like, "sharding", None)
    return value if sharding is None else jax.device_put(value, sharding)


def save_file(
    tensors: Mapping[str, Any], filename: str | os.PathLike[str], metadata: Mapping[str, str] | None = None
) -> Written:
    """Saves arrays by name, as ``safetensors.flax.save_file``."""
    return _flat.save_file(tensors, filename, metadata, "raw")


def load_file(filename: str | os.PathLike[str], device: Any = None) -> dict[str, Any]:
    """Loads all tensors of a file by name as arrays of JAX."""
    return _flat.load_file(filename, "jax", device, "mmap")
