"""Runs that a version saved which had no kinds to choose from load as what they were."""

import logging

import pytest
import torch
from toy import RecordingDisplay, toy_trainer

from sem.config import FORMER_KINDS, SEMConfig
from sem.model import SEMModel
from sem.training import checkpoint
from sem.training.run_folder import saved_config

SIZES = {
    "model": {"hidden_dim": 16, "num_layers": 1, "max_seq_length": 16},
    "encoder": {"sdr_candidates": 8, "sdr_sparsity": 4, "projection_dim": 8},
    "spinor": {"state_dim": 4, "mimo_groups": 2},
    "propagator": {"laplacian_sparsity": 2, "cayley_dt": 0.01, "kerr": 0.01, "num_scales": 3, "pit_enabled": True},
}
PARAMETERS = {
    "encoder": "prototypes lift log_cost_scale plan_gain token_counts embedding.weight project.weight",
    "mamba_layers.0": "gate_theta residual norm.gamma rotation.blocks rotation.gate.weight rotation.gate.bias conv.taps"
    " conv.bias mixer.into mixer.out_of mixer.raw_decay mixer.frequency mixer.time_steps.weight mixer.time_steps.bias"
    " out.weight",
    "propagator.layers.0": "kerr pit_strength hamiltonian.raw_weight hamiltonian.scale_logits",
    "final_norm": "gamma",
    "sampler": "weight bias",
}
"""What was in a checkpoint."""
LATER_SETTINGS = (
    "momentum",
    "nesterov",
    "gradient_clip_kind",
    "lr_gamma",
    "lr_interval",
    "plateau_factor",
    "plateau_patience",
    "plateau_floor",
)
"""Of ``training``, since there is more than one clipping, and more optimizers and schedules than two."""
EXPECTED = [[30.7367, 6.69951, 3.51023], [15.54109, 5.343207, 4.595713], [14.69502, 2.080188, 1.876724]]
"""Probabilities that the model of then gave, in thousandths."""


def former():
    """All sections and values, as they were written: without those that came later."""
    values = SEMConfig.from_dict(SIZES).to_dict()
    del values["sampler"], values["distillation"]
    for section, kinds in FORMER_KINDS.items():
        for key in kinds:
            values.get(section, {}).pop(key, None)
    for key in ("muon_learning_rate", "muon_momentum", *LATER_SETTINGS):
        del values["training"][key]
    return values


def test_kinds_are_those_of_then_and_it_is_said(caplog):
    with caplog.at_level(logging.WARNING):
        config = saved_config({"config": former()}).to_dict()
    for section, kinds in FORMER_KINDS.items():
        assert {key: config[section][key] for key in kinds} == kinds
    (record,) = caplog.records
    assert "sampler.kind = born" in record.getMessage() and "encoder.kind = transport" in record.getMessage()


def test_a_file_of_then_can_be_changed_by_options(tmp_path):
    import yaml

    (tmp_path / "config.yaml").write_text(yaml.safe_dump(former()))
    config = SEMConfig.from_yaml(tmp_path / "config.yaml", ["sampler.kind=coherent"])
    assert config.sampler.kind == "coherent" and config.encoder.kind == "transport"


def test_what_is_saved_now_and_what_is_written_by_hand_is_taken_as_it_is(caplog):
    config = SEMConfig()
    with caplog.at_level(logging.WARNING):
        assert SEMConfig.from_dict(config.to_dict()) == config
        assert SEMConfig.from_dict({"model": {}, "encoder": {}}) == config
    assert not caplog.records


def test_model_has_the_parameters_of_then_and_says_what_it_said():
    model = SEMModel(SEMConfig.from_dict(former())).eval()
    names = {f"{part}.{name}" for part, found in PARAMETERS.items() for name in found.split()}
    assert set(model.state_dict()) == names
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        model.encoder.plan_gain.fill_(1)
        for _, parameter in sorted(model.named_parameters()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.5)
        found = model(torch.arange(16).view(1, 16) * 7 % 260)[0, [0, 7, 15]][:, [0, 65, 130]].exp() * 1000
    torch.testing.assert_close(found, torch.tensor(EXPECTED), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("missing", ["launch", "model"])
def test_a_part_of_a_configuration_is_none_of_then(missing):
    values = former()
    del values[missing]
    assert SEMConfig.from_dict(values).sampler.kind == "coherent"


def test_a_run_saved_before_the_last_map_had_a_kind_has_a_complex_one():
    values = SEMConfig.from_dict(SIZES).to_dict()
    assert saved_config({"config": values}).spinor.projection == "widely_linear"
    del values["spinor"]["projection"]
    assert saved_config({"config": values}).spinor.projection == "complex"
    assert SEMConfig.from_dict({"spinor": {"output_gate": False}}).spinor.projection == "widely_linear"


def without_later_settings(values):
    return {
        **values,
        "training": {key: value for key, value in values["training"].items() if key not in LATER_SETTINGS},
    }


@pytest.mark.parametrize(("optimizer", "scheduler"), [("adamw", "cosine"), ("muon", "wsd")])
def test_a_run_saved_before_the_later_optimizers_goes_on_bit_by_bit(tmp_path, optimizer, scheduler):
    """Its configuration had fewer settings, its optimizer's groups no name, and its loop no plateau."""
    overrides = (f"training.optimizer={optimizer}", f"training.scheduler={scheduler}")

    def run(content=None, stop=None):
        trainer, display = toy_trainer(tmp_path, *overrides), RecordingDisplay()
        loop = trainer.build_loop(store=trainer.store, display=display)
        if content is not None:
            assert saved_config(content) == trainer.config
            loop.load_state_dict(content)
        loop.run(max_steps=stop)
        return display.losses

    whole, begun = run(), run(stop=6)
    content = checkpoint.load(tmp_path / "checkpoints" / "step_00000006.pt")
    content["config"] = without_later_settings(content["config"])
    for group in content["optimizer"]["param_groups"]:
        del group["optimizer"]
    del content["loop"]["plateau"]
    assert begun + run(content) == whole
