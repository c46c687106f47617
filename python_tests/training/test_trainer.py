import json
import math
import shutil
import warnings

import pytest
import torch
from toy import HEALTHY, RecordingDisplay, ToyModel, toy_config, toy_trainer

from sem.config import SEMConfig
from sem.run_names import LOCK_FILE
from sem.training.checkpoint import CheckpointError, write_atomically
from sem.training.evaluation import evaluate
from sem.training.language import LanguageModelObjective
from sem.training.logging import read_csv
from sem.training.loop import TrainingDiverged
from sem.training.run_folder import open_checkpoint, run_folder_of, saved_config
from sem.training.run_lock import RunInUse, RunLock


def fit(trainer, **options):
    return trainer.fit(display=RecordingDisplay(), **options)


def test_run_folder_holds_everything(tmp_path):
    result = fit(toy_trainer(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.yaml",
        "precision.json",
        "metrics.csv",
        "tensorboard",
        "checkpoints",
        "curves.png",
        "sample.txt",
        "final.json",
        LOCK_FILE,
    }
    assert SEMConfig.from_yaml(tmp_path / "config.yaml") == toy_config(tmp_path)
    last = read_csv(tmp_path / "metrics.csv")[-1]
    assert set(HEALTHY) | {
        "loss",
        "nll",
        "bits_per_byte",
        "val_loss",
        "val_bits_per_byte",
        "grad_norm",
        "learning_rate",
        "tokens_per_second",
        "skipped_steps",
        "peak_memory_mib",
        "elapsed_seconds",
    } <= set(last)
    assert result.figures["loss"] == last["loss"]
    scores = json.loads((tmp_path / "final.json").read_text())
    assert scores == {"step": result.step} | {name: result.figures[name] for name in scores if name != "step"}
    assert result.figures["val_bits_per_byte"] != last["val_bits_per_byte"]  # that was on the first part alone


def test_bits_per_byte_by_hand():
    """A model that knows nothing spends log2(260) bits on each of 9 targets, 8 of which are bytes."""
    model = ToyModel()
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    targets = torch.tensor([[10] * 8 + [257, -100]])
    batch = {"tokens": torch.zeros(1, 10, dtype=torch.int64), "targets": targets, "bytes": 8}
    figures = evaluate(model, LanguageModelObjective(), [batch, batch])
    assert figures["bits_per_byte"] == pytest.approx(9 / 8 * math.log2(260))
    assert figures["nll"] == pytest.approx(math.log(260))
    assert figures["loss"] == pytest.approx(math.log(260))


def test_validation_does_not_depend_on_the_micro_batch_size(tmp_path):
    scores = [
        toy_trainer(tmp_path, f"training.micro_batch_size={size}").validate()["val_bits_per_byte"] for size in (1, 2, 4)
    ]
    assert scores == pytest.approx([scores[0]] * 3)


def test_evaluation_restores_the_mode_and_needs_data():
    model = ToyModel().train()
    with pytest.raises(ValueError, match="at least one batch"):
        evaluate(model, LanguageModelObjective(), [])
    assert model.training


def test_another_run_in_the_folder_is_refused_unless_told_otherwise(tmp_path):
    fit(toy_trainer(tmp_path))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"training.output_dir.*--resume.*--overwrite"):
        fit(toy_trainer(tmp_path))
    assert fit(toy_trainer(tmp_path), overwrite=True).step == 12
    assert [row["step"] for row in read_csv(tmp_path / "metrics.csv")] == list(range(1, 13))
    assert (tmp_path / "notes.txt").exists()
    with pytest.raises(ValueError, match="overwrite"):
        fit(toy_trainer(tmp_path), overwrite=True, resume="auto")


def test_auto_resume_starts_anew_where_there_is_nothing(tmp_path):
    assert fit(toy_trainer(tmp_path), resume="auto").step == 12
    assert fit(toy_trainer(tmp_path, "training.max_steps=14"), resume="auto").step == 14


def test_branch_from_an_earlier_checkpoint(tmp_path):
    fit(toy_trainer(tmp_path / "a"))
    earlier = tmp_path / "a" / "checkpoints" / "step_00000009.pt"
    trainer = toy_trainer(tmp_path / "b")
    display = RecordingDisplay()
    trainer.fit(resume=earlier, display=display)
    assert display.messages[0] == "continuing after step 9"
    assert len(display.losses) == 3
    fit(toy_trainer(tmp_path / "a", "training.checkpoint_every=1", "training.max_steps=10"), resume=earlier)
    assert sorted(path.name for path in (tmp_path / "a" / "checkpoints").iterdir()) == [
        "step_00000009.pt",
        "step_00000010.pt",
        "step_00000012.pt.superseded",
    ]
    with pytest.raises(ValueError, match="expected a folder without a run"):
        fit(toy_trainer(tmp_path / "b"), resume=earlier)


def test_missing_checkpoint_is_an_error(tmp_path):
    for where in (tmp_path, tmp_path / "none.pt"):
        with pytest.raises(CheckpointError, match=str(where)):
            fit(toy_trainer(tmp_path), resume=where)


def test_checkpoint_knows_its_configuration(tmp_path):
    fit(toy_trainer(tmp_path))
    path, content = open_checkpoint(tmp_path)
    assert saved_config(content) == toy_config(tmp_path)
    assert run_folder_of(path) == run_folder_of(tmp_path) == tmp_path


