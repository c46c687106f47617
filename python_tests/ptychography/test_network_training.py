"""Networks' runs: from a scan's file to scores, resumed, under both engines, and through the command line."""

import json

import pytest
import torch
from network_scans import network_config, scan_file, small_scan

from sem.cli import main
from sem.ptycho import read_scan
from sem.ptycho.files.results import read_result
from sem.ptycho.training.data import NetworkScan
from sem.ptycho.training.inference import load_network, predict
from sem.ptycho.training.trainer import NetworkTrainer
from sem.training.checkpoint import CheckpointError, load, write_atomically
from sem.training.logging import read_csv


def train(folder, *overrides, resume=None, **options):
    trainer = NetworkTrainer(network_config(folder, *overrides, **options))
    result = trainer.fit(resume=resume)
    return trainer, result


def same_parameters(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_a_run_learns_and_leaves_its_evidence(tmp_path):
    steps = ("training.max_steps=120", "training.learning_rate=0.01", "training.eval_every=40")
    trainer, result = train(tmp_path, *steps, "generator.architecture=stable_hybrid", test=True)
    run = tmp_path / "run"
    final = json.loads((run / "final.json").read_text())
    floors = json.loads((run / "results/floors.json").read_text())
    assert final["val_loss"] < 0.8 * floors["constant"]
    assert final["train_amp_ssim"] > final["train_amp_ssim_floor"] + 0.1
    assert final["train_collapsed"] is False and result.step == 120
    scores = json.loads((run / "results/scores.json").read_text())
    assert scores["test"]["scores"]["reconstruction"]["amp_ssim"] == final["test_amp_ssim"]
    assert not scores["train"]["collapse"]["collapsed"]
    for name in ("curves.png", "results/train.png", "results/test.png", "results/train-error.png", "results/best.pt"):
        assert (run / name).stat().st_size > 1000, name
    # what was kept is what the network gives
    found = read_result(run / "results/train.h5")
    trained = load_network(run)
    again = predict(trained.model, trainer.scan, trained.rms)
    assert torch.equal(found.object, again.stitched.object)
    best = load(run / "results/best.pt")
    assert best["val_loss"] == final["best_val_loss"] <= final["val_loss"]
    rates = [row["learning_rate"] for row in read_csv(run / "metrics.csv")]
    assert rates[0] == pytest.approx(0.001) and max(rates) == pytest.approx(0.01, rel=1e-3) and rates[-1] < 0.001


@pytest.mark.parametrize("overlap", ["group", "none"])
def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(tmp_path, overlap):
    settings = (f"training.overlap={overlap}", "training.optimizer=sgd", "training.max_steps=6")
    whole = tmp_path / "whole"
    whole.mkdir()
    at_once, _ = train(whole, *settings)
    first = NetworkTrainer(network_config(tmp_path, *settings, "training.checkpoint_every=3"))
    loop = first.build_loop(store=first.store)
    loop.run(max_steps=3)
    resumed, result = train(tmp_path, *settings, resume="auto")
    assert result.step == 6
    assert same_parameters(at_once.model, resumed.model)


def test_lightning_takes_the_same_steps(tmp_path):
    from sem.ptycho.training.lightning import NetworkLightningTrainer

    settings = ("training.max_steps=4", "training.eval_every=2", "training.scheduler=plateau")
    by_loop, _ = train(tmp_path, *settings)
    other = tmp_path / "lightning"
    other.mkdir()
    trainer = NetworkLightningTrainer(network_config(other, *settings, "training.engine=lightning"))
    trainer.fit()
    assert same_parameters(by_loop.model, trainer.model)
    tables = [read_csv(folder / "run/metrics.csv") for folder in (tmp_path, other)]
    for name in ("step", "loss", "learning_rate", "val_loss"):
        assert [row.get(name) for row in tables[0]] == [row.get(name) for row in tables[1]], name


def rows_of(trainer, steps):
    """What the loop of a run logs in its first steps, without what its end would write."""
    rows = {}
    log = type("Rows", (), {"write": lambda self, step, figures: rows.update({step: dict(figures)})})()
    trainer.build_loop(logs=[log]).run(max_steps=steps)
    return rows


def test_gradients_of_every_layer_are_logged_where_they_are_asked_for(tmp_path):
    own = ("training.gradient_clip=0.001", "training.gradients_every=2", "training.log_every=5")
    rows = rows_of(NetworkTrainer(network_config(tmp_path, *own)), 5)
    assert {step for step, row in rows.items() if "head.conv/grad_norm" in row} == {1, 2, 4} and 5 in rows
    norms = [value for name, value in rows[4].items() if name.endswith("/grad_norm")]
    assert sum(norm**2 for norm in norms) == pytest.approx(rows[4]["grad_norm"] ** 2, rel=1e-5)
    assert rows[4]["blocks.0.spectral/clipped_share"] == 1.0 and rows[4]["blocks.0.spectral/relative_grad_norm"] > 0


def test_a_seed_decides_weights_and_order_and_nothing_else(tmp_path):
    one, other, again = (NetworkTrainer(network_config(tmp_path, f"training.seed={seed}")) for seed in (0, 1, 0))
    assert same_parameters(one.model, again.model) and not same_parameters(one.model, other.model)
    orders = [torch.cat([next(iter(t.train_loader)).flatten() for _ in range(5)]) for t in (one, other, again)]
    assert torch.equal(orders[0], orders[2]) and not torch.equal(orders[0], orders[1])
    assert torch.equal(one.chosen, other.chosen)


def test_held_out_patterns_are_not_trained_on(tmp_path):
    trainer = NetworkTrainer(network_config(tmp_path, "data.validation_share=0.2"))
    source = iter(trainer.train_loader)
    seen = set(torch.cat([next(source).flatten() for _ in range(80)]).tolist())
    held_out = {int(row[0]) for batch in trainer.validation_loader for row in batch}
    assert len(held_out) == 10 and not seen & held_out
    assert seen | held_out == set(range(49))


@pytest.mark.parametrize("last_batch", ["full", "mean", "sum"])
def test_a_short_batch_has_a_gain_of_its_own_only_where_that_is_asked_for(tmp_path, last_batch):
    own = ("training.overlap=none", f"training.last_batch={last_batch}", "data.validation_share=0")
    trainer = NetworkTrainer(network_config(tmp_path, *own))
    source = iter(trainer.train_loader)
    batches = [next(source) for _ in range(7)]  # 49 patterns in batches of 8
    assert [len(batch) for batch in batches] == [8] * 6 + [8 if last_batch == "full" else 1]
    each = trainer.objective.compare(trainer.objective.patches(trainer.model, batches[6].flatten()), batches[6])[1]
    loss = trainer.objective(trainer.model, batches[6], None)["loss"].item()
    assert loss == pytest.approx(float(each.mean()) / (8 if last_batch == "sum" else 1), rel=1e-6)
    full = trainer.objective.compare(trainer.objective.patches(trainer.model, batches[0].flatten()), batches[0])[1]
    found = trainer.objective(trainer.model, batches[0], None)["loss"].item()
    assert found == pytest.approx(float(full.mean()), rel=1e-6)


def test_muon_moves_a_network_otherwise_than_adamw(tmp_path):
    losses, weights = [], []
    for own in (
        ("training.optimizer=adamw",),
        ("training.optimizer=muon",),
        ("training.optimizer=muon", "training.muon_learning_rate=0.1"),
    ):
        trainer = NetworkTrainer(network_config(tmp_path, *own, "training.max_steps=30", "training.learning_rate=0.01"))
        losses.append([row["loss"] for row in rows_of(trainer, 30).values()])
        weights.append(trainer.model.blocks[0].spectral.weight.detach())
    assert losses[0][0] == losses[1][0] and len({tuple(curve) for curve in losses}) == 3
    assert losses[1][-1] < 0.8 * losses[1][0]
    assert not torch.equal(weights[0], weights[1]) and not torch.equal(weights[1], weights[2])


def test_the_checkpoint_alone_says_what_the_network_is(tmp_path):
    train(tmp_path, "training.max_steps=1")
    checkpoint = next((tmp_path / "run/checkpoints").glob("*.pt"))
    content = load(checkpoint)
    name = next(iter(content["model"]))
    broken = {**content, "model": {**content["model"], "stranger": torch.zeros(1)}}
    del broken["model"][name]
    write_atomically(tmp_path / "broken.pt", broken)
    with pytest.raises(ValueError, match=f"{name}.*stranger"):
        load_network(tmp_path / "broken.pt")
    write_atomically(tmp_path / "other.pt", {"model": content["model"]})
    with pytest.raises(CheckpointError, match="expected a checkpoint of a ptychographic network"):
        load_network(tmp_path / "other.pt")


def test_the_command_line_trains_infers_and_says_what_is_wrong(tmp_path, capsys):
    scan = scan_file(tmp_path / "train.h5")
    run = tmp_path / "run"
    sizes = ["--width", "4", "--blocks", "2", "--modes", "4", "--training.group_side", "2", "--threads", "1"]
    where = ["--scan", str(scan), "--output", str(run), "--steps", "2", "--seed", "3"]
    assert main(["ptycho", "train", *where, *sizes, "--training.loggers", "csv"]) == 0
    assert "done after step 2" in capsys.readouterr().out
    config = load_network(run).config
    assert (config.training.seed, config.generator.width, config.training.max_steps) == (3, 4, 2)
    assert main(["ptycho", "infer", str(run), str(scan), "--output", str(tmp_path / "found.h5")]) == 0
    assert "amp_ssim" in capsys.readouterr().out
    assert read_result(tmp_path / "found.h5").object.shape == read_scan(scan).object.shape
    engine = ["--engine", "ml", "--sweeps", "2", "--no-pictures", "--output", str(tmp_path / "engine")]
    assert main(["ptycho", "reconstruct", str(scan), *engine, "--start", str(tmp_path / "found.h5")]) == 0
    assert "object: of hybrid, step 2, moved by (0, 0) pixels" in capsys.readouterr().out

    mistakes = {
        ("train", "--output", str(tmp_path / "x")): "data.train: expected the file of a scan, got none",
        ("train", "--scan", str(tmp_path / "none.h5")): "none.h5': cannot be read",
        ("train", "--scan", str(scan), "--architecture", "unet"): "generator.architecture = 'unet': expected one of",
        ("train", "--scan", str(scan), "--optimizer", "adamm"): "training.optimizer = 'adamm': expected one of",
        ("train", "--scan", str(scan), "--data.train", "b"): "they are the same setting",
        ("train", "--scan", str(scan), "--training.stepz", "1"): "training.stepz",
        ("infer", str(run), str(scan), "--batch", "0"): "--batch: expected a number >= 1, got 0",
        ("infer", str(tmp_path / "nowhere"), str(scan)): "nowhere",
    }
    for arguments, message in mistakes.items():
        assert main(["ptycho", *arguments]) in (1, 2), arguments
        assert message in capsys.readouterr().err


def test_activations_of_a_checkpoint_on_the_whole_scan(tmp_path, capsys):
    train(tmp_path, "training.max_steps=3", "generator.architecture=stable_hybrid")
    run = tmp_path / "run"
    by_size = []
    for size in (7, 64):
        arguments = ["--checkpoint", str(run), "--batch", str(size), "--output-json-name", f"by{size}.json"]
        assert main(["ptycho", "activations", *arguments]) == 0
        by_size.append(json.loads((run / f"by{size}.json").read_text()))
    capsys.readouterr()
    found = by_size[0]
    assert (found["summary"]["architecture"], found["summary"]["samples"]) == ("stable_hybrid", 49)
    assert {"lift", "blocks.0", "blocks.0.spectral", "blocks.0.local", "blocks.0.gelu", "head"} <= set(found["layers"])
    assert found["blocks"]["blocks.0"]["residual_ratio"] < 0.05
    assert found["layers"]["head"]["amplitude_mean"] > 0
    for name, layer in found["layers"].items():
        assert layer["mean"] == pytest.approx(by_size[1]["layers"][name]["mean"], rel=1e-4, abs=1e-6), name
    assert main(["ptycho", "activations", "--compare", *(str(run / f"by{size}.json") for size in (7, 64))]) == 0
    assert "statistics moved" in capsys.readouterr().out


def test_a_sweep_of_two_arms(tmp_path, capsys):
    network_config(tmp_path).save(tmp_path / "base.yaml")
    arms = tmp_path / "arms.yaml"
    arms.write_text("arms:\n  adam: []\n  sgd: [training.optimizer=sgd]\n")
    output = tmp_path / "sweep"
    # the sweep gives every run its own folder
    base = (tmp_path / "base.yaml").read_text().replace(f"output_dir: {tmp_path / 'run'}", "output_dir: runs/x")
    (tmp_path / "base.yaml").write_text(
        base.replace("num_threads: 1", "num_threads: null").replace("seed: 0", "seed: 0")
    )
    options = ["--config", str(tmp_path / "base.yaml"), "--arms", str(arms), "--output", str(output), "--steps", "2"]
    assert main(["ptycho", "sweep", *options, "--seeds", "1", "--threads", "1"]) == 0
    summary = json.loads((output / "summary.json").read_text())
    assert [arm["finished"] for arm in summary["arms"]] == [1, 1] and summary["same_runs"] == []
    figures = {run["arm"]: run["figures"] for run in summary["runs"]}
    assert figures["adam"]["train_amp_ssim"] != figures["sgd"]["train_amp_ssim"]
    assert "amp_ssim, train object" in (output / "summary.md").read_text()


def test_scans_that_do_not_fit_are_refused(tmp_path):
    data = small_scan()
    with pytest.raises(ValueError, match="blind: expected a probe in the file"):
        NetworkScan.from_file("blind", type("File", (), {"probe": None, "scan": data.scan})())
