"""Records, kinds and views as a nested state again. What a file says is data: a name chooses among types that are
known here or registered, and nothing that a file names is ever imported or called.
"""

from __future__ import annotations

import collections
import functools
import importlib
import sys
from typing import Any, Callable, Iterable, Mapping, Sequence

from . import _arguments
from ._errors import Invalid, Unsupported
from ._paths import segments, unescape
from ._state import VERSION
from ._walk import REGISTERED
from ._warn import warn

__all__ = ["LeftOut", "Loader", "restore", "segments_of_any"]

#: A tensor of the file: its name, the one whose bytes it shares or None, and its memory.
Viewed = tuple[str, "str | None", Any]

_LEAVES = frozenset((bool, int, float, str, bytes))


class LeftOut:
    """In the place of a tensor that ``only`` leaves out of a list. It is no tensor, and cannot be saved.

    Example:
        >>> import tensorkeep, numpy
        >>> _ = tensorkeep.save({"layers": [numpy.zeros(2), numpy.ones(2)]}, "layers.tkeep")
        >>> tensorkeep.load("layers.tkeep", only="layers/1")["layers"]
        [LeftOut('layers/0'), array([1., 1.])]
    """

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"LeftOut({self.name!r})"


class Loader:
    """Makes tensors of views, each once.

    Args:
        framework: What tensors become of which the file does not say it.
        map_location: Where they go: a device, or a dict of devices by where tensors were, which is the CPU for all.
    """

    def __init__(self, framework: str | None = None, map_location: Any = None) -> None:
        if isinstance(map_location, Mapping):
            map_location = map_location.get("cpu")
        elif callable(map_location) and not hasattr(map_location, "type"):  # A `torch.device` is called, too.
            help = "pass a device, and move single tensors after loading"
            raise Invalid("map_location: a function is asked for each storage, and here are none", help=help)
        if framework is not None:
            framework = _FRAMEWORKS[_arguments.word("framework", framework, tuple(_FRAMEWORKS))]
        self.framework = framework
        self.device = map_location
        self._made: dict[tuple[str, str], Any] = {}

    def tensor(self, view: Any, owner: str, kind: str) -> Any:
        """A view as a framework's tensor. Names that share a view, as that kind, share the tensor."""
        made = self._made.get((owner, kind))
        if made is None:
            made = self._made[owner, kind] = _maker(kind)(view, kind, self.device)
        return made


#: What tensors are called by callers, and in files.
_FRAMEWORKS = {"torch": "torch", "numpy": "ndarray", "jax": "jax", "ndarray": "ndarray"}
#: Which module makes tensors of a kind.
ADAPTORS = {"torch": "_torch", "Parameter": "_torch", "Parameter-frozen": "_torch", "requires_grad": "_torch",
            "ndarray": "_numpy", "jax": "_jax"}  # fmt: skip


def _adaptor(name: str) -> Any:
    try:
        return importlib.import_module(f"tensorkeep.{name}")
    except ImportError as error:
        what = f"the file has tensors of {name[1:]}, which cannot be imported: {error}"
        raise Unsupported(what, help=f"install {name[1:]}, or use tensorkeep.numpy.load") from error


@functools.cache
def _maker(kind: str) -> Callable[[Any, str, Any], Any]:
    """What makes tensors of a kind: to look a module up for each of 100,000 took as long as to make them."""
    maker: Callable[[Any, str, Any], Any] = _adaptor(ADAPTORS[kind]).from_view
    return maker


def _decoders_of(framework: str) -> Mapping[str, Callable[[Any], Any]]:
    """What makes values of a framework's kinds: without the framework there are none, and the values stay plain."""
    if framework not in ("torch", "numpy"):
        return {}
    try:
        decoders: Mapping[str, Callable[[Any], Any]] = _adaptor(f"_{framework}").DECODERS
    except Unsupported:
        return {}
    return decoders


def default_framework() -> str:
    """What tensors become of which nobody says it: torch's where torch is imported, else numpy's."""
    return "torch" if "torch" in sys.modules else "ndarray"


class _DoesNotFit(Exception):
    """A kind that does not fit its value: the value stays plain."""


