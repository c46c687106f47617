"""The module, the data and the callbacks in a Trainer of one's own."""

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from lightning_runs import train
from toy import ToyDiagnostics, ToyModel, toy_config, toy_corpus

from sem.training.lightning.callbacks import HealthMonitor, RunEnd
from sem.training.lightning.data import SEMDataModule
from sem.training.lightning.module import SEMLightningModule
from sem.training.lightning.precision import SEMPrecisionPlugin
from sem.training.logging import read_csv


class Losses(RunEnd):
    """Remembers each step's loss, and ends the training as the loop would."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, *arguments):
        super().on_train_batch_end(trainer, pl_module, *arguments)
        self.seen.append(pl_module.figures["loss"])


def own_trainer(folder, *callbacks, **options):
    settings = {
        "accelerator": "cpu",
        "max_epochs": 1,
        "plugins": [SEMPrecisionPlugin("32-true", device="cpu")],
        "logger": False,
        "enable_checkpointing": any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "use_distributed_sampler": False,
        "num_sanity_val_steps": 0,
        "default_root_dir": folder,
    }
    return Trainer(callbacks=list(callbacks), **(settings | options))


def toy_module(folder, *overrides, **figures):
    torch.manual_seed(0)
    model = ToyModel()
    torch.manual_seed(0)
    config = toy_config(folder, *overrides)
    return SEMLightningModule(config, model=model, diagnostics=lambda: ToyDiagnostics(**figures))


def toy_data(folder):
    return SEMDataModule(toy_config(folder), toy_corpus())


def test_it_takes_the_steps_of_the_plain_loop_and_logs_their_figures(tmp_path):
    losses = Losses()
    logger = CSVLogger(tmp_path / "logs")
    trainer = own_trainer(
        tmp_path, losses, LearningRateMonitor(), logger=logger, log_every_n_steps=1, val_check_interval=5
    )
    trainer.fit(toy_module(tmp_path), datamodule=toy_data(tmp_path))
    assert losses.seen == train("loop", tmp_path / "loop", stop=12)
    assert trainer.global_step == 12
    rows = read_csv(next((tmp_path / "logs").rglob("metrics.csv")))
    assert [row["loss"] for row in rows if "loss" in row] == losses.seen
    assert len([row for row in rows if "val_bits_per_byte" in row]) == 3
    assert 0.01 in {row.get("lr-MuonWithAdamW/pg1") for row in rows}


def test_its_own_checkpoints_continue_bit_for_bit(tmp_path):
    first, second = Losses(), Losses()
    keep = ModelCheckpoint(tmp_path, every_n_train_steps=5)
    own_trainer(tmp_path, first, keep, max_steps=5).fit(toy_module(tmp_path), datamodule=toy_data(tmp_path))
    assert len(first.seen) == 5
    torch.randn(3)
    trainer = own_trainer(tmp_path, second)
    trainer.fit(toy_module(tmp_path), datamodule=toy_data(tmp_path), ckpt_path=keep.best_model_path)
    assert first.seen + second.seen == train("loop", tmp_path / "loop", stop=12)
    assert trainer.global_step == 12


NOTHING_LEARNED = ("training.optimizer=sgd", "training.weight_decay=0", "training.gradient_clip=1e-30")
PLATEAU = (*NOTHING_LEARNED, "training.scheduler=plateau", "training.plateau_patience=0", "training.warmup_steps=0")


class Rates(RunEnd):
    """Remembers the learning rate of each step."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, trainer, pl_module, *arguments):
        super().on_train_batch_end(trainer, pl_module, *arguments)
        self.seen.append(pl_module.figures["learning_rate"])


