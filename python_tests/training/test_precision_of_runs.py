"""Training computes in the precision that its configuration names, whatever the device could do, and says so."""

import json

import pytest
import torch
from small_model import SMALL_MODEL
from torch.overrides import TorchFunctionMode
from toy import RecordingDisplay, ToyDiagnostics, ToyModel, toy_config, toy_corpus, toy_trainer

from sem.config import SEMConfig
from sem.model import SEMModel
from sem.precision import reset_autocast_reached
from sem.training.trainer import SEMTrainer

SMALL = (
    *SMALL_MODEL,
    "training.max_steps=2",
    "training.eval_every=2",
)


@pytest.fixture(autouse=True)
def fresh_count():
    reset_autocast_reached()


class WatchedModel(SEMModel):
    """Remembers whether autocast was on in each forward pass, and the dtype of its log-weights' products."""

    def __init__(self, config):
        super().__init__(config)
        self.autocast = set()
        self.product_dtypes = set()

    def waves(self, tokens, diagnostics=None):
        self.autocast.add(torch.is_autocast_enabled("cpu"))
        with Products(self.product_dtypes):
            return super().waves(tokens, diagnostics)


class Products(TorchFunctionMode):
    """Notes the dtypes of matrix products with parameters."""

    def __init__(self, dtypes):
        super().__init__()
        self.dtypes = dtypes

    def __torch_function__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        if function is torch.nn.functional.linear:
            self.dtypes.add(out.dtype)
        return out


def train(folder, *overrides):
    config = toy_config(folder, *SMALL, *overrides)
    torch.manual_seed(0)
    model = WatchedModel(config)
    display = RecordingDisplay()
    SEMTrainer(config, model=model, corpus=toy_corpus()).fit(display=display)
    return model, display


def test_float32_stays_float32_on_a_device_that_reports_bfloat16(tmp_path, monkeypatch):
    for name in ("cuda", "xpu"):
        monkeypatch.setattr(getattr(torch, name), "is_bf16_supported", lambda *_, **__: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    with torch.autocast("cpu", torch.bfloat16):  # even inside somebody else's autocast
        model, _ = train(tmp_path, "training.dtype=float32")
    assert model.autocast == {False}
    assert model.product_dtypes == {torch.float32}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_bfloat16_is_there_when_the_configuration_names_it(tmp_path):
    model, _ = train(tmp_path, "training.precision_mode=bf16-mixed")
    assert model.autocast == {True}
    assert model.product_dtypes == {torch.bfloat16, torch.float32}  # propagator and head stay
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("mode", "encoder", "propagator", "reached"),
    [
        ("32-true", "float32", "float32", False),
        ("bf16-mixed", "bfloat16 autocast", "float32, pinned inside autocast", True),
        ("selective-bf16", "bfloat16 autocast", "float32", False),
    ],
)
def test_the_effective_precision_is_said_once_and_kept(tmp_path, mode, encoder, propagator, reached):
    _, display = train(tmp_path, f"training.precision_mode={mode}")
    (line,) = [text for text in display.messages if text.startswith("precision")]
    assert f"{mode} on cpu: encoder {encoder}" in line and f"propagator {propagator}" in line
    kept = json.loads((tmp_path / "precision.json").read_text())
    assert kept["mode"] == mode and kept["parameters"] == "float32"
    assert kept["stages"] == {"encoder": encoder, "spinor": encoder, "propagator": propagator, "head": propagator}
    assert bool(kept["autocast_reached"]) == reached


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (("training.dtype=bfloat16",), r"training.dtype = 'bfloat16': expected one of float32"),
        (("training.precision_mode=bf16",), r"training.precision_mode = 'bf16': expected one of 32-true"),
        (("training.precision_mode=16-mixed",), r"training.precision_mode = '16-mixed'"),
        (("training.batch_size=3", "training.micro_batch_size=2"), r"expected a multiple of"),
        (("data.dataset=name", "data.paths=[a.txt]"), r"data.paths = \['a.txt'\]: expected none beside data.dataset"),
        (("data.min_score=3",), r"data.min_score = 3.0: expected data.score_field"),
        (("training.loggers=[csv, mlflow]",), r"training.loggers.*csv, tensorboard, wandb, got 'mlflow'"),
    ],
)
def test_bad_combinations_are_errors_of_the_configuration(overrides, complaint):
    with pytest.raises(ValueError, match=complaint):
        SEMConfig().with_overrides(*overrides)


@pytest.mark.parametrize(
    ("overrides", "complaint"),
    [
        (("training.device=xpu",), r"training.device = 'xpu'"),
        (("training.device=cpu", "training.precision_mode=selective-bf16"), r"expected '32-true'"),
    ],
)
def test_what_the_machine_cannot_do_is_an_error_before_anything_is_allocated(
    tmp_path, monkeypatch, overrides, complaint
):
    monkeypatch.setattr(torch.xpu, "is_available", lambda: False)
    monkeypatch.setattr("sem.precision._has_bfloat16", lambda device: False)
    monkeypatch.setattr(
        "sem.training.trainer.SEMModel", lambda config: pytest.fail("the model was built before the machine was asked")
    )
    with pytest.raises(ValueError, match=complaint):
        SEMTrainer(toy_config(tmp_path, *overrides), corpus=toy_corpus())


def test_a_model_without_stages_cannot_be_selective(tmp_path):
    with pytest.raises(ValueError, match="expected a model made of stages"):
        toy_trainer(tmp_path, "training.precision_mode=selective-bf16")
    config = toy_config(tmp_path, "training.precision_mode=bf16-mixed")
    SEMTrainer(config, model=ToyModel(), corpus=toy_corpus(), diagnostics=ToyDiagnostics)
