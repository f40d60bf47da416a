"""Files from Rust to Python and back: golden files, and one LeNet on both sides with the same logits."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import warnings
from typing import Any

import numpy
import pytest
import tensorkeep
import tensorkeep.numpy
from conftest import need

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = sorted((ROOT / "tests/golden/v1").glob("*.tkeep"))


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden_files_load(path: pathlib.Path, mmap: bool) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = tensorkeep.numpy.load(path, mmap=mmap)
    with tensorkeep.open(path) as checkpoint:
        names = checkpoint.names()
        assert set(loaded) >= {name.partition("/")[0] for name in names} and not checkpoint.verify().damage
        for name in names:
            assert checkpoint.tensors[name].numpy().nbytes == checkpoint.infos()[name].nbytes


def interchange() -> str:
    """The Rust side, `cargo build -p lenet --example interchange`."""
    given = os.environ.get("TENSORKEEP_INTERCHANGE")
    built = [ROOT / "target" / profile / "examples/interchange" for profile in ("release", "debug")]
    found = [pathlib.Path(given)] if given else [path for path in built if path.exists()]
    if not found:
        pytest.skip("the Rust side is not built: cargo build -p lenet --example interchange")
    return str(found[0])


def lenet() -> Any:
    spec = importlib.util.spec_from_file_location("lenet_torch", ROOT / "examples/lenet_torch.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_lenet_trained_in_rust_gives_the_same_logits_in_torch() -> None:
    torch = need("torch")
    import tensorkeep.torch as tt

    subprocess.run([interchange(), "make", "rust.tkeep"], check=True)
    loaded = tt.load("rust.tkeep")
    assert sorted(loaded) == ["data_order", "data_order/", "images", "logits", "loss_history", "model", "optimizer",
                              "rng", "scheduler"]  # fmt: skip
    assert loaded["optimizer"]["lr"] == 2e-3 and loaded["rng"] and len(loaded["loss_history"]) == 10
    with tensorkeep.open("rust.tkeep") as checkpoint:
        assert checkpoint.step == 10 and checkpoint.epoch == 1 and checkpoint.metrics["loss"] > 0
    net = lenet().LeNet()
    assert len(tt.load_into("rust.tkeep", net).loaded) == 10
    with torch.no_grad():
        logits = net(loaded["images"])
    assert (logits - loaded["logits"]).abs().max() < 1e-5
    net.load_state_dict(loaded["model"])


def test_a_lenet_trained_in_torch_gives_the_same_logits_in_rust() -> None:
    torch = need("torch")
    import tensorkeep.torch as tt

    torch.manual_seed(3)
    net, images = lenet().LeNet(), torch.randn(64, 1, 28, 28)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, betas=(0.8, 0.95))
    for _ in range(5):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(images), torch.arange(64) % 10).backward()
        optimizer.step()
    state = {"model": net.state_dict(), "optimizer": optimizer.state_dict(), "images": images, "seed": 2**127 + 5}
    tt.save(state, "torch.tkeep")
    subprocess.run([interchange(), "read", "torch.tkeep", "logits.tkeep"], check=True)
    told = tt.load("logits.tkeep")
    with torch.no_grad():
        assert (net(images) - told["logits"]).abs().max() < 1e-5
    assert told["lr"] == 3e-3 and told["betas"] == [0.8, 0.95] and told["params"] == 10
    assert told["is_foreach"] is None and told["seed"] == str(2**127 + 5) and len(told["loaded"]) == 10


def test_the_example_resumes_as_if_never_broken_off(capsys: pytest.CaptureFixture[str]) -> None:
    need("torch")
    lenet().main(pathlib.Path())
    shown = capsys.readouterr().out
    assert "80 losses, equal" in shown and "fc3.bias" in shown and "broken off after epoch 5" in shown


def test_the_command_line_shows_what_python_saved() -> None:
    import sys

    tensorkeep.save({"model": {"w": numpy.ones((2, 3))}, "betas": (1, 2)}, "cli.tkeep")

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([sys.executable, "-m", "tensorkeep", *arguments], text=True, capture_output=True)

    assert "w" in command("show", "cli.tkeep").stdout
    assert command("verify", "cli.tkeep").returncode == 0
    assert command("show", "nothing.tkeep").returncode == 3
    assert command("--nonsense").returncode == 2
    assert command("export", "cli.tkeep", "-o", "cli.safetensors").returncode == 0
    assert command("import", "cli.safetensors", "-o", "again.tkeep").returncode == 0
    assert tensorkeep.load("again.tkeep")["betas"] == (1, 2)
