"""The exceptions of tensorkeep. One class for each thing that a caller would do differently."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

__all__ = [
    "AlreadyExists",
    "Busy",
    "CannotStore",
    "ClosedError",
    "Damaged",
    "Error",
    "Fenced",
    "FileNotFound",
    "Foreign",
    "ForkedError",
    "Invalid",
    "IoError",
    "LimitExceeded",
    "Locked",
    "Mismatch",
    "MissingName",
    "NewerVersion",
    "NoSpace",
    "NotFound",
    "NotPromoted",
    "Poisoned",
    "UnknownOutcome",
    "Unsupported",
]


class Error(Exception):
    """What went wrong, with its facts as attributes. Causes that are not in the message are notes.

    Attributes:
        kind: One stable word, such as ``"damaged"``.
        object: The path or URL concerned, or None.
        step: The step whose save failed, or None.
        tensor: The tensor concerned, or None.
        record: The record concerned, or None.
        byte: The offset in the file at which it was seen, or None.
        expected: What should have been there, in words, or None.
        found: What was there, in words, or None.
        help: What to do next, in words, or None.
        errno: The operating system's code behind it, or None.
        causes: What it came from, in words, nearest first.

    Example:
        >>> import tensorkeep
        >>> try:
        ...     tensorkeep.load("no/such/file")
        ... except tensorkeep.NotFound as error:
        ...     print(error.kind, error.object)
        not-found no/such/file
    """

    kind = "error"
    object: str | None = None
    step: int | None = None
    tensor: str | None = None
    record: str | None = None
    byte: int | None = None
    expected: str | None = None
    found: str | None = None
    help: str | None = None
    errno: int | None = None
    causes: Sequence[str] = ()

    def __init__(self, message: str = "", /, **facts: Any) -> None:
        super().__init__(_complete(message, facts))
        self._set(facts)

    def _set(self, facts: Mapping[str, Any]) -> None:
        for name, value in facts.items():
            setattr(self, name, value)
        for cause in self.causes:
            if cause not in str(self):
                self.add_note(f"because: {cause}")

    def __str__(self) -> str:
        # Of all bases: OSError and KeyError have words of their own.
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        facts = {name: value for name, value in vars(self).items() if name != "__notes__"}
        return _again, (type(self), str(self), facts)


def _complete(message: str, facts: Mapping[str, Any]) -> str:
    """The message with what was expected and found, and what to do, where it does not have them."""
    for word, between in (("expected", ": expected "), ("found", ", found "), ("help", "; ")):
        text = facts.get(word)
        if text and str(text) not in message:
            message = f"{message}{between}{text}"
    return message


class NotFound(Error, LookupError):
    """No such file, checkpoint, tensor or record."""

    kind = "not-found"


class FileNotFound(NotFound, FileNotFoundError):
    """A file that is not there: also what ``except FileNotFoundError`` catches."""


class MissingName(NotFound, KeyError):
    """A tensor or record that is not there: also what ``except KeyError`` catches, and ``dict.get`` passes over."""


class AlreadyExists(Error, FileExistsError):
    """The step was saved before; what is committed is never overwritten."""

    kind = "already-exists"


class Locked(Error):
    """Another process writes to this run."""

    kind = "locked"


class Fenced(Error):
    """A newer process has taken over this run: this one must stop writing."""

    kind = "fenced"


class Busy(Error):
    """All places for saves in flight are taken."""

    kind = "busy"


class Poisoned(Error):
    """The storage failed in a way after which it must not be written: open the run again."""

    kind = "poisoned"


class Damaged(Error, ValueError):
    """Bytes that do not match their checksum."""

    kind = "damaged"


class Foreign(Damaged):
    """The file is something else than a tensorkeep checkpoint."""

    kind = "foreign"


class NewerVersion(Error):
    """Written by a newer version, in a way that this one cannot read: update."""

    kind = "newer-version"


class Unsupported(Error):
    """Valid, and not possible here."""

    kind = "unsupported"


class Invalid(Error, ValueError):
    """An argument is wrong."""

    kind = "invalid"


class CannotStore(Invalid, TypeError):
    """A value of a state that no checkpoint can hold. The message has its path and what to do.

    Attributes:
        path: Where in the state it is: ``"optimizer/param_groups/0/fn"``.
    """

    path: str = ""


class Mismatch(Error, ValueError):
    """Names, shapes or dtypes of a checkpoint and of what it is loaded into differ.

    Attributes:
        report: All of the differences, as a ``LoadReport``, or None.
    """

    kind = "mismatch"
    report: Any = None


class LimitExceeded(Error, MemoryError):
    """A limit of the format, or of memory."""

    kind = "limit-exceeded"


class IoError(Error, OSError):
    """The operating system refused or failed a call; ``errno`` says which way."""

    kind = "io"


class NoSpace(IoError):
    """The disk or the quota is full. Everything committed before is intact."""

    kind = "no-space"


class UnknownOutcome(Error):
    """What was saved may or may not have become durable."""

    kind = "unknown-outcome"


class NotPromoted(Error):
    """Saved locally, and not yet in the remote tier: log it and train on."""

    kind = "not-promoted"


class ClosedError(Error, RuntimeError):
    """The store is closed."""

    kind = "closed"


class ForkedError(Error, RuntimeError):
    """The store belongs to the process that this one was forked from."""

    kind = "forked"


_CLASSES: dict[str, type[Error]] = {
    found.kind: found
    for found in (
        NotFound, AlreadyExists, Locked, Fenced, Busy, Poisoned, Damaged, Foreign, NewerVersion, Unsupported,
        Invalid, Mismatch, LimitExceeded, IoError, NoSpace, UnknownOutcome, NotPromoted, ClosedError, ForkedError,
    )
}  # fmt: skip


def _make(kind: str, message: str, facts: Mapping[str, Any]) -> Error:
    """The exception of an error of the extension module."""
    found = _CLASSES.get(kind, Error)
    if found is NotFound and facts.get("errno") == 2:
        found = FileNotFound
    if found in (IoError, FileNotFound) and "no such" not in message and not facts.get("help"):
        # What the system said, as Python's own have it: a program may show the message alone.
        message = ": ".join([message, *facts.get("causes", ())])
    return found(message, **facts, **({} if kind in _CLASSES else {"kind": kind}))


def _again(found: type[Error], message: str, facts: Mapping[str, Any]) -> Error:
    """The exception that was pickled."""
    return found(message, **facts)
