"""The Python snippets of the guide and of the README run, in order."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from conftest import need

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["docs/guide/python.md", "docs/guide/python-runs.md", "crates/python/README.md"])
def test_the_snippets_of_the_pages_run(page: str) -> None:
    need("torch")
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    names: dict[str, object] = {}
    for snippet in snippets:
        if "jax" in snippet:
            need("jax")
        exec(compile(snippet, page, "exec"), names)
    assert snippets


def test_the_guides_loader_goes_on_with_the_next_batch() -> None:
    torch = need("torch")
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs/guide/python-runs.md").read_text(), re.DOTALL)
    (snippet,) = [snippet for snippet in snippets if "class Batches" in snippet]
    names: dict[str, Any] = {"torch": torch}
    exec(snippet.partition("\nloader = ")[0], names)
    batches = names["Batches"]
    data = torch.arange(20)
    whole = batches(data, 8)
    expected = [batch.tolist() for batch, _ in zip(whole, range(9))]
    assert sorted(sum(expected[:3], [])) == list(range(20)) and expected[:3] != expected[3:6]
    for cut in range(9):
        first, second = batches(data, 8), batches(data, 8)
        seen = [batch.tolist() for _, batch in zip(range(cut), first)]
        second.load_state_dict(first.state_dict())
        seen += [batch.tolist() for _, batch in zip(range(9 - cut), second)]
        assert seen == expected, cut
