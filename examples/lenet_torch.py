"""LeNet-5 in PyTorch: saving and loading a model, and a training that is broken off and resumed.

    python examples/lenet_torch.py

The net is the one of `crates/lenet`, so that what is saved here loads there, and the other way round.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import tensorkeep.torch as tk
import torch
from tensorkeep import Every, Keep
from torch import nn

EPOCHS, BATCH, IMAGES = 8, 64, 640


class LeNet(nn.Module):
    """LeNet-5 with ReLU and max-pooling, for images of [n, 1, 28, 28]."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = nn.functional.max_pool2d(self.conv1(x).relu(), 2)
        x = nn.functional.max_pool2d(self.conv2(x).relu(), 2)
        x = self.fc2(self.fc1(x.flatten(1)).relu()).relu()
        return self.fc3(x)


def drawn(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images of ten classes: a pattern for each, and noise."""
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(10, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    labels = torch.randint(10, (IMAGES,), generator=generator)
    return patterns[labels] + 0.5 * torch.randn(IMAGES, 1, 28, 28, generator=generator), labels


def accuracy(model: nn.Module) -> float:
    images, labels = drawn(1)
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def save_and_load(folder: Path) -> None:
    """A state dict, and a whole model: what rebuilds it beside its weights."""
    model = LeNet()
    tk.save(model.state_dict(), folder / "weights.tkeep")
    tk.save({"config": {"classes": 10}, "model": model.state_dict()}, folder / "model.tkeep")

    print("keys of the state dict:", *model.state_dict())
    again = LeNet()
    print(f"before loading: fc3.bias[0] = {again.fc3.bias[0]:+.4f}", end=", ")
    again.load_state_dict(tk.load(folder / "weights.tkeep"))
    print(f"after: {again.fc3.bias[0]:+.4f}, saved: {model.fc3.bias[0]:+.4f}")

    whole = tk.load(folder / "model.tkeep")
    rebuilt = LeNet(**whole["config"])
    rebuilt.load_state_dict(whole["model"])
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), rebuilt.parameters()))


def train(folder: Path, stop_after: int | None = None) -> list[float]:
    """Trains to the end, or until it breaks off, a checkpoint every two epochs."""
    # Equal to the bit: with several threads the order of sums depends on how busy the machine is.
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images, labels = drawn(0)
    model = LeNet()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
    log: dict[str, list[float]] = {"losses": []}
    state = tk.TrainState(model=model, optimizer=optimizer, schedule=schedule, extra=log)
    steps = IMAGES // BATCH
    with tk.Store(folder, save=Every.epochs(2), keep=Keep.last(2)) as store:
        for step in store.steps(EPOCHS * steps, state, steps_per_epoch=steps):
            batch = torch.randint(IMAGES, (BATCH,))
            loss = nn.functional.cross_entropy(model(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            log["losses"].append(loss.item())
            epoch, is_last = divmod(step + 1, steps)
            if is_last == 0:
                schedule.step()
                store.metrics(loss=loss.item())
                rate = schedule.get_last_lr()[0]
                print(f"epoch {epoch}: loss {loss.item():.4f}, accuracy {accuracy(model):.3f}, lr {rate:.5f}")
                if epoch == stop_after:
                    print(f"broken off after epoch {epoch}")
                    break
    return log["losses"]


def main(folder: Path) -> None:
    save_and_load(folder)
    train(folder / "run", stop_after=5)
    print("resumed from the checkpoint of epoch 4:")
    resumed = train(folder / "run")
    quiet = train(folder / "quiet")
    assert resumed == quiet, "a resumed training is the one that was never broken off"
    print(f"{len(resumed)} losses, equal to those of a training that was never broken off")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
