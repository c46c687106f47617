"""Every setting of an optimisation changes what is learned, and a run does what its settings say: by what it leaves in
the parameters and in the log, not by the type of an object."""

import argparse
import dataclasses
import itertools
import math
from dataclasses import dataclass
from typing import ClassVar, get_args

import pytest
import torch
from lightning_runs import ENGINES, StoppingDisplay, train
from optimization_problem import loop_of
from toy import RecordingDisplay, ToyDiagnostics, ToyModel, toy_config, toy_corpus

from sem.config import add_config_arguments, config_from_arguments
from sem.config_sections import TrainingConfig
from sem.optimization_settings import ClipKind, OptimizationSettings, OptimizerName, ScheduleName
from sem.settings import setting_infos, with_default
from sem.training.checkpoint import CheckpointStore
from sem.training.clipping import build_clipping
from sem.training.logging import read_csv
from sem.training.muon import MuonWithAdamW
from sem.training.schedules import Plateau, build_schedule

OPTIMIZERS, SCHEDULES, CLIPS = (get_args(kind) for kind in (OptimizerName, ScheduleName, ClipKind))
HALF_WAY = {"max_minutes": 1.0}
"""The loops below have spent 30 seconds."""
SHORT = {"max_steps": 4, "warmup_steps": 1, "decay_steps": 3}


def each(name, *values, **beside):
    """Settings that differ in ``name`` alone."""
    return [{name: value, **beside} for value in values]


FLAGS = {
    "optimizer": [each("optimizer", *OPTIMIZERS, weight_decay=0.1)],
    "learning_rate": [each("learning_rate", 0.1, 0.2, optimizer=name) for name in OPTIMIZERS],
    "muon_learning_rate": [each("muon_learning_rate", 0.02, 0.05, optimizer="muon")],
    "muon_momentum": [each("muon_momentum", 0.95, 0.5, 0.0, optimizer="muon")],
    "momentum": [each("momentum", 0.9, 0.5, 0.0, optimizer="sgd", nesterov=nesterov) for nesterov in (False, True)],
    "nesterov": [each("nesterov", False, True, optimizer="sgd")],
    "weight_decay": [each("weight_decay", 0.0, 0.1, optimizer=name) for name in OPTIMIZERS],
    "beta1": [each("beta1", 0.9, 0.5, optimizer=name) for name in ("adam", "adamw", "muon")],
    "beta2": [each("beta2", 0.99, 0.5, optimizer=name) for name in ("adam", "adamw", "muon")],
    "gradient_clip": [
        each("gradient_clip", 0.1, 0.2, optimizer="sgd", gradient_clip_kind=kind) for kind in CLIPS if kind != "none"
    ],
    "gradient_clip_kind": [each("gradient_clip_kind", *CLIPS, optimizer="sgd", gradient_clip=0.1)],
    "scheduler": [each("scheduler", *SCHEDULES, plateau_patience=0, **SHORT, **HALF_WAY)],
    "warmup_steps": [each("warmup_steps", 0, 3, scheduler=name) for name in SCHEDULES],
    "max_steps": [each("max_steps", 1, 2, 4, scheduler="cosine", decay_steps=0)],
    "max_minutes": [each("max_minutes", None, 1.0, scheduler=name, **SHORT) for name in ("cosine", "wsd")],
    "decay_steps": [each("decay_steps", 0, 3, 4, scheduler="wsd", max_steps=4, **HALF_WAY)],
    "lr_min_ratio": [
        each("lr_min_ratio", 0.0, 0.5, scheduler=name, **SHORT, **HALF_WAY)
        for name in ("wsd", "cosine", "warmup_cosine")
    ],
    "lr_gamma": [each("lr_gamma", 0.95, 0.5, scheduler="exponential")],
    "lr_interval": [
        each("lr_interval", 1, 2, scheduler=name, max_steps=4, decay_steps=4)
        for name in ("wsd", "cosine", "warmup_cosine", "exponential")
    ],
    "plateau_factor": [each("plateau_factor", 0.5, 0.9, scheduler="plateau", plateau_patience=0)],
    "plateau_patience": [each("plateau_patience", 0, 1, scheduler="plateau")],
    "plateau_floor": [each("plateau_floor", 0.0, 0.08, scheduler="plateau", plateau_patience=0)],
}
"""For each setting, lists of settings among which it alone differs, and all of which learn something else."""


