"""``sem sweep``: two arms of a real model, and what the command refuses."""

import json
import sys

import pytest
from small_model import SMALL_MODEL, as_options

from sem.cli import main
from sem.commands.sweep import LANGUAGE_MODEL
from sem.config import SEMConfig
from sem.sweeps import Arm, read_history

SIZES = (
    *as_options(SMALL_MODEL),
    "--training.batch_size=2",
    "--training.eval_batches=1",
    "--training.final_eval_batches=1",
    "--training.warmup_steps=0",
    "--training.log_every=1",
    "--training.loggers=csv",
    "--generation.max_new_tokens=1",
)


@pytest.fixture
def arms(tmp_path):
    path = tmp_path / "arms.yaml"
    path.write_text("arms:\n  plain:\n  adamw: [training.optimizer=adamw, training.learning_rate=0.01]\n")
    return path


def fails(capsys, *options):
    assert main(["sweep", *options]) == 2
    return capsys.readouterr().err


def test_two_arms_of_a_real_model(tmp_path, arms, capsys, monkeypatch):
    text = tmp_path / "text"
    text.mkdir()
    for number in range(40):
        (text / f"{number}.txt").write_text(f"the wave number {number} returns to shore number {number}.\n" * 3)
    output = tmp_path / "sweep"
    options = ["--arms", str(arms), "--seeds=1", "--steps=2", "--threads=1", f"--data.paths={text}"]
    monkeypatch.setattr(sys, "argv", ["sem", "sweep", *SIZES, *options, "--output", str(output)])
    assert main() == 0
    told = capsys.readouterr().out
    assert "plain seed 0: finished" in told and f"see {output / 'summary.md'}" in told
    content = json.loads((output / "summary.json").read_text())
    plain, adamw = content["arms"]
    assert (plain["finished"], adamw["finished"]) == (1, 1) and content["same_runs"] == []
    assert plain["steps"]["median"] == adamw["steps"]["median"] == 2
    for arm, rate in (("plain", 1.2e-3), ("adamw", 0.01)):
        folder = output / "runs" / arm / "seed_0"
        final = json.loads((folder / "final.json").read_text())
        (figures,) = [run["figures"] for run in content["runs"] if run["arm"] == arm]
        assert figures == {name: final[name] for name in ("val_bits_per_byte", "val_loss")}
        assert read_history(folder / "metrics.csv")["learning_rate"][0] == (1.0, rate)
        saved = SEMConfig.from_yaml(folder / "config.yaml")
        assert (saved.training.max_steps, saved.training.num_threads) == (2, 1)
    assert "nothing is decided by 1 seed" in told
    commands = (output / "summary.md").read_text().partition("## Commands")[2]
    assert "sem sweep --model.hidden_dim=16" in commands and "--training.optimizer=adamw" in commands


def test_a_run_s_command_is_its_arm(tmp_path):
    base = SEMConfig().with_overrides("data.paths=[a, b]")
    experiment = LANGUAGE_MODEL.experiment(base, tmp_path)
    arm = Arm("x", ("model.hidden_dim=64", "data.paths=[c d, e]", "training.max_minutes=null"))
    command = experiment.command(arm, 3, tmp_path / "run")
    start = [sys.executable, "-m", "sem", "train", "--config", str(tmp_path / "base.yaml"), "--resume", "auto"]
    assert command[:8] == start
    assert command[8:] == [
        "--model.hidden_dim=64",
        "--data.paths",
        "c d",
        "e",
        "--training.max_minutes=null",
        "--training.seed=3",
        "--data.shuffle_seed=3",
        f"--training.output_dir={tmp_path / 'run'}",
    ]
    settings = experiment.settings(arm, 3)
    assert settings["training"]["seed"] == 3 and "output_dir" not in settings["training"]
    with pytest.raises(ValueError, match="arm y: expected a value of data.paths"):
        experiment.command(Arm("y", ("data.paths=[]",)), 0, tmp_path)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "--arms: expected a file of arms, or of a search as --search, got neither"),
        (["--seeds=0"], "--seeds = 0: expected an integer >= 1"),
        (["--first-seed=-1"], "--first-seed = -1: expected an integer >= 0"),
        (["--jobs=0"], "--jobs = 0"),
        (["--trials=0"], "--trials = 0"),
        (["--steps=3", "--minutes=2"], "--steps = 3: expected none beside --minutes = 2"),
        (["--steps=0"], "training.max_steps = 0: expected an integer >= 1"),
        (["--minutes=0"], "training.max_minutes = 0.0: expected a number > 0"),
        (["--training.seed=3"], "--training.seed: expected --seeds and --first-seed in its place, got '3'"),
        (["--data.shuffle_seed=3"], "--data.shuffle_seed: expected --seeds and --first-seed in its place"),
        (["--training.output_dir=x"], "--training.output_dir: expected --output in its place, got 'x'"),
        (["--training.loggers", "tensorboard"], "training.loggers = ['tensorboard']: expected csv among them"),
        (["--training.sed=3"], "training.sed"),
        (["--config", "none.yaml"], "none.yaml: cannot be read"),
    ],
)
def test_what_is_refused(tmp_path, arms, capsys, options, complaint):
    named = ["--arms", str(arms)] if options else []
    assert complaint in fails(capsys, "--output", str(tmp_path / "sweep"), *named, *options)
    assert not (tmp_path / "sweep").exists()


def test_an_output_is_needed(arms, capsys):
    assert "--output: expected the folder of the sweep" in fails(capsys, "--arms", str(arms))


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("training.seed=1", "arm 'a': expected no training.seed: --seeds gives every arm the same ones"),
        ("training.max_steps=1", "expected no training.max_steps: every arm has the same budget"),
        ("training.batch_size=3", "arm a: training.batch_size = 3: expected a multiple of training.micro_batch_size"),
        (
            "training.optimiser=adamw",
            "training.optimiser = 'adamw': unknown key; did you mean training.optimizer?",
        ),
    ],
)
def test_arms_are_checked_before_anything_runs(tmp_path, capsys, override, complaint):
    path = tmp_path / "arms.yaml"
    path.write_text(f"arms: {{a: [{override}]}}")
    assert complaint in fails(capsys, "--arms", str(path), "--output", str(tmp_path / "sweep"))
    assert not (tmp_path / "sweep").exists()


def test_a_search_without_optuna_says_what_to_install(tmp_path, capsys, monkeypatch):
    path = tmp_path / "search.yaml"
    path.write_text("parameters: {training.learning_rate: {kind: float, low: 1.0e-4, high: 0.1, log: true}}")
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert main(["sweep", "--search", str(path), "--output", str(tmp_path / "sweep")]) == 1
    assert "a search needs Optuna: pip install 'sem-torch[sweep]'" in capsys.readouterr().err