class _Rebuild:
    def __init__(self, types: Mapping[str, Any], viewed: Iterable[Viewed], others: set[str], loader: Loader) -> None:
        kinds = types.get("kinds")
        self.kinds: dict[str, Any] = kinds if type(kinds) is dict else {}
        self.views = {name: (alias or name, view) for name, alias, view in viewed}
        #: Names of tensors that were not asked for.
        self.others = others
        self.loader = loader
        said = types.get("tensors")
        self.default = loader.framework or (said if type(said) is str and said in ADAPTORS else default_framework())
        self.unknown: dict[str, Any] = {}
        #: How many tensors were left out so far, and the paths of registered values of which some were.
        self.left_out = 0
        self.partial: list[str] = []

    def tensor(self, path: str) -> Any:
        owner, view = self.views.pop(path)
        kind = self.kinds.get(path)
        if self.loader.framework == "ndarray":
            # Asked for: arrays, whatever they were saved from.
            return self.loader.tensor(view, owner, "ndarray")
        registered = None
        if type(kind) is list and kind[:1] == ["x"]:
            registered, kind = kind, kind[2] if len(kind) > 2 else None
        if type(kind) is list and kind[:1] == ["jax.key"] and len(kind) == 2:
            made = _adaptor("_jax").key(self.loader.tensor(view, owner, "jax"), kind[1])
        else:
            made = self.loader.tensor(view, owner, kind if type(kind) is str and kind in ADAPTORS else self.default)
        return made if registered is None else self.back(registered, made, path)

    def value(self, value: Any, path: str) -> Any:
        kind, left_out = type(value), self.left_out
        if value is None:
            if path in self.others:
                self.left_out += 1
                return LeftOut(path)
            if path in self.views:
                return self.tensor(path)
            said = self.kinds.get(path)
            return self.kind(None, path) if type(said) is list and said[:1] == ["x"] else None
        if kind is dict:
            value = self.dict(value, path)
        elif kind is list:
            for i, item in enumerate(value):
                if type(item) not in _LEAVES or self.kinds:
                    value[i] = self.value(item, f"{path}/{i}")
        return self.kind(value, path, self.left_out == left_out) if path in self.kinds else value

    def dict(self, value: dict[Any, Any], path: str) -> dict[Any, Any]:
        left_out = []
        for key, segment in zip(value, segments_of_any(value, path)):
            item = value[key]
            if type(item) not in _LEAVES or self.kinds:
                value[key] = self.value(item, f"{path}/{segment}")
                if type(value[key]) is LeftOut:
                    left_out.append(key)
        for key in left_out:
            del value[key]
        return value

    def kind(self, value: Any, path: str, is_whole: bool = True) -> Any:
        kind = self.kinds[path]
        try:
            if type(kind) is list and kind[:1] == ["x"]:
                if len(kind) == 3:
                    value = self.plain(value, kind[2], path)
                if not is_whole:
                    self.partial.append(path)
                    return value
                return self.back(kind, value, path)
            return self.plain(value, kind, path)
        except _DoesNotFit:
            self.unknown[path] = kind
            return value

    def plain(self, value: Any, kind: Any, path: str) -> Any:
        if type(kind) is list and len(kind) == 2 and kind[0] == "OrderedDict":
            return _ordered(value, kind[1])
        maker = DECODERS.get(kind) if type(kind) is str else None
        if maker is None and type(kind) is str:
            maker = _decoders_of(kind.partition(".")[0]).get(kind)
        if maker is None:
            raise _DoesNotFit
        try:
            return maker(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            raise _DoesNotFit from None

    def back(self, kind: Sequence[Any], value: Any, path: str) -> Any:
        name = kind[1] if len(kind) > 1 else None
        registered = REGISTERED.get(name) if type(name) is str else None
        if registered is None:
            self.unknown[path] = kind
            return value
        return registered.back(value)


def segments_of_any(keys: dict[Any, Any], path: str) -> Sequence[str]:
    """The segments of a record's keys, whatever they are."""
    try:
        return segments(keys, path)
    except Exception:
        # Keys that no Python state has: none of them is a path.
        return [f"\0{i}" for i in range(len(keys))]


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise _DoesNotFit
    return value


def _ordered(value: Any, metadata: Any) -> Any:
    ordered: Any = collections.OrderedDict(_exactly(dict, value))
    ordered._metadata = collections.OrderedDict(_exactly(dict, metadata))
    return ordered


def _complex(value: Any) -> complex:
    real, imaginary = (_exactly(float, part) for part in _exactly(list, value))
    return complex(real, imaginary)


DECODERS: dict[str, Callable[[Any], Any]] = {
    "int": lambda value: int.from_bytes(_exactly(bytes, value), "big", signed=True),
    "uint": lambda value: int.from_bytes(_exactly(bytes, value), "big"),
    "bigint": lambda value: int.from_bytes(_exactly(bytes, value), "big", signed=True),
    "complex": _complex,
    "tuple": lambda value: tuple(_exactly(list, value)),
    "set": lambda value: set(_exactly(list, value)),
    "frozenset": lambda value: frozenset(_exactly(list, value)),
    "bytearray": lambda value: bytearray(_exactly(bytes, value)),
    "OrderedDict": lambda value: collections.OrderedDict(_exactly(dict, value)),
    "Counter": lambda value: collections.Counter(_exactly(dict, value)),
    "defaultdict": lambda value: _exactly(dict, value),  # Told when it was saved.
}


def restore(
    records: dict[str, Any],
    types: Any,
    viewed: Sequence[Viewed],
    others: set[str],
    loader: Loader,
    strict_types: bool = False,
) -> Any:
    """The state.

    Args:
        records: Decoded records without the library's own, which become part of the state.
        types: The record ``tensorkeep.python``, or None for a file that Python did not make.
        viewed: The tensors to put into it.
        others: Names of the tensors that are left out.
        loader: Makes tensors.
        strict_types: Whether a type that is not known here is an error instead of a warning.
    """
    ours = type(types) is dict
    types = types if type(types) is dict else {}
    if types.get("v", VERSION) != VERSION:
        _complain(f"its Python types are of version {types['v']!r}: values come back plain", strict_types)
        ours, types = False, {}
    rebuild = _Rebuild(types, viewed, others, loader)
    state: dict[str, Any] = {}
    order = types.get("order")
    names = [name for name in order if type(name) is str] if type(order) is list else []
    for name in dict.fromkeys([*names, *records]):
        key = unescape(name) if ours else name
        if name in records:
            state[key] = rebuild.value(records[name], name)
        elif name in rebuild.views:
            state[key] = rebuild.tensor(name)
    _place_rest(state, rebuild, ours)
    if not ours:
        state = _with_metadata({name: _with_metadata(value) for name, value in state.items()})
    if types.get("bare") is True and list(state) == ["state"]:
        result: Any = state["state"]
    else:
        result = rebuild.kind(state, "") if "" in rebuild.kinds else state
    if rebuild.unknown:
        some = ", ".join(f"{path!r}: {kind!r}" for path, kind in list(rebuild.unknown.items())[:5])
        _complain(f"{len(rebuild.unknown)} values come back plain, whose types are not known here: {some}", strict_types)
    if rebuild.partial:
        some = ", ".join(map(repr, rebuild.partial[:5]))
        what = f"{len(rebuild.partial)} values come back plain, because `only` leaves out parts of them: {some}"
        _complain(what, strict_types, "choose them whole")
    return result


def _with_metadata(value: Any) -> Any:
    """An imported state dict, with the `_metadata` from among its tensors where torch has it."""
    if type(value) is not dict or type(value.get("_metadata")) is not dict:
        return value
    return _ordered({name: item for name, item in value.items() if name != "_metadata"}, value["_metadata"])


def _place_rest(state: dict[str, Any], rebuild: _Rebuild, ours: bool) -> None:
    """Tensors that no record mentions: Rust's, and imported ones."""
    for name in list(rebuild.views):
        group, _, rest = name.partition("/")
        key = unescape(name) if ours else name
        if rest:
            _place(state, group, rest, rebuild.tensor(name))
        elif key in state:
            _place(state, f"{name}/", key, rebuild.tensor(name))
        else:
            state[key] = rebuild.tensor(name)


def _place(state: dict[str, Any], group: str, key: str, tensor: Any) -> None:
    """Puts a tensor into the dict of its group. What has the name of either keeps it: then the group gets a slash."""
    while type(state.setdefault(group, {})) is not dict or key in state[group]:
        group = f"{group}/"
    state[group][key] = tensor


def _complain(what: str, strict: bool, help: str = "register the types") -> None:
    if strict:
        raise Unsupported(what, help=f"{help}, or load without strict_types")
    warn(what)