def test_every_setting_is_among_the_flags_and_none_besides():
    assert set(FLAGS) == {info.name for info in setting_infos(OptimizationSettings)}


def two_steps(**changes):
    """All parameters after two steps of a run that has been better and has spent 30 seconds."""
    settings = OptimizationSettings(**({"learning_rate": 0.1, "max_steps": 100} | changes))
    loop = loop_of(settings, validate=lambda: {"val_loss": 1.0})
    loop.settings = dataclasses.replace(loop.settings, eval_every=1)
    loop.state.plateau, loop.state.elapsed_seconds = Plateau(best=0.0), 30.0
    loop.run(max_steps=2)
    return torch.cat([p.detach().flatten() for p in loop.model.parameters()]).tolist()


@pytest.fixture
def still_clock(monkeypatch):
    monkeypatch.setattr("sem.training.loop.time.monotonic", lambda: 1000.0)


@pytest.mark.parametrize(("name", "alike"), [(name, alike) for name, lists in FLAGS.items() for alike in lists])
def test_flipping_a_flag_changes_the_parameters_after_two_steps(name, alike, still_clock):
    assert all(len({case[name] for case in alike}) == len(alike) and case.keys() == alike[0].keys() for case in alike)
    found = [two_steps(**case) for case in alike]
    assert [two_steps(**case) for case in alike] == found  # nothing but the flag makes the difference
    for one, other in itertools.combinations(found, 2):
        assert max(abs(a - b) for a, b in zip(one, other, strict=True)) > 1e-6


T, W, PEAK, RATIO = 12, 3, 0.01, 0.1