def test_plateau_follows_the_trainers_validations_and_its_checkpoints_remember_them(tmp_path):
    first, second, plain = Rates(), Rates(), {"val_check_interval": 3, "num_sanity_val_steps": 1}
    keep = ModelCheckpoint(tmp_path, every_n_train_steps=5)
    trainer = own_trainer(tmp_path, first, keep, max_steps=5, **plain)
    trainer.fit(toy_module(tmp_path, *PLATEAU), datamodule=toy_data(tmp_path))
    trainer.validate(toy_module(tmp_path, *PLATEAU), datamodule=toy_data(tmp_path), verbose=False)
    again = own_trainer(tmp_path, second, **plain)
    again.fit(toy_module(tmp_path, *PLATEAU), datamodule=toy_data(tmp_path), ckpt_path=keep.best_model_path)
    assert first.seen + second.seen == [0.01] * 6 + [0.005] * 3 + [0.0025] * 3


def test_averages_are_scored_by_the_trainers_validations_and_kept_in_its_checkpoints(tmp_path):
    averaged, options = "training.ema_decay=0.75", {"val_check_interval": 6, "logger": CSVLogger(tmp_path / "logs")}
    whole = toy_module(tmp_path, averaged)
    own_trainer(tmp_path, Losses(), **options).fit(whole, datamodule=toy_data(tmp_path))
    rows = read_csv(next((tmp_path / "logs").rglob("metrics.csv")))
    scores = [(row["val_loss"], row["ema_val_loss"]) for row in rows if "val_loss" in row]
    assert len(scores) == 2 and all(own != average for own, average in scores)
    keep, parts = ModelCheckpoint(tmp_path, every_n_train_steps=5), toy_module(tmp_path, averaged)
    own_trainer(tmp_path, keep, max_steps=5).fit(toy_module(tmp_path, averaged), datamodule=toy_data(tmp_path))
    own_trainer(tmp_path).fit(parts, datamodule=toy_data(tmp_path), ckpt_path=keep.best_model_path)
    first, second = whole.loop.averages.state_dict(), parts.loop.averages.state_dict()
    assert first["updates"] == second["updates"] == 12
    assert all(tensor.equal(second["model"][name]) for name, tensor in first["model"].items())


def test_plateau_without_validations_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="scheduler = 'plateau': expected a run with validations"):
        own_trainer(tmp_path, limit_val_batches=0).fit(toy_module(tmp_path, *PLATEAU), datamodule=toy_data(tmp_path))


def test_validation_alone(tmp_path):
    (figures,) = own_trainer(tmp_path).validate(toy_module(tmp_path), datamodule=toy_data(tmp_path), verbose=False)
    assert figures["val_bits_per_byte"] == pytest.approx(8.2, abs=0.2)


def test_health_is_told_to_whom_it_may_concern(tmp_path):
    told = []
    trainer = own_trainer(tmp_path, HealthMonitor(told.append), max_steps=4)
    trainer.fit(toy_module(tmp_path, cg_residual=0.5), datamodule=toy_data(tmp_path))
    assert told == ["step 1: cg_residual is 0.5, expected: < 0.0001"]


@pytest.mark.parametrize("option", [{"accumulate_grad_batches": 2}, {"gradient_clip_val": 1.0}])
def test_what_the_configuration_says_is_not_said_twice(tmp_path, option):
    (name,) = option
    with pytest.raises(Exception, match=f"not supported for manual optimization.*{name}"):
        own_trainer(tmp_path, **option).fit(toy_module(tmp_path), datamodule=toy_data(tmp_path))


def test_what_does_not_fit_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="datamodule: expected trainer.fit"):
        own_trainer(tmp_path).fit(toy_module(tmp_path), train_dataloaders=[[]])
    other = tmp_path / "other.ckpt"
    torch.save({"state_dict": {}, "pytorch-lightning_version": "2.6.0"}, other)
    with pytest.raises(ValueError, match="checkpoint: expected an entry 'sem'"):
        own_trainer(tmp_path).fit(
            toy_module(tmp_path), datamodule=toy_data(tmp_path), ckpt_path=tmp_path / "other.ckpt"
        )
    with pytest.raises(TypeError, match="expected a SEMLightningModule"):
        HealthMonitor().on_train_batch_end(own_trainer(tmp_path), torch.nn.Identity(), None, None, 0)
