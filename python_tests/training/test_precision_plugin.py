import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning_runs import build
from small_model import SMALL_MODEL
from torch.utils.data import DataLoader
from toy import RecordingDisplay, ToyDiagnostics, ToyModel, toy_config, toy_corpus

from sem.diagnostics import Diagnostics
from sem.model import SEMModel
from sem.training.lightning.data import SEMDataModule
from sem.training.lightning.module import SEMLightningModule
from sem.training.lightning.precision import SEMPrecisionPlugin


class WatchedModel(ToyModel):
    """Remembers whether autocast was on in its forward and its backward passes."""

    def __init__(self):
        super().__init__()
        self.forward_autocast, self.backward_autocast = set(), set()
        self.head.register_forward_hook(self._watch)

    def _watch(self, module, inputs, output):
        self.forward_autocast.add(torch.is_autocast_enabled("cpu"))
        if output.requires_grad:
            output.register_hook(lambda _: self.backward_autocast.add(torch.is_autocast_enabled("cpu")))


def quiet_trainer(folder, *plugins, **options):
    return Trainer(
        accelerator="cpu",
        max_steps=2,
        plugins=list(plugins) or None,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        **options,
    )


def fit(folder, trainer, mode, model=None):
    config = toy_config(folder, f"training.precision_mode={mode}", *SMALL_MODEL)
    diagnostics = Diagnostics if isinstance(model, SEMModel) else ToyDiagnostics
    module = SEMLightningModule(config, model=model or WatchedModel(), diagnostics=diagnostics)
    trainer.fit(module, datamodule=SEMDataModule(config, toy_corpus()))
    return module


@pytest.mark.parametrize(("mode", "autocast"), [("32-true", False), ("bf16-mixed", True)])
def test_forward_passes_run_in_the_precision_named_and_backward_passes_outside_autocast(tmp_path, mode, autocast):
    module = fit(tmp_path, quiet_trainer(tmp_path, SEMPrecisionPlugin(mode, device="cpu")), mode)
    assert module.model.forward_autocast == {autocast}
    assert module.model.backward_autocast == {False}
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}


def test_lightnings_own_autocast_is_kept_from_the_backward_pass(tmp_path):
    module = fit(tmp_path, quiet_trainer(tmp_path, MixedPrecision("bf16-mixed", "cpu")), "bf16-mixed")
    assert (module.model.forward_autocast, module.model.backward_autocast) == ({True}, {False})


@pytest.mark.parametrize(
    ("mode", "options"),
    [
        ("32-true", {"precision": "bf16-mixed"}),
        ("32-true", {"precision": "bf16-true"}),
        ("32-true", {"plugins": "selective-bf16"}),
        ("bf16-mixed", {}),
        ("selective-bf16", {"precision": "bf16-mixed"}),
    ],
)
def test_a_trainer_of_another_precision_is_refused(tmp_path, mode, options):
    plugins = [SEMPrecisionPlugin(options["plugins"], device="cpu")] if "plugins" in options else []
    precision = {"precision": options["precision"]} if "precision" in options else {}
    expected = options.get("plugins") or options.get("precision") or "32-true"
    model = WatchedModel()
    with pytest.raises(ValueError, match=f"training.precision_mode = '{mode}': .* got '{expected}'"):
        fit(tmp_path, quiet_trainer(tmp_path, *plugins, **precision), mode, model)
    assert model.forward_autocast == set()


def test_float32_stays_float32_on_a_device_that_reports_bfloat16(tmp_path, monkeypatch):
    """A trainer once switched bfloat16 on by itself, against the configuration, and the run blew up."""
    for name in ("cuda", "xpu"):
        monkeypatch.setattr(getattr(torch, name), "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    model = WatchedModel()
    trainer = build("lightning", tmp_path, "training.dtype=float32", "training.max_steps=2")
    trainer.model = model
    trainer.fit(display=RecordingDisplay())
    assert trainer.lightning.precision == "32-true"
    assert (model.forward_autocast, model.backward_autocast) == ({False}, {False})
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_stages_are_set_free_one_by_one(tmp_path):
    config = toy_config(tmp_path, *SMALL_MODEL)
    model = SEMModel(config)
    fit(tmp_path, quiet_trainer(tmp_path, SEMPrecisionPlugin("selective-bf16", device="cpu")), "selective-bf16", model)
    assert model.precision.mode == "selective-bf16"
    with model.stage("spinor"):
        assert torch.is_autocast_enabled("cpu")
    with model.stage("propagator"):
        assert not torch.is_autocast_enabled("cpu")


def test_wrong_arguments_are_errors(tmp_path):
    with pytest.raises(ValueError, match="training.precision_mode = '16-mixed': expected one of 32-true"):
        SEMPrecisionPlugin("16-mixed")
    plugin = SEMPrecisionPlugin()
    assert (plugin.precision, plugin.device, isinstance(plugin, MixedPrecision)) == ("bf16-mixed", "cuda", True)
    with pytest.raises(ValueError, match="selective-bf16.*StagedModule"):
        SEMPrecisionPlugin("selective-bf16", device="cpu").convert_module(torch.nn.Linear(2, 2))
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="cuda has no bfloat16 arithmetic"):
            SEMPrecisionPlugin().convert_module(torch.nn.Linear(2, 2))


class AnyModule(LightningModule):
    """A module that steps by itself and knows nothing of this package."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.model = WatchedModel()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def training_step(self, batch, batch_idx):
        self.manual_backward(self.model(batch).sum())
        self.optimizers().step()


def test_the_plugin_serves_any_module(tmp_path):
    module = AnyModule()
    trainer = quiet_trainer(tmp_path, SEMPrecisionPlugin("bf16-mixed", device="cpu"))
    trainer.fit(module, train_dataloaders=DataLoader(torch.zeros(2, 4, dtype=torch.int64)))
    assert (module.model.forward_autocast, module.model.backward_autocast) == ({True}, {False})