def expected_rate(kind, t, validations):
    """The learning rate of step ``t``, counted from 0, by its formula."""
    rise = min(1.0, (t + 1) / W)
    fall = RATIO + (1 - RATIO) * (1 + math.cos(math.pi * max(0, t // 2 * 2 - W) / (T - W))) / 2
    if kind == "warmup_cosine":
        return PEAK * (0.1 + 0.9 * t / W if t < W else fall)
    best = math.inf
    bad = drops = 0
    for loss in validations:
        best, bad = (loss, 0) if loss < best else (best, bad + 1)
        if bad > 1:
            bad, drops = 0, drops + 1
    shape = {
        "constant": 1.0,
        "cosine": fall,
        "wsd": min(1.0, RATIO + (1 - RATIO) * (T - t // 2 * 2) / 6),
        "exponential": 0.8 ** (t // 2),
        "plateau": max(0.5**drops, 0.2),
    }[kind]
    return PEAK * min(rise, shape)


@pytest.mark.parametrize("engine", ["loop", "lightning"])
@pytest.mark.parametrize("kind", SCHEDULES)
def test_the_logged_rate_of_every_step_is_the_formulas(kind, engine, tmp_path):
    settings = {
        "scheduler": kind,
        "warmup_steps": W,
        "decay_steps": 6,
        "lr_gamma": 0.8,
        "lr_interval": 2,
        "plateau_patience": 1,
        "plateau_floor": 0.2 * PEAK,
        "eval_every": 1,
        "loggers": "csv",
    }
    if kind == "plateau":  # which falls where nothing is learned
        settings |= {"optimizer": "sgd", "weight_decay": 0.0, "gradient_clip": 1e-30}
    train(engine, tmp_path, *(f"training.{name}={value}" for name, value in settings.items()), stop=T)
    rows = read_csv(tmp_path / "metrics.csv")
    assert [row["step"] for row in rows] == list(range(1, T + 1))
    validations = [row["val_loss"] for row in rows]
    expected = [expected_rate(kind, t, validations[:t]) for t in range(T)]
    assert [row["learning_rate"] for row in rows] == pytest.approx(expected, abs=1e-7 * PEAK)
    assert len(set(expected)) > (2 if kind == "constant" else 4)


@pytest.mark.parametrize("scheduler", SCHEDULES)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_resumed_run_repeats_the_whole_one_bit_by_bit(optimizer, scheduler, tmp_path):
    kind = CLIPS[(OPTIMIZERS.index(optimizer) + SCHEDULES.index(scheduler)) % len(CLIPS)]
    settings = OptimizationSettings(
        optimizer=optimizer,
        scheduler=scheduler,
        weight_decay=0.1,
        learning_rate=0.1,
        warmup_steps=2,
        max_steps=11,
        decay_steps=5,
        plateau_patience=0,
        gradient_clip=0.5,
        gradient_clip_kind=kind,
    )
    whole, first, second = (loop_of(settings, store=CheckpointStore(tmp_path)) for _ in range(3))
    whole.store = None
    whole.run()
    first.run(max_steps=5)
    second.load_state_dict(first.store.load_latest()[1])
    assert second.state.plateau == first.state.plateau
    assert bits_of(second) == bits_of(first)
    second.run()
    assert (second.state.step, second.state.plateau) == (11, whole.state.plateau)
    assert bits_of(second) == bits_of(whole)
    assert (whole.state.plateau.scale < 1) == (scheduler == "plateau")


def bits_of(loop):
    """Every number of the parameters and of the optimizer's state."""
    states = [loop.optimizer.state.get(p, {}) for group in loop.optimizer.param_groups for p in group["params"]]
    held = [{name: value.tolist() for name, value in state.items()} for state in states]
    return [p.tolist() for p in loop.model.parameters()], held


def test_a_validation_at_which_a_run_happens_to_stop_is_none_that_plateau_follows():
    settings = OptimizationSettings(scheduler="plateau", plateau_patience=0, max_steps=100)
    losses = []
    loop = loop_of(settings, validate=lambda: losses.append(1.0) or {"val_loss": 1.0})
    for _ in range(3):
        loop.run(max_steps=1)  # due at step 2 alone
    assert (len(losses), loop.state.plateau) == (3, Plateau(best=1.0))


def test_plateau_needs_validations_and_tells_when_the_rate_falls():
    settings = OptimizationSettings(scheduler="plateau", plateau_patience=0, max_steps=6)
    with pytest.raises(ValueError, match="scheduler = 'plateau': expected a run with validations"):
        loop_of(settings, validate=None).run()
    with pytest.raises(ValueError, match=r"expected 'val_loss', which plateau follows, among its figures \['val_x'\]"):
        loop_of(settings, validate=lambda: {"val_x": 1.0}).run()
    display = RecordingDisplay()
    loop_of(settings, display=display).run()
    assert display.messages == ["step 4: no loss below 2, the learning rate falls to 0.0005"]


@dataclass(frozen=True, kw_only=True)
class PatchTraining(OptimizationSettings):
    """The section of a wing of its own."""

    section: ClassVar[str] = "patches"
    optimizer: OptimizerName = with_default(OptimizationSettings, "optimizer", "sgd")
    lr_gamma: float = with_default(OptimizationSettings, "lr_gamma", 0.5)


def test_another_wing_inherits_the_settings_with_defaults_and_errors_of_its_own():
    settings = PatchTraining(scheduler="exponential")
    assert build_schedule(settings).learning_rate(1) == settings.learning_rate * 0.5
    assert type(loop_of(settings).optimizer) is torch.optim.SGD
    with pytest.raises(ValueError, match="patches.momentum = 1.5: expected a number >= 0 and < 1"):
        PatchTraining(momentum=1.5)
    names = [info.name for info in setting_infos(OptimizationSettings)]
    for section in (PatchTraining, TrainingConfig):
        assert [info.name for info in setting_infos(section)][: len(names)] == names


ASKED = {
    "adam": {"weight_decay": 0.2, "beta1": 0.8, "beta2": 0.9, "gradient_clip_kind": "agc", "gradient_clip": 0.01},
    "adamw": {"weight_decay": 0.2, "beta1": 0.8, "beta2": 0.9, "scheduler": "plateau", "plateau_factor": 0.25},
    "sgd": {"weight_decay": 0.2, "momentum": 0.5, "nesterov": False, "scheduler": "warmup_cosine", "lr_interval": 3},
    "muon": {"weight_decay": 0.2, "muon_learning_rate": 0.05, "muon_momentum": 0.8, "gradient_clip_kind": "value"},
}
CLASSES = {
    "adam": torch.optim.Adam,
    "adamw": torch.optim.AdamW,
    "sgd": torch.optim.SGD,
    "muon": MuonWithAdamW,
}


@pytest.mark.parametrize("engine", ["loop", "lightning"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_command_line_configuration_checkpoint_and_what_ran_agree(name, engine, tmp_path):
    asked = {"optimizer": name, **ASKED[name]}
    parser = argparse.ArgumentParser()
    add_config_arguments(parser)
    toy_config(tmp_path, "training.max_steps=4", "training.loggers=csv").save(tmp_path / "toy.yaml")
    options = [f"--training.{key}={str(value).lower()}" for key, value in asked.items()]
    config = config_from_arguments(parser.parse_args(["--config", str(tmp_path / "toy.yaml"), *options]))
    training = config.training
    assert {key: getattr(training, key) for key in asked} == asked

    model = ToyModel()
    model.head.weight._linear_map = "real"
    trainer = ENGINES[engine](config, model=model, corpus=toy_corpus(), diagnostics=ToyDiagnostics)
    build, loops, ran = trainer.build_loop, [], []

    def watched(**parts):
        loops.append(build(**parts))
        loops[0].optimizer.register_step_pre_hook(
            lambda optimizer, *_: ran.append((type(optimizer), options_of(optimizer)))
        )
        return loops[0]

    trainer.build_loop = watched
    trainer.fit(display=StoppingDisplay(4))
    content = CheckpointStore(tmp_path / "checkpoints").load_latest()[1]
    assert content["config"]["training"] == training.to_mapping()
    assert (loops[0].schedule, loops[0].settings.clipping) == (build_schedule(training), build_clipping(training))

    assert [kind for kind, _ in ran] == [CLASSES[name]] * 4
    rates = [row["learning_rate"] for row in read_csv(tmp_path / "metrics.csv")]
    for (_, groups), rate in zip(ran, rates, strict=True):
        assert {group["weight_decay"] for group in groups} == {0.0, 0.2}
        for group in groups:
            scale = training.muon_learning_rate / training.learning_rate if group.get("linear_map") else 1.0
            assert (group["optimizer"], group["lr"]) == (name, pytest.approx(rate * scale))
            if name == "sgd":
                assert (group["momentum"], group["nesterov"]) == (0.5, False)
            elif group.get("linear_map"):
                assert group["momentum"] == 0.8
            else:
                assert (tuple(group["betas"]), group["eps"]) == ((training.beta1, training.beta2), 1e-8)
    assert options_of(content["optimizer"]) == ran[-1][1]


def options_of(optimizer):
    """What the groups of an optimizer, or of its saved state, say, but for their parameters."""
    groups = optimizer["param_groups"] if isinstance(optimizer, dict) else optimizer.param_groups
    return [{name: value for name, value in group.items() if name != "params"} for group in groups]


def test_either_engine_continues_the_others_plateau(tmp_path):
    nothing_learned = ("optimizer=sgd", "weight_decay=0", "gradient_clip=1e-30")
    settings = (*nothing_learned, "scheduler=plateau", "plateau_patience=0", "eval_every=2")
    overrides = [f"training.{setting}" for setting in settings]
    whole = train("loop", tmp_path / "whole", *overrides, stop=12)
    begun = train("lightning", tmp_path / "parts", *overrides, stop=5)
    assert begun + train("loop", tmp_path / "parts", *overrides, stop=9, resume="auto") == whole[:9]
    assert train("lightning", tmp_path / "parts", *overrides, stop=12, resume="auto") == whole[9:]
    tables = [
        [(row["step"], row["learning_rate"]) for row in read_csv(tmp_path / name / "metrics.csv")]
        for name in ("whole", "parts")
    ]
    assert tables[0] == tables[1] and tables[0][-1][1] < 0.01