def test_optimizer_follows_the_configuration(tmp_path):
    groups = toy_trainer(tmp_path, "training.weight_decay=0.3").build_loop().optimizer.param_groups
    assert {(group["weight_decay"], group["betas"]) for group in groups} == {
        (0.3, (0.9, 0.95)),
        (0.0, (0.9, 0.95)),
    }


def test_the_end_is_scored_on_all_held_out_text(tmp_path):
    trainer = toy_trainer(tmp_path)
    fit(trainer)
    final = json.loads((tmp_path / "final.json").read_text())
    everything = evaluate(trainer.model, trainer.objective, trainer.validation_loader)
    assert final["val_bits_per_byte"] == everything["bits_per_byte"]
    assert final["step"] == trainer.config.training.max_steps
    assert len(trainer.validation_loader) > trainer.config.training.eval_batches


def test_an_overwritten_run_is_there_until_the_new_one_has_a_checkpoint(tmp_path):
    fit(toy_trainer(tmp_path))
    before = (tmp_path / "checkpoints" / "step_00000012.pt").read_bytes()
    with pytest.raises(TrainingDiverged):
        fit(toy_trainer(tmp_path, fail_from=1), overwrite=True)
    assert (tmp_path / "overwritten" / "checkpoints" / "step_00000012.pt").read_bytes() == before
    assert (tmp_path / "overwritten" / "metrics.csv").exists()
    assert fit(toy_trainer(tmp_path), overwrite=True).step == 12
    assert not (tmp_path / "overwritten-2").exists()


def test_nobody_else_trains_in_the_folder(tmp_path):
    with RunLock(tmp_path):
        for how in ({}, {"overwrite": True}, {"resume": "auto"}):
            with pytest.raises(RunInUse, match=r"training.output_dir = .*held by this process"):
                fit(toy_trainer(tmp_path), **how)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.lock"]


def test_auto_resume_never_begins_anew_over_checkpoints(tmp_path):
    fit(toy_trainer(tmp_path))
    folder = tmp_path / "checkpoints"
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:100])
    for _ in range(2):
        with pytest.raises(CheckpointError, match=r"step_00000012.pt"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fit(toy_trainer(tmp_path), resume="auto")
    assert len(list(folder.iterdir())) == 2
    assert len(read_csv(tmp_path / "metrics.csv")) == 12


def test_auto_resume_begins_anew_where_there_is_a_log_alone(tmp_path):
    fit(toy_trainer(tmp_path))
    shutil.rmtree(tmp_path / "checkpoints")
    assert fit(toy_trainer(tmp_path), resume="auto").step == 12
    assert len(read_csv(tmp_path / "unfinished" / "metrics.csv")) == 12


def test_what_changes_on_resume_is_applied_and_said(tmp_path):
    fit(toy_trainer(tmp_path))
    trainer, display = toy_trainer(tmp_path, "training.weight_decay=0.5", "training.max_steps=14"), RecordingDisplay()
    optimizers = []
    build = trainer.build_loop
    trainer.build_loop = lambda **parts: optimizers.append(build(**parts)) or optimizers[-1]
    trainer.fit(resume="auto", display=display)
    assert {group["weight_decay"] for group in optimizers[0].optimizer.param_groups} == {0.5, 0.0}
    changes = [message for message in display.messages if message.startswith("changed since the checkpoint: ")]
    assert [change.partition(": ")[2] for change in changes] == [
        "training.weight_decay = 0.5, was 0.1",
        "training.max_steps = 14, was 12",
    ]


def spoilt_optimizer_states():
    yield "exp_avg of 1 element", lambda entry: entry.update(exp_avg=torch.zeros(1)), r"exp_avg to be torch.float32 \["
    yield "exp_avg_sq of 7", lambda entry: entry.update(exp_avg_sq=torch.zeros(7)), "exp_avg_sq to be"
    yield "no exp_avg", lambda entry: entry.pop("exp_avg"), r"\['exp_avg', 'exp_avg_sq', 'step'\], got"
    yield "float64", lambda entry: entry.update(exp_avg=entry["exp_avg"].double()), "exp_avg to be torch.float32"
    yield "step a text", lambda entry: entry.update(step="x"), "step to be a tensor, got str"
    yield "exp_avg a number", lambda entry: entry.update(exp_avg=3), "exp_avg to be a tensor, got int"
    yield "sparse", lambda entry: entry.update(exp_avg=entry["exp_avg"].to_sparse()), "exp_avg to be"


@pytest.mark.parametrize(
    ("change", "message"), [pytest.param(*case[1:], id=case[0]) for case in spoilt_optimizer_states()]
)
def test_an_optimizer_state_of_another_shape_is_refused(tmp_path, change, message):
    fit(toy_trainer(tmp_path))
    path, content = open_checkpoint(tmp_path)
    for entry in content["optimizer"]["state"].values():
        change(entry)
    write_atomically(path, content)
    with pytest.raises(ValueError, match=f"checkpoint: it does not fit .*optimizer: parameter 0: expected {message}"):
        fit(toy_trainer(tmp_path, "training.max_steps=14"), resume="auto")


@pytest.mark.parametrize("content", [b"", b"\0" * 100, bytes(range(256)) * 3, b"a,b\n1,2\n"])
def test_a_damaged_table_of_metrics_blocks_nothing(tmp_path, content):
    fit(toy_trainer(tmp_path))
    (tmp_path / "metrics.csv").write_bytes(content)
    assert fit(toy_trainer(tmp_path, "training.max_steps=14"), resume="auto").step == 14
    assert [row["step"] for row in read_csv(tmp_path / "metrics.csv")] == [13, 14]
    assert (tmp_path / "metrics.csv.damaged").read_bytes() == content
