import json
import signal
import sys

import pytest
import torch
from lightning_runs import StoppingDisplay, build, train
from toy import RecordingDisplay, ToyDiagnostics, ToyModel, toy_config, toy_corpus

from sem.cli import main
from sem.training.checkpoint import CheckpointError, CheckpointStore
from sem.training.logging import read_csv
from sem.training.loop import TrainingDiverged

TWENTY = ("training.max_steps=20", "training.decay_steps=5")


def weights(folder):
    return CheckpointStore(folder / "checkpoints").load_latest()[1]["model"]


@pytest.mark.parametrize("toy", [True, False], ids=["toy", "model"])
def test_both_engines_take_the_same_steps(tmp_path, toy):
    losses = {engine: train(engine, tmp_path / engine, *TWENTY, toy=toy, stop=20) for engine in ("loop", "lightning")}
    assert len(losses["loop"]) == 20
    assert losses["lightning"] == losses["loop"]
    expected, found = weights(tmp_path / "loop"), weights(tmp_path / "lightning")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("toy", [True, False], ids=["toy", "model"])
@pytest.mark.parametrize("second", ["loop", "lightning"])
@pytest.mark.parametrize("first", ["loop", "lightning"])
def test_either_engine_continues_the_other_bit_for_bit(tmp_path, first, second, toy):
    steps = ("training.max_steps=10",)
    whole = train("loop", tmp_path / "whole", *steps, toy=toy, stop=10)
    begun = train(first, tmp_path / "parts", *steps, toy=toy, stop=5)
    assert len(begun) == 5
    assert begun + train(second, tmp_path / "parts", *steps, toy=toy, resume="auto", stop=10) == whole
    expected, found = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_run_leaves_what_the_plain_loop_leaves(tmp_path):
    for engine in ("loop", "lightning"):
        train(engine, tmp_path / engine)
    names = [sorted(p.name for p in (tmp_path / engine).iterdir()) for engine in ("loop", "lightning")]
    assert names[0] == names[1]
    tables = [read_csv(tmp_path / engine / "metrics.csv") for engine in ("loop", "lightning")]
    clocks = {"elapsed_seconds", "tokens_per_second", "peak_memory_mib"}
    assert [list(row) for row in tables[0]] == [list(row) for row in tables[1]]
    assert [[row[name] for name in row if name not in clocks] for row in tables[0]] == [
        [row[name] for name in row if name not in clocks] for row in tables[1]
    ]
    finals = [json.loads((tmp_path / engine / "final.json").read_text()) for engine in ("loop", "lightning")]
    assert finals[0] == finals[1]
    samples = [(tmp_path / engine / "sample.txt").read_text() for engine in ("loop", "lightning")]
    assert samples[0] == samples[1]


@pytest.mark.parametrize("mode", ["bf16-mixed", "selective-bf16"])
def test_both_engines_take_the_same_steps_in_reduced_precision(tmp_path, mode):
    options = {"toy": mode == "bf16-mixed", "stop": 6}
    overrides = (f"training.precision_mode={mode}", "training.max_steps=6")
    plain = train("loop", tmp_path / "loop", *overrides, **options)
    assert train("lightning", tmp_path / "lightning", *overrides, **options) == plain
    assert plain != train("loop", tmp_path / "float32", "training.max_steps=6", **options)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(tmp_path, number):
    before = signal.getsignal(number)
    trainer = build("lightning", tmp_path)
    result = trainer.fit(display=StoppingDisplay(5, number))
    assert signal.getsignal(number) is before
    assert (result.step, result.interrupted_by) == (5, signal.Signals(number).name)
    assert trainer.store.load_latest()[0].name == "step_00000005.pt"
    assert not (tmp_path / "final.json").exists()


def test_checkpoints_are_kept_as_configured(tmp_path):
    train("lightning", tmp_path, stop=12)
    names = [path.name for path in CheckpointStore(tmp_path / "checkpoints").paths()]
    assert names == ["step_00000009.pt", "step_00000012.pt"]
    assert train("lightning", tmp_path, resume="auto", stop=12) == []


def test_a_full_disk_ends_the_run_and_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    save = CheckpointStore.save

    def save_once(store, step, content):
        if step > 3:
            raise CheckpointError("cannot write the checkpoint (No space left on device)")
        return save(store, step, content)

    monkeypatch.setattr(CheckpointStore, "save", save_once)
    with pytest.raises(CheckpointError, match="No space left"):
        train("lightning", tmp_path)
    assert [path.name for path in CheckpointStore(tmp_path / "checkpoints").paths()] == ["step_00000003.pt"]


