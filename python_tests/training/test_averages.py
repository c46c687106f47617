"""Averages over training: their formula, in the loop of any model, under either engine, resumed bit for bit."""

import json

import pytest
import torch
from lightning_runs import train
from torch import nn
from toy import RecordingDisplay, toy_trainer

from sem.training.averages import ENTRY, Averages, averaged_parameters
from sem.training.checkpoint import CheckpointStore
from sem.training.logging import read_csv
from sem.training.loop import LoopSettings, TrainingLoop
from sem.training.schedules import Schedule

DECAY = "training.ema_decay=0.75"


def checkpoint(folder):
    return CheckpointStore(folder / "checkpoints").load_latest()[1]


def same(first, second):
    assert first.keys() == second.keys()
    return all(torch.equal(first[name], second[name]) for name in first)


def fit(folder, *overrides, **options):
    return toy_trainer(folder, *overrides).fit(display=RecordingDisplay(), **options)


class Steps:
    """Batches of a fixed series, whose place is their count."""

    def __init__(self, values):
        self.values, self.place = values, 0

    def __iter__(self):
        while True:
            self.place += 1
            yield torch.tensor(self.values[self.place - 1])

    def state_dict(self):
        return {"place": self.place}

    def load_state_dict(self, state):
        self.place = state["place"]


class Follow:
    """Moves a single number by the batch: the loss is their product."""

    unit = "items"

    def __call__(self, model, batch, diagnostics):
        return {"loss": (model.weight * -batch).sum()}

    def report(self, totals):
        return {name: value for name, value in totals.items() if not name.endswith("_sum")}


def number_loop(values, decay=0.75):
    """A loop whose parameter, one number from 0, grows by the batch at each step."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    return TrainingLoop(
        model=model,
        objective=Follow(),
        optimizer=torch.optim.SGD(model.parameters(), lr=1.0),
        schedule=Schedule(peak=1.0, max_steps=len(values), warmup_steps=0, decay_steps=0),
        batches=Steps(values),
        settings=LoopSettings(ema_decay=decay, max_skipped_steps=3),
        validate=lambda: {"val_number": model.weight.item()},
    )


def test_the_averages_are_the_formula_by_hand():
    loop = number_loop([1.0, 2.0, 4.0])
    loop.run()
    assert loop.model.weight.item() == 7.0
    with loop.averages.applied():
        assert loop.model.weight.item() == 0.75 * (0.75 * 1 + 0.25 * 3) + 0.25 * 7
    assert loop.figures["val_number"] == loop.model.weight.item() == 7.0
    assert loop.figures["ema_val_number"] == 2.875


def test_a_step_that_was_skipped_is_not_averaged():
    loop = number_loop([1.0, float("nan"), 2.0])
    loop.run()
    assert loop.state.skipped_steps == 1
    assert loop.averages.updates == 2
    assert loop.figures["ema_val_number"] == 0.75 * 1 + 0.25 * 3


def test_buffers_are_the_models_and_an_error_within_puts_the_parameters_back():
    model = nn.BatchNorm1d(2)
    averages = Averages(model, 0.5)
    model(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)))
    averages.update()
    assert averages.state_dict()["model"]["running_mean"].equal(model.running_mean)
    nn.init.constant_(model.weight, 3.0)
    with pytest.raises(RuntimeError, match="inside"), averages.applied():
        assert not model.weight.eq(3).any()
        raise RuntimeError("inside")
    assert model.weight.eq(3).all()


def test_without_a_decay_nothing_is_kept_or_said(tmp_path):
    fit(tmp_path)
    assert ENTRY not in checkpoint(tmp_path)
    assert not [name for name in read_csv(tmp_path / "metrics.csv")[-1] if name.startswith("ema_")]
    with pytest.raises(ValueError, match="holds none"):
        averaged_parameters(checkpoint(tmp_path))


def test_averaging_does_not_touch_training_and_is_scored_beside_it(tmp_path):
    fit(tmp_path / "plain")
    fit(tmp_path / "averaged", DECAY)
    plain, averaged = checkpoint(tmp_path / "plain"), checkpoint(tmp_path / "averaged")
    assert same(plain["model"], averaged["model"])
    assert not same(averaged["model"], averaged[ENTRY]["model"])
    final = json.loads((tmp_path / "averaged/final.json").read_text())
    assert final["ema_val_loss"] != final["val_loss"]
    rows = read_csv(tmp_path / "averaged/metrics.csv")
    assert [row["step"] for row in rows if row.get("ema_val_loss") is not None] == [5, 10, 12]
    # the scores are those of the averages in the checkpoint
    trainer = toy_trainer(tmp_path / "again")
    trainer.model.load_state_dict(averaged[ENTRY]["model"])
    assert trainer.validate(final=True)["val_loss"] == final["ema_val_loss"]


@pytest.mark.parametrize(("first", "second"), [("loop", "loop"), ("loop", "lightning"), ("lightning", "loop")])
def test_a_resumed_run_has_the_averages_of_the_uninterrupted_one_bit_for_bit(tmp_path, first, second):
    steps = ("training.max_steps=6", DECAY)
    train("loop", tmp_path / "whole", *steps, stop=6)
    train(first, tmp_path / "parts", *steps, stop=3)
    train(second, tmp_path / "parts", *steps, resume="auto", stop=6)
    whole, parts = checkpoint(tmp_path / "whole")[ENTRY], checkpoint(tmp_path / "parts")[ENTRY]
    assert whole["updates"] == parts["updates"] == 6
    assert same(whole["model"], parts["model"])


def test_averages_begin_where_a_run_without_them_is_resumed(tmp_path):
    steps = ("training.max_steps=6",)
    train("loop", tmp_path, *steps, stop=3)
    train("loop", tmp_path, *steps, DECAY, resume="auto", stop=6)
    assert checkpoint(tmp_path)[ENTRY]["updates"] == 3


def test_averages_of_another_model_are_refused():
    averages = Averages(nn.Linear(2, 2), 0.5)
    with pytest.raises(ValueError, match="size mismatch for weight"):
        averages.load_state_dict({"model": nn.Linear(3, 2).state_dict(), "updates": 1})
