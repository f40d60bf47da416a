"""Hugging Face's Trainer and Accelerate: stopped and resumed bit for bit."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import pytest
import tensorkeep
from conftest import alike, need
from tensorkeep import Every, Keep, Store

torch = need("torch")
transformers = need("transformers")
accelerate = need("accelerate")
import tensorkeep.hf as hf  # noqa: E402

warnings.filterwarnings("ignore")
logging.getLogger("transformers").setLevel(logging.ERROR)


class Data(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 80

    def __getitem__(self, i: int) -> dict[str, Any]:
        generator = torch.Generator().manual_seed(i)
        return {"input_ids": torch.randint(0, 50, (12,), generator=generator), "labels": torch.tensor(i % 3)}


def trainer(store: Store, steps: int) -> Any:
    transformers.set_seed(3)
    config = transformers.BertConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, num_labels=3
    )
    arguments = transformers.TrainingArguments(
        "out", max_steps=steps, per_device_train_batch_size=8, logging_steps=2, save_strategy="no", report_to=[],
        use_cpu=True, disable_tqdm=True, seed=3, lr_scheduler_type="constant",
    )  # fmt: skip
    model = transformers.BertForSequenceClassification(config)
    return transformers.Trainer(model, arguments, train_dataset=Data(), callbacks=[hf.StoreCallback(store)])


def train(run: str, steps: int) -> tuple[Any, Any]:
    with Store(run, save=Every.steps(3) | Every.steps(2), keep=Keep.last(2), signals="off") as store:
        made = trainer(store, steps)
        made.train(resume_from_checkpoint=hf.resume(made, store))
    log = [{key: line[key] for key in ("step", "loss", "learning_rate") if key in line} for line in made.state.log_history]
    return {name: tensor.clone() for name, tensor in made.model.state_dict().items()}, [x for x in log if "loss" in x]


def test_a_trainer_that_was_stopped_goes_on_bit_for_bit() -> None:
    weights, log = train("quiet", 14)
    train("stopped", 6)
    with Store("stopped") as store:
        assert [listed.step for listed in store.list()][-1] == 6
        assert "trainer_state" in store.latest().records
    resumed, log_of_both = train("stopped", 14)
    assert alike(resumed, weights)
    assert log_of_both == log


@pytest.mark.parametrize("stop", [5])
def test_what_accelerate_prepared_is_resumed_bit_for_bit(stop: int) -> None:
    def run(folder: str, until: int) -> Any:
        accelerate.state.AcceleratorState._reset_state(True)
        accelerate.utils.set_seed(4)
        accelerator = accelerate.Accelerator(cpu=True)
        net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Dropout(0.2), torch.nn.Linear(8, 1))
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3)
        net, optimizer, schedule = accelerator.prepare(net, optimizer, schedule)
        with pytest.raises(tensorkeep.Invalid, match="a part's name: .*found 'model'"):
            hf.register(accelerator, model=net)
        state = hf.register(accelerator, extra={"note": (1, 2)})
        with Store(folder, save=Every.steps(2), signals="off") as store:
            for step in store.steps(12, state):
                loss = net(torch.randn(16, 8)).pow(2).mean()
                optimizer.zero_grad()
                accelerator.backward(loss)
                optimizer.step()
                schedule.step()
                if step + 1 == until:
                    break
        return {name: tensor.clone() for name, tensor in accelerator.unwrap_model(net).state_dict().items()}

    quiet = run("quiet", 12)
    run("stopped", stop)
    assert alike(run("stopped", 12), quiet)