def test_repeated_bad_steps_stop_the_run(tmp_path):
    trainer = build("lightning", tmp_path, "training.max_skipped_steps=3", fail_from=9)
    display = RecordingDisplay()
    with pytest.raises(TrainingDiverged, match=r"step 7: 3 steps in a row.*loss is nan.*step_00000003.pt"):
        trainer.fit(display=display)
    assert [text for text in display.messages if "skipped" in text][0] == "step 5: skipped, the loss is nan"
    assert [path.name for path in trainer.store.paths()] == ["step_00000003.pt"]


def test_departures_from_health_are_reported(tmp_path):
    trainer = build("lightning", tmp_path)
    trainer.diagnostics = lambda: ToyDiagnostics(unitarity_deviation=0.5)
    display = RecordingDisplay()
    trainer.fit(display=display)
    assert display.messages.count("step 1: unitarity_deviation is 0.5, expected: < 0.0001") == 1
    measured = [row["step"] for row in read_csv(tmp_path / "metrics.csv") if "unitarity_deviation" in row]
    assert measured == [1, 4, 8, 12]


def test_the_time_limit_ends_the_run(tmp_path):
    limits = ("training.max_steps=100000", "training.max_minutes=0.02", "training.log_every=100")
    assert 0 < len(train("lightning", tmp_path, *limits)) < 10_000
    assert (tmp_path / "final.json").exists()


def test_a_checkpoint_of_another_model_is_refused(tmp_path):
    train("loop", tmp_path, stop=3)
    with pytest.raises(ValueError, match="(?s)does not fit the configured model.*embedding.weight"):
        build("lightning", tmp_path, width=16).fit(resume="auto", display=RecordingDisplay())


def small_run(folder, *more):
    text = folder / "text.txt"
    text.write_text("the wave returns. " * 200)
    run = toy_config(folder / "run").to_dict()["training"]
    keys = ("batch_size", "micro_batch_size", "eval_batches", "num_threads", "output_dir", "warmup_steps")
    sizes = ("--model.hidden_dim=16", "--model.num_layers=1", "--model.max_seq_length=16", "--spinor.state_dim=4")
    options = [f"--training.{key}={run[key]}" for key in keys]
    return ["train", *sizes, f"--data.paths={text}", *options, "--generation.max_new_tokens=4", *more]


def test_the_command_trains_with_short_options_and_a_clean_console(tmp_path, capfd):
    options = ["--engine", "lightning", "--precision", "32-true", "--devices", "1", "--strategy", "auto"]
    short = [*options, "--num-nodes", "1", "--no-compile", "--training.max_steps", "2"]
    assert main(small_run(tmp_path, *short)) == 0
    captured = capfd.readouterr()
    lines = captured.out.splitlines()
    assert captured.err == ""
    assert [line.split(" | ")[0].split(":")[0].split(" (")[0] for line in lines] == [
        "precision 32-true on cpu",
        "step 1",
        "step 2",
        "scoring the held-out text",
        f"writing curves and a sample to {tmp_path / 'run'}",
        lines[-1].split(":")[0],
    ]
    assert lines[-1].startswith("done after step 2")
    assert main(small_run(tmp_path, *options, "--training.max_steps", "3", "--resume")) == 0
    assert "continuing after step 2" in capfd.readouterr().out


def test_a_short_option_beside_its_long_form_is_an_error(tmp_path, capsys):
    assert main(small_run(tmp_path, "--precision", "32-true", "--training.precision_mode", "bf16-mixed")) == 2
    assert "--precision and --training.precision_mode = bf16-mixed: expected one of the two" in capsys.readouterr().err
    assert main(small_run(tmp_path, "--no-compile", "--training.compile", "true")) == 2
    assert main(small_run(tmp_path, "--engine", "spark")) == 2
    assert "training.engine = 'spark': expected" in capsys.readouterr().err


def test_without_lightning_the_command_says_what_to_install(tmp_path, capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("sem.training.lightning")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    assert main(small_run(tmp_path, "--engine", "lightning")) == 1
    error = capsys.readouterr().err
    assert error == "sem: training with Lightning needs lightning: pip install 'sem-torch[lightning]'\n"


def test_more_processes_than_the_batch_has_rows_for_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"training.batch_size = 4: expected a multiple of 6"):
        build("lightning", tmp_path, "training.devices=3")


def test_toy_model_uses_random_numbers():
    """Else the runs above would not show that either engine leaves the generators alone."""
    assert ToyModel().dropout.p > 0 and len(toy_corpus().train) > 0
