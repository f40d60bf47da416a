"""When to save and what to keep, as values: the extension module makes the library's own of them."""

from __future__ import annotations

import math
from typing import Any, Literal, Self

from . import _arguments

__all__ = ["Every", "Keep"]

Mode = Literal["min", "max"]
#: A rule's name, a number, a metric and a mode.
Rule = tuple[str, float, str, str]


#: Counts up to here are exact as the floats that rules hold.
_MOST = 9 * 10**15 - 1


def _count(name: str, value: Any) -> int:
    return _arguments.whole(name, value, _MOST)


def _time(name: str, value: Any) -> float:
    number = _arguments.number(name, value)
    if not 0 <= number < math.inf:
        raise _arguments.wrong(name, "a time from 0 on", value)
    return number


def _best(name: str, count: Any, metric: Any, mode: Any) -> Rule:
    _arguments.word(name, mode, ("min", "max"))
    return "best", _count(name, count), _arguments.text(name, metric), mode


def rules_of(name: str, policy: Any, kind: type[_Rules]) -> list[Rule] | None:
    """The rules of an argument, or None where it is None."""
    if policy is not None and not isinstance(policy, kind):
        raise _arguments.wrong(name, f"rules of {kind.__name__}", policy)
    return None if policy is None else policy.rules()


class _Rules:
    """Some rules, any of which is enough."""

    __slots__ = ("_rules", "_text")
    _rules: tuple[Rule, ...]
    _text: str

    def __init__(self, rules: tuple[Rule, ...], text: str) -> None:
        object.__setattr__(self, "_rules", rules)
        object.__setattr__(self, "_text", text)

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is a value and does not change")

    def rules(self) -> list[Rule]:
        """As the extension module takes them."""
        return list(self._rules)

    def __repr__(self) -> str:
        return self._text

    def _with(self, other: Any) -> Self:
        """These or those."""
        kind = type(self)
        _arguments.one_of(f"{kind.__name__} | …", other, kind)
        return kind((*self.rules(), *other.rules()), f"{self} | {other}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Rules) and type(self) is type(other) and self.rules() == other.rules()

    def __hash__(self) -> int:
        return hash((type(self), *self.rules()))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (tuple(self.rules()), repr(self))


class Every(_Rules):
    """When a save is due.

    Example:
        >>> import tensorkeep
        >>> tensorkeep.Every.steps(500) | tensorkeep.Every.minutes(10)
        Every.steps(500) | Every.minutes(10)
    """

    __slots__ = ()

    @classmethod
    def never(cls) -> Every:
        """Only when asked."""
        return cls((), "Every.never()")

    @classmethod
    def steps(cls, steps: int) -> Every:
        """When a multiple of ``steps`` was reached since the last save."""
        return cls((("steps", _count("Every.steps", steps), "", ""),), f"Every.steps({steps})")

    @classmethod
    def epochs(cls, epochs: int) -> Every:
        """When a multiple of ``epochs`` was reached since the last save."""
        return cls((("epochs", _count("Every.epochs", epochs), "", ""),), f"Every.epochs({epochs})")

    @classmethod
    def minutes(cls, minutes: float) -> Every:
        """When so many minutes passed since the last save."""
        return cls((("seconds", 60.0 * _time("Every.minutes", minutes), "", ""),), f"Every.minutes({minutes})")

    @classmethod
    def seconds(cls, seconds: float) -> Every:
        """When so many seconds passed since the last save."""
        return cls((("seconds", _time("Every.seconds", seconds), "", ""),), f"Every.seconds({seconds})")

    @classmethod
    def best(cls, metric: str, mode: Mode = "min") -> Every:
        """When a metric that was given to ``Store.metrics`` is better than in every checkpoint."""
        return cls((_best("Every.best", 0, metric, mode),), f"Every.best({metric!r}, {mode!r})")

    @classmethod
    def auto(cls) -> Every:
        """As often as pays, by what saves cost and by how often the run fails: ``tensorkeep why RUN`` prints the terms.

        Saving takes at most 3.5 % of the time.
        """
        return cls((("auto", 0, "", ""),), "Every.auto()")

    def __or__(self, other: Every) -> Every:
        return self._with(other)

    def __ror__(self, other: Every) -> Every:
        # Asked only by what is no rule itself.
        return self._with(other)


class Keep(_Rules):
    """What stays. What no rule protects is deleted after a newer checkpoint is durable; the newest, pinned ones and
    the one that was resumed from always stay.

    Example:
        >>> import tensorkeep
        >>> tensorkeep.Keep.last(3) | tensorkeep.Keep.best("val_loss", "min", 2)
        Keep.last(3) | Keep.best('val_loss', 'min', 2)
    """

    __slots__ = ()

    @classmethod
    def all(cls) -> Keep:
        """Everything."""
        return cls((("all", 0, "", ""),), "Keep.all()")

    @classmethod
    def last(cls, count: int) -> Keep:
        """The newest ``count``."""
        return cls((("last", _count("Keep.last", count), "", ""),), f"Keep.last({count})")

    @classmethod
    def best(cls, metric: str, mode: Mode = "min", count: int = 1) -> Keep:
        """The ``count`` best by a metric."""
        return cls((_best("Keep.best", count, metric, mode),), f"Keep.best({metric!r}, {mode!r}, {count})")

    @classmethod
    def every_steps(cls, steps: int) -> Keep:
        """The first at or after each multiple of ``steps``."""
        return cls((("every_steps", _count("Keep.every_steps", steps), "", ""),), f"Keep.every_steps({steps})")

    @classmethod
    def every_epochs(cls, epochs: int) -> Keep:
        """The first at or after each multiple of ``epochs``."""
        return cls((("every_epochs", _count("Keep.every_epochs", epochs), "", ""),), f"Keep.every_epochs({epochs})")

    @classmethod
    def younger_than(cls, seconds: float) -> Keep:
        """All that were saved less than ``seconds`` ago."""
        return cls((("younger_than", _time("Keep.younger_than", seconds), "", ""),), f"Keep.younger_than({seconds})")

    @classmethod
    def newest_within_bytes(cls, nbytes: int) -> Keep:
        """As many of the newest as fit in ``nbytes``."""
        return cls((("newest_within_bytes", _count("Keep.newest_within_bytes", nbytes), "", ""),), f"Keep.newest_within_bytes({nbytes})")

    def __or__(self, other: Keep) -> Keep:
        return self._with(other)

    def __ror__(self, other: Keep) -> Keep:
        return self._with(other)
