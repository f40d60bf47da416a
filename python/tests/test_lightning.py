"""Lightning's Trainer with our checkpoints: stopped and resumed bit for bit."""

from __future__ import annotations

import logging
import pathlib
import warnings
from typing import Any

import pytest
import tensorkeep
from conftest import alike, need
from tensorkeep import Every, Keep, Store

lightning = need("lightning")
torch = need("torch")
import lightning as L  # noqa: E402
import tensorkeep.lightning as tl  # noqa: E402
from lightning.pytorch.callbacks import ModelCheckpoint  # noqa: E402

warnings.filterwarnings("ignore", module="lightning")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
X = torch.randn(64, 8, generator=torch.Generator().manual_seed(1))


class Net(L.LightningModule):
    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net = torch.nn.Sequential(torch.nn.Linear(8, width), torch.nn.Dropout(0.3), torch.nn.Linear(width, 1))

    def training_step(self, batch: Any, index: int) -> Any:
        loss = (self.net(batch[0]) + torch.rand(())).pow(2).mean()
        self.log("loss", loss)
        return loss

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 2)]


def trainer(epochs: int, callbacks: list[Any], own: bool = True, **options: Any) -> Any:
    plugins = [tl.CheckpointIO()] if own else []
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return L.Trainer(max_epochs=epochs, callbacks=callbacks, plugins=plugins, **quiet, **options)


def loader(shuffle: bool) -> Any:
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X), batch_size=16, shuffle=shuffle)


def weights_of(model: Any) -> Any:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("shuffle", [False, True])
def test_the_callback_resumes_bit_for_bit(shuffle: bool) -> None:
    def fit(run: str, epochs: int) -> Any:
        L.seed_everything(7, verbose=False)
        model = Net()
        with Store(run, save=Every.epochs(1), keep=Keep.last(2), signals="off") as store:
            callback = tl.Checkpoint(store)
            fitter = trainer(epochs, [callback], enable_checkpointing=False)
            fitter.fit(model, loader(shuffle), ckpt_path=callback.resume_path())
            assert fitter.global_step == 4 * epochs
        return weights_of(model)

    quiet = fit("quiet", 4)
    fit("stopped", 2)
    assert alike(fit("stopped", 4), quiet)
    with Store("stopped") as store:
        assert [listed.step for listed in store.list()][-2:] == [12, 16]
        assert store.list()[-1].metrics["loss"] > 0


def test_a_loss_that_diverged_is_listed() -> None:
    class Diverges(Net):
        def training_step(self, batch: Any, index: int) -> Any:
            loss = self.net(batch[0]).pow(2).mean()
            self.log("loss", loss * (float("nan") if self.global_step > 3 else 1))
            return loss

    with Store("run", save=Every.epochs(1), keep=Keep.all(), signals="off") as store:
        callback = tl.Checkpoint(store)
        trainer(2, [callback], enable_checkpointing=False).fit(Diverges(), loader(False))
        first, second = (listed.metrics["loss"] for listed in store.list())
        assert first == first and second != second and store.best("loss").step == 4


@pytest.mark.parametrize("shuffle", [False, True])
def test_stock_model_checkpoint_writes_and_resumes_our_files(shuffle: bool) -> None:
    def fit(folder: str, epochs: int, path: str | None = None) -> Any:
        L.seed_everything(7, verbose=False)
        model = Net()
        keeper = ModelCheckpoint(folder, save_last=True, save_top_k=1, monitor="loss")
        trainer(epochs, [keeper, tl.RNG()]).fit(model, loader(shuffle), ckpt_path=path)
        return weights_of(model)

    quiet = fit("quiet", 4)
    fit("stopped", 2)
    last = str(next(pathlib.Path("stopped").glob("last*.ckpt")))
    with tensorkeep.open(last) as checkpoint:
        assert "state_dict/net.0.weight" in checkpoint.names()
    assert alike(fit("stopped", 4, last), quiet)
    files = list(pathlib.Path("stopped").glob("*.ckpt"))
    assert 2 <= len(files) <= 3 and Net.load_from_checkpoint is not None


def test_a_run_changes_over_from_torchs_files() -> None:
    L.seed_everything(7, verbose=False)
    trainer(1, [ModelCheckpoint("old", filename="a")], own=False).fit(Net(), loader(False))
    model = Net()
    keeper = ModelCheckpoint("new", filename="b")
    trainer(2, [keeper]).fit(model, loader(False), ckpt_path="old/a.ckpt")
    loaded = tl.CheckpointIO().load_checkpoint("new/b.ckpt")
    assert loaded["epoch"] == 1 and type(loaded["hyper_parameters"]).__name__ in ("dict", "AttributeDict")
    assert alike(dict(loaded["state_dict"]), weights_of(model))
