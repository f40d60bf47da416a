"""What notebooks show. Everything that comes from a file is escaped."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._checkpoint import Checkpoint
    from ._store import Store

__all__ = ["checkpoint", "store"]

#: Rows of a table; more are counted.
MOST_ROWS = 200


def _table(caption: str, head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    def cells(tag: str, row: Iterable[Any]) -> str:
        return "<tr>" + "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in row) + "</tr>"

    every = list(rows)
    shown = "".join(cells("td", row) for row in every[:MOST_ROWS])
    left = len(every) - MOST_ROWS
    more = f"<p>and {left} more</p>" if left > 0 else ""
    return f"<table><caption>{escape(caption)}</caption>{cells('th', head)}{shown}</table>{more}"


def size(nbytes: int) -> str:
    """Bytes for people."""
    value, unit = float(nbytes), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024 or unit == "TiB":
            break
        value /= 1024
    return f"{nbytes} B" if unit == "B" else f"{value:.1f} {unit}"


def checkpoint(ck: Checkpoint) -> str:
    """A checkpoint as a table of its groups and tensors."""
    said = [f"step {ck.step}"] if ck.step is not None else []
    said += [f"{name} {value:g}" for name, value in ck.metrics.items()]
    caption = ", ".join([ck.path, *said, f"{len(ck.infos())} tensors", size(ck.nbytes)])
    rows = ((i.name, i.dtype, "×".join(map(str, i.shape)) or "scalar", size(i.nbytes)) for i in ck.infos().values())
    return _table(caption, ("tensor", "dtype", "shape", "size"), rows)


def store(st: Store) -> str:
    """A run as the list of its checkpoints."""
    if st._store is None:
        return f"<p>{escape(repr(st))}</p>"
    rows = (
        (c.step, c.epoch, ", ".join(f"{name} {value:g}" for name, value in c.metrics.items()), c.why, size(c.nbytes))
        for c in st.list()
    )
    return _table(st.path, ("step", "epoch", "metrics", "why", "size"), rows)
