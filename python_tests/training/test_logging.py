import importlib.util
import math

import pytest
from toy import toy_trainer

from sem.training.logging import CsvLog, TensorBoardLog, open_logs, read_csv


def written(path, *rows, resume_step=0):
    log = CsvLog(path, resume_step)
    for step, figures in rows:
        log.write(step, figures)
    log.close()
    return read_csv(path)


def test_figures_come_back_exactly_and_new_ones_add_columns(tmp_path):
    rows = written(
        tmp_path / "m.csv",
        (1, {"loss": 0.1 + 0.2}),
        (2, {"loss": 1.0, "val_loss": 3.0}),
        (3, {"val_loss": 1e-30}),
    )
    assert rows == [
        {"step": 1, "loss": 0.1 + 0.2},
        {"step": 2, "loss": 1.0, "val_loss": 3.0},
        {"step": 3, "val_loss": 1e-30},
    ]


def test_non_finite_figures_are_kept(tmp_path):
    rows = written(tmp_path / "m.csv", (1, {"loss": math.nan, "grad_norm": math.inf}))
    assert math.isnan(rows[0]["loss"])
    assert rows[0]["grad_norm"] == math.inf


def test_rows_are_on_disk_while_the_run_goes_on(tmp_path):
    log = CsvLog(tmp_path / "m.csv")
    log.write(1, {"loss": 2.0})
    assert read_csv(tmp_path / "m.csv") == [{"step": 1, "loss": 2.0}]
    log.close()


def test_a_resumed_table_drops_what_came_after_the_checkpoint(tmp_path):
    path = tmp_path / "m.csv"
    written(path, *((step, {"loss": float(step)}) for step in (1, 2, 3, 4)))
    rows = written(path, (3, {"loss": 30.0}), resume_step=2)
    assert rows == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 30.0}]


def test_a_half_written_last_row_does_not_hinder_a_resume(tmp_path):
    path = tmp_path / "m.csv"
    written(path, (1, {"loss": 1.0, "grad_norm": 2.0}))
    with open(path, "a", encoding="utf-8") as file:
        file.write("2,3.")
    assert written(path, (2, {"loss": 4.0}), resume_step=2)[-1] == {"step": 2, "loss": 4.0}


def test_a_new_run_starts_a_new_table(tmp_path):
    path = tmp_path / "m.csv"
    written(path, (1, {"loss": 1.0}))
    assert written(path, (1, {"loss": 2.0})) == [{"step": 1, "loss": 2.0}]


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "column 'step'"), ("a,b\n1,2\n", "column 'step'"), ("step,a\n1,x\n", "expected numbers")],
)
def test_other_files_are_refused(tmp_path, text, words):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(ValueError, match=words):
        read_csv(tmp_path / "m.csv")
    with pytest.raises(ValueError, match="there is no such table"):
        read_csv(tmp_path / "none.csv")


def test_tensorboard_gets_the_same_figures(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TensorBoardLog(tmp_path)
    log.write(1, {"loss": 2.5, "val_loss": 3.5})
    log.write(2, {"loss": 1.5})
    log.close()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 2.5), (2, 1.5)]
    assert [(e.step, e.value) for e in events.Scalars("validation/loss")] == [(1, 3.5)]


def test_logs_are_those_that_are_named(tmp_path, monkeypatch):
    told = []
    logs = open_logs(["csv", "tensorboard"], tmp_path, 0, {}, told.append)
    assert [type(log) for log in logs] == [CsvLog, TensorBoardLog]
    for log in logs:
        log.close()
    assert open_logs([], tmp_path, 0, {}, told.append) == told == []


def test_a_log_that_is_not_installed_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "wandb" else find(name))
    with pytest.raises(ImportError, match="training.loggers names wandb, which is not installed: pip install wandb"):
        toy_trainer(tmp_path / "run", "training.loggers=[csv, wandb]")
    assert not (tmp_path / "run").exists()
